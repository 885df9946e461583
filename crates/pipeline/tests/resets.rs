//! Segments for a VM that is attached nowhere (R53).

use crate::common::*;
use godwit_tables::DropReason;
use godwit_tables::update::*;
use godwit_testkit::frames;
use godwit_wire::tcp::{ACK, RST, SYN, Tcp};
use godwit_wire::{Frame, Mac};

fn segment(to: Mac, flags: u8) -> Vec<u8> {
    let (from, to) = ((M1, v4(1).into(), 40_000), (to, v4(2).into(), 80));
    frames::tcp_frame(from, to, (100, 900), flags, b"some data")
}

/// Sequence number and flags of the resets that the VM on port 1 got.
fn resets(lab: &Lab) -> Vec<(u32, u8)> {
    let read = |f: &&[u8]| {
        let frame = Frame::read(f).unwrap();
        assert_eq!((frame.dst(), frame.src()), (M1, STRANGER));
        let (_, bytes) = frame.upper().unwrap();
        let t = Tcp::new_checked(bytes).unwrap();
        assert!(t.verify_v4(v4(2), v4(1)));
        assert_eq!((t.src_port(), t.dst_port()), (80, 40_000));
        (t.seq(), t.flags())
    };
    lab.to(P1).iter().map(read).collect()
}

#[test]
fn r53_segments_for_a_detached_vm_are_answered_by_resets_where_its_vn_wants_it() {
    let mut lab = Lab::new();
    lab.vm(STRANGER, VmState::Detached { reset: true });
    lab.one(P1, &segment(STRANGER, ACK));
    lab.one(P1, &segment(STRANGER, SYN));
    lab.one(P1, &segment(STRANGER, RST | ACK));
    lab.one(P1, &numbered(M1, STRANGER, 7));
    assert_eq!(resets(&lab), [(900, RST), (0, RST | ACK)]);
    assert_eq!((lab.drops(DropReason::Detached), lab.tables.counters.worker.resets_sent), (4, 2));
    assert_eq!(lab.take_events(), [], "nobody is asked");
    lab.clear();
    lab.vm(STRANGER, VmState::Detached { reset: false });
    dropped(&mut lab, P1, &segment(STRANGER, ACK), DropReason::Detached);
}

#[test]
fn r53_a_segment_that_waited_for_the_directorys_answer_is_reset_too() {
    let mut lab = Lab::new();
    lab.one(P1, &segment(STRANGER, SYN));
    assert_eq!(lab.to(P1).len(), 0);
    lab.vm(STRANGER, VmState::Detached { reset: true });
    lab.tick();
    assert_eq!(resets(&lab), [(0, RST | ACK)]);
    assert_eq!((lab.tables.waiting(), lab.tables.vms.specials()), (0, 0));
}

#[test]
fn r53_a_port_gets_a_hundred_resets_a_second_at_most() {
    let mut lab = Lab::new();
    lab.vm(STRANGER, VmState::Detached { reset: true });
    for _ in 0..500 {
        lab.one(P1, &segment(STRANGER, ACK));
    }
    let at_once = resets(&lab).len();
    assert!((10..=100).contains(&at_once), "{at_once}");
    for _ in 0..200 {
        lab.wait(ms(10));
        lab.one(P1, &segment(STRANGER, ACK));
        lab.one(P1, &segment(STRANGER, ACK));
    }
    assert!(resets(&lab).len() - at_once <= 210, "{}", resets(&lab).len() - at_once);
}

#[test]
fn r53_a_vm_that_runs_and_what_the_overlay_brings_get_none() {
    let mut lab = Lab::new();
    lab.vm(STRANGER, VmState::Detached { reset: true });
    lab.one(UPLINK, &vxlan().frame(&segment(STRANGER, ACK)));
    assert_eq!(lab.drops(DropReason::NotLocal), 1);
    lab.vm(STRANGER, VmState::Remote { to: through(T4) });
    lab.one(P1, &segment(STRANGER, ACK));
    assert_eq!(lab.tables.counters.worker.resets_sent, 0);
    assert_eq!(lab.to(UPLINK).len(), 1);
}
