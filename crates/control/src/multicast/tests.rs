//! What holds for every sequence of reports, queries, ports and time.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use godwit_wire::membership::{Query, Report};
use proptest::prelude::*;

use super::*;

fn vni() -> Vni {
    Vni::from_low24(7)
}

fn group(n: u8) -> IpAddr {
    match n % 4 {
        0 => Ipv4Addr::new(239, 1, 1, n).into(),
        1 => Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, n.into()).into(),
        2 => Ipv4Addr::new(239, 2, 2, n).into(),
        // Of the link.
        _ => Ipv4Addr::new(224, 0, 0, n).into(),
    }
}

/// The switch's address: some routers of these tests have lower ones.
fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

fn nve(n: u8) -> NveId {
    NveId::new(["a", "b"][usize::from(n % 2)]).unwrap()
}

/// Who wants each group: ports and NVEs.
type Members = BTreeMap<IpAddr, (Vec<PortIdx>, Vec<NveId>)>;

fn members(m: &Multicast) -> Members {
    let of = |g: IpAddr| (m.ports(vni(), g).collect(), m.nves(vni(), g).cloned().collect());
    m.groups(vni()).into_iter().map(|g| (g, of(g))).collect()
}

fn step(m: &mut Multicast, (kind, port, n): (u8, u8, u8), now: Instant, to: &mut Outcome) {
    let at = PortIdx(u16::from(port % 3));
    let said = |m: &mut Multicast, message: &Message<'_>, to: &mut Outcome| {
        m.heard(vni(), at, message, [Some(address(20)), None], now, to);
    };
    match kind {
        0 | 1 => m.port_opened(vni(), at, port % 3 == 2, now, to),
        2 => m.port_closed(vni(), at, to),
        3..=6 => said(m, &Message::Report(Report::One(group(n), Wish::Member)), to),
        7 => said(m, &Message::Report(Report::One(group(n), Wish::Left)), to),
        8 => {
            let src = if n.is_multiple_of(3) { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::new(10, 0, 0, n) };
            let (version, max_response) = (Version::Igmp2, Span::from_ms(10_000));
            said(m, &Message::Query(Query { src: src.into(), version, group: None, max_response }), to);
        }
        9 => m.others(vni(), &nve(n), false, (vec![group(n)], vec![group(n.wrapping_add(4))]), to),
        10 => m.others(vni(), &nve(n), true, (vec![group(n)], vec![]), to),
        _ => m.retain_others(vni(), |nve| nve.as_str() == "a", to),
    }
}

proptest! {
    #[test]
    fn r61_members_are_open_ports_and_each_change_is_told(
        steps in proptest::collection::vec(((0u8..12, 0u8..3, 0u8..40), 0u64..100), 0..120),
    ) {
        let mut m = Multicast::default();
        let mut now = Instant(1_000_000_000);
        m.add_vn(vni(), now);
        let mut open: BTreeMap<PortIdx, bool> = BTreeMap::new();
        for (what, seconds) in steps {
            now = now + Span::from_ms(seconds * 1000);
            let mut to = Outcome::default();
            let before = members(&m);
            m.tick(now, &mut to);
            for (_, q) in &to.questions {
                prop_assert_eq!(open.get(&q.port), Some(&false), "{:?}", q);
            }
            to.questions.clear();
            step(&mut m, what, now, &mut to);
            m.tick(now, &mut to);
            let port = PortIdx(u16::from(what.1 % 3));
            if what.0 < 2 {
                open.insert(port, what.1 % 3 == 2);
            } else if what.0 == 2 {
                open.remove(&port);
            }
            let after = members(&m);
            let all: BTreeSet<IpAddr> = before.keys().chain(after.keys()).copied().collect();
            for g in all.into_iter().filter(|g| before.get(g) != after.get(g)) {
                prop_assert!(to.changed.contains(&(vni(), g)), "{g} changed untold");
            }
            for (g, (ports, nves)) in &after {
                prop_assert!(!ports.is_empty() || !nves.is_empty());
                prop_assert!(!is_link_local(*g), "{g}");
                for p in ports {
                    let router = open.get(p).copied();
                    prop_assert!(router.is_some(), "{p:?} is closed");
                    prop_assert!(!g.is_unspecified() || router == Some(true), "{p:?} is no router");
                }
            }
            for (_, q) in &to.questions {
                prop_assert_eq!(open.get(&q.port), Some(&false), "{:?}", q);
            }
            prop_assert!(m.deadline().is_some_and(|at| at > now), "what is due is done, and there is a next query");
        }
        // Nobody answers any more: routers' memberships alone stay.
        for _ in 0..20 {
            now = now + Span::from_ms(20_000);
            m.tick(now, &mut Outcome::default());
        }
        for (g, (ports, _)) in members(&m) {
            prop_assert!(ports.iter().all(|p| open[p] && !g.is_unspecified()), "{g}: {ports:?}");
        }
        let groups = m.remove_vn(vni());
        prop_assert!(m.deadline().is_none() && m.groups(vni()).is_empty());
        prop_assert!(groups.len() <= 40);
    }
}
