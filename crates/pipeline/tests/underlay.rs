//! The underlay's own traffic, and the exception port.

use crate::common::*;
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Arp, Ck, Nd, Vxlan};
use godwit_wire::{Mac, peer};
use std::net::{IpAddr, Ipv6Addr};

const HOST: Mac = mac(0xcc00);
const HOST_LL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xcc);

fn neighbor(ip: impl Into<IpAddr>, mac: Mac, solicited: bool) -> Event {
    Event::Neighbor { uplink: UPLINK, ip: ip.into(), mac, solicited }
}

#[test]
fn arp_for_the_locator_is_answered_in_place() {
    let mut lab = Lab::new();
    let asked = frames::padded(frames::arp_request(HOST, NVE_B, LOC4), 60);
    lab.one(UPLINK, &asked);
    let want = frames::padded(frames::arp_reply(UP_MAC, LOC4, HOST, NVE_B), 60);
    assert_eq!(lab.only(), (UPLINK, want.as_slice()));
    assert_eq!(lab.take_events(), [neighbor(NVE_B, HOST, false)]);
    assert_eq!(lab.tables.counters.worker.answered_arp, 1);
    lab.clear();
    lab.one(UPLINK, &asked);
    assert_eq!(lab.take_events(), [], "the same news is not told at once again");
    assert_eq!(lab.to(UPLINK).len(), 1, "but the answer is given");
}

#[test]
fn arp_answers_are_news() {
    let mut lab = Lab::new();
    lab.one(UPLINK, &frames::arp_reply(HOST, NVE_B, UP_MAC, LOC4));
    assert_eq!(lab.take_events(), [neighbor(NVE_B, HOST, true)]);
    assert_eq!(lab.tables.counters.worker.consumed, 1);
    lab.wait(ms(1000));
    // Overheard: a gratuitous one, and a question to somebody else.
    lab.one(UPLINK, &frames::garp(HOST, NVE_B));
    dropped(&mut lab, UPLINK, &frames::arp_request(HOP_MAC, NVE_C, NVE_B), DropReason::NoExceptionPort);
    assert_eq!(lab.take_events(), [neighbor(NVE_B, HOST, false), neighbor(NVE_C, HOP_MAC, false)]);
}

#[test]
fn arp_that_is_not_to_be_believed() {
    let mut lab = Lab::new();
    // Somebody claims our locator; a probe; a sender that is not the Ethernet source.
    let lie = frames::ethernet(
        Mac::BROADCAST,
        HOST,
        0x0806,
        &Arp { sha: HOP_MAC, spa: NVE_B, tpa: LOC4, ..Arp::default() }.packet(),
    );
    for f in [frames::garp(HOST, LOC4), frames::arp_probe(HOST, NVE_B), lie] {
        dropped(&mut lab, UPLINK, &f, DropReason::NoExceptionPort);
    }
    assert_eq!(lab.take_events(), []);
    // A probe for the locator is answered: it is taken.
    lab.one(UPLINK, &frames::arp_probe(HOST, LOC4));
    let want = frames::arp_reply(UP_MAC, LOC4, HOST, std::net::Ipv4Addr::UNSPECIFIED);
    assert_eq!(lab.only(), (UPLINK, want.as_slice()));
}

#[test]
fn solicitations_for_locator_and_link_local_are_answered() {
    for target in [LOC6, LL6] {
        let mut lab = Lab::new();
        lab.one(UPLINK, &Nd::solicit(HOST, HOST_LL, target).frame());
        let want = Nd {
            eth: (UP_MAC, HOST),
            ip: (target, HOST_LL),
            kind: 136,
            flags: 0x60,
            options: frames::mac_option(2, UP_MAC),
            ..Nd::solicit(HOST, HOST_LL, target)
        };
        assert_eq!(lab.only(), (UPLINK, want.frame().as_slice()));
        assert_eq!(lab.take_events(), [neighbor(HOST_LL, HOST, false)]);
        lab.clear();
        // Is it still there? Asked by unicast.
        let nud = Nd { eth: (HOST, UP_MAC), ip: (HOST_LL, target), ..Nd::solicit(HOST, HOST_LL, target) };
        lab.one(UPLINK, &nud.frame());
        assert_eq!(lab.only(), (UPLINK, want.frame().as_slice()));
        lab.clear();
        // Somebody tries to take it.
        lab.one(UPLINK, &Nd::dad(HOST, target).frame());
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let defence = Nd { eth: (UP_MAC, frames::group_mac(all)), ip: (target, all), flags: 0x20, ..want };
        assert_eq!(lab.only(), (UPLINK, defence.frame().as_slice()));
    }
}

#[test]
fn advertisements_are_news() {
    let mut lab = Lab::new();
    let mut na = Nd::announce(HOST, NVE_B6);
    lab.one(UPLINK, &na.frame());
    na.eth.1 = UP_MAC;
    na.ip.1 = LOC6;
    na.flags = 0x60;
    lab.one(UPLINK, &na.frame());
    assert_eq!(lab.take_events(), [neighbor(NVE_B6, HOST, false), neighbor(NVE_B6, HOST, true)]);
    na.hop_limit = 254;
    dropped(&mut lab, UPLINK, &na.frame(), DropReason::NoExceptionPort);
    assert_eq!(lab.take_events(), []);
}

#[test]
fn echo_to_the_locator_is_answered() {
    let mut lab = Lab::new();
    for (own, peer) in [(IpAddr::V4(LOC4), IpAddr::V4(NVE_B)), (LOC6.into(), NVE_B6.into())] {
        let ping = frames::ping((HOST, peer), (UP_MAC, own), 0x0001_0002, b"payload");
        lab.one(UPLINK, &ping);
        let pong = frames::pong((UP_MAC, own), (HOST, peer), 0x0001_0002, b"payload");
        assert_eq!(lab.only(), (UPLINK, pong.as_slice()));
        lab.clear();
        let elsewhere = frames::ping((HOST, peer), (UP_MAC, peer), 1, b"payload");
        dropped(&mut lab, UPLINK, &elsewhere, DropReason::NoExceptionPort);
        let mut wrong = ping.clone();
        *wrong.last_mut().unwrap() ^= 1;
        dropped(&mut lab, UPLINK, &wrong, DropReason::NoExceptionPort);
    }
    assert_eq!(lab.tables.counters.worker.answered_echo, 2);
}

#[test]
fn the_rest_is_the_hosts() {
    let mut lab = Lab::new();
    lab.set_uplink(Some(EXCEPTION));
    let ssh = frames::tcp_frame((HOST, NVE_B.into(), 5), (UP_MAC, LOC4.into(), 22), (1, 2), 0x10, b"");
    let answer = frames::arp_reply(HOST, NVE_B, UP_MAC, LOC4);
    let na = Nd::announce(HOST, NVE_B6).frame();
    lab.input(UPLINK, &[ssh.clone(), answer.clone(), na.clone()]);
    assert_eq!(lab.to(EXCEPTION), [ssh.as_slice(), answer.as_slice(), na.as_slice()]);
    assert_eq!(lab.take_events().len(), 2, "the switch listens too");
    lab.clear();
    // And what the host sends leaves as it is.
    lab.one(EXCEPTION, &ssh);
    assert_eq!(lab.only(), (UPLINK, ssh.as_slice()));
    // Another station's frames are not the host's either.
    let other = frames::udp_frame((HOST, v4(1).into(), 1), (mac(0x55), v4(2).into(), 2), b"x");
    dropped(&mut lab, UPLINK, &other, DropReason::NotOurMac);
    lab.apply(Update::PortRemove { port: EXCEPTION });
    dropped(&mut lab, UPLINK, &ssh, DropReason::PortGone);
}

#[test]
fn an_exception_port_without_its_uplink() {
    let mut lab = Lab::new();
    lab.set_uplink(Some(EXCEPTION));
    lab.apply(Update::PortRemove { port: UPLINK });
    dropped(&mut lab, EXCEPTION, &numbered(HOST, HOP_MAC, 1), DropReason::PortGone);
}

#[test]
fn an_answer_that_fits_nowhere() {
    let mut lab = Lab::new();
    // A checksum that is wrong makes it no solicitation; nothing is answered.
    let bad = Nd { checksum: Ck::Bad, ..Nd::solicit(HOST, HOST_LL, LOC6) };
    dropped(&mut lab, UPLINK, &bad.frame(), DropReason::NoExceptionPort);
    assert_eq!(lab.tables.counters.worker.answered_nd, 0);
}

/// The ICMP error of a router about a packet of ours.
fn router_says(about: &Vxlan, mtu: u32) -> Vec<u8> {
    let quoted =
        &about.frame(&frames::udp_frame((HOST, v4(1).into(), 1), (HOST, v4(2).into(), 2), b"x"))[14..];
    let (src, dst) = match about.ip.0 {
        IpAddr::V4(own) => (NVE_C.into(), IpAddr::V4(own)),
        IpAddr::V6(own) => (IpAddr::V6(HOST_LL), IpAddr::V6(own)),
    };
    let message = match (src, dst) {
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            frames::icmpv6(s, d, 2, 0, &[&mtu.to_be_bytes()[..], quoted].concat(), Ck::Good)
        }
        _ => frames::icmpv4(3, 4, mtu, quoted, Ck::Good),
    };
    let proto = if src.is_ipv4() { 1 } else { 58 };
    frames::ethernet(UP_MAC, HOST, frames::ethertype(src), &frames::ip(src, dst, proto, &message))
}

#[test]
fn r9_a_routers_word_is_passed_on_if_it_quotes_a_packet_of_ours() {
    for (own, remote) in [(IpAddr::from(LOC4), IpAddr::from(NVE_B)), (LOC6.into(), NVE_B6.into())] {
        let mut lab = Lab::new();
        let ours = || Vxlan::new((UP_MAC, HOP_MAC), (own, remote), vni());
        lab.one(UPLINK, &router_says(&ours(), 1400));
        assert_eq!(lab.take_events(), [Event::PathTooBig { local: own, remote, mtu: 1400 }]);
        assert_eq!(lab.tables.counters.worker.path_too_big, 1);
        lab.one(UPLINK, &router_says(&ours(), 1400));
        assert_eq!(lab.take_events(), [], "not so soon again");
        let other_vn = Vxlan { vni: godwit_wire::Vni::from_low24(0x00ab_cdef), ..ours() };
        let other_port = Vxlan { ports: (1, 4790), ..ours() };
        lab.one(UPLINK, &router_says(&other_vn, 1400));
        lab.one(UPLINK, &router_says(&Vxlan { ip: (remote, own), ..ours() }, 1400));
        assert_eq!(lab.tables.counters.worker.path_too_big_unmatched, 2);
        dropped(&mut lab, UPLINK, &router_says(&other_port, 1400), DropReason::NoExceptionPort);
        assert_eq!(lab.take_events(), []);
    }
}

/// A datagram of another NVE, as it comes.
fn datagram(src: IpAddr, dst: IpAddr) -> (peer::Datagram, Vec<u8>) {
    let mut d = [0x77; peer::LEN];
    d[..peer::HEAD_LEN].copy_from_slice(&peer::Head { key: 1, sender: 2, counter: 3 }.emit());
    let mut buf = [0; peer::MAX_FRAME_LEN];
    let n = peer::emit_frame(&mut buf, (HOP_MAC, UP_MAC), (src, dst), &d).unwrap();
    (d, buf[..n].to_vec())
}

#[test]
fn r47_datagrams_of_other_nves_are_controls() {
    for (src, dst) in [(IpAddr::from(NVE_B), IpAddr::from(LOC4)), (NVE_B6.into(), LOC6.into())] {
        let mut lab = Lab::new();
        let (d, frame) = datagram(src, dst);
        lab.one(UPLINK, &frames::padded(frame.clone(), 200));
        assert_eq!(lab.take_events(), [Event::Peer { src, dst, datagram: d }]);
        let w = &lab.tables.counters.worker;
        assert_eq!((w.peer_datagrams, w.consumed), (1, 1));
        // Not ours: another address of the host, another port, a bad checksum.
        let (_, elsewhere) = datagram(src, if dst.is_ipv4() { NVE_C.into() } else { NVE_B6.into() });
        let at = frame.len() - peer::LEN - 8;
        let (mut port, mut sum) = (frame.clone(), frame.clone());
        port[at + 2] ^= 1;
        sum[at + 6] ^= 1;
        for f in [elsewhere, port, sum] {
            dropped(&mut lab, UPLINK, &f, DropReason::NoExceptionPort);
        }
        assert_eq!(lab.take_events(), []);
    }
}

#[test]
fn r47_a_flood_of_datagrams_does_not_fill_controls_queue() {
    let mut lab = Lab::new();
    let (_, frame) = datagram(NVE_B.into(), LOC4.into());
    for _ in 0..1000 {
        lab.one(UPLINK, &frame);
    }
    let let_through = lab.take_events().len() as u64;
    assert!((256..=260).contains(&let_through), "{let_through}");
    assert_eq!(lab.tables.counters.port(UPLINK).drops[DropReason::PeerLimit as usize], 1000 - let_through);
}

/// Hosts beside the switch may be members too: they hear the query as before.
#[test]
fn r60_a_routers_membership_query_is_told_to_control_and_goes_to_the_host() {
    use godwit_wire::membership::Version;
    use godwit_wire::{igmp, mld};
    let (robustness, interval, eth_src) = (2, godwit_wire::Span::from_ms(125_000), HOST);
    let igmp_query = |group: Option<[u8; 4]>, max_response| {
        let mut buf = [0; mld::MAX_FRAME_LEN];
        let (version, group) = (Version::Igmp2, group.map(Into::into));
        let query =
            igmp::QueryFrame { eth_src, src: NVE_B, group, version, max_response, robustness, interval };
        let len = query.emit_frame(&mut buf).unwrap();
        buf[..len].to_vec()
    };
    let mld_query = |max_response| {
        let mut buf = [0; mld::MAX_FRAME_LEN];
        let (version, group) = (Version::Mld2, None);
        let query =
            mld::QueryFrame { eth_src, src: HOST_LL, group, version, max_response, robustness, interval };
        let len = query.emit_frame(&mut buf).unwrap();
        buf[..len].to_vec()
    };
    let told = |group: &str, max_response| Event::GroupQuery {
        uplink: UPLINK,
        group: group.parse().unwrap(),
        max_response,
    };
    for exception in [None, Some(EXCEPTION)] {
        let mut lab = Lab::new();
        lab.set_uplink(exception);
        for (frame, want) in [
            (igmp_query(None, ms(10_000)), told("0.0.0.0", ms(10_000))),
            (igmp_query(Some([239, 1, 1, 1]), ms(1000)), told("239.1.1.1", ms(1000))),
            (mld_query(ms(5000)), told("::", ms(5000))),
        ] {
            lab.one(UPLINK, &frame);
            assert_eq!(lab.take_events(), [want]);
            assert_eq!(lab.to(EXCEPTION), if exception.is_some() { vec![&frame[..]] } else { vec![] });
            lab.clear();
        }
        // A flood of them reaches control now and then.
        for _ in 0..200 {
            lab.one(UPLINK, &igmp_query(None, ms(1000)));
        }
        assert!((1..=20).contains(&lab.take_events().len()));
        lab.clear();
        // A malformed one, a report, and one to a single address are not.
        let mut bad = igmp_query(None, ms(1000));
        let last = bad.len() - 1;
        bad[last] ^= 1;
        let mut single = igmp_query(None, ms(1000));
        single[..6].copy_from_slice(&UP_MAC.0);
        for frame in [bad, frames::igmp_one((HOST, NVE_B), 0x16, [239, 1, 1, 1].into()), single] {
            lab.wait(ms(10_000));
            lab.one(UPLINK, &frame);
            assert_eq!(lab.take_events(), []);
        }
    }
}
