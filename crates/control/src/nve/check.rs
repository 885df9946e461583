//! Addresses that a VM has bound by its own word are asked for now and then; one that nobody answers for is given
//! back (R93).
//!
//! They are asked one after the other, by ARP or a neighbor solicitation to the MAC that answers for them, from a
//! sender that binds nothing. A VM that is paused or on its way is left alone.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use godwit_model::VmKey;
use godwit_model::message::NveToNva;
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use crate::io::{Level, Outputs};

use super::{Nve, Timer};

/// Questions for an address before it counts as unused.
const TRIES: u32 = 3;
/// Between two questions for an address.
const GAP: Span = Span::from_ms(1000);

/// The addresses of one VM.
#[derive(Debug)]
struct Checked {
    /// When all of them are asked for again.
    round: Instant,
    waiting: VecDeque<IpAddr>,
    /// The one that is asked for, how often, and when next.
    asking: Option<(IpAddr, u32, Instant)>,
}

/// By VM.
#[derive(Default, Debug)]
pub(super) struct Checks(BTreeMap<VmKey, Checked>);

impl Checked {
    fn next(&self, now: Instant) -> Instant {
        match self.asking {
            Some((.., at)) => at,
            None if !self.waiting.is_empty() => now,
            None => self.round,
        }
    }
}

impl Nve {
    /// The addresses that a VM here has learned.
    fn learned(&self, key: VmKey) -> Vec<IpAddr> {
        let bound =
            self.mirror.record(key).filter(|_| self.is_hosted(key)).into_iter().flat_map(|r| &r.bound.ips);
        bound.filter(|b| !b.is_virtual).map(|b| b.ip).collect()
    }

    /// A VM's record or its place changed.
    pub(super) fn follow_checks(&mut self, key: VmKey) {
        if self.learned(key).is_empty() {
            if self.checks.0.remove(&key).is_some() {
                self.timers.set(Timer::Addresses(key), None);
            }
        } else if !self.checks.0.contains_key(&key) {
            let round = self.now + self.config.address_check;
            self.checks.0.insert(key, Checked { round, waiting: VecDeque::new(), asking: None });
            self.timers.set(Timer::Addresses(key), Some(round));
        }
    }

    /// The NVA asks for one at once, because another VM uses it.
    pub(super) fn verify_ip(&mut self, key: VmKey, ip: IpAddr, out: &mut Outputs) {
        if !self.learned(key).contains(&ip) {
            return;
        }
        self.follow_checks(key);
        let Some(c) = self.checks.0.get_mut(&key) else { return };
        if c.asking.is_some_and(|(asked, ..)| asked == ip) {
            return;
        }
        c.waiting.retain(|other| *other != ip);
        c.waiting.push_front(ip);
        self.addresses_due(key, out);
    }

    /// The port on which the VM may be asked.
    fn asked_port(&self, key: VmKey) -> Option<PortIdx> {
        let vm = self.vms.get(&key)?;
        let port = vm.phase.running_on()?;
        // What the record says of moves is as old as the record: nobody is told when a move is over.
        let moving = vm.intent.is_some();
        let linked = self.ports.get(&port).is_some_and(|p| p.link_up);
        (linked && !moving && self.session.is_up()).then_some(port)
    }

    /// Asks for the next address, or once more for the same.
    pub(super) fn addresses_due(&mut self, key: VmKey, out: &mut Outputs) {
        let learned = self.learned(key);
        let port = self.asked_port(key);
        let Some(c) = self.checks.0.get_mut(&key) else { return };
        let Some(port) = port else {
            // It may not be asked now; nothing is concluded from that.
            c.asking = None;
            c.waiting.clear();
            c.round = self.now + self.config.address_check;
            return self.timers.set(Timer::Addresses(key), Some(c.round));
        };
        let mut silent = None;
        if let Some((ip, asked, at)) = c.asking.filter(|a| a.2 <= self.now) {
            if asked >= TRIES {
                (silent, c.asking) = (Some(ip), None);
            } else {
                c.asking = Some((ip, asked, at));
            }
        }
        if c.round <= self.now {
            c.round = self.now + self.config.address_check;
            c.waiting = learned.iter().copied().collect();
        }
        if c.asking.is_none() {
            let next = std::iter::from_fn(|| c.waiting.pop_front()).find(|ip| learned.contains(ip));
            c.asking = next.map(|ip| (ip, 0, self.now));
        }
        let mut probe = None;
        if let Some((ip, asked, at)) = &mut c.asking
            && *at <= self.now
        {
            (*asked, *at) = (*asked + 1, self.now + GAP);
            probe = Some(*ip);
        }
        self.timers.set(Timer::Addresses(key), Some(c.next(self.now)));
        if let Some(ip) = probe {
            self.probe(key, port, &[ip], out);
        }
        if let Some(ip) = silent.filter(|ip| learned.contains(ip)) {
            let text = format!("{key} does not answer for {ip} any more, which it had bound: given back");
            out.note(Level::Info, text);
            self.counts.addresses_unbound += 1;
            self.send(NveToNva::Unbind { key, ip }, out);
        }
    }

    /// The VM answered a question, for an address or with another frame; only an answer for the address that is asked
    /// for counts: it may be silent for this one because another VM has leased it since.
    pub(super) fn address_alive(&mut self, key: VmKey, ip: Option<IpAddr>, out: &mut Outputs) {
        let Some(c) = self.checks.0.get_mut(&key) else { return };
        if c.asking.is_some_and(|(asked, ..)| ip == Some(asked)) {
            c.asking = None;
            self.addresses_due(key, out);
        }
    }
}
