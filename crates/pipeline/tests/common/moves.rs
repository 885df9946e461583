//! A VM that moves: the frames for it, and its states.

use godwit_tables::event::{Event, HandoverStats};
use godwit_tables::update::{TunnelIdx, VmState};

use super::{Lab, M1, M2, R4, UPLINK, key, limits, ms, numbered, open, through, vxlan};

/// From another NVE, for M1.
pub fn overlay(n: u32) -> Vec<u8> {
    vxlan().frame(&numbered(R4, M1, n))
}

/// From the VM on port 2, for M1.
pub fn local(n: u32) -> Vec<u8> {
    numbered(M2, M1, n)
}

pub fn paused() -> VmState {
    VmState::Paused { hold: limits(100, 2000) }
}

pub fn expected(via: Option<TunnelIdx>) -> VmState {
    VmState::Expected { via: via.map(through), hold: limits(100, 2000) }
}

impl Lab {
    pub fn departed(&mut self, tunnel: TunnelIdx) {
        let until = self.now + ms(60_000);
        self.vm(M1, VmState::Departed { to: through(tunnel), until });
    }

    /// The last progress report.
    pub fn report(&mut self) -> HandoverStats {
        let last = self.take_events().into_iter().rev().find_map(|e| match e {
            Event::Handover { key: k, stats } if k == key(M1) => Some(stats),
            _ => None,
        });
        last.expect("a report about M1")
    }

    pub fn ttls(&self) -> Vec<u8> {
        self.to(UPLINK).iter().map(|f| open(f).0.ttl).collect()
    }
}
