//! The forward entry of a VM that has left: where packets in flight go, and for how long (R43).

use std::collections::BTreeSet;
use std::net::IpAddr;

use godwit_model::message::NveToNva;
use godwit_model::{Location, Version, timing};
use godwit_wire::Instant;

use super::{Ctx, Vm};
use crate::config::NveConfig;
use crate::io::Level;

/// A forward entry (R43).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Forward {
    /// The NVE to forward to.
    pub(crate) to: Location,
    /// Version of that location; newer than our own last hosting (R46b).
    pub(crate) version: Version,
    /// When the VM left.
    pub(crate) since: Instant,
    /// When the entry dies.
    pub(crate) until: Instant,
    /// When the NVA is asked whether anybody still needs it.
    ask_at: Option<Instant>,
    /// It was asked and has not answered.
    asked: bool,
    /// The NVA is away since then: its life stands still (R72).
    paused: Option<Instant>,
    /// Lifetimes that it was given beyond its first (R43).
    pub(crate) extensions: u8,
    /// Senders that were complained about.
    told: BTreeSet<IpAddr>,
}

/// The NVA is asked in the last quarter of an entry's life: time enough for an answer, and late
/// enough that most entries are not needed any more.
fn ask_before(until: Instant, config: &NveConfig) -> Instant {
    Instant(until.0.saturating_sub(config.fwd_timer.0 / 4))
}

impl Forward {
    /// It may be extended, so the NVA is to be asked when its end is near.
    fn arm_question(&mut self, now: Instant, config: &NveConfig) {
        let may = self.extensions < timing::FWD_EXTENSIONS;
        self.ask_at = may.then(|| ask_before(self.until, config).max(now));
    }

    /// When it dies, as far as that is known now.
    pub(super) fn ends(&self) -> Instant {
        if self.paused.is_some() { Instant::NEVER } else { self.until }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.ask_at.map_or(self.until, |t| t.min(self.until));
        self.paused.is_none().then_some(due)
    }

    /// The first complaint about this sender, of a bounded number.
    pub(crate) fn told(&mut self, sender: IpAddr) -> bool {
        self.told.len() < 64 && self.told.insert(sender)
    }
}

impl Vm {
    pub(super) fn start_forward(&mut self, to: Location, version: Version, cx: &Ctx<'_>) {
        let until = cx.now + cx.config.fwd_timer;
        let (since, told) = (cx.now, BTreeSet::new());
        let paused = (!cx.online).then_some(cx.now);
        let mut forward =
            Forward { to, version, since, until, ask_at: None, asked: false, paused, extensions: 0, told };
        forward.arm_question(cx.now, cx.config);
        self.forward = Some(forward);
    }

    /// Asks the NVA, if it is time, whether an interested NVE may still send here (R43).
    pub(super) fn ask_for_extension(&mut self, cx: &mut Ctx<'_>) {
        let Some(f) =
            self.forward.as_mut().filter(|f| f.paused.is_none() && f.ask_at.is_some_and(|t| t <= cx.now))
        else {
            return;
        };
        f.ask_at = None;
        f.asked = cx.online;
        let version = f.version;
        cx.send(NveToNva::ForwardEnding { key: self.key, version });
    }

    /// Without the NVA nobody learns where the VM went but from us: the entry's life stands still (R72).
    pub(crate) fn pause_forward(&mut self, now: Instant) {
        if let Some(f) = self.forward.as_mut().filter(|f| f.until > now) {
            f.paused.get_or_insert(now);
        }
    }

    /// Its life goes on, by what was left of it.
    pub(crate) fn resume_forward(&mut self, now: Instant) {
        let Some(f) = &mut self.forward else { return };
        if let Some(since) = f.paused.take() {
            f.until = f.until + now.since(since);
            f.ask_at = None;
        }
    }

    /// A new session: what was asked in the last one was not answered.
    pub(crate) fn ask_again(&mut self, cx: &Ctx<'_>) {
        if let Some(f) = &mut self.forward {
            f.asked = false;
            f.arm_question(cx.now, cx.config);
        }
    }

    /// The NVA says that the forward entry is still needed (R43). The newest location counts: a
    /// question that crossed a further move is as good.
    pub(crate) fn extend_forward(&mut self, version: Version, cx: &mut Ctx<'_>) {
        let Some(f) = self.forward.as_mut().filter(|f| f.asked && version <= f.version) else { return };
        f.asked = false;
        f.extensions += 1;
        f.until = f.until + cx.config.fwd_timer;
        f.arm_question(cx.now, cx.config);
        let (n, to, max) = (f.extensions, f.to.nve.clone(), timing::FWD_EXTENSIONS);
        let text = format!(
            "the forward entry for {} to {to} is needed for longer: extended ({n} of {max})",
            self.key
        );
        cx.note(Level::Info, text);
    }
}
