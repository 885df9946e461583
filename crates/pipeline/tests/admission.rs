//! What a VM may send by the state of its port, and from which addresses.

use crate::common::*;
use godwit_pipeline::mem::MemPool;
use godwit_tables::DropReason;
use godwit_tables::event::{AnnounceKind, Event, Refused};
use godwit_tables::update::*;
use godwit_testkit::frames;
use godwit_wire::{Instant, Mac};

#[test]
fn r15_closed_and_unknown_ports() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Closed);
    dropped(&mut lab, P1, &numbered(M1, M2, 1), DropReason::PortClosed);
    dropped(&mut lab, P1, &frames::garp(M1, v4(1)), DropReason::PortClosed);
    assert_eq!(lab.take_events(), []);
    dropped(&mut lab, PortIdx(77), &numbered(M1, M2, 1), DropReason::PortUnknown);
    dropped(&mut lab, PortIdx(5000), &numbered(M1, M2, 1), DropReason::PortUnknown);
    lab.apply(Update::VnRemove { vn: OTHER_VN });
    dropped(&mut lab, P3, &numbered(M1, M2, 1), DropReason::UnknownVn);
}

#[test]
fn r15_r18_associated_port_reports_and_forwards_nothing() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    waits(&mut lab, &numbered(M1, M2, 1));
    let first = Event::Announce { port: P1, kind: AnnounceKind::FirstFrame, mac: M1, ip: None };
    assert_eq!(lab.take_events(), [first]);
    waits(&mut lab, &numbered(M1, M2, 2));
    assert_eq!(lab.take_events(), [], "not for every frame");
    lab.wait(ms(5));
    waits(&mut lab, &numbered(M1, M2, 3));
    assert_eq!(lab.take_events(), [first], "but again while it lasts");
    // A question that has no answer shows as well that the VM is alive.
    lab.wait(ms(5));
    lab.apply(Update::NeighborAbsent { vn: VN, ip: v4(9).into(), until: Instant::NEVER });
    waits(&mut lab, &frames::arp_request(M1, v4(1), v4(9)));
    assert_eq!(lab.take_events(), [first]);
    // No ARP answers either, but announcements count.
    lab.neighbor(v4(2), M2);
    waits(&mut lab, &frames::arp_request(M1, v4(1), v4(2)));
    lab.one(P1, &frames::garp(M1, v4(1)));
    let kind = AnnounceKind::GratuitousArp;
    assert_eq!(lab.take_events(), [Event::Announce { port: P1, kind, mac: M1, ip: Some(v4(1).into()) }]);
    dropped(&mut lab, P1, &numbered(M2, M1, 4), DropReason::SpoofedSource);
    assert_eq!(lab.take_events(), [Event::Spoofed { port: P1, mac: M2, ip: None, why: Refused::Mac }]);
}

/// The frame is neither sent nor dropped.
fn waits(lab: &mut Lab, frame: &[u8]) {
    let (sent, waiting) = (lab.out.sent.len(), lab.tables.waiting());
    lab.one(P1, frame);
    assert_eq!((lab.out.sent.len(), lab.tables.waiting()), (sent, waiting + 1));
}

#[test]
fn r45_what_a_vm_says_before_its_port_is_open_goes_first_when_it_is() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    for n in 1..=3 {
        waits(&mut lab, &numbered(M1, R4, n));
    }
    lab.tick();
    assert!(lab.to(UPLINK).is_empty());
    lab.access(P1, VN, M1, Admission::Activated);
    lab.one(P1, &numbered(M1, R4, 4));
    assert_eq!(numbers(&lab.to(UPLINK)), [1, 2, 3, 4]);
    assert_eq!(lab.tables.waiting(), 0);

    // Without a frame that comes after them they go with the next tick.
    lab.clear();
    lab.access(P1, VN, M1, Admission::Associated);
    waits(&mut lab, &numbered(M1, R4, 5));
    lab.access(P1, VN, M1, Admission::Activated);
    lab.tick();
    assert_eq!(numbers(&lab.to(UPLINK)), [5]);
}

#[test]
fn r45_a_port_that_does_not_open_sends_nothing_later() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    waits(&mut lab, &numbered(M1, R4, 1));
    lab.wait(ms(499));
    lab.tick();
    assert_eq!(lab.drops(DropReason::PortClosed), 0);
    lab.wait(ms(1));
    lab.tick();
    assert_eq!((lab.drops(DropReason::PortClosed), lab.tables.waiting()), (1, 0), "too late");
    waits(&mut lab, &numbered(M1, R4, 2));
    lab.access(P1, VN, M1, Admission::Closed);
    lab.tick();
    assert_eq!((lab.drops(DropReason::PortClosed), lab.tables.waiting()), (2, 0), "closed");
    // So many wait and no more.
    lab.access(P1, VN, M1, Admission::Associated);
    for n in 1..=400 {
        lab.one(P1, &numbered(M1, R4, n));
    }
    assert_eq!(lab.tables.waiting(), 400);
    dropped(&mut lab, P1, &numbered(M1, R4, 401), DropReason::PortClosed);
    assert!(lab.to(UPLINK).is_empty());
}

#[test]
fn r65_other_sources_go_nowhere() {
    let mut lab = Lab::new();
    dropped(&mut lab, P1, &numbered(M2, R4, 1), DropReason::SpoofedSource);
    dropped(&mut lab, P1, &numbered(Mac([3, 0, 0, 0, 0, 1]), R4, 1), DropReason::SpoofedSource);
    dropped(&mut lab, P1, &numbered(M2, STRANGER, 1), DropReason::SpoofedSource);
    assert_eq!(
        lab.take_events(),
        [Event::Spoofed { port: P1, mac: M2, ip: None, why: Refused::Mac }],
        "no query, and one word a second"
    );
}

#[test]
fn r65_vms_behind_a_port_speak_for_themselves_only() {
    let mut lab = Lab::new();
    let behind = mac(0x51);
    lab.apply(Update::VmSet { key: key(behind), state: VmState::Local { port: P1 } });
    lab.one(P1, &numbered(behind, R4, 1));
    assert_eq!(numbers(&lab.to(UPLINK)), [1]);
    lab.one(P2, &numbered(M2, behind, 2));
    assert_eq!(numbers(&lab.to(P1)), [2]);
    dropped(&mut lab, P2, &numbered(behind, R4, 3), DropReason::SpoofedSource);
    let neighbor = Update::NeighborSet { vn: VN, ip: v4(1).into(), mac: M1, router: false };
    lab.apply(neighbor);
    dropped(&mut lab, P1, &numbered(behind, R4, 5), DropReason::SpoofedSource);
    assert_eq!(lab.take_events().len(), 2, "both spoofs are told");
    lab.one(P1, &frames::garp(behind, v4(9)));
    assert_eq!(lab.take_events(), [], "only the configuration knows of it");
    let port_of = |admission| PortRole::Access { vn: VN, mac: M1, admission };
    lab.apply(Update::PortSet { port: P1, role: port_of(Admission::Associated) });
    dropped(&mut lab, P1, &numbered(behind, R4, 4), DropReason::PortClosed);
}

#[test]
fn r45_what_a_vm_says_overtakes_nothing_where_buffers_run_out() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    (1..=6).for_each(|n| waits(&mut lab, &numbered(M1, R4, n)));
    lab.access(P1, VN, M1, Admission::Activated);
    let entered = lab.pool.taken();
    lab.pool = MemPool::of(2);
    lab.forget_buffers(entered);
    lab.input(P1, &[numbered(M1, R4, 7), numbered(M1, R4, 8)]);
    assert_eq!(numbers(&lab.to(UPLINK)), [1, 2], "the rest waits, and what came last behind it");
    assert_eq!(lab.tables.waiting(), 6);
    let entered = lab.pool.taken();
    lab.pool = MemPool::endless();
    lab.forget_buffers(entered);
    lab.one(P1, &numbered(M1, R4, 9));
    assert_eq!(numbers(&lab.to(UPLINK)), (1..=9).collect::<Vec<_>>());
}
