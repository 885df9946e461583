//! The outer DSCP that a policy gives to what its VM sends (R23), beside ECN and all else of the outer header (R6).

use crate::common::*;
use godwit_pipeline::mem::MemPacket;
use godwit_pipeline::packet::Asks;
use godwit_pipeline::trace;
use godwit_tables::TablesConfig;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Vxlan};
use godwit_wire::policy::Verdict;
use godwit_wire::{Dscp, Mac, Rate};

const EF: u8 = 46;

impl Lab {
    fn mark(&mut self, port: PortIdx, dscp: Option<u8>) {
        self.mark_at(port, dscp, Rate::UNLIMITED);
    }

    fn mark_at(&mut self, port: PortIdx, dscp: Option<u8>, rate: Rate) {
        let dscp = dscp.map(|n| Dscp::new(n).expect("a DSCP"));
        self.apply(Update::PolicySet { port, rules: 0, default: Verdict::Allow, rate, dscp });
    }

    /// The outer DSCPs of what went to other NVEs since the last call.
    fn marks(&mut self) -> Vec<u8> {
        let marks = self.to(UPLINK).iter().map(|f| open(f).0.dscp.get()).collect();
        self.clear();
        marks
    }
}

/// From a VM to another, with a type of service or traffic class.
type Shape = fn(Mac, Mac, u8) -> Vec<u8>;

/// UDP over IPv4 with this type of service.
fn v4_frame(src: Mac, dst: Mac, tos: u8) -> Vec<u8> {
    let mut ip = frames::V4::new(v4(1), v4(2), 17);
    ip.tos = tos;
    let m = frames::udp(v4(1).into(), v4(2).into(), (1, 2), b"12345678", frames::Ck::Good);
    frames::ethernet(dst, src, 0x0800, &ip.packet(&m))
}

/// UDP over IPv6 with this traffic class.
fn v6_frame(src: Mac, dst: Mac, class: u8) -> Vec<u8> {
    let mut ip = frames::V6::new(v6(1), v6(2), 17);
    ip.class = class;
    let m = frames::udp(v6(1).into(), v6(2).into(), (1, 2), b"12345678", frames::Ck::Good);
    frames::ethernet(dst, src, 0x86dd, &ip.packet(&m))
}

/// Every DSCP with every ECN, over both families: the whole packet is what it should be, and a port without a policy
/// sends what it always did.
#[test]
fn r23_golden_the_mark_is_outside_ecn_stays_and_the_inside_too() {
    let mut lab = Lab::new();
    let shapes: [Shape; 2] = [v4_frame, v6_frame];
    for dscp in 0..64u8 {
        lab.mark(P1, Some(dscp));
        for (to, remote) in [(R4, NVE_B.into()), (R6, NVE_B6.into())] {
            for (shape, ecn) in shapes.into_iter().flat_map(|s| (0..4u8).map(move |ecn| (s, ecn))) {
                // The VM's own DSCP, AF11, stays inside.
                let inner = shape(M1, to, 10 << 2 | ecn);
                lab.one(P1, &inner);
                let want = golden(&inner, remote, dscp << 2 | ecn);
                assert_eq!(lab.only(), (UPLINK, want.as_slice()), "DSCP {dscp}, ECN {ecn}");
                lab.clear();
                let inner = shape(M2, to, 10 << 2 | ecn);
                lab.one(P2, &inner);
                assert_eq!(lab.only().1, golden(&inner, remote, ecn), "no policy");
                lab.clear();
            }
        }
    }
    let other = frames::ethernet(R4, M1, 0x88b5, &[7; 60]);
    lab.mark(P1, Some(EF));
    lab.one(P1, &other);
    assert_eq!(lab.only().1, golden(&other, NVE_B.into(), EF << 2), "what is not IP");
}

#[test]
fn r23_a_policy_without_a_mark_changes_nothing_and_one_changes_at_once() {
    let mut lab = Lab::new();
    let inner = v4_frame(M1, R4, EF << 2);
    for (dscp, want) in [(None, 0), (Some(EF), EF), (Some(0), 0), (Some(10), 10), (None, 0)] {
        lab.mark(P1, dscp);
        lab.input(P1, &vec![inner.clone(); 64]);
        assert_eq!(lab.marks(), [want; 64]);
    }
    lab.mark(P1, Some(EF));
    lab.apply(Update::PolicyClear { port: P1 });
    lab.one(P1, &inner);
    assert_eq!(lab.marks(), [0]);
}

/// Beside what makes frames take the cold path: a rate, a hold, a copy, segments, a request for a silent owner.
#[test]
fn r23_every_way_to_other_nves_marks() {
    let mut lab = Lab::new();
    lab.mark_at(P1, Some(EF), Rate::per_second(1000, 10));
    lab.input(P1, &vec![v4_frame(M1, R4, 1); 10]);
    assert_eq!(lab.marks(), [EF; 10], "with a rate");
    lab.mark(P1, Some(EF));
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T6 });
    for group in [Mac::BROADCAST, Mac([0x01, 0, 0x5e, 0, 0, 0xfb])] {
        let f = v4_frame(M1, group, 2);
        lab.one(P1, &f);
        assert_eq!(lab.to(P2), [f.as_slice()], "as it is");
        assert!(lab.to(UPLINK).iter().all(|f| open(f).0.ecn.bits() == 2));
        assert_eq!(lab.marks(), [EF; 2], "copies");
        lab.one(P2, &v4_frame(M2, group, 2));
        assert_eq!(lab.marks(), [0; 2], "of another VM");
    }
    // Held until the directory answers, and meanwhile the policy is another one, then the port's gone.
    lab.one(P1, &v4_frame(M1, STRANGER, 1));
    lab.one(P2, &v4_frame(M2, STRANGER, 1));
    lab.apply(Update::PortRemove { port: P1 });
    lab.vm(STRANGER, VmState::Remote { to: through(T6) });
    lab.settle();
    let mut held = lab.marks();
    held.sort_unstable();
    assert_eq!(held, [0, EF], "as they were sent");
    // What its guest left unfinished.
    lab.access(P1, VN, M1, Admission::Activated);
    lab.mark(P1, Some(EF));
    let unfinished = Asks { segment: 0, checksum: true };
    lab.input_packets(P1, vec![MemPacket::new(&v4_frame(M1, R4, 0)).asking(unfinished)]);
    assert_eq!(lab.marks(), [EF]);
}

#[test]
fn r23_what_waited_for_its_port_is_marked_when_that_opens() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    lab.one(P1, &v4_frame(M1, R4, 0));
    lab.mark(P1, Some(EF));
    lab.access(P1, VN, M1, Admission::Activated);
    lab.settle();
    assert_eq!(lab.marks(), [EF]);
}

/// The old NVE does not know the sender's policy: the mark comes with the frame.
#[test]
fn r23_a_frame_that_is_forwarded_in_flight_keeps_its_mark() {
    for (tunnel, sender) in [(T4, NVE_C.into()), (T6, NVE_C.into()), (T4, NVE_B6.into()), (T6, NVE_B6.into())]
    {
        let mut lab = Lab::new();
        // Its own VM's policy is about what that one sends.
        lab.mark(P1, Some(10));
        let comes = |tos| Vxlan { tos, ..vxlan_from(sender, vni()) }.frame(&v4_frame(R4, M1, 2));
        lab.vm(M1, VmState::Paused { hold: limits(100, 2000) });
        lab.one(UPLINK, &comes(EF << 2 | 3));
        lab.vm(M1, VmState::Departed { to: through(tunnel), until: lab.now + ms(60_000) });
        lab.one(UPLINK, &comes(EF << 2 | 3));
        lab.one(UPLINK, &comes(3));
        lab.settle();
        let sent = lab.to(UPLINK);
        assert!(sent.iter().all(|f| open(f).0.ecn.bits() == 3), "congestion is told all the same");
        assert!(sent.iter().all(|f| open(f).0.ttl == 48), "and the journey is paid for");
        assert_eq!(lab.marks(), [EF, EF, 0], "held, forwarded, and one without a mark");
        // What a VM of this NVE sends to it.
        lab.mark(P2, Some(40));
        lab.one(P2, &v4_frame(M2, M1, 0));
        assert_eq!(lab.marks(), [40]);
    }
}

#[test]
fn r23_a_mark_goes_before_the_copy_of_the_inner_dscp() {
    for udp_checksum in [false, true] {
        let mut lab = Lab::with(&TablesConfig { copy_dscp: true, udp_checksum, ..config() });
        lab.mark(P1, Some(0));
        lab.vm(STRANGER, VmState::Departed { to: through(T4), until: lab.now + ms(60_000) });
        for to in [R4, R6, STRANGER] {
            lab.one(P1, &v4_frame(M1, to, EF << 2));
            assert_eq!(lab.marks(), [0]);
            lab.one(P2, &v4_frame(M2, to, EF << 2));
            assert_eq!(lab.marks(), [EF], "copied for others");
        }
        lab.one(UPLINK, &Vxlan { tos: 10 << 2, ..vxlan() }.frame(&v4_frame(R4, STRANGER, EF << 2)));
        assert_eq!(lab.marks(), [10], "in flight");
    }
}

#[test]
fn r23_a_mark_is_no_matter_of_those_at_the_same_nve() {
    let mut lab = Lab::new();
    lab.mark(P1, Some(EF));
    let f = v4_frame(M1, M2, 10 << 2);
    lab.one(P1, &f);
    assert_eq!(lab.only(), (P2, f.as_slice()));
    lab.clear();
    let f = v4_frame(R4, M1, 10 << 2);
    lab.one(UPLINK, &Vxlan { tos: EF << 2, ..vxlan() }.frame(&f));
    assert_eq!(lab.only(), (P1, f.as_slice()), "nor is it seen inside");
}

#[test]
fn r23_the_trace_tells_the_mark() {
    let mut lab = Lab::new();
    lab.mark(P1, Some(EF));
    let says = |port, frame: &[u8]| trace::trace(&lab.tables, port, frame, lab.now).to_string();
    assert!(says(P1, &v4_frame(M1, R4, 0)).contains("outer DSCP EF"));
    assert!(!says(P2, &v4_frame(M2, R4, 0)).contains("DSCP"));
    assert!(!says(P1, &v4_frame(M1, M2, 0)).contains("DSCP"), "not encapsulated");
}
