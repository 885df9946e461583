//! Held frames leave as fast as their receivers take them, and delay nobody else (R45).

use crate::common::moves::*;
use crate::common::*;
use godwit_tables::update::*;
use godwit_tables::{DropReason, TablesConfig};
use godwit_wire::Mac;
use proptest::prelude::*;

/// VMs with their ports.
const VMS: [(Mac, PortIdx); 3] = [(M1, P1), (M2, P2), (mac(5), PortIdx(5))];

fn lab(hold: HoldLimits) -> Lab {
    let mut lab = Lab::with(&TablesConfig { settle: ms(5000), ..config() });
    for (mac, port) in VMS {
        lab.access(port, VN, mac, Admission::Activated);
        lab.vm(mac, VmState::Paused { hold });
    }
    lab
}

fn hold() -> HoldLimits {
    HoldLimits::of_age(ms(2500))
}

fn to(vm: usize, n: u32) -> Vec<u8> {
    vxlan().frame(&numbered(R4, VMS[vm].0, n))
}

fn runs(lab: &mut Lab, vm: usize) {
    let (mac, port) = VMS[vm];
    lab.vm(mac, VmState::Local { port });
}

#[test]
fn r45_vms_that_drain_share_turns() {
    let mut lab = lab(hold());
    for n in 0..300 {
        (0..3).for_each(|vm| lab.one(UPLINK, &to(vm, n)));
    }
    (0..3).for_each(|vm| runs(&mut lab, vm));
    for _ in 0..20 {
        lab.tick();
        let got = VMS.map(|(_, port)| lab.to(port).len());
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        assert!(most - least <= 21, "{got:?}");
    }
    for (_, port) in VMS {
        assert_eq!(numbers(&lab.to(port)), (0..300).collect::<Vec<_>>());
    }
}

#[test]
fn r45_a_slow_receiver_holds_up_nobody_else() {
    let mut lab = lab(hold());
    for n in 0..300 {
        (0..2).for_each(|vm| lab.one(UPLINK, &to(vm, n)));
    }
    (0..2).for_each(|vm| runs(&mut lab, vm));
    lab.out.busy = vec![P1];
    // At full speed: two VMs share a tick's 64.
    for _ in 0..10 {
        lab.tick();
    }
    assert_eq!(numbers(&lab.to(P2)), (0..300).collect::<Vec<_>>());
    lab.one(UPLINK, &to(1, 300));
    lab.one(UPLINK, &to(0, 300));
    assert_eq!((lab.to(P2).len(), lab.to(P1).len()), (301, 0), "newer ones of the slow one wait behind");
    lab.out.busy.clear();
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), (0..=300).collect::<Vec<_>>());
    assert_eq!((lab.tables.counters.total().dropped(), lab.tables.waiting()), (0, 0));
}

#[test]
fn r45_what_goes_on_to_the_new_nve_waits_for_the_uplink() {
    let mut lab = lab(hold());
    lab.input(UPLINK, &(0..300).map(overlay).collect::<Vec<_>>());
    lab.departed(T4);
    lab.out.busy = vec![UPLINK];
    lab.settle();
    lab.one(UPLINK, &overlay(300));
    assert!(lab.to(UPLINK).is_empty(), "neither what is held nor what comes after it");
    lab.out.busy.clear();
    let mut got = Vec::new();
    for round in 0..20 {
        lab.out.port_room = 32;
        if round < 3 {
            lab.one(UPLINK, &overlay(301 + round));
        }
        lab.settle();
        assert!(lab.to(UPLINK).len() <= 33, "no more than it takes, but for what does not wait");
        got.extend(numbers(&lab.to(UPLINK).iter().map(|f| open(f).1).collect::<Vec<_>>()));
        lab.clear();
    }
    assert_eq!(got, (0..304).collect::<Vec<_>>());
    assert_eq!((lab.tables.counters.total().dropped(), lab.tables.waiting()), (0, 0));
}

#[test]
fn r45_a_pause_of_400_ms_at_50_000_packets_a_second_loses_nothing() {
    let mut lab = Lab::with(&TablesConfig { hold_bytes: 32 << 20, ..config() });
    lab.vm(M1, VmState::Paused { hold: hold() });
    let count = 20_000;
    for n in 0..count {
        lab.one(UPLINK, &overlay(n));
        lab.clear();
        lab.wait(godwit_wire::Span::from_us(20));
    }
    lab.tick();
    let stats = lab.report();
    assert_eq!((stats.waiting, stats.bytes), (count.into(), u64::from(count) * 268));
    lab.departed(T4);
    lab.settle();
    let out = lab.to(UPLINK).into_iter().map(|f| open(f).1).collect::<Vec<_>>();
    assert!(numbers(&out).into_iter().eq(0..count));
    let stats = lab.report();
    assert_eq!((stats.dropped, stats.waiting, stats.bytes), (0, 0, 0));
    assert_eq!(stats.peak_bytes, u64::from(count) * 268);
}

#[test]
fn r45_a_small_hold_loses_nothing_to_a_large_one() {
    let mut lab = Lab::with(&TablesConfig { hold_bytes: 100 * 268, ..config() });
    for (mac, port) in VMS {
        lab.access(port, VN, mac, Admission::Activated);
        lab.vm(mac, VmState::Paused { hold: hold() });
    }
    for n in 0..1000 {
        lab.one(UPLINK, &to(0, n));
        if n >= 980 {
            lab.one(UPLINK, &to(1, n));
        }
    }
    (0..2).for_each(|vm| runs(&mut lab, vm));
    lab.settle();
    assert_eq!(numbers(&lab.to(P2)), (980..1000).collect::<Vec<_>>());
    assert_eq!(numbers(&lab.to(P1)), (920..1000).collect::<Vec<_>>());
    assert_eq!(lab.drops(DropReason::HoldMemory), 920);
}

#[derive(Clone, Debug)]
enum Op {
    Frames(usize, u32),
    Runs(usize),
    Pauses(usize),
    Busy(usize),
    Tick,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0usize..3, 1u32..90).prop_map(|(vm, n)| Op::Frames(vm, n)),
        2 => (0usize..3).prop_map(Op::Runs),
        1 => (0usize..3).prop_map(Op::Pauses),
        2 => (0usize..3).prop_map(Op::Busy),
        4 => Just(Op::Tick),
    ]
}

proptest! {
    #[test]
    fn r45_below_the_bound_nothing_is_lost_and_each_vm_gets_its_own_in_order(
        ops in proptest::collection::vec(op(), 0..60),
    ) {
        let mut lab = lab(hold());
        let mut came = [0; 3];
        let count = |lab: &Lab, vm: usize| lab.to(VMS[vm].1).len();
        for op in ops {
            match op {
                Op::Frames(vm, n) => {
                    let frames: Vec<_> = (came[vm]..came[vm] + n).map(|n| to(vm, n)).collect();
                    lab.input(UPLINK, &frames);
                    came[vm] += n;
                }
                Op::Runs(vm) => runs(&mut lab, vm),
                Op::Pauses(vm) => lab.vm(VMS[vm].0, VmState::Paused { hold: hold() }),
                Op::Busy(vm) => {
                    let port = VMS[vm].1;
                    let was = lab.out.busy.len();
                    lab.out.busy.retain(|p| *p != port);
                    if lab.out.busy.len() == was {
                        lab.out.busy.push(port);
                    }
                }
                Op::Tick => {
                    let before = [0, 1, 2].map(|vm| count(&lab, vm));
                    lab.tick();
                    for (vm, before) in before.into_iter().enumerate() {
                        let busy = lab.out.busy.contains(&VMS[vm].1);
                        prop_assert!(!busy || count(&lab, vm) == before, "a full port gets nothing that waited");
                    }
                }
            }
        }
        lab.out.busy.clear();
        (0..3).for_each(|vm| runs(&mut lab, vm));
        lab.settle();
        for vm in 0..3 {
            prop_assert!(numbers(&lab.to(VMS[vm].1)).into_iter().eq(0..came[vm]), "VM {}", vm);
        }
        prop_assert_eq!((lab.tables.counters.total().dropped(), lab.tables.waiting()), (0, 0));
    }
}
