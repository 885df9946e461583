//! What routers of the underlay say of the way to a locator (R9; RFC 1191, RFC 8201).
//!
//! A report lowers the MTU of one remote locator for a while. It is believed only as far as it can be proven:
//! it quotes a packet between two locators and in a VN that are in use, which the caller has looked at.

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_model::Deadlines;
use godwit_wire::{Instant, Span};

/// Every way carries packets of this size (RFC 8200 section 5); of IPv4 nothing smaller is believed either.
const FLOOR: u16 = 1280;
/// After so long a larger packet is tried again.
const LIFE: Span = Span::from_ms(600_000);
/// For so long after a report none with a larger value counts (RFC 8201 section 4).
const NO_RAISE: Span = Span::from_ms(300_000);

#[derive(Clone, Copy, Debug)]
struct Path {
    mtu: u16,
    since: Instant,
}

/// The ways that are narrower than their uplink.
#[derive(Default, Debug)]
pub(super) struct Paths {
    paths: BTreeMap<IpAddr, Path>,
    /// When a report is too old.
    ends: Deadlines<IpAddr>,
}

impl Paths {
    /// A believable report about `remote`, whose uplink carries `uplink` bytes. False where it says nothing new
    /// or nothing possible.
    pub(super) fn told(&mut self, now: Instant, remote: IpAddr, mtu: u32, uplink: u16) -> bool {
        let possible = |mtu: &u16| (FLOOR..uplink).contains(mtu);
        let Some(mtu) = u16::try_from(mtu).ok().filter(possible) else { return false };
        match self.paths.get(&remote) {
            Some(p) if mtu > p.mtu && now.since(p.since) < NO_RAISE => return false,
            _ => {}
        }
        self.paths.insert(remote, Path { mtu, since: now });
        self.ends.set(remote, Some(now + LIFE));
        true
    }

    /// The MTU of the way to `remote` over an uplink that carries `uplink` bytes.
    pub(super) fn mtu(&self, remote: IpAddr, uplink: u16) -> u16 {
        self.paths.get(&remote).map_or(uplink, |p| p.mtu.min(uplink))
    }

    /// It is not in use any more.
    pub(super) fn forget(&mut self, remote: IpAddr) {
        self.paths.remove(&remote);
        self.ends.set(remote, None);
    }

    /// When the next report is too old.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends.next()
    }

    /// Forgets reports that are too old, and says of whom.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<IpAddr> {
        let old = self.ends.take_due(now);
        old.iter().for_each(|ip| self.forget(*ip));
        old
    }
}
