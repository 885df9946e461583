//! Announcements of VMs: told to control, bounded, never flooded.

use crate::common::resolution::*;
use crate::common::*;
use godwit_tables::DropReason;
use godwit_tables::event::{AnnounceKind, Event, Refused};
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Arp, Ck, Nd};
use godwit_wire::Mac;
use std::net::Ipv4Addr;

#[test]
fn r24_gratuitous_arp_is_told_and_never_flooded() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    let reply_form = arp_frame(
        Mac::BROADCAST,
        M1,
        0x0806,
        Arp { op: 2, sha: M1, spa: v4(1), tha: Mac::BROADCAST, tpa: v4(1), ..Arp::default() },
    );
    for f in [frames::garp(M1, v4(1)), reply_form] {
        lab.one(P1, &f);
        let kind = AnnounceKind::GratuitousArp;
        assert_eq!(lab.take_events(), [announce(kind, Some(v4(1).into()))]);
    }
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.tables.counters.worker.consumed, 2);
    // The sender fields must be the frame's own (R65): never announced.
    let lie =
        arp_frame(Mac::BROADCAST, M1, 0x0806, Arp { sha: M2, spa: v4(2), tpa: v4(2), ..Arp::default() });
    dropped(&mut lab, P1, &lie, DropReason::SpoofedSource);
    assert_eq!(lab.take_events(), [Event::Spoofed { port: P1, mac: M2, ip: None, why: Refused::Mac }]);
}

#[test]
fn r25_unsolicited_advertisement_to_either_group() {
    let mut lab = Lab::new();
    let to_all = Nd::announce(M1, v6(1));
    let group = frames::solicited_node(v6(1));
    let to_group = Nd { eth: (M1, frames::group_mac(group)), ip: (v6(1), group), ..to_all.clone() };
    for f in [to_all.frame(), to_group.frame()] {
        lab.one(P1, &f);
        let kind = AnnounceKind::NeighborAdvertisement { router: false, overrides: true };
        assert_eq!(lab.take_events(), [announce(kind, Some(v6(1).into()))]);
    }
    lab.one(P1, &Nd { flags: 0xa0, ..to_all.clone() }.frame());
    let kind = AnnounceKind::NeighborAdvertisement { router: true, overrides: true };
    assert_eq!(lab.take_events(), [announce(kind, Some(v6(1).into()))], "its R flag is told");
    lab.one(P1, &Nd { flags: 0, ..to_all.clone() }.frame());
    let kind = AnnounceKind::NeighborAdvertisement { router: false, overrides: false };
    assert_eq!(lab.take_events(), [announce(kind, Some(v6(1).into()))], "and its O flag");
    assert!(lab.out.sent.is_empty());
    for bad in [
        Nd { hop_limit: 254, ..to_all.clone() },
        Nd { checksum: Ck::Bad, ..to_all.clone() },
        Nd { options: vec![], ..to_all.clone() },
        Nd { flags: 0x60, ..to_all.clone() },
        Nd { target: ALL_NODES, ..to_all.clone() },
    ] {
        dropped(&mut lab, P1, &bad.frame(), DropReason::NdMalformed);
    }
    let lie = Nd { options: frames::mac_option(2, M2), ..to_all.clone() };
    dropped(&mut lab, P1, &lie.frame(), DropReason::SpoofedSource);
    assert_eq!(lab.take_events(), [Event::Spoofed { port: P1, mac: M2, ip: None, why: Refused::Mac }]);
    // Without the O flag it does not replace another VM's binding.
    lab.neighbor(v6(1), M2);
    lab.one(P1, &Nd { flags: 0, ..to_all.clone() }.frame());
    assert_eq!(lab.take_events(), []);
    lab.neighbor(v6(1), M1);
    lab.one(P1, &Nd { flags: 0, ..to_all }.frame());
    assert_eq!(lab.take_events().len(), 1);
}

#[test]
fn r26_hypervisor_announcement() {
    let mut lab = Lab::new();
    for _ in 0..5 {
        lab.one(P1, &frames::rarp_announce(M1));
        lab.wait(ms(50));
    }
    assert_eq!(lab.take_events(), [announce(AnnounceKind::Rarp, None); 5]);
    assert!(lab.out.sent.is_empty());
    let rarp = |op, sha, tha| arp_frame(Mac::BROADCAST, M1, 0x8035, Arp { op, sha, tha, ..Arp::default() });
    dropped(&mut lab, P1, &rarp(3, M1, M2), DropReason::SpoofedSource);
    dropped(&mut lab, P1, &rarp(3, M2, M2), DropReason::SpoofedSource);
    dropped(&mut lab, P1, &rarp(4, M1, M1), DropReason::ArpMalformed);
    dropped(&mut lab, P1, &frames::ethernet(Mac::BROADCAST, M1, 0x8035, &[0; 20]), DropReason::ArpMalformed);
    dropped(&mut lab, P1, &frames::rarp_announce(M2), DropReason::SpoofedSource);
    assert_eq!(lab.take_events(), [Event::Spoofed { port: P1, mac: M2, ip: None, why: Refused::Mac }]);
}

/// Announcements of a port are limited (R67).
#[test]
fn announcements_have_a_limit() {
    let mut lab = Lab::new();
    for _ in 0..100 {
        lab.one(P1, &frames::garp(M1, v4(1)));
    }
    assert_eq!(lab.take_events().len(), 16);
    assert_eq!(lab.tables.counters.worker.consumed, 100);
    lab.wait(ms(10));
    for _ in 0..100 {
        lab.one(P1, &frames::garp(M1, v4(1)));
    }
    assert_eq!(lab.take_events().len(), 2, "one for each 5 ms");
}

#[test]
fn events_that_find_no_room_are_counted() {
    let mut lab = Lab::new();
    lab.out.event_room = 0;
    lab.one(P1, &frames::garp(M1, v4(1)));
    assert_eq!(lab.tables.counters.worker.events_dropped, 1);
}

#[test]
fn r21_an_answer_to_controls_question_is_told_and_goes_no_further() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    let to = (v6(1), "fe80::67:77ff:fe74:1".parse().unwrap());
    let advert = Nd { eth: (M1, Mac::PROBER), ip: to, flags: 0x60, ..Nd::announce(M1, v6(1)) };
    let reply = frames::arp_reply(M1, v4(1), Mac::PROBER, Ipv4Addr::UNSPECIFIED);
    for (f, ip) in [(reply, v4(1).into()), (advert.frame(), v6(1).into())] {
        lab.one(P1, &f);
        assert_eq!(lab.take_events(), [announce(AnnounceKind::Alive, Some(ip))]);
    }
    assert!(lab.out.sent.is_empty());
    let lie = frames::arp_reply(M2, v4(2), Mac::PROBER, Ipv4Addr::UNSPECIFIED);
    dropped(&mut lab, P1, &lie, DropReason::SpoofedSource);
}
