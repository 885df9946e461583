//! Addresses and MACs that wander between VMs (R92), and what stands behind a VM (R94).

use crate::common::*;
use crate::learned::{NONE, ends, goes, ip, refused, room, ruled, seen, spoofed, straight, udp};
use godwit_tables::DropReason;
use godwit_tables::event::{AnnounceKind, Event, Refused};
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Arp, Nd};
use godwit_wire::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The virtual address of both families, and VRRP's MAC (RFC 9568 section 7.3).
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x200);
const VRRP: Mac = Mac([0, 0, 0x5e, 0, 1, 0x33]);

fn shared(text: &str) -> Update {
    Update::PrefixSet { port: P1, prefix: text.parse().unwrap(), kind: PrefixKind::Shared }
}

fn routed(text: &str) -> Update {
    Update::PrefixSet { port: P1, prefix: text.parse().unwrap(), kind: PrefixKind::Routed }
}

/// P1's VM has 10.0.0.1, fd00::1 and fe80::1, and shares the virtual addresses with others.
fn keepalived() -> Lab {
    let mut lab = ruled(NONE, NONE, room(8));
    for ip in [IpAddr::V4(v4(1)), v6(1).into(), ip("fe80::1")] {
        lab.apply(Update::SourceSet { port: P1, ip });
    }
    lab.apply(shared("10.0.0.200"));
    lab.apply(shared("fd00::200/120"));
    lab
}

fn announce(kind: AnnounceKind, mac: Mac, ip: impl Into<IpAddr>) -> Event {
    Event::Announce { port: P1, kind, mac, ip: Some(ip.into()) }
}

/// The announcement of an address by the VM itself, as keepalived sends it: from the address.
fn na(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    Nd { ip: (ip, "ff02::1".parse().unwrap()), ..Nd::announce(mac, ip) }.frame()
}

#[test]
fn r92_a_virtual_address_is_used_once_it_is_announced() {
    let garp = AnnounceKind::GratuitousArp;
    let na_kind = AnnounceKind::NeighborAdvertisement { router: false, overrides: true };
    let word = [(frames::garp(M1, VIP), IpAddr::V4(VIP), garp), (na(M1, VIP6), VIP6.into(), na_kind)];
    for (announcement, vip, kind) in word {
        let mut lab = keepalived();
        let data = udp(M1, vip);
        let told = refused(&mut lab, &data, DropReason::NotAnnounced);
        assert_eq!(told, [spoofed(M1, vip, Refused::NotAnnounced)]);
        assert_eq!(ends(&mut lab, &announcement), [seen(M1, vip, true), announce(kind, M1, vip)]);
        assert_eq!(goes(&mut lab, &data), [], "used at once, and told once");
        straight(&mut lab, &[data.clone(), data.clone()]);
        lab.wait(ms(1000));
        assert_eq!(goes(&mut lab, &data), [seen(M1, vip, false)], "as long as control has not set it");
        lab.apply(Update::SourceSet { port: P1, ip: vip });
        lab.wait(ms(1000));
        assert_eq!(goes(&mut lab, &data), []);
        // Another VM has announced it since: it is nobody's here until it is announced again.
        lab.apply(Update::SourceRemove { port: P1, ip: vip });
        lab.neighbor(vip, M2);
        refused(&mut lab, &data, DropReason::NotAnnounced);
        assert_eq!(ends(&mut lab, &announcement), [seen(M1, vip, true), announce(kind, M1, vip)]);
        assert_eq!(goes(&mut lab, &data), []);
    }
}

#[test]
fn r92_nothing_but_an_announcement_takes_a_virtual_address() {
    let mut lab = keepalived();
    lab.neighbor(v4(4), R4);
    let to_one = Nd { eth: (M1, R4), ip: (v6(1), v6(4)), flags: 0x60, ..Nd::announce(M1, VIP6) };
    for word in [
        frames::arp_request(M1, VIP, v4(4)),
        frames::arp_reply(M1, VIP, R4, v4(4)),
        to_one.frame(),
        Nd::solicit(M1, VIP6, v6(4)).frame(),
    ] {
        refused(&mut lab, &word, DropReason::NotAnnounced);
    }
    lab.one(P1, &frames::arp_probe(M1, VIP));
    refused(&mut lab, &udp(M1, VIP.into()), DropReason::NotAnnounced);
    // Once it is announced, all of these are its own.
    ends(&mut lab, &frames::garp(M1, VIP));
    ends(&mut lab, &na(M1, VIP6));
    assert_eq!(goes(&mut lab, &frames::arp_reply(M1, VIP, R4, v4(4))), []);
    assert_eq!(goes(&mut lab, &to_one.frame()), []);
    lab.one(P1, &frames::arp_request(M1, VIP, v4(4)));
    assert_eq!(lab.only().0, P1, "answered");
}

#[test]
fn r92_an_announcement_that_is_not_allowed_is_refused_with_its_address() {
    let mut lab = ruled(NONE, NONE, NONE);
    lab.apply(Update::SourceSet { port: P1, ip: v4(1).into() });
    let told = refused(&mut lab, &frames::garp(M1, VIP), DropReason::SpoofedSource);
    assert_eq!(told, [spoofed(M1, Some(VIP.into()), Refused::Address)]);
}

#[test]
fn r92_many_virtual_addresses_are_bounded() {
    let mut lab = ruled(NONE, NONE, NONE);
    lab.apply(shared("10.9.0.0/16"));
    for n in 0..100_u8 {
        lab.one(P1, &frames::garp(M1, Ipv4Addr::new(10, 9, 0, n)));
    }
    assert_eq!(lab.drops(DropReason::AddressLimit), 36);
    let seen = lab.take_events().iter().filter(|e| matches!(e, Event::SourceSeen { .. })).count();
    assert_eq!(seen, 64);
}

#[test]
fn r92_a_virtual_mac_speaks_and_control_hears_of_it() {
    let mut lab = keepalived();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    refused(&mut lab, &udp(VRRP, v4(1).into()), DropReason::SpoofedSource);
    lab.apply(Update::MacSet { port: P1, mac: VRRP, shared: true });
    // Its entry leads elsewhere, or nowhere: the frame passes, and control is told once a second.
    for state in [None, Some(VmState::Remote { to: through(T6) }), Some(VmState::Local { port: P2 })] {
        if let Some(state) = state {
            lab.vm(VRRP, state);
        }
        lab.wait(ms(1000));
        assert_eq!(goes(&mut lab, &udp(VRRP, v4(1).into())), [seen(VRRP, None, false)]);
        assert_eq!(goes(&mut lab, &udp(VRRP, v4(1).into())), []);
        straight(&mut lab, &[udp(VRRP, v4(1).into()), udp(VRRP, v6(1).into())]);
    }
    lab.vm(VRRP, VmState::Local { port: P1 });
    lab.wait(ms(1000));
    assert_eq!(goes(&mut lab, &udp(VRRP, v4(1).into())), [], "it is here");
    // VRRP's advertisements go to everybody, of both families.
    let vrrp = [
        (0x12, 0x0800, frames::V4::new(v4(1), Ipv4Addr::new(224, 0, 0, 18), 112).packet(&[0x31; 8])),
        (0x12, 0x86dd, {
            let group = "ff02::12".parse().unwrap();
            frames::V6::new("fe80::1".parse().unwrap(), group, 112).packet(&[0x31; 8])
        }),
    ];
    for (last, ethertype, packet) in vrrp {
        let group = if ethertype == 0x0800 {
            Mac([1, 0, 0x5e, 0, 0, last])
        } else {
            Mac([0x33, 0x33, 0, 0, 0, last])
        };
        let f = frames::ethernet(group, VRRP, ethertype, &packet);
        lab.one(P1, &f);
        assert_eq!((lab.to(P2), lab.to(UPLINK).len()), (vec![&f[..]], 1));
        lab.clear();
    }
    // What it announces is told with its MAC, and nobody else sees it.
    let told = ends(&mut lab, &frames::garp(VRRP, VIP));
    assert_eq!(told, [seen(VRRP, Some(VIP.into()), true), announce(AnnounceKind::GratuitousArp, VRRP, VIP)]);
    assert_eq!(goes(&mut lab, &udp(VRRP, VIP.into())), []);
    // Other ports may not.
    dropped(&mut lab, P2, &udp(VRRP, v4(2).into()), DropReason::SpoofedSource);
    lab.apply(Update::MacRemove { port: P1, mac: VRRP });
    lab.apply(Update::VmRemove { key: key(VRRP) });
    refused(&mut lab, &udp(VRRP, v4(1).into()), DropReason::SpoofedSource);
}

#[test]
fn r92_neighbors_reach_a_virtual_address_where_its_mac_is() {
    let mut lab = keepalived();
    lab.apply(Update::MacSet { port: P1, mac: VRRP, shared: true });
    lab.apply(Update::SourceSet { port: P1, ip: VIP.into() });
    lab.vm(VRRP, VmState::Local { port: P1 });
    lab.neighbor(VIP, VRRP);
    lab.neighbor(v4(2), M2);
    lab.one(P2, &frames::arp_request(M2, v4(2), VIP));
    assert_eq!(lab.only(), (P2, &frames::arp_reply(VRRP, VIP, M2, v4(2))[..]));
    lab.clear();
    lab.one(P2, &frames::udp_frame((M2, v4(2).into(), 1), (VRRP, VIP.into(), 2), b"x"));
    assert_eq!(lab.only().0, P1);
    lab.clear();
    // It asks and answers itself, with that MAC.
    lab.one(P1, &frames::arp_request(VRRP, VIP, v4(2)));
    assert_eq!(lab.only(), (P1, &frames::arp_reply(M2, v4(2), VRRP, VIP)[..]));
    lab.clear();
    for f in [frames::arp_reply(VRRP, VIP, M2, v4(2)), frames::arp_reply(VRRP, v4(1), M2, v4(2))] {
        lab.one(P1, &f);
        assert_eq!(lab.only(), (P2, &f[..]));
        lab.clear();
    }
    assert_eq!(lab.take_events(), []);
}

#[test]
fn r94_a_router_forwards_from_everywhere_but_for_others_of_its_vn() {
    let mut lab = ruled(NONE, NONE, room(8));
    for ip in [IpAddr::V4(v4(254)), v6(254).into()] {
        lab.apply(Update::SourceSet { port: P1, ip });
    }
    let (far, far6) = (ip("203.0.113.7"), ip("2001:db8::7"));
    refused(&mut lab, &udp(M1, far), DropReason::SpoofedSource);
    lab.apply(Update::ServerSet { port: P1, server: true });
    for far in [far, far6] {
        assert_eq!(goes(&mut lab, &udp(M1, far)), [], "and nothing is learned of it");
    }
    straight(&mut lab, &[udp(M1, far), udp(M1, far6), udp(M1, ip("192.0.2.1"))]);
    lab.neighbor(v4(2), M2);
    let told = refused(&mut lab, &udp(M1, v4(2).into()), DropReason::SpoofedSource);
    assert_eq!(told, [spoofed(M1, Some(v4(2).into()), Refused::Taken)]);
    for bad in ["224.0.0.1", "127.0.0.1", "ff02::1"] {
        refused(&mut lab, &udp(M1, ip(bad)), DropReason::SpoofedSource);
    }
    // Its ARP and ND stay bound.
    let (foreign, foreign6) = (Ipv4Addr::new(203, 0, 113, 7), "2001:db8::7".parse().unwrap());
    let of_others = Nd { eth: (M1, R4), ip: (v6(254), v6(4)), flags: 0x60, ..Nd::announce(M1, foreign6) };
    for lie in [
        frames::garp(M1, foreign),
        frames::arp_request(M1, foreign, v4(4)),
        frames::arp_reply(M1, foreign, R4, v4(4)),
        Nd::announce(M1, foreign6).frame(),
        Nd::solicit(M1, foreign6, v6(4)).frame(),
        of_others.frame(),
    ] {
        refused(&mut lab, &lie, DropReason::SpoofedSource);
    }
}

#[test]
fn r93_r94_a_router_learns_by_its_own_word_only() {
    let mut lab = ruled(room(8), room(8), room(8));
    lab.apply(Update::ServerSet { port: P1, server: true });
    for n in 1..100 {
        assert_eq!(goes(&mut lab, &udp(M1, IpAddr::from([203, 0, 113, n]))), []);
    }
    assert_eq!(ends(&mut lab, &frames::garp(M1, v4(254)))[0], seen(M1, Some(v4(254).into()), true));
}

#[test]
fn r92_who_lost_a_race_for_a_virtual_address_may_announce_it_again_at_once() {
    let mut lab = keepalived();
    let announcement = frames::garp(M1, VIP);
    let told = [seen(M1, IpAddr::V4(VIP), true), announce(AnnounceKind::GratuitousArp, M1, VIP)];
    assert_eq!(ends(&mut lab, &announcement), told);
    // The directory gave it to another VM, which dies.
    lab.apply(Update::SourceRemove { port: P1, ip: VIP.into() });
    refused(&mut lab, &udp(M1, VIP.into()), DropReason::NotAnnounced);
    lab.wait(ms(1000));
    assert_eq!(ends(&mut lab, &announcement), told);
    assert_eq!(goes(&mut lab, &udp(M1, VIP.into())), []);
}

#[test]
fn r94_a_routed_prefix_is_the_vms_in_data_and_answers_and_not_to_announce() {
    let mut lab = ruled(NONE, NONE, room(8));
    lab.apply(Update::SourceSet { port: P1, ip: v4(1).into() });
    for p in ["10.244.7.0/24", "fd00:7::/64"] {
        lab.apply(routed(p));
    }
    let pods = [ip("10.244.7.5"), ip("10.244.7.200"), ip("fd00:7::5")];
    for pod in pods {
        assert_eq!(goes(&mut lab, &udp(M1, pod)), []);
    }
    straight(&mut lab, &pods.map(|pod| udp(M1, pod)));
    for other in ["10.244.8.5", "fd00:8::5"] {
        refused(&mut lab, &udp(M1, ip(other)), DropReason::SpoofedSource);
    }
    refused(&mut lab, &frames::garp(M1, Ipv4Addr::new(10, 244, 7, 5)), DropReason::SpoofedSource);
    // A node asks from an address of its pods' bridge; where it may learn, that takes no room and is not told.
    for v4_rule in [room(8), NONE] {
        let rules = SourceRules { v4: v4_rule, v6: NONE, link_local: room(8) };
        lab.apply(Update::SourceRulesSet { port: P1, rules });
        lab.one(P1, &frames::arp_request(M1, Ipv4Addr::new(10, 244, 7, 1), v4(2)));
        assert!(
            !lab.take_events().iter().any(|e| matches!(e, Event::SourceSeen { .. } | Event::Spoofed { .. }))
        );
    }
    lab.apply(Update::PrefixRemove {
        port: P1,
        prefix: "10.244.7.0/24".parse().unwrap(),
        kind: PrefixKind::Routed,
    });
    refused(&mut lab, &udp(M1, pods[0]), DropReason::SpoofedSource);
    assert_eq!(goes(&mut lab, &udp(M1, pods[2])), []);
}

/// A bridge with three VMs within P1's.
fn bridge() -> (Lab, [Mac; 3]) {
    let nested = [mac(0x51), mac(0x52), mac(0x53)];
    let mut lab = ruled(NONE, NONE, room(8));
    lab.apply(Update::SourceSet { port: P1, ip: v4(1).into() });
    for (mac, n) in nested.into_iter().zip(51..) {
        lab.apply(Update::MacSet { port: P1, mac, shared: false });
        lab.apply(Update::SourceSet { port: P1, ip: v4(n).into() });
        lab.vm(mac, VmState::Local { port: P1 });
        lab.neighbor(v4(n), mac);
    }
    (lab, nested)
}

#[test]
fn r94_nested_vms_speak_and_are_reached_as_their_parent() {
    let (mut lab, nested) = bridge();
    for (mac, n) in nested.into_iter().zip(51..) {
        assert_eq!(goes(&mut lab, &udp(mac, v4(n).into())), []);
        lab.one(P2, &numbered(M2, mac, 1));
        assert_eq!(lab.only().0, P1);
        lab.clear();
        // Their questions are answered to them, and those for them with their MAC.
        lab.neighbor(v4(4), R4);
        lab.one(P1, &frames::arp_request(mac, v4(n), v4(4)));
        assert_eq!(lab.only(), (P1, &frames::arp_reply(R4, v4(4), mac, v4(n))[..]));
        lab.clear();
        lab.one(P2, &frames::arp_request(M2, v4(2), v4(n)));
        assert_eq!(lab.only(), (P2, &frames::arp_reply(mac, v4(n), M2, v4(2))[..]));
        lab.clear();
        let word = announce(AnnounceKind::GratuitousArp, mac, v4(n));
        assert_eq!(ends(&mut lab, &frames::garp(mac, v4(n))), [word]);
        // Each has link-local addresses of its own.
        assert_eq!(goes(&mut lab, &udp(mac, ip(&format!("fe80::{n}")))).len(), 1);
    }
    let frames: Vec<_> = nested.into_iter().zip(51..).map(|(mac, n)| udp(mac, v4(n).into())).collect();
    straight(&mut lab, &frames);
    // What is none of its own is not theirs either.
    refused(&mut lab, &udp(nested[0], v4(99).into()), DropReason::SpoofedSource);
    let lie = Arp { sha: nested[1], spa: v4(51), tpa: v4(4), ..Arp::default() };
    let lie = frames::ethernet(Mac::BROADCAST, nested[0], 0x0806, &lie.packet());
    refused(&mut lab, &lie, DropReason::SpoofedSource);
    dropped(&mut lab, P2, &udp(nested[0], v4(51).into()), DropReason::SpoofedSource);
}

#[test]
fn r94_a_nested_vm_shows_that_its_parent_is_alive() {
    let (mut lab, nested) = bridge();
    lab.access(P1, VN, M1, Admission::Associated);
    lab.one(P1, &udp(nested[0], v4(51).into()));
    let first = Event::Announce { port: P1, kind: AnnounceKind::FirstFrame, mac: nested[0], ip: None };
    assert_eq!(lab.take_events(), [first]);
    lab.access(P1, VN, M1, Admission::Activated);
    lab.tick();
    assert_eq!(lab.to(UPLINK).len(), 1);
    lab.clear();
    // Held and forwarded as its parent is.
    lab.vm(nested[0], VmState::Paused { hold: limits(8, 1000) });
    lab.one(P2, &numbered(M2, nested[0], 1));
    assert_eq!(lab.tables.waiting(), 1);
    lab.vm(nested[0], VmState::Remote { to: through(T4) });
    lab.settle();
    assert_eq!(lab.to(UPLINK).len(), 1);
}

#[test]
fn r94_without_rules_a_nested_vm_has_what_nobody_else_is_known_to_have() {
    let mut lab = Lab::new();
    let nested = mac(0x51);
    lab.apply(Update::MacSet { port: P1, mac: nested, shared: false });
    lab.vm(nested, VmState::Local { port: P1 });
    assert_eq!(goes(&mut lab, &udp(nested, v4(51).into())), []);
    straight(&mut lab, &[udp(nested, v4(51).into()), udp(M1, v4(1).into())]);
    lab.neighbor(v4(2), M2);
    let told = refused(&mut lab, &udp(nested, v4(2).into()), DropReason::SpoofedSource);
    assert_eq!(told, [spoofed(nested, Some(v4(2).into()), Refused::Taken)]);
}
