//! Addresses that a VM has, and those that it binds by its own word (R65, R93).

use crate::common::*;
use godwit_pipeline::Output;
use godwit_pipeline::mem::{MemPacket, MemPool};
use godwit_pipeline::trace::{Ending, trace};
use godwit_tables::DropReason;
use godwit_tables::event::{AnnounceKind, Event, Refused};
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Nd};
use godwit_wire::Mac;
use std::net::IpAddr;

pub const NONE: SourceRule = SourceRule::Listed { room: 0 };

pub const fn room(room: u8) -> SourceRule {
    SourceRule::Listed { room }
}

/// Rules of P1: IPv4, IPv6, link-local.
pub fn ruled(v4: SourceRule, v6: SourceRule, link_local: SourceRule) -> Lab {
    let mut lab = Lab::new();
    lab.apply(Update::SourceRulesSet { port: P1, rules: SourceRules { v4, v6, link_local } });
    lab
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn udp(mac: Mac, from: IpAddr) -> Vec<u8> {
    let to = if from.is_ipv4() { v4(99).into() } else { v6(99).into() };
    frames::udp_frame((mac, from, 1000), (R4, to, 2000), b"hello")
}

pub fn seen(mac: Mac, ip: impl Into<Option<IpAddr>>, announced: bool) -> Event {
    Event::SourceSeen { port: P1, mac, ip: ip.into(), announced }
}

pub fn spoofed(mac: Mac, ip: impl Into<Option<IpAddr>>, why: Refused) -> Event {
    Event::Spoofed { port: P1, mac, ip: ip.into(), why }
}

/// The frame goes through the tunnel, as its trace says; what control is told of it.
#[track_caller]
pub fn goes(lab: &mut Lab, frame: &[u8]) -> Vec<Event> {
    let told = trace(&lab.tables, P1, frame, lab.now).verdict();
    assert!(matches!(told, Ending::Encapsulated { .. }), "{told}");
    lab.one(P1, frame);
    assert_eq!((lab.only().0, open(lab.only().1).1), (UPLINK, frame));
    let told = lab.take_events();
    lab.clear();
    told
}

/// The frame is dropped, as its trace says; what control is told of it a second later.
#[track_caller]
pub fn refused(lab: &mut Lab, frame: &[u8], reason: DropReason) -> Vec<Event> {
    lab.wait(ms(1000));
    assert_eq!(trace(&lab.tables, P1, frame, lab.now).verdict(), Ending::Drop(reason));
    dropped(lab, P1, frame, reason);
    lab.take_events()
}

/// The frame ends here; what control is told of it.
#[track_caller]
pub fn ends(lab: &mut Lab, frame: &[u8]) -> Vec<Event> {
    let before = lab.tables.counters.worker.consumed;
    assert_eq!(trace(&lab.tables, P1, frame, lab.now).verdict(), Ending::Consumed);
    lab.one(P1, frame);
    assert_eq!(lab.tables.counters.worker.consumed, before + 1);
    assert!(lab.out.sent.is_empty());
    lab.take_events()
}

/// How many frames left together, by the fast path, and how many one by one.
#[derive(Default)]
struct Lines {
    together: usize,
    alone: usize,
}

impl Output<MemPacket> for Lines {
    fn send(&mut self, _: PortIdx, _: MemPacket) {
        self.alone += 1;
    }

    fn send_run(&mut self, _: PortIdx, packets: impl Iterator<Item = MemPacket>) {
        self.together += packets.count();
    }

    fn event(&mut self, _: Event) -> bool {
        true
    }
}

/// All of these frames of P1 take the fast path.
#[track_caller]
pub fn straight(lab: &mut Lab, frames: &[Vec<u8>]) {
    let (mut out, mut pool) = (Lines::default(), MemPool::endless());
    let mut burst: Vec<MemPacket> = frames.iter().map(|f| MemPacket::new(f)).collect();
    let mut pipe = godwit_pipeline::Pipeline::new();
    pipe.process(&mut burst, P1, &mut lab.tables, &mut out, &mut pool, lab.now);
    assert_eq!((out.together, out.alone), (frames.len(), 0));
    lab.forget_sent(frames.len() as u64);
}

#[test]
fn r65_twenty_addresses_of_each_family_at_full_speed() {
    let mut lab = ruled(NONE, NONE, room(8));
    let all: Vec<IpAddr> =
        (1..=20).flat_map(|n| [IpAddr::V4(v4(n as u8)), v6(n).into(), ip(&format!("fe80::{n}"))]).collect();
    for &ip in &all {
        lab.apply(Update::SourceSet { port: P1, ip });
    }
    for &ip in &all {
        assert_eq!(goes(&mut lab, &udp(M1, ip)), []);
    }
    let last = refused(&mut lab, &udp(M1, v4(21).into()), DropReason::SpoofedSource);
    assert_eq!(last, [spoofed(M1, Some(v4(21).into()), Refused::Address)]);
    let frames: Vec<_> = all.iter().map(|&ip| udp(M1, ip)).collect();
    straight(&mut lab, &frames);
}

#[test]
fn r65_as_many_addresses_as_a_record_can_have_and_the_next_is_told() {
    let mut lab = ruled(NONE, NONE, NONE);
    let many: Vec<IpAddr> = (0..320_u32).map(|n| IpAddr::from((0x0a01_0000 + n).to_be_bytes())).collect();
    for &ip in &many {
        lab.apply(Update::SourceSet { port: P1, ip });
    }
    assert_eq!(lab.take_events(), []);
    let frames: Vec<_> = many.iter().map(|&ip| udp(M1, ip)).collect();
    straight(&mut lab, &frames);
    let mut lab = ruled(NONE, NONE, NONE);
    for &ip in &many {
        lab.apply(Update::SourceSet { port: P1, ip });
    }
    lab.apply(Update::SourceSet { port: P1, ip: ip("192.0.2.1") });
    assert_eq!(lab.take_events(), [Event::TableFull { key: key(M1) }]);
}

#[test]
fn r93_families_have_rules_of_their_own() {
    let mut lab = ruled(NONE, room(8), room(8));
    lab.apply(Update::SourceSet { port: P1, ip: v4(1).into() });
    assert_eq!(goes(&mut lab, &udp(M1, v4(1).into())), []);
    assert_eq!(goes(&mut lab, &udp(M1, v6(1).into())), [seen(M1, Some(v6(1).into()), false)]);
    assert_eq!(goes(&mut lab, &udp(M1, ip("fe80::1"))), [seen(M1, ip("fe80::1"), false)]);
    refused(&mut lab, &udp(M1, v4(2).into()), DropReason::SpoofedSource);
    // Before any rules are set, every source is good.
    let mut lab = Lab::new();
    assert_eq!(goes(&mut lab, &udp(M1, v4(77).into())), []);
    // And an empty list binds nothing by itself: the rule does.
    let mut lab = ruled(NONE, NONE, NONE);
    refused(&mut lab, &udp(M1, ip("fe80::1")), DropReason::SpoofedSource);
}

#[test]
fn r93_a_new_address_is_used_at_once_and_told_until_control_has_it() {
    let mut lab = ruled(room(8), room(8), room(8));
    let (a, told) = (udp(M1, v6(7).into()), [seen(M1, Some(v6(7).into()), false)]);
    assert_eq!(goes(&mut lab, &a), told);
    assert_eq!(goes(&mut lab, &a), []);
    straight(&mut lab, &[a.clone(), a.clone()]);
    lab.wait(ms(999));
    assert_eq!(goes(&mut lab, &a), []);
    lab.wait(ms(1));
    assert_eq!(goes(&mut lab, &a), told);
    lab.apply(Update::SourceSet { port: P1, ip: v6(7).into() });
    lab.wait(ms(1000));
    assert_eq!(goes(&mut lab, &a), []);
}

#[test]
fn r93_what_control_refuses_is_dropped_and_not_told_in_a_loop() {
    let mut lab = ruled(room(8), room(8), room(8));
    let a = udp(M1, v4(7).into());
    assert_eq!(goes(&mut lab, &a).len(), 1);
    lab.apply(Update::SourceRemove { port: P1, ip: v4(7).into() });
    for _ in 0..4 {
        let told = refused(&mut lab, &a, DropReason::SpoofedSource);
        assert_eq!(told, [spoofed(M1, Some(v4(7).into()), Refused::Address)]);
    }
    lab.wait(ms(1000));
    assert_eq!(goes(&mut lab, &a), [seen(M1, Some(v4(7).into()), false)], "after 5 s it may try again");
}

#[test]
fn r93_a_scanner_of_ten_thousand_addresses_gets_no_more_than_its_room() {
    let mut lab = ruled(room(8), NONE, NONE);
    let all: Vec<Vec<u8>> =
        (0..10_000_u32).map(|n| udp(M1, IpAddr::from((0x0a01_0000 + n).to_be_bytes()))).collect();
    for burst in all.chunks(50) {
        lab.input(P1, burst);
    }
    assert_eq!((lab.to(UPLINK).len(), lab.drops(DropReason::AddressLimit)), (8, 9992));
    let events = lab.take_events();
    assert_eq!(events.len(), 9, "eight addresses and one alarm");
    assert!(matches!(events[8], Event::Spoofed { why: Refused::Full, .. }), "{:?}", events[8]);
    lab.clear();
    // Its room is used up by what it has bound: likewise.
    lab.apply(Update::SourceRulesSet {
        port: P1,
        rules: SourceRules { v4: SourceRule::Full, v6: NONE, link_local: NONE },
    });
    let told = refused(&mut lab, &all[3], DropReason::AddressLimit);
    assert_eq!(told, [spoofed(M1, ip("10.1.0.3"), Refused::Full)]);
}

#[test]
fn r30_r93_anothers_address_is_not_bound() {
    let mut lab = ruled(room(8), room(8), room(8));
    lab.neighbor(v4(2), M2);
    lab.neighbor(v6(4), R4);
    for (mine, theirs) in [(v4(3).into(), IpAddr::V4(v4(2))), (v6(3).into(), v6(4).into())] {
        let told = refused(&mut lab, &udp(M1, theirs), DropReason::SpoofedSource);
        assert_eq!(told, [spoofed(M1, theirs, Refused::Taken)]);
        assert_eq!(goes(&mut lab, &udp(M1, mine)).len(), 1);
    }
    let told = refused(&mut lab, &frames::garp(M1, v4(2)), DropReason::SpoofedSource);
    assert_eq!(told, [spoofed(M1, Some(v4(2).into()), Refused::Taken)]);
    // One that was new until somebody was found to have it.
    lab.neighbor(v4(3), R4);
    refused(&mut lab, &udp(M1, v4(3).into()), DropReason::SpoofedSource);
}

#[test]
fn r93_probes_bind_nothing_and_no_group_is_bound() {
    let mut lab = ruled(room(8), room(8), room(8));
    lab.one(P1, &frames::arp_probe(M1, v4(7)));
    lab.one(P1, &Nd::dad(M1, v6(7)).frame());
    assert!(lab.take_events().iter().all(|e| matches!(e, Event::MissIp { .. })));
    for bad in ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.1.2.3", "ff02::1", "::1", "::ffff:10.0.0.1"] {
        refused(&mut lab, &udp(M1, ip(bad)), DropReason::SpoofedSource);
    }
}

#[test]
fn r93_arp_and_nd_from_new_addresses_are_answered() {
    let mut lab = ruled(room(8), room(8), room(8));
    lab.neighbor(v4(4), R4);
    lab.neighbor(ip("fe80::4"), R4);
    lab.one(P1, &frames::arp_request(M1, v4(7), v4(4)));
    assert_eq!(lab.only().0, P1);
    assert_eq!(lab.take_events(), [seen(M1, Some(v4(7).into()), false)]);
    lab.clear();
    // Another VM's link-local address is asked for, and answered, as any other one.
    let (own, other) = ("fe80::7".parse().unwrap(), "fe80::4".parse().unwrap());
    lab.one(P1, &Nd::solicit(M1, own, other).frame());
    assert_eq!(lab.only().0, P1);
    assert_eq!(lab.take_events(), [seen(M1, ip("fe80::7"), false)]);
    lab.clear();
    let unknown = "fe80::9".parse().unwrap();
    lab.one(P1, &Nd::solicit(M1, own, unknown).frame());
    assert_eq!(lab.take_events(), [Event::MissIp { vn: VN, ip: unknown.into(), port: P1 }]);
    // An answer of the VM's from one new address for another one: both are its own.
    let answer = Nd { eth: (M1, R4), ip: (v6(8), v6(4)), flags: 0x60, ..Nd::announce(M1, v6(9)) };
    let told = goes(&mut lab, &answer.frame());
    assert_eq!(told, [seen(M1, Some(v6(8).into()), false), seen(M1, Some(v6(9).into()), false)]);
}

#[test]
fn r18_r93_a_vm_without_addresses_announces_itself() {
    let mut lab = ruled(room(8), room(8), room(8));
    let kind = AnnounceKind::GratuitousArp;
    let announce = Event::Announce { port: P1, kind, mac: M1, ip: Some(v4(7).into()) };
    assert_eq!(
        ends(&mut lab, &frames::garp(M1, v4(7))),
        [seen(M1, Some(v4(7).into()), true), announce],
        "where its port is open, both as an address and as a word"
    );
    // As its first word after a move it opens the port.
    let mut lab = ruled(room(8), room(8), room(8));
    lab.access(P1, VN, M1, Admission::Associated);
    assert_eq!(ends(&mut lab, &frames::garp(M1, v4(7))), [announce]);
    let told = ends(&mut lab, &Nd::announce(M1, v6(7)).frame());
    assert!(matches!(told[..], [Event::Announce { ip: Some(_), .. }]), "{told:?}");
    lab.access(P1, VN, M1, Admission::Activated);
    assert_eq!(goes(&mut lab, &udp(M1, v4(7).into())), [seen(M1, Some(v4(7).into()), true)]);
    // What is beyond its room opens nothing.
    let mut lab = ruled(NONE, NONE, NONE);
    lab.access(P1, VN, M1, Admission::Associated);
    let told = refused(&mut lab, &frames::garp(M1, v4(7)), DropReason::SpoofedSource);
    assert_eq!(told, [spoofed(M1, Some(v4(7).into()), Refused::Address)]);
}

#[test]
fn r93_a_first_frame_from_a_new_address_waits_and_is_learned_when_the_port_opens() {
    let mut lab = ruled(room(8), room(8), room(8));
    lab.access(P1, VN, M1, Admission::Associated);
    lab.one(P1, &udp(M1, v4(7).into()));
    let first = Event::Announce { port: P1, kind: AnnounceKind::FirstFrame, mac: M1, ip: None };
    assert_eq!(lab.take_events(), [first]);
    lab.access(P1, VN, M1, Admission::Activated);
    lab.tick();
    assert_eq!(lab.take_events(), [seen(M1, Some(v4(7).into()), false)]);
    assert_eq!(lab.to(UPLINK).len(), 1);
}

#[test]
fn r10_r93_nothing_is_learned_of_addresses_in_vlans() {
    let mut lab = ruled(NONE, room(1), room(1));
    lab.vn(VN, vni(), true);
    lab.neighbor(v6(4), R4);
    for n in 7..20 {
        assert_eq!(goes(&mut lab, &frames::tagged(&udp(M1, v6(n).into()), 0x8100, 5)), []);
    }
    lab.one(P1, &frames::tagged(&Nd::announce(M1, v6(9)).frame(), 0x8100, 5));
    assert_eq!(lab.take_events(), []);
    lab.clear();
    // Without the operator's word they are none of its own, and another's never are.
    refused(&mut lab, &frames::tagged(&udp(M1, v4(7).into()), 0x8100, 5), DropReason::SpoofedSource);
    refused(&mut lab, &frames::tagged(&udp(M1, v6(4).into()), 0x8100, 5), DropReason::SpoofedSource);
}

#[test]
fn r65_refusals_name_mac_address_and_reason() {
    let mut lab = ruled(NONE, NONE, room(1));
    let other = mac(0x77);
    let told = refused(&mut lab, &udp(other, v4(1).into()), DropReason::SpoofedSource);
    assert_eq!(told, [spoofed(other, None, Refused::Mac)]);
    let mut lie = frames::arp_request(M1, v4(1), v4(4));
    lie[22..28].copy_from_slice(&other.0);
    let told = refused(&mut lab, &lie, DropReason::SpoofedSource);
    assert_eq!(told, [spoofed(other, None, Refused::Mac)], "the one that ARP names");
    let told = refused(&mut lab, &frames::arp_request(M1, v4(1), v4(4)), DropReason::SpoofedSource);
    assert_eq!(told, [spoofed(M1, Some(v4(1).into()), Refused::Address)]);
    goes(&mut lab, &udp(M1, ip("fe80::1")));
    let told = refused(&mut lab, &udp(M1, ip("fe80::2")), DropReason::AddressLimit);
    assert_eq!(told, [spoofed(M1, ip("fe80::2"), Refused::Full)]);
}

#[test]
fn r93_without_room_for_events_a_new_address_is_told_with_its_next_frame() {
    let mut lab = ruled(room(8), room(8), room(8));
    lab.out.event_room = 0;
    assert_eq!(ends(&mut lab, &frames::garp(M1, v4(7))), []);
    assert_eq!(lab.tables.counters.worker.events_dropped, 2);
    lab.out.event_room = usize::MAX;
    let told = goes(&mut lab, &udp(M1, v4(7).into()));
    assert_eq!(told, [seen(M1, Some(v4(7).into()), true)], "still as announced");
}

#[test]
fn r65_a_port_that_is_made_anew_has_nothing_of_the_old_one() {
    let mut lab = ruled(NONE, NONE, NONE);
    lab.apply(Update::SourceSet { port: P1, ip: v4(7).into() });
    lab.apply(Update::MacSet { port: P1, mac: mac(0x77), shared: false });
    lab.apply(Update::PortRemove { port: P1 });
    lab.access(P1, VN, M1, Admission::Activated);
    assert_eq!(goes(&mut lab, &udp(M1, v4(8).into())), []);
    refused(&mut lab, &udp(mac(0x77), v4(8).into()), DropReason::SpoofedSource);
}
