//! What the gateway answers by itself, what control answers for it, and what VMs may not say in its name (R58).

use crate::common::resolution::*;
use crate::common::routing::*;
use crate::common::*;
use godwit_pipeline::mem::{MemPacket, MemPool};
use godwit_pipeline::packet::Asks;
use godwit_tables::DropReason;
use godwit_tables::event::{AnnounceKind, Event, Refused};
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Arp, Ck, Nd, V4, V6};
use godwit_wire::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn advert(to: Mac, ip: Ipv6Addr, target: Ipv6Addr, flags: u8) -> Vec<u8> {
    Nd { eth: (GW, to), ip: (target, ip), flags, ..Nd::announce(GW, target) }.frame()
}

#[test]
fn r28_r29_requests_for_the_gateway_are_answered_and_it_is_a_router() {
    for only in [false, true] {
        let mut lab = Lab::routed(only);
        lab.one(P1, &frames::arp_request(M1, v4(1), v4(254)));
        assert_eq!(lab.only(), (P1, frames::arp_reply(GW, v4(254), M1, v4(1)).as_slice()));
        lab.clear();
        for target in [v6(0xfe), GW.link_local()] {
            lab.one(P1, &Nd::solicit(M1, v6(1), target).frame());
            assert_eq!(lab.only(), (P1, advert(M1, v6(1), target, 0xe0).as_slice()));
            lab.clear();
            // Whatever options it has, nobody else can answer.
            let mut send = Nd::solicit(M1, v6(1), target);
            send.options.extend([11, 1, 0, 0, 0, 0, 0, 0]);
            lab.one(P1, &send.frame());
            assert_eq!(lab.only(), (P1, advert(M1, v6(1), target, 0xe0).as_slice()));
            lab.clear();
        }
        assert_eq!(lab.take_events(), []);
    }
}

/// The neighbor's entry of the gateway is confirmed by asking the gateway itself.
#[test]
fn r28_r29_requests_to_the_gateway_alone_are_answered() {
    for only in [false, true] {
        let mut lab = Lab::routed(only);
        let ask =
            |tpa| arp_frame(GW, M1, 0x0806, Arp { sha: M1, spa: v4(1), tha: GW, tpa, ..Arp::default() });
        lab.one(P1, &ask(v4(254)));
        assert_eq!(lab.only(), (P1, frames::arp_reply(GW, v4(254), M1, v4(1)).as_slice()));
        lab.clear();
        for target in [v6(0xfe), GW.link_local()] {
            let nud = Nd { eth: (M1, GW), ip: (v6(1), target), ..Nd::solicit(M1, v6(1), target) };
            lab.one(P1, &nud.frame());
            assert_eq!(lab.only(), (P1, advert(M1, v6(1), target, 0xe0).as_slice()));
            lab.clear();
            let bad = Nd { checksum: Ck::Bad, ..nud }.frame();
            dropped(&mut lab, P1, &bad, DropReason::NdMalformed);
        }
        // Answers to it end here.
        lab.one(P1, &frames::arp_reply(M1, v4(1), GW, v4(254)));
        let na = Nd { eth: (M1, GW), ip: (v6(1), v6(0xfe)), flags: 0x60, ..Nd::announce(M1, v6(1)) };
        lab.one(P1, &na.frame());
        assert_eq!((lab.tables.counters.worker.consumed, lab.out.sent.len()), (2, 0));
        if !only {
            dropped(&mut lab, P1, &ask(v4(77)), DropReason::UnknownTarget);
        }
    }
}

#[test]
fn r58_where_vms_are_not_bridged_each_address_is_at_the_gateway() {
    let mut lab = Lab::routed(true);
    // Of a neighbor, of a VM in another subnet, of nobody.
    for target in [v4(2), far4(4), v4(99)] {
        lab.one(P1, &frames::arp_request(M1, v4(1), target));
        assert_eq!(lab.only(), (P1, frames::arp_reply(GW, target, M1, v4(1)).as_slice()));
        lab.clear();
        let to_one = Arp { sha: M1, spa: v4(1), tha: M2, tpa: target, ..Arp::default() };
        lab.one(P1, &arp_frame(M2, M1, 0x0806, to_one));
        assert_eq!(lab.only(), (P1, frames::arp_reply(GW, target, M1, v4(1)).as_slice()));
        lab.clear();
    }
    for target in [v6(2), far6(4), v6(99)] {
        lab.one(P1, &Nd::solicit(M1, v6(1), target).frame());
        assert_eq!(lab.only(), (P1, advert(M1, v6(1), target, 0x60).as_slice()), "no router");
        lab.clear();
    }
    assert_eq!(lab.take_events(), [], "nobody is asked");
    // Its own address nobody else has.
    dropped(&mut lab, P1, &frames::arp_request(M1, v4(9), v4(1)), DropReason::OwnAddress);
    dropped(&mut lab, P1, &Nd::solicit(M1, v6(9), v6(1)).frame(), DropReason::OwnAddress);
    // Announcements are announcements.
    lab.one(P1, &frames::garp(M1, v4(1)));
    assert_eq!(lab.take_events(), [announce(AnnounceKind::GratuitousArp, Some(v4(1).into()))]);
    dropped(&mut lab, P1, &arp_frame(Mac::BROADCAST, M1, 0x0806, reply()), DropReason::NotBridged);
}

fn reply() -> Arp {
    Arp { op: 2, sha: M1, spa: v4(1), tha: M2, tpa: v4(2), ..Arp::default() }
}

#[test]
fn r30_who_probes_hears_of_others_and_of_the_gateway_only() {
    for only in [false, true] {
        let mut lab = Lab::routed(only);
        dropped(&mut lab, P1, &frames::arp_probe(M1, v4(1)), DropReason::OwnAddress);
        dropped(&mut lab, P1, &Nd::dad(M1, v6(1)).frame(), DropReason::OwnAddress);
        let owner = if only { GW } else { M2 };
        for (target, owner) in [(v4(2), owner), (v4(254), GW)] {
            lab.one(P1, &frames::arp_probe(M1, target));
            let want = frames::arp_reply(owner, target, M1, Ipv4Addr::UNSPECIFIED);
            assert_eq!(lab.only(), (P1, want.as_slice()));
            lab.clear();
        }
        let until = lab.now + ms(1000);
        lab.apply(Update::NeighborAbsent { vn: VN, ip: v4(99).into(), until });
        dropped(&mut lab, P1, &frames::arp_probe(M1, v4(99)), DropReason::UnknownTarget);
        // What nobody here knows, the directory is asked.
        lab.one(P1, &Nd::dad(M1, v6(98)).frame());
        assert_eq!(lab.take_events(), [Event::MissIp { vn: VN, ip: v6(98).into(), port: P1 }]);
    }
}

#[test]
fn r58_no_vm_speaks_as_the_gateway() {
    for bound in [false, true] {
        for ip in [gw(false), gw(true), IpAddr::from(GW.link_local())] {
            let mut lab = Lab::routed(false);
            if bound {
                let rule = SourceRule::Listed { room: 4 };
                let rules = SourceRules { v4: rule, v6: rule, link_local: rule };
                lab.apply(Update::SourceRulesSet { port: P1, rules });
                lab.apply(Update::ServerSet { port: P1, server: true });
            }
            let refused = |mac, ip| [Event::Spoofed { port: P1, mac, ip, why: Refused::Taken }];
            let data = packet((M1, M2), (ip, near(ip.is_ipv6(), 2)), 64, b"x");
            dropped(&mut lab, P1, &data, DropReason::SpoofedSource);
            assert_eq!(lab.take_events(), refused(M1, Some(ip)));
            let claim = match ip {
                IpAddr::V4(a) => frames::garp(M1, a),
                IpAddr::V6(a) => Nd::announce(M1, a).frame(),
            };
            dropped(&mut lab, P1, &claim, DropReason::SpoofedSource);
            let own = packet((GW, M2), (near(ip.is_ipv6(), 1), near(ip.is_ipv6(), 2)), 64, b"x");
            dropped(&mut lab, P1, &own, DropReason::SpoofedSource);
            // Everybody else does.
            let good = packet((M1, M2), (near(ip.is_ipv6(), 1), near(ip.is_ipv6(), 2)), 64, b"x");
            lab.one(P1, &good);
            assert_eq!(lab.only().0, P2);
        }
    }
    // Not even as a MAC that control lets the VM speak from.
    let mut lab = Lab::routed(false);
    lab.apply(Update::MacSet { port: P1, mac: GW, shared: true });
    let own = packet((GW, M2), (v4(1).into(), v4(2).into()), 64, b"x");
    dropped(&mut lab, P1, &own, DropReason::SpoofedSource);
}

#[test]
fn r58_echo_is_answered_from_the_address_that_was_asked() {
    for six in [false, true] {
        let mut lab = Lab::routed(false);
        let own = near(six, 1);
        for (len, gateway) in (0..1473).step_by(37).flat_map(|n| [(n, gw(six)), (n, far_gw(six))]) {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            lab.one(P1, &frames::ping((M1, own), (GW, gateway), 7 << 16 | 1, &data));
            let want = frames::pong((GW, gateway), (M1, own), 7 << 16 | 1, &data);
            assert_eq!(lab.only(), (P1, want.as_slice()));
            lab.clear();
        }
        assert!(lab.tables.counters.worker.answered_echo > 50);
    }
    // A VM that has no other address yet.
    let mut lab = Lab::routed(false);
    let near: IpAddr = M1.link_local().into();
    for gateway in [gw(true), GW.link_local().into()] {
        lab.one(P1, &frames::ping((M1, near), (GW, gateway), 1, b"x"));
        assert_eq!(lab.only().1, frames::pong((GW, gateway), (M1, near), 1, b"x"));
        lab.clear();
    }
}

/// Jumbo frames, and a TTL of 1, with which a packet gets as far as the gateway.
#[test]
fn r58_echo_of_every_length_and_with_the_last_hop() {
    for six in [false, true] {
        let mut lab = Lab::routed(true);
        lab.one(P1, &frames::ping((M1, near(six, 1)), (STRANGER, gw(six)), 9, &[5; 8900]));
        assert_eq!(lab.only().1, frames::pong((STRANGER, gw(six)), (M1, near(six, 1)), 9, &[5; 8900]));
        lab.clear();
        let mut last = frames::ping((M1, near(six, 1)), (GW, gw(six)), 9, b"x");
        if six {
            last[21] = 1;
        } else {
            let v4 = V4 { ttl: 1, ..V4::new(v4(1), v4(254), 1) };
            last = frames::ethernet(GW, M1, 0x0800, &v4.packet(&last[34..]));
        }
        lab.one(P1, &last);
        assert_eq!(lab.only().1, frames::pong((GW, gw(six)), (M1, near(six, 1)), 9, b"x"));
    }
}

#[test]
fn r58_the_gateway_refuses_all_else() {
    for six in [false, true] {
        let mut lab = Lab::routed(false);
        let ips = (near(six, 1), gw(six));
        let frame = |proto, message: &[u8]| {
            frames::ethernet(GW, M1, frames::ethertype(ips.0), &ip_packet(ips, proto, 64, message))
        };
        let udp = packet((M1, GW), ips, 64, b"anybody?");
        lab.one(P1, &udp);
        assert_eq!(lab.only(), (P1, told(gw(six), (3, 3), (1, 4), 0, &udp).as_slice()));
        lab.clear();
        let tcp = frame(6, &frames::tcp(ips.0, ips.1, (1, 179), (1, 0), 2, b"", Ck::Good));
        lab.one(P1, &tcp);
        let pointer = if six { 6 } else { 0 };
        assert_eq!(lab.only(), (P1, told(gw(six), (3, 2), (4, 1), pointer, &tcp).as_slice()));
        lab.clear();
        // From the address that was asked, of whichever subnet.
        let far = packet((M1, GW), (ips.0, far_gw(six)), 64, b"anybody?");
        lab.one(P1, &far);
        assert_eq!(lab.only(), (P1, told(far_gw(six), (3, 3), (1, 4), 0, &far).as_slice()));
        lab.clear();
        assert_eq!(lab.drops(DropReason::GatewayRefused), 3);
        let mut bad = frames::ping((M1, ips.0), (GW, ips.1), 1, b"xyz");
        *bad.last_mut().unwrap() ^= 1;
        dropped(&mut lab, P1, &bad, DropReason::GatewayRefused);
        let pong = frames::pong((M1, ips.0), (GW, ips.1), 1, b"xyz");
        dropped(&mut lab, P1, &pong, DropReason::GatewayRefused);
    }
    let mut lab = Lab::routed(false);
    for frag in [0x2000, 3] {
        let piece =
            V4 { frag, ..V4::new(v4(1), v4(254), 1) }.packet(&frames::icmpv4(8, 0, 1, &[0; 32], Ck::Good));
        dropped(&mut lab, P1, &frames::ethernet(GW, M1, 0x0800, &piece), DropReason::GatewayRefused);
    }
    let extensions = vec![6, 0, 1, 4, 0, 0, 0, 0];
    let behind = V6 { next: 60, extensions, ..V6::new(v6(1), v6(0xfe), 60) }.packet(&[0; 20]);
    let behind = frames::ethernet(GW, M1, 0x86dd, &behind);
    lab.one(P1, &behind);
    assert_eq!(
        lab.only().1,
        told(gw(true), (3, 2), (4, 1), 40, &behind),
        "points at the field that names it"
    );
}

fn dhcp(six: bool, to: (Mac, IpAddr)) -> Vec<u8> {
    match six {
        false => frames::udp_frame((M1, Ipv4Addr::UNSPECIFIED.into(), 68), (to.0, to.1, 67), &[1; 300]),
        true => frames::udp_frame((M1, M1.link_local().into(), 546), (to.0, to.1, 547), &[1; 60]),
    }
}

const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

fn router_solicitation() -> Vec<u8> {
    let all = frames::group_mac(ALL_ROUTERS);
    // No target: eight bytes, and the source's address.
    let body = [&[0; 4][..], &frames::mac_option(1, M1)].concat();
    let message = frames::icmpv6(M1.link_local(), ALL_ROUTERS, 133, 0, &body, Ck::Good);
    let ip = V6 { hop_limit: 255, ..V6::new(M1.link_local(), ALL_ROUTERS, 58) };
    frames::ethernet(all, M1, 0x86dd, &ip.packet(&message))
}

/// What a VM asks its router and the DHCP server.
fn questions() -> [Vec<u8>; 3] {
    let servers = (frames::group_mac(ALL_SERVERS), ALL_SERVERS.into());
    [dhcp(false, (Mac::BROADCAST, Ipv4Addr::BROADCAST.into())), dhcp(true, servers), router_solicitation()]
}

fn serving() -> VnRouting {
    VnRouting { dhcp_v4: true, dhcp_v6: true, advertise: true, ..VnRouting::new(DOMAIN, GW, false) }
}

#[test]
fn r58_control_is_shown_what_it_answers_and_nobody_else_is() {
    for only in [false, true] {
        let mut lab = Lab::routed(only);
        lab.part_of(VN, VnRouting { routed_only: only, ..serving() });
        lab.apply(Update::ServerSet { port: P2, server: true });
        for question in questions() {
            lab.one(P1, &question);
            assert_eq!(lab.out.punted, [(P1, question)]);
            assert!(lab.out.sent.is_empty());
            lab.clear();
        }
        // To the gateway alone: to keep an address.
        for six in [false, true] {
            let renewal = match six {
                false => frames::udp_frame((M1, near(six, 1), 68), (GW, gw(six), 67), &[1; 300]),
                true => frames::udp_frame((M1, near(six, 1), 546), (GW, gw(six), 547), &[1; 60]),
            };
            lab.one(P1, &renewal);
            assert_eq!(lab.out.punted, [(P1, renewal)]);
            lab.clear();
        }
        assert_eq!((lab.tables.counters.worker.punted, lab.tables.counters.worker.consumed), (5, 5));
    }
}

#[test]
fn r58_where_control_does_not_answer_it_is_shown_nothing() {
    let mut lab = Lab::routed(false);
    lab.apply(Update::ServerSet { port: P2, server: true });
    for question in questions() {
        lab.one(P1, &question);
        assert_eq!(lab.only(), (P2, question.as_slice()), "copied to everybody who is to hear it");
        lab.clear();
    }
    let renewal = frames::udp_frame((M1, v4(1).into(), 68), (GW, gw(false), 67), &[1; 300]);
    lab.one(P1, &renewal);
    assert_eq!(lab.only().1[34..36], [3, 3], "port unreachable");
    lab.clear();
    // Another server's, in another subnet.
    lab.part_of(VN, serving());
    let to = packet((M1, GW), (v4(1).into(), far4(1).into()), 64, b"x");
    let relayed = frames::udp_frame((M1, v4(1).into(), 68), (GW, far4(1).into(), 67), b"x");
    lab.input(P1, &[to, relayed]);
    assert_eq!((lab.to(P3).len(), lab.out.punted.len()), (2, 0));
    let mut lab = Lab::routed(true);
    for question in questions() {
        dropped(&mut lab, P1, &question, DropReason::NotBridged);
    }
}

#[test]
fn r67_what_control_is_shown_is_bounded() {
    let mut lab = Lab::routed(false);
    lab.part_of(VN, serving());
    let [discover, ..] = questions();
    for _ in 0..40 {
        lab.one(P1, &discover);
    }
    assert_eq!((lab.out.punted.len(), lab.drops(DropReason::PuntLimit)), (32, 8));
    lab.wait(ms(1000));
    lab.out.punt_room = 0;
    dropped(&mut lab, P1, &discover, DropReason::PuntFull);
    // Longer than what control takes.
    lab.out.punt_room = usize::MAX;
    let long = frames::udp_frame(
        (M1, Ipv4Addr::UNSPECIFIED.into(), 68),
        (Mac::BROADCAST, Ipv4Addr::BROADCAST.into(), 67),
        &[1; 2000],
    );
    dropped(&mut lab, P1, &long, DropReason::PuntFull);
}

/// A guest of virtio leaves the checksum out.
#[test]
fn r11_r58_control_is_shown_frames_in_one_piece_and_complete() {
    let mut lab = Lab::routed(false);
    lab.part_of(VN, serving());
    let [discover, ..] = questions();
    let mut unfinished = discover.clone();
    unfinished[40..42].copy_from_slice(&[0xab, 0xcd]);
    let asks = Asks { checksum: true, segment: 0 };
    lab.input_packets(P1, vec![MemPacket::new(&unfinished).in_pieces(200).asking(asks)]);
    assert_eq!(lab.out.punted, [(P1, discover)]);
}

#[test]
fn r58_without_a_buffer_nobody_is_told_and_nothing_is_lost_count_of() {
    let mut lab = Lab::routed(false);
    lab.pull();
    lab.one(P1, &packet((M1, GW), (v4(1).into(), far4(50).into()), 64, b"waits"));
    lab.pool = MemPool::of(0);
    lab.forget_buffers(0);
    let frame = |n: u8, ttl| packet((M1, GW), (v4(1).into(), far4(n).into()), ttl, &[1; 3000]);
    dropped(&mut lab, P1, &frame(1, 1), DropReason::TtlExceeded);
    let before = lab.drops(DropReason::NoBuffer);
    lab.one(P1, &frame(4, 64));
    assert_eq!(lab.drops(DropReason::NoBuffer) - before, 2, "two fragments");
    lab.own_route(far(false, 50), Key::new(OTHER_VN, M1));
    lab.tick();
    assert_eq!(lab.tables.waiting(), 1, "it is safest where it is");
    lab.pool = MemPool::endless();
    lab.tick();
    assert_eq!(lab.to(P3).len(), 1);
}
