//! What the audit log is told: every change that an operator orders, and every attempt that is refused.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::SocketAddr;

use godwit_model::Identity;
use godwit_wire::{Bucket, Rate, Span};

use super::super::door::Operator;
use super::super::{Directory, Order, Output, Refusal, SessionId};

/// Bytes of an entry's details and of a refusal's text; what is longer ends in an ellipsis.
const LONGEST: usize = 2048;
/// Refused attempts of one NVE's session that are written: the first ones, then one in a while. Those between are
/// counted in the next.
const ATTEMPTS: Rate = Rate::every(Span::from_ms(10_000), 16);

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It was done.
    Done,
    /// It was refused, and why.
    Refused(String),
}

/// One entry of the audit log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    /// When, in microseconds since 1970, by the clock of the NVA.
    pub at_us: u64,
    /// Who: the identity that was proved.
    pub who: String,
    /// From where.
    pub from: Option<SocketAddr>,
    /// What was asked for, as operators order it or the protocol names it.
    pub what: Cow<'static, str>,
    /// All of it; at most some 2,000 bytes.
    pub details: String,
    /// The answer.
    pub verdict: Verdict,
    /// Attempts like this one since the last entry that were not written one by one.
    pub unwritten: u64,
}

/// Refused attempts of one session.
#[derive(Clone, Default, Debug)]
pub(in crate::directory) struct Attempts {
    bucket: Bucket,
    unwritten: u64,
}

/// The order with all that it names.
pub(super) fn details(order: &Order) -> String {
    let mut text = Bounded(String::new());
    // It ends early where it is too long.
    let _ = write!(text, "{order:?}");
    text.0
}

/// The text, or its beginning.
pub(super) fn bounded(text: String) -> String {
    if text.len() <= LONGEST {
        return text;
    }
    let mut short = Bounded(String::new());
    let _ = short.write_str(&text);
    short.0
}

/// A text that ends where it is too long.
struct Bounded(String);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let room = LONGEST.saturating_sub(self.0.len());
        if s.len() <= room {
            self.0.push_str(s);
            return Ok(());
        }
        let end = (0..=room).rev().find(|n| s.is_char_boundary(*n)).unwrap_or(0);
        self.0.push_str(&s[..end]);
        self.0.push('…');
        Err(std::fmt::Error)
    }
}

impl Directory {
    /// An operator asked for it.
    pub(super) fn audit_operator(
        &mut self,
        operator: &Operator,
        what: impl Into<Cow<'static, str>>,
        details: String,
        refusal: Option<&Refusal>,
    ) {
        let verdict = refusal.map_or(Verdict::Done, |r| Verdict::Refused(bounded(r.to_string())));
        let entry = AuditEntry {
            at_us: self.wall_us,
            who: operator.identity.to_string(),
            from: operator.address,
            what: what.into(),
            details,
            verdict,
            unwritten: 0,
        };
        self.out.push(Output::Audit(Box::new(entry)));
    }

    /// An NVE tried what it may not.
    pub(super) fn audit_nve(&mut self, session: SessionId, what: &'static str, why: &str) {
        let (now, at_us) = (self.now, self.wall_us);
        let Some(s) = self.sessions.get_mut(&session) else { return };
        if !s.attempts.bucket.take(ATTEMPTS, now) {
            s.attempts.unwritten += 1;
            return;
        }
        let who = match (&s.identity, &s.nve) {
            (Identity::Unproven, Some(nve)) => format!("NVE {nve} (unproven)"),
            (identity, _) => identity.to_string(),
        };
        let entry = AuditEntry {
            at_us,
            who,
            from: s.address,
            what: what.into(),
            details: String::new(),
            verdict: Verdict::Refused(bounded(why.into())),
            unwritten: std::mem::take(&mut s.attempts.unwritten),
        };
        self.out.push(Output::Audit(Box::new(entry)));
    }
}
