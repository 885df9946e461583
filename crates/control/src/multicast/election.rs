//! Who of those that ask is the querier of a VN's VMs here, by family: the one with the lowest address (RFC 2236
//! section 3, RFC 3376 section 6.6.2, RFC 2710 section 4, RFC 3810 section 7.6.2).
//!
//! Pure: queries and time in. The switch asks by the gateway's address at all NVEs alike, so that these are one
//! querier; where a VN has no gateway, it has no address and loses against each (RFC 4541 section 2.1.1).

use std::net::IpAddr;

use godwit_tables::update::PortIdx;
use godwit_wire::membership::Version;
use godwit_wire::{Instant, Span};

/// A querier has been silent for so long when it counts as gone: two intervals and half of the time to answer (RFC 3376
/// section 8.5, RFC 3810 section 9.5).
pub(super) const OTHER_PRESENT: Span = Span::from_ms(125_000 * 2 + 5_000);

/// A router VM that asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Asker {
    port: PortIdx,
    address: IpAddr,
    until: Instant,
}

/// The election of one family, as the switch sees it.
#[derive(Clone, Default, Debug)]
pub(super) struct Election {
    /// It has won against the switch.
    elected: Option<Asker>,
    /// Of the last router that asked, elected or not, and until when that counts.
    version: Option<(Version, PortIdx, Instant)>,
}

impl Election {
    /// A router VM asked from `address`; `own` is the switch's.
    pub fn heard(
        &mut self,
        (port, address): (PortIdx, IpAddr),
        version: Version,
        own: Option<IpAddr>,
        now: Instant,
    ) {
        self.expire(now);
        let until = now + OTHER_PRESENT;
        self.version = Some((version, port, until));
        let wins = own.is_none_or(|own| address < own);
        let leads = self.elected.is_none_or(|e| address <= e.address);
        if wins && leads {
            self.elected = Some(Asker { port, address, until });
        } else if self.elected.is_some_and(|e| !own.is_none_or(|own| e.address < own)) {
            // The gateway has a lower address than before.
            self.elected = None;
        }
    }

    /// The port's VM asks no more.
    pub fn gone(&mut self, port: PortIdx) {
        self.elected = self.elected.filter(|e| e.port != port);
        self.version = self.version.filter(|(_, of, _)| *of != port);
    }

    /// What has been silent for too long is gone.
    pub fn expire(&mut self, now: Instant) {
        self.elected = self.elected.filter(|e| now < e.until);
        self.version = self.version.filter(|(.., until)| now < *until);
    }

    /// When the elected router counts as gone, unless it asks again; `None` while the switch is the querier.
    pub fn ends(&self) -> Option<Instant> {
        self.elected.map(|e| e.until)
    }

    /// The switch is the querier.
    pub fn is_won(&self) -> bool {
        self.elected.is_none()
    }

    /// The version that hosts here have heard a router speak, and follow (RFC 3376 section 7.3.1).
    pub fn version(&self) -> Option<Version> {
        self.version.map(|(version, ..)| version)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn ip(n: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, n).into()
    }

    fn at(seconds: u64) -> Instant {
        Instant(1_000_000_000) + Span::from_ms(seconds * 1000)
    }

    /// What a router with address 10.0.0.n at port n says.
    fn asks(e: &mut Election, n: u8, own: Option<u8>, seconds: u64) {
        e.heard((PortIdx(n.into()), ip(n)), Version::Igmp2, own.map(ip), at(seconds));
    }

    #[test]
    fn r61_the_lower_address_asks_and_the_other_one_gives_way() {
        let mut e = Election::default();
        assert!(e.is_won() && e.version().is_none());
        asks(&mut e, 9, Some(5), 0);
        assert!(e.is_won(), "the gateway is lower");
        assert_eq!(e.version(), Some(Version::Igmp2), "its hosts follow the router's version all the same");
        asks(&mut e, 3, Some(5), 1);
        assert!(!e.is_won());
        asks(&mut e, 4, Some(5), 2);
        assert_eq!(e.ends(), Some(at(1) + OTHER_PRESENT), "the lowest one counts");
        asks(&mut e, 3, Some(5), 100);
        assert_eq!(e.ends(), Some(at(100) + OTHER_PRESENT), "until it has been silent for its time");
    }

    #[test]
    fn r61_a_switch_without_an_address_gives_way_to_each() {
        let mut e = Election::default();
        asks(&mut e, 200, None, 0);
        assert!(!e.is_won());
    }

    #[test]
    fn r61_a_querier_that_is_silent_or_gone_is_none() {
        let mut e = Election::default();
        asks(&mut e, 3, Some(5), 0);
        e.expire(at(254));
        assert!(!e.is_won());
        e.expire(at(255));
        assert!(e.is_won() && e.version().is_none());
        asks(&mut e, 3, Some(5), 300);
        e.gone(PortIdx(4));
        assert!(!e.is_won());
        e.gone(PortIdx(3));
        assert!(e.is_won() && e.version().is_none(), "its port closed");
    }

    #[test]
    fn r61_a_gateway_that_gets_a_lower_address_asks_again() {
        let mut e = Election::default();
        asks(&mut e, 3, Some(5), 0);
        asks(&mut e, 3, Some(1), 1);
        assert!(e.is_won());
    }

    proptest! {
        /// Whatever is heard: the switch asks unless one with a lower address was heard within its time.
        #[test]
        fn r61_somebody_asks_at_all_times(
            own in proptest::option::of(0u8..8),
            heard in proptest::collection::vec((0u8..8, 0u64..200), 0..30),
        ) {
            let mut e = Election::default();
            let (mut now, mut known): (u64, Vec<(u8, u64)>) = (0, Vec::new());
            for (n, wait) in heard {
                now += wait;
                asks(&mut e, n, own, now);
                known.push((n, now));
                let lower = |n: u8| own.is_none_or(|own| n < own);
                let alive = |at: u64| known.iter().filter(move |k| lower(k.0) && at < k.1 + 255);
                let lowest = alive(now).map(|k| k.0).min();
                for later in [0, 100, 254, 255] {
                    let mut e = e.clone();
                    e.expire(at(now + later));
                    prop_assert!(e.is_won() || alive(now + later).next().is_some(), "nobody asks");
                    // One that was heard while a lower one asked is elected when it is heard again.
                    if lowest == Some(n) && later < 255 {
                        prop_assert!(!e.is_won(), "two ask");
                    }
                }
            }
        }
    }
}
