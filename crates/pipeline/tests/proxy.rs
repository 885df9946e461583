//! ARP and ND in the overlay, and broadcast.

use crate::common::*;
use godwit_pipeline::mem::MemPool;
use godwit_tables::DropReason;
use godwit_tables::event::{AnnounceKind, Event, Refused};
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Arp, Ck, Nd};
use godwit_wire::{Instant, Mac};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn announce(kind: AnnounceKind, ip: Option<IpAddr>) -> Event {
    Event::Announce { port: P1, kind, mac: M1, ip }
}

fn arp_frame(dst: Mac, src: Mac, ethertype: u16, arp: Arp) -> Vec<u8> {
    frames::ethernet(dst, src, ethertype, &arp.packet())
}

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
fn r28_known_targets_are_answered_for_their_owner() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.neighbor(v4(4), R4);
    let asked = frames::padded(frames::arp_request(M1, v4(1), v4(4)), 60);
    let want = frames::padded(frames::arp_reply(R4, v4(4), M1, v4(1)), 60);
    // The same answer before, during and after a move, and nothing on the underlay.
    for state in [
        VmState::Remote { tunnel: T4 },
        VmState::Expected { via: Some(T4), hold: limits(10, 100) },
        VmState::Paused { hold: limits(10, 100) },
        VmState::Departed { tunnel: T6, until: lab.now + ms(60_000) },
        VmState::Local { port: P2 },
    ] {
        lab.vm(R4, state);
        lab.one(P1, &asked);
        assert_eq!(lab.only(), (P1, want.as_slice()));
        lab.clear();
    }
    assert_eq!(lab.tables.counters.worker.answered_arp, 5);
    // Detached: no answer.
    let until = lab.now + ms(1000);
    lab.vm(R4, VmState::Absent { until });
    dropped(&mut lab, P1, &asked, DropReason::UnknownTarget);
}

#[test]
fn r28_unicast_arp_goes_to_the_owner() {
    let mut lab = Lab::new();
    lab.neighbor(v4(2), M2);
    let probe = Arp { sha: M1, spa: v4(1), tha: M2, tpa: v4(2), ..Arp::default() };
    let f = arp_frame(M2, M1, 0x0806, probe);
    lab.one(P1, &f);
    assert_eq!(lab.only(), (P2, f.as_slice()));
    lab.clear();
    let reply = frames::arp_reply(M1, v4(1), R4, v4(4));
    lab.one(P1, &reply);
    assert_eq!(open(lab.only().1).1, reply);
    let lie = arp_frame(M2, M1, 0x0806, Arp { sha: R4, ..probe });
    dropped(&mut lab, P1, &lie, DropReason::SpoofedSource);
}

/// Two hosts behind one port hear each other by themselves.
#[test]
fn r28_nobody_answers_for_an_owner_at_the_asking_port() {
    let mut lab = Lab::new();
    let (x, y) = (mac(0x51), mac(0x52));
    for (host, ip) in [(x, 0x51), (y, 0x52)] {
        lab.apply(Update::VmSet { key: key(host), state: VmState::Local { port: P1 } });
        lab.neighbor(v4(ip), host);
        lab.neighbor(v6(ip.into()), host);
    }
    dropped(&mut lab, P1, &frames::arp_request(x, v4(0x51), v4(0x52)), DropReason::OwnAddress);
    dropped(&mut lab, P1, &Nd::solicit(x, v6(0x51), v6(0x52)).frame(), DropReason::OwnAddress);
    // Whoever asks at another port is answered.
    lab.one(P2, &frames::arp_request(M2, v4(2), v4(0x52)));
    assert_eq!(lab.only(), (P2, frames::arp_reply(y, v4(0x52), M2, v4(2)).as_slice()));
}

#[test]
fn r28_malformed_arp() {
    let mut lab = Lab::new();
    let good = Arp { sha: M1, spa: v4(1), tpa: v4(4), ..Arp::default() };
    for bad in [
        Arp { hrd: 6, ..good },
        Arp { pro: 0x86dd, ..good },
        Arp { hln: 8, ..good },
        Arp { pln: 16, ..good },
        Arp { op: 9, ..good },
        Arp { tpa: Ipv4Addr::UNSPECIFIED, ..good },
    ] {
        dropped(&mut lab, P1, &arp_frame(Mac::BROADCAST, M1, 0x0806, bad), DropReason::ArpMalformed);
    }
    let short = &frames::arp_request(M1, v4(1), v4(4))[..41];
    dropped(&mut lab, P1, short, DropReason::ArpMalformed);
    assert_eq!(lab.take_events(), []);
}

#[test]
fn r30_probes() {
    let mut lab = Lab::new();
    lab.neighbor(v4(1), M1);
    lab.neighbor(v4(4), R4);
    dropped(&mut lab, P1, &frames::arp_probe(M1, v4(1)), DropReason::OwnAddress);
    // The directory still has it elsewhere, but it is the same VM: silence.
    lab.vm(M1, VmState::Remote { tunnel: T4 });
    dropped(&mut lab, P1, &frames::arp_probe(M1, v4(1)), DropReason::OwnAddress);
    lab.one(P1, &frames::arp_probe(M1, v4(4)));
    let want = frames::arp_reply(R4, v4(4), M1, Ipv4Addr::UNSPECIFIED);
    assert_eq!(lab.only(), (P1, want.as_slice()), "taken by another VM");
    let taken = Event::AddressTaken { port: P1, ip: v4(4).into(), owner: R4 };
    assert_eq!(lab.take_events(), [taken], "no binding comes of a probe");
}

/// RFC 7527: a network that loops brings a VM its own probe, with the nonce that it was sent with.
#[test]
fn r30_a_looped_back_probe_is_nobodys_conflict() {
    let mut lab = Lab::new();
    lab.neighbor(v6(1), M1);
    let nonce = vec![14, 1, 1, 2, 3, 4, 5, 6];
    let probe = Nd { options: nonce.clone(), ..Nd::dad(M1, v6(1)) };
    for _ in 0..3 {
        dropped(&mut lab, P1, &probe.frame(), DropReason::OwnAddress);
    }
    assert_eq!(lab.take_events(), []);
    // Back by another VM's port it is not that VM's frame.
    dropped(&mut lab, P2, &probe.frame(), DropReason::SpoofedSource);
    assert_eq!(lab.take_events(), [Event::Spoofed { port: P2, mac: M1, ip: None, why: Refused::Mac }]);
    // An address that nobody is known to have: the repeated probe asks no second question.
    let probe = Nd { options: nonce, ..Nd::dad(M1, v6(9)) };
    lab.one(P1, &probe.frame());
    dropped(&mut lab, P1, &probe.frame(), DropReason::AskRepeated);
    assert_eq!(lab.take_events().len(), 1);
}

#[test]
fn r30_who_probes_for_anothers_address_is_reported_once_a_second() {
    let mut lab = Lab::new();
    lab.neighbor(v6(4), R4);
    let probe = Nd::dad(M1, v6(4)).frame();
    let taken = Event::AddressTaken { port: P1, ip: v6(4).into(), owner: R4 };
    for _ in 0..3 {
        lab.one(P1, &probe);
    }
    assert_eq!(lab.take_events(), [taken]);
    lab.wait(ms(1000));
    lab.one(P1, &probe);
    assert_eq!(lab.take_events(), [taken]);
    // One that had to wait for the directory is reported with its answer.
    lab.one(P2, &frames::arp_probe(M2, v4(9)));
    lab.take_events();
    lab.neighbor(v4(9), R4);
    lab.tick();
    assert_eq!(lab.take_events(), [Event::AddressTaken { port: P2, ip: v4(9).into(), owner: R4 }]);
    // A question is no probe.
    lab.wait(ms(1000));
    lab.one(P1, &Nd::solicit(M1, v6(1), v6(4)).frame());
    assert_eq!(lab.take_events(), []);
}

#[test]
fn r29_solicitations_are_answered_for_the_owner() {
    let mut lab = Lab::new();
    for (router, flags) in [(false, 0x60), (true, 0xe0)] {
        lab.apply(Update::NeighborSet { vn: VN, ip: v6(4).into(), mac: R4, router });
        lab.one(P1, &Nd::solicit(M1, v6(1), v6(4)).frame());
        let want = Nd {
            eth: (R4, M1),
            ip: (v6(4), v6(1)),
            flags,
            options: frames::mac_option(2, R4),
            ..Nd::announce(R4, v6(4))
        };
        assert_eq!(lab.only(), (P1, want.frame().as_slice()));
        lab.clear();
    }
    for bad in [
        Nd { hop_limit: 64, ..Nd::solicit(M1, v6(1), v6(4)) },
        Nd { checksum: Ck::Bad, ..Nd::solicit(M1, v6(1), v6(4)) },
        Nd { target: ALL_NODES, ..Nd::solicit(M1, v6(1), v6(4)) },
        Nd { code: 1, ..Nd::solicit(M1, v6(1), v6(4)) },
    ] {
        dropped(&mut lab, P1, &bad.frame(), DropReason::NdMalformed);
    }
    let lie = Nd { options: frames::mac_option(1, M2), ..Nd::solicit(M1, v6(1), v6(4)) };
    dropped(&mut lab, P1, &lie.frame(), DropReason::SpoofedSource);
    assert_eq!(
        lab.take_events(),
        [Event::Spoofed { port: P1, mac: M2, ip: None, why: Refused::Mac }],
        "R29: entries come from advertisements only"
    );
}

#[test]
fn r29_what_the_proxy_must_not_answer_goes_to_the_owner() {
    let mut lab = Lab::new();
    lab.neighbor(v6(4), R4);
    // Unreachability detection.
    let nud = Nd { eth: (M1, R4), ip: (v6(1), v6(4)), ..Nd::solicit(M1, v6(1), v6(4)) }.frame();
    lab.one(P1, &nud);
    assert_eq!(open(lab.only().1).1, nud);
    lab.clear();
    // An option that only the owner can judge: 11 is SEND's CGA.
    let mut send = Nd::solicit(M1, v6(1), v6(4));
    send.options.extend([11, 1, 0, 0, 0, 0, 0, 0]);
    lab.one(P1, &send.frame());
    send.eth.1 = R4;
    assert_eq!(open(lab.only().1).1, send.frame(), "unicast to the owner, to nobody else");
}

/// 11 is SEND's CGA, 200 nobody's.
#[test]
fn r29_what_only_the_owner_may_answer_is_not_answered_when_the_directory_has_told_who_that_is() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    for (ip, option) in [(v6(8), 11), (v6(9), 200)] {
        let mut frame = Nd::solicit(M1, v6(1), ip);
        frame.options.extend([option, 1, 0, 0, 0, 0, 0, 0]);
        lab.one(P1, &frame.frame());
        assert_eq!(lab.take_events(), [Event::MissIp { vn: VN, ip: ip.into(), port: P1 }]);
        lab.neighbor(ip, R4);
        let before = lab.drops(DropReason::AskOwner);
        lab.tick();
        assert!(lab.out.sent.is_empty(), "nobody speaks for the owner");
        assert_eq!(lab.drops(DropReason::AskOwner), before + 1);
        // The host asks again.
        lab.one(P1, &frame.frame());
        frame.eth.1 = R4;
        assert_eq!(open(lab.only().1).1, frame.frame(), "as it was, to the owner alone");
        lab.clear();
    }
    // One that the directory does not have is not made anew for silent hosts, without what it had.
    let until = Instant::NEVER;
    lab.apply(Update::VnSilent { vn: VN, flood_gap: Some(ms(100)) });
    let mut frame = Nd::solicit(M1, v6(1), v6(7));
    frame.options.extend([11, 1, 0, 0, 0, 0, 0, 0]);
    lab.one(P1, &frame.frame());
    lab.apply(Update::NeighborAbsent { vn: VN, ip: v6(7).into(), until });
    lab.tick();
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.drops(DropReason::UnknownTarget), 1);
}

/// Whoever looks whether a neighbor is reachable has to learn that it is not.
#[test]
fn r29_nobody_answers_unreachability_detection_for_a_dead_vm() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.neighbor(v6(4), R4);
    let nud = Nd { eth: (M1, R4), ip: (v6(1), v6(4)), ..Nd::solicit(M1, v6(1), v6(4)) }.frame();
    // Its NVE does not know of its death yet: the question goes there, and comes to nothing.
    lab.one(P1, &nud);
    assert_eq!(open(lab.only().1).1, nud);
    assert!(lab.to(P1).is_empty());
    lab.clear();
    // The directory knows: its address is nobody's any more.
    let until = lab.now + ms(5000);
    lab.vm(R4, VmState::Absent { until });
    dropped(&mut lab, P1, &nud, DropReason::UnknownUnicast);
    lab.apply(Update::NeighborAbsent { vn: VN, ip: v6(4).into(), until });
    dropped(&mut lab, P1, &Nd::solicit(M1, v6(1), v6(4)).frame(), DropReason::UnknownTarget);
    assert!(lab.out.sent.is_empty(), "neither answered nor flooded");
}

#[test]
fn r30_duplicate_address_detection() {
    let mut lab = Lab::new();
    lab.neighbor(v6(1), M1);
    lab.neighbor(v6(4), R4);
    dropped(&mut lab, P1, &Nd::dad(M1, v6(1)).frame(), DropReason::OwnAddress);
    let looped = Nd { options: vec![14, 1, 1, 2, 3, 4, 5, 6], ..Nd::dad(M1, v6(1)) };
    dropped(&mut lab, P1, &looped.frame(), DropReason::OwnAddress);
    lab.one(P1, &Nd::dad(M1, v6(4)).frame());
    let want = Nd::announce(R4, v6(4));
    assert_eq!(lab.only(), (P1, want.frame().as_slice()), "to all nodes, S = 0");
    lab.clear();
    // Whatever else is in the probe, SEND's CGA for one: its owner's answer would be taken for an announcement.
    let mut send = Nd::dad(M1, v6(4));
    send.options.extend([11, 1, 0, 0, 0, 0, 0, 0]);
    lab.take_events();
    lab.wait(ms(1000));
    lab.one(P1, &send.frame());
    assert_eq!(lab.only(), (P1, want.frame().as_slice()));
    assert_eq!(lab.take_events(), [Event::AddressTaken { port: P1, ip: v6(4).into(), owner: R4 }]);
}

/// A VM that starts anew at B probes before it announces itself, while the directory has it at A: silence, and no
/// claim comes of it, of whatever the probe is for.
#[test]
fn r30_a_probe_at_a_port_that_is_not_open_yet_claims_nothing() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    lab.vm(M1, VmState::Remote { tunnel: T4 });
    lab.neighbor(v4(1), M1);
    lab.neighbor(v6(1), M1);
    for own in [frames::arp_probe(M1, v4(1)), Nd::dad(M1, v6(1)).frame()] {
        dropped(&mut lab, P1, &own, DropReason::OwnAddress);
    }
    // Others' addresses, known, absent and not known: what is asked waits for the port to open.
    lab.neighbor(v4(4), R4);
    lab.neighbor(v6(4), R4);
    lab.apply(Update::NeighborAbsent { vn: VN, ip: v4(8).into(), until: Instant::NEVER });
    let to_one = arp_frame(R4, M1, 0x0806, Arp { sha: M1, tpa: v4(4), ..Arp::default() });
    let others = [
        frames::arp_probe(M1, v4(4)),
        Nd::dad(M1, v6(4)).frame(),
        frames::arp_probe(M1, v4(9)),
        Nd::dad(M1, v6(9)).frame(),
        to_one,
    ];
    for probe in &others {
        lab.one(P1, probe);
        assert!(lab.out.sent.is_empty());
    }
    dropped(&mut lab, P1, &frames::arp_probe(M1, v4(8)), DropReason::UnknownTarget);
    assert_eq!(lab.tables.waiting(), others.len() as u64);
    assert_eq!(lab.take_events(), [], "neither a claim nor a question");
    // What is no probe does claim.
    lab.one(P1, &frames::arp_request(M1, v4(1), v4(4)));
    assert_eq!(lab.take_events(), [announce(AnnounceKind::FirstFrame, None)]);
}

#[test]
fn r31_unknown_targets_wait_and_are_never_flooded() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    let asked = frames::arp_request(M1, v4(1), v4(4));
    lab.one(P1, &asked);
    lab.one(P2, &frames::arp_request(M2, v4(2), v4(4)));
    dropped(&mut lab, P1, &asked, DropReason::AskRepeated);
    let miss = |ip: IpAddr| Event::MissIp { vn: VN, ip, port: P1 };
    assert_eq!(lab.take_events(), [miss(v4(4).into())], "one query for two askers");
    lab.one(P1, &Nd::solicit(M1, v6(1), v6(4)).frame());
    assert_eq!(lab.take_events(), [miss(v6(4).into())]);
    assert_eq!(lab.tables.waiting(), 3);
    lab.tick();
    assert!(lab.out.sent.is_empty());
    lab.neighbor(v4(4), R4);
    lab.tick();
    assert_eq!(lab.to(P1), [frames::arp_reply(R4, v4(4), M1, v4(1))]);
    assert_eq!(lab.to(P2), [frames::arp_reply(R4, v4(4), M2, v4(2))]);
    lab.clear();
    lab.neighbor(v6(4), R4);
    lab.tick();
    let na = Nd { eth: (R4, M1), ip: (v6(4), v6(1)), flags: 0x60, ..Nd::announce(R4, v6(4)) };
    assert_eq!(lab.to(P1), [na.frame()]);
    assert_eq!(lab.tables.waiting(), 0);
}

#[test]
fn r31_absence_and_silence() {
    let mut lab = Lab::new();
    let asked = frames::arp_request(M1, v4(1), v4(77));
    lab.one(P1, &asked);
    let until = lab.now + ms(5000);
    lab.apply(Update::NeighborAbsent { vn: VN, ip: v4(77).into(), until });
    lab.tick();
    assert_eq!((lab.drops(DropReason::UnknownTarget), lab.tables.waiting()), (1, 0));
    lab.clear();
    for _ in 0..1000 {
        lab.one(P1, &asked);
    }
    assert_eq!(lab.drops(DropReason::UnknownTarget), 1001);
    assert!(lab.out.sent.is_empty() && lab.out.events.is_empty(), "one query for each neg_life");
    lab.wait(ms(5000));
    lab.one(P1, &asked);
    assert_eq!(lab.take_events().len(), 1);
    lab.wait(ms(500));
    lab.tick();
    assert_eq!((lab.drops(DropReason::AskExpired), lab.tables.waiting()), (1, 0));
}

#[test]
fn r31_silent_hosts_are_asked_for_where_the_vn_says_so() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.apply(Update::VnSilent { vn: VN, flood_gap: Some(ms(100)) });
    let asked = [frames::arp_request(M1, v4(1), v4(77)), Nd::solicit(M1, v6(1), v6(77)).frame()];
    let until = lab.now + ms(5000);
    for (f, ip) in asked.iter().zip([v4(77).into(), v6(77).into()]) {
        lab.one(P1, f);
        assert!(lab.out.sent.is_empty(), "the directory first");
        lab.apply(Update::NeighborAbsent { vn: VN, ip, until });
        lab.tick();
        assert_eq!(lab.to(P2), [f.as_slice()], "the request that waited, as it was");
        assert_eq!(lab.to(UPLINK).iter().map(|p| open(p).1).collect::<Vec<_>>(), [f]);
        lab.clear();
        lab.wait(ms(100));
    }
    for _ in 0..20 {
        lab.one(P1, &asked[0]);
    }
    assert_eq!(lab.to(UPLINK).len(), 1, "ten a second");
    assert_eq!(lab.drops(DropReason::FloodLimit), 19);
    lab.clear();
    lab.wait(ms(100));
    lab.apply(Update::VnSilent { vn: VN, flood_gap: None });
    lab.one(P1, &asked[0]);
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.drops(DropReason::UnknownTarget), 1);
}

#[test]
fn r67_requests_that_wait_are_bounded() {
    let mut lab = Lab::new();
    for n in 0..20 {
        lab.one(P1, &frames::arp_request(M1, v4(1), v4(100 + n)));
    }
    assert_eq!((lab.tables.waiting(), lab.drops(DropReason::AskLimit)), (8, 12));
    lab.one(P2, &frames::arp_request(M2, v4(2), v4(200)));
    assert_eq!(lab.tables.waiting(), 9);
}

#[test]
fn a_late_answer_finds_its_port_gone_or_no_buffer() {
    let mut lab = Lab::new();
    lab.one(P1, &frames::arp_request(M1, v4(1), v4(4)));
    lab.apply(Update::PortRemove { port: P1 });
    lab.neighbor(v4(4), R4);
    lab.tick();
    assert_eq!(lab.drops(DropReason::PortGone), 1);
    lab.one(P2, &frames::arp_request(M2, v4(2), v4(5)));
    lab.pool = MemPool::of(0);
    lab.neighbor(v4(5), R6);
    lab.tick();
    assert_eq!((lab.drops(DropReason::NoBuffer), lab.tables.waiting()), (1, 0));
}

#[test]
fn r13_neighbors_of_another_vn_are_not_ours() {
    let mut lab = Lab::new();
    lab.apply(Update::NeighborSet { vn: OTHER_VN, ip: v4(4).into(), mac: R4, router: false });
    lab.one(P1, &frames::arp_request(M1, v4(1), v4(4)));
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.tables.waiting(), 1);
    lab.apply(Update::NeighborRemove { vn: OTHER_VN, ip: v4(4).into() });
    assert!(lab.tables.neighbors.is_empty());
}

#[test]
fn r60_broadcast_goes_to_everybody_else_once() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T6 });
    let f = frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"hello all");
    lab.one(P1, &f);
    assert_eq!(lab.to(P2), [f.as_slice()]);
    assert_eq!(lab.to(UPLINK).iter().map(|p| open(p).1).collect::<Vec<_>>(), [&f, &f]);
    assert_eq!(lab.out.sent.len(), 3);
    let w = lab.tables.counters.worker;
    assert_eq!((w.replicated, w.copies, w.encapsulated), (1, 2, 2));
    lab.clear();
    lab.apply(Update::ReplicaRemove { vn: VN, tunnel: T4 });
    lab.one(P1, &Nd { kind: 133, ..Nd::solicit(M1, v6(1), v6(2)) }.frame());
    assert_eq!(lab.out.sent.len(), 2, "router solicitations travel alike");
}

#[test]
fn r60_more_replicas_than_the_limit() {
    let mut lab = Lab::new();
    for n in 0..5 {
        lab.apply(Update::ReplicaAdd { vn: VN, tunnel: TunnelIdx(n) });
    }
    assert_eq!(lab.take_events(), [Event::TableFull { key: key(Mac::BROADCAST) }]);
    lab.one(P1, &frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"hello all"));
    assert_eq!(lab.drops(DropReason::ReplicationLimit), 1);
    assert_eq!(lab.drops(DropReason::NoTunnel), 2, "one pending, one never set");
    assert_eq!(lab.out.sent.len(), 3);
}

#[test]
fn r60_without_buffers_or_listeners() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.pool = MemPool::of(0);
    lab.one(P1, &frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"hello all"));
    assert_eq!((lab.drops(DropReason::NoBuffer), lab.out.sent.len()), (1, 1), "the frame itself still goes");
    dropped(&mut lab, P3, &frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"alone"), DropReason::NoReceiver);
}

#[test]
fn events_that_find_no_room_are_counted() {
    let mut lab = Lab::new();
    lab.out.event_room = 0;
    lab.one(P1, &frames::garp(M1, v4(1)));
    assert_eq!(lab.tables.counters.worker.events_dropped, 1);
}

#[test]
fn r13_a_full_neighbor_table_forgets_dead_negative_answers_only() {
    let mut lab = Lab::new();
    let until = lab.now + ms(1000);
    for n in 0..50 {
        lab.neighbor(v4(n), R4);
        lab.apply(Update::NeighborAbsent { vn: VN, ip: v6(n.into()).into(), until });
    }
    lab.neighbor(v4(99), R4);
    assert_eq!(lab.take_events(), [Event::TableFull { key: key(R4) }]);
    lab.wait(ms(1000));
    lab.neighbor(v4(99), R4);
    assert_eq!(lab.take_events(), []);
    assert_eq!(lab.tables.neighbors.len(), 51);
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
