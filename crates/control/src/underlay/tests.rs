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
    assert_eq!(u.route(ip("198.18.0.7")), Some((UP, ip("198.18.0.7"))));
    assert_eq!(u.route(ip("203.0.113.7")), Some((UP, ip("198.18.0.254"))));
    assert_eq!(u.route(ip("2001:db8::7")), Some((UP, ip("2001:db8::7"))));
    assert_eq!(u.route(ip("2001:db8:1::7")), Some((UP, ip("fe80::1"))));
    assert_eq!(Underlay::default().route(ip("198.18.0.7")), None);
}

#[test]
fn quick_questions_first_then_one_a_second() {
    let mut u = underlay();
    u.take_frames();
    assert_eq!(u.watch(Instant(0), ip("198.18.0.7")), None);
    assert_eq!(u.take_frames().len(), 1, "asked at once");
    let gaps = run(&mut u, Instant(0), Instant(0) + Span::from_ms(30_000));
    assert_eq!(gaps[..7], [50, 150, 300, 500, 1000, 1000, 1000]);
    u.learned(Instant(0), UP, ip("198.18.0.7"), MAC, true);
    assert!(u.take_changes().contains(&ip("198.18.0.7")));
    let hop = u.hop(ip("198.18.0.7")).unwrap();
    assert_eq!((hop.dst_mac, hop.src_ip, hop.mtu), (MAC, ip("198.18.0.1"), 1600));
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
    assert_eq!(u.lost, 0);
    // Now it falls silent for good.
    run(&mut u, at, at + Span::from_ms(40_000));
    assert_eq!((u.hop(remote), u.lost), (None, 1));
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
    assert!(u.watch(Instant(1), ip("198.18.0.9")).is_some(), "noted in passing, usable at once");
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
    assert_eq!(u.watch(Instant(0), remote).map(|h| h.dst_mac), Some(MAC));
    u.learned(Instant(0), UP, remote, Mac([2, 0, 0, 0, 0, 8]), true);
    assert_eq!(u.hop(remote).map(|h| h.dst_mac), Some(MAC));
    assert_eq!(run(&mut u, Instant(0), Instant(0) + Span::from_ms(100_000)), []);
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
