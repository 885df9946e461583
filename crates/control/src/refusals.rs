//! What VMs of ports sent from and might not (R65): the last of it by port, for alarms and for people.

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_tables::update::PortIdx;
use godwit_wire::{Bucket, Instant, Mac, Rate, Span};

/// Sources of a port that are remembered; of more, the one that is longest ago goes.
const MAX_A_PORT: usize = 8;
/// Alarms on one source.
const ALARMS: Rate = Rate::every(Span::from_ms(60_000), 1);

/// A source that was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The MAC that the VM spoke from.
    pub mac: Mac,
    /// The address, if the MAC was good or an address was named.
    pub ip: Option<IpAddr>,
    /// Why, for people.
    pub why: String,
    /// What would allow it, for people.
    pub allow: String,
    /// How often that was told; workers tell once a second and port at most.
    pub count: u64,
    /// When it was told last.
    pub last: Instant,
    alarms: Bucket,
}

/// By port.
#[derive(Default, Debug)]
pub(crate) struct Refusals(BTreeMap<PortIdx, Vec<Refusal>>);

impl Refusals {
    /// Notes one. `Some`: it is to be told, with how often it was refused.
    pub(crate) fn note(
        &mut self,
        now: Instant,
        port: PortIdx,
        source: (Mac, Option<IpAddr>),
        why: &str,
        allow: &str,
    ) -> Option<u64> {
        let all = self.0.entry(port).or_default();
        let at = all.iter().position(|r| (r.mac, r.ip) == source).unwrap_or_else(|| {
            if all.len() >= MAX_A_PORT {
                let oldest = all.iter().enumerate().min_by_key(|(_, r)| r.last).map_or(0, |(n, _)| n);
                all.remove(oldest);
            }
            let (mac, ip) = source;
            let (why, allow, alarms) = (String::new(), String::new(), Bucket::default());
            all.push(Refusal { mac, ip, why, allow, count: 0, last: Instant(0), alarms });
            all.len() - 1
        });
        let r = &mut all[at];
        r.count += 1;
        r.last = now;
        if r.why != why {
            r.alarms = Bucket::default();
        }
        why.clone_into(&mut r.why);
        allow.clone_into(&mut r.allow);
        r.alarms.take(ALARMS, now).then_some(r.count)
    }

    /// Those of a port, the last one first.
    pub(crate) fn of(&self, port: PortIdx) -> Vec<Refusal> {
        let mut all = self.0.get(&port).cloned().unwrap_or_default();
        all.sort_by_key(|r| core::cmp::Reverse(r.last));
        all
    }

    pub(crate) fn forget(&mut self, port: PortIdx) {
        self.0.remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r65_a_port_remembers_its_last_refused_sources_and_tells_each_once_a_minute() {
        let (mut all, port, now) = (Refusals::default(), PortIdx(1), Instant(1_000_000_000));
        let mac = |n: u8| Mac([2, 0, 0, 0, 1, n]);
        for n in 0..20 {
            let at = now + Span::from_ms(u64::from(n));
            assert_eq!(all.note(at, port, (mac(n), None), "why", "how"), Some(1));
        }
        let kept = all.of(port);
        assert_eq!(kept.len(), MAX_A_PORT);
        assert_eq!((kept[0].mac, kept[7].mac), (mac(19), mac(12)));
        let later = now + Span::from_ms(1000);
        assert_eq!(all.note(later, port, (mac(19), None), "why", "how"), None);
        assert_eq!(all.note(later, port, (mac(19), None), "another why", "how"), Some(3), "that is news");
        assert_eq!(all.note(later + ALARMS.gap(), port, (mac(19), None), "another why", "how"), Some(4));
        all.forget(port);
        assert!(all.of(port).is_empty());
    }
}
