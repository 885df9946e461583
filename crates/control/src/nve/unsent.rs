//! Datagrams for other NVEs to which no next hop is known yet: the first word to an NVE may be one that others wait
//! for, as the answer to an end marker is (R77).

use std::collections::VecDeque;
use std::net::IpAddr;

use godwit_model::{Locators, Version, VmKey};
use godwit_wire::peer::Kind;
use godwit_wire::{Instant, Span};

use crate::io::Outputs;

use super::Nve;

/// Datagrams that wait; with a further one the oldest is forgotten.
const MAX_UNSENT: usize = 256;
/// Nobody waits longer for one.
const LIFE: Span = Span::from_ms(250);

/// One that waits. It is sealed when it leaves.
#[derive(Debug)]
pub(super) struct Unsent {
    until: Instant,
    kind: Kind,
    key: VmKey,
    remote: IpAddr,
    to: Locators,
    version: Version,
}

/// All that wait, from the oldest.
pub(super) type Waiting = VecDeque<Unsent>;

impl Nve {
    /// Keeps a datagram until its next hop is known.
    pub(super) fn send_later(
        &mut self,
        kind: Kind,
        key: VmKey,
        (remote, to): (IpAddr, Locators),
        version: Version,
    ) {
        if self.unsent.len() >= MAX_UNSENT {
            self.unsent.pop_front();
            self.counts.notices_unsent += 1;
        }
        let until = self.now + LIFE;
        self.unsent.push_back(Unsent { until, kind, key, remote, to, version });
    }

    /// Sends what has a way now.
    pub(super) fn send_waiting(&mut self, out: &mut Outputs) {
        for u in std::mem::take(&mut self.unsent) {
            if u.until <= self.now {
                self.counts.notices_unsent += 1;
            } else if self.underlay.hop(u.remote).is_none() {
                self.unsent.push_back(u);
            } else if !self.send_notice(u.kind, u.key, u.remote, u.to, u.version, out) {
                self.counts.notices_unsent += 1;
            }
        }
    }
}
