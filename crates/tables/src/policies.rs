//! The policies of ports: what their VMs may send and receive (R23).
//!
//! Rules come one by one and are in force together: a frame meets the old policy or the new one, never a mixture.

use godwit_wire::policy::{self, Direction, MAX_RULES, Rule, Traffic, Verdict};
use godwit_wire::{Bucket, Dscp, Frame, Instant, Rate};

use crate::{DropReason, OutOfRange};

/// One port's policy.
#[derive(Clone, Debug)]
struct PortPolicy {
    /// Rules that are not in force yet.
    staged: [Rule; MAX_RULES],
    rules: [Rule; MAX_RULES],
    /// `PolicySet` came.
    in_force: bool,
    count: u8,
    default: Verdict,
    rate: Rate,
    bucket: Bucket,
    dscp: Option<Dscp>,
}

/// All ports' policies. A port without one has no place here.
pub struct Policies {
    policies: Vec<PortPolicy>,
    /// Each port's place; [`NONE`] where it has none.
    places: Vec<u16>,
    free: Vec<u16>,
}

const NONE: u16 = u16::MAX;

/// What a policy says of a frame, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judged {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The rule that decided; `None`: the default.
    pub rule: Option<Rule>,
}

impl Policies {
    pub(crate) fn new(ports: usize) -> Policies {
        // Address space only: a place is written when a port needs it.
        let (policies, free) = (Vec::with_capacity(ports), Vec::with_capacity(ports));
        Policies { policies, places: vec![NONE; ports], free }
    }

    fn of(&self, port: usize) -> Option<&PortPolicy> {
        self.policies.get(usize::from(*self.places.get(port)?))
    }

    /// A policy is in force at the port.
    pub(crate) fn is_set(&self, port: usize) -> bool {
        self.of(port).is_some_and(|p| p.in_force)
    }

    /// What the port's VM sends is marked with this.
    pub(crate) fn dscp(&self, port: usize) -> Option<Dscp> {
        self.of(port)?.dscp
    }

    fn slot(&mut self, port: usize) -> Result<&mut PortPolicy, OutOfRange> {
        let place = *self.places.get(port).ok_or(OutOfRange)?;
        if place != NONE {
            return self.policies.get_mut(usize::from(place)).ok_or(OutOfRange);
        }
        let fresh = PortPolicy {
            staged: [Rule::ANY; MAX_RULES],
            rules: [Rule::ANY; MAX_RULES],
            in_force: false,
            count: 0,
            default: Verdict::Allow,
            rate: Rate::UNLIMITED,
            bucket: Bucket::default(),
            dscp: None,
        };
        // There are as many places as ports, all of them reserved.
        let place = match self.free.pop() {
            Some(place) => {
                self.policies[usize::from(place)] = fresh;
                place
            }
            None => {
                self.policies.push(fresh);
                (self.policies.len() - 1) as u16
            }
        };
        self.places[port] = place;
        Ok(&mut self.policies[usize::from(place)])
    }

    pub(crate) fn stage(&mut self, port: usize, at: u8, rule: Rule) -> Result<(), OutOfRange> {
        let slot = self.slot(port)?;
        *slot.staged.get_mut(usize::from(at)).ok_or(OutOfRange)? = rule;
        Ok(())
    }

    /// The first `count` rules that were staged are in force.
    pub(crate) fn enforce(
        &mut self,
        port: usize,
        count: u8,
        default: Verdict,
        rate: Rate,
        dscp: Option<Dscp>,
    ) -> Result<(), OutOfRange> {
        if usize::from(count) > MAX_RULES {
            return Err(OutOfRange);
        }
        let slot = self.slot(port)?;
        if slot.rate != rate {
            // What was used of the old rate says nothing of the new one.
            slot.bucket = Bucket::default();
        }
        slot.rules = slot.staged;
        slot.in_force = true;
        (slot.count, slot.default, slot.rate, slot.dscp) = (count, default, rate, dscp);
        Ok(())
    }

    pub(crate) fn clear(&mut self, port: usize) {
        if let Some(place) = self.places.get_mut(port)
            && *place != NONE
        {
            self.free.push(core::mem::replace(place, NONE));
        }
    }

    /// What the port's policy says of a frame; `None`: nothing, because there is none, or because no policy is about
    /// such frames, which have no traffic.
    pub fn judge(&self, port: usize, traffic: Option<&Traffic>) -> Option<Judged> {
        let p = self.of(port)?;
        let traffic = traffic?;
        let rules = &p.rules[..usize::from(p.count)];
        let (verdict, at) = policy::verdict(rules, p.default, traffic);
        Some(Judged { verdict, rule: at.map(|at| rules[at]) })
    }

    /// The VM at the port sends a frame: whether it may, and may so often. This counts as sending it.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn send(
        &mut self,
        port: usize,
        traffic: Option<&Traffic>,
        now: Instant,
    ) -> Result<(), DropReason> {
        match self.judge(port, traffic) {
            None => return Ok(()),
            Some(Judged { verdict: Verdict::Deny, .. }) => return Err(DropReason::PolicyDenied),
            Some(_) => {}
        }
        let place = usize::from(self.places.get(port).copied().unwrap_or(NONE));
        let Some(p) = self.policies.get_mut(place) else { return Ok(()) };
        if p.bucket.take(p.rate, now) { Ok(()) } else { Err(DropReason::PolicyRate) }
    }

    /// The VM at the port may send a frame, however many it sends.
    pub(crate) fn sends_freely(&self, port: usize, traffic: Option<&Traffic>) -> bool {
        let judged = || self.judge(port, traffic);
        self.of(port).is_none_or(|p| p.rate == Rate::UNLIMITED)
            && judged().is_none_or(|j| j.verdict == Verdict::Allow)
    }

    /// The VM at the port may get a frame.
    ///
    /// # Errors
    /// [`DropReason::PolicyDenied`]; [`DropReason::Truncated`] where it has no Ethernet header.
    pub(crate) fn receive(&self, port: usize, frame: &[u8]) -> Result<(), DropReason> {
        if self.of(port).is_none() {
            return Ok(());
        }
        let frame = Frame::read(frame).map_err(|_| DropReason::Truncated)?;
        match self.judge(port, Traffic::of(&frame, Direction::In).as_ref()) {
            Some(Judged { verdict: Verdict::Deny, .. }) => Err(DropReason::PolicyDenied),
            _ => Ok(()),
        }
    }
}
