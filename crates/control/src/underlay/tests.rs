use std::net::Ipv4Addr;

use godwit_wire::Span;

use crate::io::{UplinkV4, UplinkV6};

use super::*;

const UP: PortIdx = PortIdx(3);

fn spec() -> UplinkSpec {
    UplinkSpec {
        mac: Mac([2, 0, 0, 0, 0, 1]),
        v4: Some(UplinkV4 {
            addr: Ipv4Addr::new(198, 18, 0, 1),
            prefix_len: 24,
            gateway: Some(Ipv4Addr::new(198, 18, 0, 254)),
        }),
        v6: Some(UplinkV6 {
            addr: "2001:db8::1".parse().unwrap(),
            prefix_len: 64,
            gateway: Some("fe80::1".parse().unwrap()),
        }),
        v6_link_local: None,
        mtu: 1600,
        exception: None,
        vlan: None,
    }
}

fn underlay() -> Underlay {
    let mut u = Underlay::default();
    u.set_uplink(Instant(0), UP, spec());
    u
}

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

/// Next hops that fell silent since the last call.
fn lost(u: &mut Underlay) -> usize {
    u.take_news().iter().filter(|n| matches!(n, News::Silent { .. })).count()
}

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// Fires everything due until `end`; the gaps between frames in milliseconds.
fn run(u: &mut Underlay, from: Instant, end: Instant) -> Vec<u64> {
    let mut gaps = Vec::new();
    let mut last = from;
    while let Some(t) = u.deadline().filter(|t| *t <= end) {
        u.tick(t);
        for _ in u.take_frames() {
            gaps.push(t.since(last).as_ms());
            last = t;
        }
    }
    gaps
}

#[test]
fn an_uplink_announces_its_locators() {
    let frames = underlay().take_frames();
    assert_eq!(frames.len(), 2);
    assert_eq!(&frames[0].1[..6], &[0xff; 6], "gratuitous ARP");
    assert_eq!(&frames[1].1[..6], &[0x33, 0x33, 0, 0, 0, 1], "unsolicited NA to all nodes");
    assert!(frames.iter().all(|(port, f)| *port == UP && f.len() <= 128));
}

#[test]
fn on_link_goes_direct_and_the_rest_by_the_gateway() {
    let u = underlay();
    assert_eq!(u.route(ip("198.18.0.7")), [(UP, ip("198.18.0.7"))]);
    assert_eq!(u.route(ip("203.0.113.7")), [(UP, ip("198.18.0.254"))]);
    assert_eq!(u.route(ip("2001:db8::7")), [(UP, ip("2001:db8::7"))]);
    assert_eq!(u.route(ip("2001:db8:1::7")), [(UP, ip("fe80::1"))]);
    assert_eq!(Underlay::default().route(ip("198.18.0.7")), []);
}

#[test]
fn quick_questions_first_then_one_a_second() {
    let mut u = underlay();
    u.take_frames();
    assert_eq!(u.watch(Instant(0), ip("198.18.0.7")), Ways::default());
    assert_eq!(u.take_frames().len(), 1, "asked at once");
    let gaps = run(&mut u, Instant(0), Instant(0) + Span::from_ms(30_000));
    assert_eq!(gaps[..7], [50, 150, 300, 500, 1000, 1000, 1000]);
    u.learned(Instant(0), UP, ip("198.18.0.7"), MAC, true);
    assert!(u.take_changes().contains(&ip("198.18.0.7")));
    let hop = u.hop(ip("198.18.0.7")).unwrap();
    assert_eq!((hop.dst_mac, hop.src_ip, hop.mtu), (MAC, ip("198.18.0.1"), 1600));
}

#[test]
fn a_neighbor_that_is_released_while_it_is_probed_is_not_asked_for_ever() {
    let mut u = underlay();
    let (remote, next) = (ip("198.18.0.7"), ip("198.18.0.7"));
    u.watch(Instant(0), remote);
    u.learned(Instant(0), UP, next, MAC, true);
    let at = Instant(0) + Span::from_ms(30_000);
    u.tick(at);
    assert_eq!(u.neighbor((UP, next)).unwrap().reach.as_str(), "probe");
    u.unwatch(remote);
    u.take_frames();
    // The probes that it is due, and nothing after these.
    let gaps = run(&mut u, at, at + Span::from_ms(60_000));
    assert_eq!(gaps, [1000, 1000]);
    assert!(u.neighbor((UP, next)).is_none() && u.deadline().is_none());
    assert_eq!(lost(&mut u), 0, "nobody needs it");
    // Needed again, it is asked for as a new one.
    assert_eq!(u.watch(at + Span::from_ms(60_000), remote), Ways::default());
    assert_eq!(u.take_frames().len(), 1);
}

#[test]
fn a_neighbor_in_use_is_probed_and_one_lost_answer_tears_nothing() {
    let mut u = underlay();
    let (remote, next) = (ip("198.18.0.7"), ip("198.18.0.7"));
    u.watch(Instant(0), remote);
    u.learned(Instant(0), UP, next, MAC, true);
    u.take_frames();
    let at = Instant(0) + Span::from_ms(30_000);
    u.tick(at);
    let probe = u.take_frames();
    assert_eq!(&probe[0].1[..6], &MAC.0, "asked directly");
    u.tick(at + Span::from_ms(1000));
    assert!(u.hop(remote).is_some(), "still in use");
    u.learned(at + Span::from_ms(1100), UP, next, MAC, true);
    u.tick(at + Span::from_ms(5000));
    assert!(u.hop(remote).is_some());
    assert_eq!(lost(&mut u), 0);
    // Now it falls silent for good.
    run(&mut u, at, at + Span::from_ms(40_000));
    assert_eq!((u.hop(remote), lost(&mut u)), (None, 1));
    assert!(u.take_changes().contains(&remote));
}

#[test]
fn a_changed_address_moves_every_locator_behind_the_gateway() {
    let mut u = underlay();
    let remotes = [ip("203.0.113.1"), ip("203.0.113.2")];
    for r in remotes {
        u.watch(Instant(0), r);
    }
    u.learned(Instant(0), UP, ip("198.18.0.254"), MAC, true);
    assert_eq!(u.take_changes().len(), 2);
    let other = Mac([2, 0, 0, 0, 0, 8]);
    u.take_frames();
    u.learned(Instant(5), UP, ip("198.18.0.254"), other, false);
    assert_eq!(u.take_changes().len(), 2);
    assert!(remotes.iter().all(|r| u.hop(*r).unwrap().dst_mac == other));
    assert_eq!(u.take_frames().len(), 1, "and it is verified");
}

#[test]
fn only_possible_neighbors_are_learned() {
    let mut u = underlay();
    for (who, mac) in [
        (ip("203.0.113.9"), MAC),
        (ip("198.18.0.9"), Mac::BROADCAST),
        (ip("198.18.0.9"), Mac::ZERO),
        (ip("198.18.0.1"), MAC),
    ] {
        u.learned(Instant(0), UP, who, mac, true);
    }
    u.learned(Instant(0), PortIdx(9), ip("198.18.0.9"), MAC, true);
    assert_eq!(u.neighbors().count(), 0);
    u.learned(Instant(0), UP, ip("198.18.0.9"), MAC, false);
    assert_eq!(u.watch(Instant(1), ip("198.18.0.9")).hops.len(), 1, "noted in passing, usable at once");
}

#[test]
fn another_uplink_takes_over_when_a_link_falls() {
    let mut u = underlay();
    let second = PortIdx(4);
    let remote = ip("203.0.113.1");
    u.watch(Instant(0), remote);
    u.learned(Instant(0), UP, ip("198.18.0.254"), MAC, true);
    u.set_uplink(Instant(0), second, UplinkSpec { mac: Mac([2, 0, 0, 0, 0, 2]), ..spec() });
    u.link(Instant(1), UP, false);
    u.learned(Instant(2), second, ip("198.18.0.254"), MAC, true);
    assert_eq!(u.hop(remote).unwrap().uplink, second);
    u.link(Instant(3), UP, true);
    assert_eq!(u.hop(remote).unwrap().uplink, UP);
    u.remove_uplink(Instant(4), UP);
    assert_eq!(u.hop(remote).unwrap().uplink, second);
    u.unwatch(remote);
    assert_eq!(u.hop(remote), None);
}

#[test]
fn ipv6_is_asked_by_the_solicited_node_group() {
    let mut u = underlay();
    u.take_frames();
    u.watch(Instant(0), ip("2001:db8::12:3456"));
    let frames = u.take_frames();
    assert_eq!(&frames[0].1[..6], &[0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
}

#[test]
fn the_operators_word_is_neither_asked_for_nor_changed() {
    let mut u = underlay();
    u.take_frames();
    let remote = ip("198.18.0.7");
    u.set_permanent(UP, remote, MAC);
    assert_eq!(u.watch(Instant(0), remote).hops[0].1.dst_mac, MAC);
    u.learned(Instant(0), UP, remote, Mac([2, 0, 0, 0, 0, 8]), true);
    assert_eq!(u.hop(remote).map(|h| h.dst_mac), Some(MAC));
    assert!(run(&mut u, Instant(0), Instant(0) + Span::from_ms(100_000)).is_empty());
}

#[test]
fn r9_a_routers_word_narrows_one_way_for_ten_minutes() {
    let mut u = underlay();
    let (a, b) = (ip("198.18.0.7"), ip("198.18.0.8"));
    for remote in [a, b] {
        u.watch(Instant(0), remote);
        u.learned(Instant(0), UP, remote, MAC, true);
    }
    u.take_changes();
    let own = ip("198.18.0.1");
    let minute = |n: u64| Instant(0) + Span::from_ms(60_000 * n);
    // Forged: another's locator, nobody whom we send to, too small, no news.
    assert!(!u.path_mtu(minute(1), ip("198.18.0.9"), a, 1400));
    assert!(!u.path_mtu(minute(1), own, ip("198.18.0.99"), 1400));
    assert!(!u.path_mtu(minute(1), own, a, 1279) && !u.path_mtu(minute(1), own, a, 0));
    assert!(!u.path_mtu(minute(1), own, a, 1600));
    assert!(u.take_changes().is_empty());

    assert!(u.path_mtu(minute(1), own, a, 1400));
    assert_eq!(u.take_changes(), [a].into());
    assert_eq!((u.hop(a).unwrap().mtu, u.hop(b).unwrap().mtu), (1400, 1600));
    assert!(!u.path_mtu(minute(3), own, a, 1500), "none larger within five minutes");
    assert!(u.path_mtu(minute(7), own, a, 1500));
    assert_eq!(u.hop(a).unwrap().mtu, 1500);
    assert!(u.path_mtu(minute(8), own, a, 1300), "a smaller one at once");

    // The neighbors answer all the while.
    u.take_changes();
    while let Some(at) = u.deadline().filter(|t| *t < minute(19)) {
        u.tick(at);
        u.take_frames();
        for remote in [a, b] {
            u.learned(at, UP, remote, MAC, true);
        }
        let expected = if at < minute(18) { 1300 } else { 1600 };
        assert_eq!((u.hop(a).unwrap().mtu, u.hop(b).unwrap().mtu), (expected, 1600));
    }
    assert_eq!(u.hop(a).unwrap().mtu, 1600, "after ten minutes it is tried again");
}

/// Two uplinks with a loopback, and routes by up to three next hops.
fn fabric() -> Underlay {
    let own = Locators { v4: Some(Ipv4Addr::new(192, 0, 2, 1)), v6: None };
    let mut u = Underlay::new(own, Liveness::default());
    for n in 0..2u8 {
        let v4 = UplinkV4 { addr: Ipv4Addr::new(10, 0, n, 1), prefix_len: 24, gateway: None };
        let mac = Mac([2, 0, 0, 0, 1, n]);
        u.set_uplink(Instant(0), PortIdx(n.into()), UplinkSpec { mac, v4: Some(v4), v6: None, ..spec() });
    }
    u
}

fn leaf(n: u8) -> NextHop {
    (PortIdx(u16::from(n % 2)), IpAddr::from([10, 0, n % 2, 10 + n]))
}

fn by(mask: u8) -> Vec<Route> {
    let hops = (0..4).filter(|n| mask >> n & 1 == 1).map(leaf);
    let hops = hops.map(|(uplink, ip)| crate::io::RouteHop { uplink, ip: Some(ip) }).collect();
    vec![Route { to: ip("203.0.113.0"), len: 24, hops }]
}

proptest::proptest! {
    /// Routes, links and answers come and go: every share goes to a next hop of the route that has answered of late, on
    /// an uplink with a link; where there is any, no flow waits; and what stays fit keeps its shares while others go.
    #[test]
    fn r95_every_share_goes_to_a_next_hop_that_lives(
        steps in proptest::collection::vec((0u8..5, 0u8..16, 1u64..1500), 1..60),
    ) {
        let mut u = fabric();
        let remote = ip("203.0.113.7");
        u.watch(Instant(0), remote);
        let (mut now, mut mask, mut links, mut alive) = (Instant(0), 0u8, [true; 2], 0u8);
        let mut answered = [None::<Instant>; 4];
        // One that was not in use, or had no link, may have been silent since: it is asked at once, and given up like
        // any other.
        let mut taken = [Instant(0); 4];
        for (kind, arg, ms) in steps {
            let end = now + Span::from_ms(ms);
            // Those that live answer what they are asked.
            loop {
                let due = u.deadline().filter(|t| *t <= end);
                now = due.unwrap_or(end);
                u.tick(now);
                let asked = u.take_frames();
                for n in (0..4).filter(|n| alive >> n & 1 == 1) {
                    let (port, ip) = leaf(n);
                    let IpAddr::V4(target) = ip else { unreachable!() };
                    let me = |(p, f): &(PortIdx, Vec<u8>)| *p == port && f.get(38..42) == Some(&target.octets());
                    if asked.iter().any(me) && links[usize::from(port.0)] {
                        u.learned(now, port, ip, Mac([2, 0, 0, 0, 2, n]), true);
                        answered[usize::from(n)] = Some(now);
                    }
                }
                if due.is_none() { break }
            }
            let before = u.ways(remote);
            match kind {
                0 => {
                    (0..4).filter(|n| arg >> n & !(mask >> n) & 1 == 1).for_each(|n| taken[n] = now);
                    mask = arg;
                    u.set_routes(now, RouteOrigin::Kernel, by(mask))
                }
                1 => {
                    let n = usize::from(arg % 2);
                    links[n] ^= true;
                    [n, n + 2].into_iter().for_each(|hop| taken[hop] = now);
                    u.link(now, PortIdx(n as u16), links[n]);
                }
                _ => alive = arg,
            }
            let ways = u.ways(remote);
            let fit = |h: &Hop| {
                let n = h.dst_mac.0[5];
                let silent = answered[usize::from(n)].map(|t| now.since(t).as_ms());
                let own = (h.uplink, ip(&format!("10.0.{}.{}", n % 2, 10 + n)));
                mask >> n & 1 == 1 && links[usize::from(h.uplink.0)] && own == leaf(n)
                    // Where it is alone it is trusted for longer.
                    && (mask.count_ones() < 2
                        || silent.is_some_and(|ms| ms <= 30_000 + 3000)
                        || now.since(taken[usize::from(n)]).as_ms() <= 3000)
            };
            proptest::prop_assert!(ways.hops.iter().all(|(_, h)| fit(h)), "{ways:?} {mask:b} {links:?} {answered:?}");
            proptest::prop_assert!(ways.hops.iter().all(|(_, h)| h.src_ip == ip("192.0.2.1")));
            proptest::prop_assert_eq!(ways.shares.is_some(), ways.hops.len() > 1);
            if let Some(shares) = ways.shares {
                let places: Vec<u8> = ways.hops.iter().map(|(at, _)| *at).collect();
                proptest::prop_assert!(shares.iter().all(|s| places.contains(s)));
            }
            // Only a loss: all others keep what they had.
            let stays = |h: &(u8, Hop)| before.hops.contains(h);
            if let (Some(old), Some(new)) = (before.shares, ways.shares)
                && ways.hops.iter().all(stays)
            {
                let kept = old.iter().zip(&new).all(|(o, n)| o == n || !ways.hops.iter().any(|(at, _)| at == o));
                proptest::prop_assert!(kept);
            }
        }
    }
}
