//! Addresses and virtual MACs that VMs here use by their own word and the directory has not granted yet (R92, R93).

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_model::VmKey;
use godwit_wire::{Instant, Mac, Span};

/// Requests that may wait at a time; of more, what the workers say again counts.
const MAX_WAITING: usize = 8192;
/// First repetition of a request without an answer; it doubles up to [`BACKOFF_MAX`].
const BACKOFF: Span = Span::from_ms(200);
const BACKOFF_MAX: Span = Span::from_ms(2000);
/// After so long without an answer a request is given up; the workers go on saying what the VM uses.
const PATIENCE: Span = Span::from_ms(5000);
/// So often it is looked whether a VM may be asked for by now: while it is being claimed, it may not.
const LOOK: Span = Span::from_ms(200);

/// What a VM uses by its own word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: VmKey,
    /// The MAC that it spoke from.
    pub(crate) mac: Mac,
    /// The address; `None`: it is of the virtual MAC alone.
    pub(crate) ip: Option<IpAddr>,
}

/// What a request says beside [`Wanted`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) seq: u64,
    pub(crate) announced: bool,
    /// When the VM spoke.
    pub(crate) heard: Instant,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    backoff: Span,
    /// When it is given up; `None`: it has not gone out in this session.
    until: Option<Instant>,
}

/// Requests without an answer.
#[derive(Default, Debug)]
pub(crate) struct Binds {
    waiting: BTreeMap<Wanted, Waiting>,
    by_seq: BTreeMap<u64, Wanted>,
    /// Requests that found no room, since the start.
    pub(crate) dropped: u64,
}

impl Binds {
    /// A VM spoke. True: there is a request that is to go out now.
    pub(crate) fn want(&mut self, now: Instant, wanted: Wanted, announced: bool, seq: &mut u64) -> bool {
        if let Some(w) = self.waiting.get_mut(&wanted) {
            // A later announcement is another request: of two VMs' the last one counts.
            let news = announced && (!w.request.announced || now > w.request.heard);
            if !news {
                return false;
            }
            self.by_seq.remove(&w.request.seq);
        } else if self.waiting.len() >= MAX_WAITING {
            self.dropped += 1;
            return false;
        }
        *seq += 1;
        let request = Request { seq: *seq, announced, heard: now };
        self.by_seq.insert(*seq, wanted);
        self.waiting.insert(wanted, Waiting { request, backoff: BACKOFF, until: None });
        true
    }

    /// It is due and can be asked for: what to say, and when it is due again; nothing: it is given up.
    pub(crate) fn due(&mut self, now: Instant, wanted: Wanted) -> Option<(Request, Instant)> {
        let w = self.waiting.get_mut(&wanted)?;
        if *w.until.get_or_insert(now + PATIENCE) <= now {
            self.forget(wanted);
            return None;
        }
        let next = now + w.backoff;
        w.backoff = Span(w.backoff.0 * 2).min(BACKOFF_MAX);
        Some((w.request, next))
    }

    /// It cannot be asked for yet: when to look again.
    pub(crate) fn look_later(&self, now: Instant) -> Instant {
        now + LOOK
    }

    /// What was asked for with this number.
    pub(crate) fn asked(&self, seq: u64) -> Option<Wanted> {
        self.by_seq.get(&seq).copied()
    }

    pub(crate) fn forget(&mut self, wanted: Wanted) {
        if let Some(w) = self.waiting.remove(&wanted) {
            self.by_seq.remove(&w.request.seq);
        }
    }

    /// The session is over: what was said in it may be lost.
    pub(crate) fn session_over(&mut self) {
        for w in self.waiting.values_mut() {
            (w.until, w.backoff) = (None, BACKOFF);
        }
    }

    /// What one VM waits for.
    pub(crate) fn of(&self, key: VmKey) -> Vec<Wanted> {
        let from = Wanted { key, mac: Mac::ZERO, ip: None };
        self.waiting.range(from..).map(|(w, _)| *w).take_while(|w| w.key == key).collect()
    }

    /// All that wait.
    pub(crate) fn all(&self) -> Vec<Wanted> {
        self.waiting.keys().copied().collect()
    }

    /// It was said in this session.
    pub(crate) fn has_gone_out(&self, wanted: Wanted) -> bool {
        self.waiting.get(&wanted).is_some_and(|w| w.until.is_some())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
