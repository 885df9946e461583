//! ARP and ND requests that are answered for the owner of an address, or passed on to it.

use crate::common::resolution::*;
use crate::common::*;
use godwit_tables::DropReason;
use godwit_tables::event::{AnnounceKind, Event, Refused};
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Arp, Ck, Nd};
use godwit_wire::{Instant, Mac};
use std::net::Ipv4Addr;

#[test]
fn r28_known_targets_are_answered_for_their_owner() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.neighbor(v4(4), R4);
    let asked = frames::padded(frames::arp_request(M1, v4(1), v4(4)), 60);
    let want = frames::padded(frames::arp_reply(R4, v4(4), M1, v4(1)), 60);
    // The same answer before, during and after a move, and nothing on the underlay.
    for state in [
        VmState::Remote { to: through(T4) },
        VmState::Expected { via: Some(through(T4)), hold: limits(10, 100) },
        VmState::Paused { hold: limits(10, 100) },
        VmState::Departed { to: through(T6), until: lab.now + ms(60_000) },
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
    lab.vm(M1, VmState::Remote { to: through(T4) });
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
    lab.vm(M1, VmState::Remote { to: through(T4) });
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
