//! What an NVE does while the NVA is away (R72).

use crate::lab::binds::binds;
use crate::lab::said::{A, B, C, is_remote_to};
use crate::lab::{Lab, PORT, key, mac, vm, vm_ip, vni};
use godwit_control::{Input, Level};
use godwit_model::message::NveToNva;
use godwit_tables::event::Event;
use godwit_tables::update::{PortIdx, VmState};
use godwit_wire::{Instant, Mac, Prefix, Span};

/// VM 1 at A, VM 2 at C.
fn two() -> Lab {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(C, 2);
    lab.settle();
    assert!(is_remote_to(&lab, C, 1, A));
    lab
}

fn owner(lab: &Lab, i: usize, n: u8) -> Option<Mac> {
    lab.hosts[i].tables.neighbors.get(&(key(n).vn(), vm_ip(n))).copied().flatten()
}

#[test]
fn r72_what_is_known_serves_for_300_s_and_what_is_here_for_ever() {
    let mut lab = two();
    lab.disconnect(C);
    lab.pass(299_000);
    assert!(is_remote_to(&lab, C, 1, A));
    assert_eq!(owner(&lab, C, 1), Some(mac(1)));
    lab.pass(2_000);
    assert_eq!((lab.hosts[C].state(1), owner(&lab, C, 1)), (None, None));
    assert_eq!(lab.hosts[C].state(2), Some(VmState::Local { port: PortIdx(2) }));
    assert_eq!(owner(&lab, C, 2), Some(mac(2)));
    assert_eq!(lab.hosts[C].alarms(), 1);
    // Frames for it wait for an answer that does not come; the workers end that (R35).
    lab.event(C, Event::MissMac { key: key(1), port: PortIdx(2) });
    lab.pass(10_000);
    assert_eq!(lab.hosts[C].state(1), None);
    lab.connect(C);
    lab.settle();
    assert!(is_remote_to(&lab, C, 1, A), "the snapshot brings it back");
    lab.pass(600_000);
    assert!(is_remote_to(&lab, C, 1, A), "the time counts from the next loss");
    assert_eq!(lab.hosts[C].alarms(), 1);
}

#[test]
fn r72_a_short_absence_begins_the_time_anew() {
    let mut lab = two();
    for _ in 0..3 {
        lab.disconnect(C);
        lab.pass(200_000);
        assert!(is_remote_to(&lab, C, 1, A));
        lab.connect(C);
        lab.settle();
    }
}

#[test]
fn r72_no_time_at_all_forgets_at_once() {
    let mut lab = Lab::with(2, |c| c.headless = Span::from_ms(0));
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.settle();
    lab.disconnect(B);
    assert_eq!((lab.hosts[B].state(1), owner(&lab, B, 1)), (None, None));
    assert_eq!(lab.hosts[B].state(2), Some(VmState::Local { port: PortIdx(2) }));
    assert!(lab.hosts[B].notes.iter().any(|n| n.level == Level::Alarm && n.text.contains("forgotten")));
}

#[test]
fn r72_a_negative_answer_ends_with_the_session() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.event(A, Event::MissMac { key: key(9), port: PORT });
    lab.settle();
    assert!(matches!(lab.hosts[A].state(9), Some(VmState::Absent { .. })));
    lab.disconnect(A);
    assert_eq!(lab.hosts[A].state(9), None);
}

/// The old NVE is the only one that can send packets on while nobody hears where the VM went.
#[test]
fn r72_forward_entries_stand_still_without_the_nva() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.order_move("m", 1, A, B);
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab.input(A, Input::PausePort { port: PORT });
    lab.announce(B, PORT, 1);
    lab.settle();
    let until = |lab: &Lab| match lab.hosts[A].state(1) {
        Some(VmState::Departed { until, .. }) => Some(until),
        _ => None,
    };
    let began = lab.now;
    assert_eq!(until(&lab), Some(began + Span::from_ms(60_000)));
    lab.pass(20_000);
    lab.disconnect(A);
    assert_eq!(until(&lab), Some(Instant::NEVER));
    lab.pass(200_000);
    assert_eq!(until(&lab), Some(Instant::NEVER));
    lab.connect(A);
    lab.settle();
    assert_eq!(until(&lab), Some(began + Span::from_ms(260_000)), "40 s are left");
    lab.pass(39_000);
    assert!(until(&lab).is_some());
    let asked = lab.hosts[A].said.iter().filter(|m| matches!(m, NveToNva::ForwardEnding { .. })).count();
    assert_eq!(asked, 1, "and the NVA is asked when their end is near (R43)");
    lab.pass(2_000);
    assert_eq!(until(&lab), None);
}

#[test]
fn r72_after_300_s_forward_entries_end_in_their_time() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.order_move("m", 1, A, B);
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    lab.disconnect(A);
    lab.pass(350_000);
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
    lab.pass(15_000);
    assert!(!matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
}

/// VM 1 runs at A and binds its addresses by its own word.
fn learner(lab: &mut Lab) {
    lab.nva.define(vm(1), vm_ip(1));
    lab.nva.records.get_mut(&vm(1)).unwrap().ipv4.clear();
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.announce(A, PORT, 1);
    lab.settle();
    lab.pass(500);
    assert!(lab.hosts[A].tables.sources.contains(&(PORT, vm_ip(1))));
}

/// VM 1 uses an address; whether its switch refuses that.
fn refuses(lab: &mut Lab, n: u8, announced: bool) -> bool {
    lab.hosts[A].tables.refused.remove(&(PORT, vm_ip(n)));
    lab.seen(A, PORT, (mac(1), Some(vm_ip(n))), announced);
    lab.hosts[A].tables.refused.contains(&(PORT, vm_ip(n)))
}

#[test]
fn r72_r93_without_the_nva_no_vm_binds_what_another_one_has_wherever_that_is() {
    let (virtual_ip, learned) = (200, 150);
    let mut lab = Lab::new(2);
    learner(&mut lab);
    lab.run_vm(B, 2);
    lab.run_vm(B, 3);
    for n in [1, 2] {
        lab.allow(n, |a| a.virtual_ips = vec![Prefix::host(vm_ip(virtual_ip))]);
    }
    lab.nva.records.get_mut(&vm(2)).unwrap().allowed.learning =
        godwit_model::LearningOf { v4: Some(godwit_model::Learning::Learned(8)), ..Default::default() };
    for n in [virtual_ip, learned] {
        lab.seen(B, PortIdx(2), (mac(2), Some(vm_ip(n))), true);
    }
    assert_eq!(lab.nva.records[&vm(2)].bound.ips.len(), 2);
    // VM 2 is detached, VM 3 frozen at a switch that is away as well.
    lab.input(B, Input::PortRemoved { port: PortIdx(2) });
    lab.pass(3_500);
    let said = lab.nva.change(vm(3), |r| r.frozen = true);
    said.into_iter().for_each(|(to, m)| lab.hosts[to].inbox.push_back(m));
    lab.settle();
    lab.disconnect(A);
    for n in [2, 3, learned] {
        for announced in [true, false] {
            assert!(refuses(&mut lab, n, announced), "{}", vm_ip(n));
        }
    }
    let told = |lab: &Lab, what: &str| lab.hosts[A].notes.iter().any(|n| n.text.contains(what));
    assert!(told(&lab, "10.0.0.3, an address that another VM has: dropped"));
    // What nobody has, and what it shares with others, serves at once and for as long as the NVA is away.
    for n in [77, virtual_ip] {
        assert!(!refuses(&mut lab, n, true));
        lab.pass(60_000);
        assert!(!refuses(&mut lab, n, true), "{}", vm_ip(n));
    }
    // The NVA decides again: what was learned may be free by now.
    lab.connect(A);
    lab.settle();
    let asked = binds(&lab, A).len();
    refuses(&mut lab, learned, true);
    assert_eq!(binds(&lab, A).len(), asked + 1);
}

#[test]
fn r72_r93_in_a_pulled_vn_nothing_new_is_bound_once_the_nva_has_been_away_for_a_while() {
    let mut lab = Lab::with(1, |c| c.pull = [vni()].into());
    learner(&mut lab);
    lab.disconnect(A);
    assert!(!refuses(&mut lab, 77, false), "an NVA that is restarted is not missed");
    lab.pass(4_900);
    assert!(!lab.hosts[A].tables.refused.contains(&(PORT, vm_ip(77))));
    lab.pass(200);
    assert!(lab.hosts[A].tables.refused.contains(&(PORT, vm_ip(77))), "it may be anybody's");
    assert!(refuses(&mut lab, 78, true), "at once from here on");
    let told = |n: &godwit_control::Note| n.level == Level::Alarm && n.text.contains("cannot be asked");
    assert!(lab.hosts[A].notes.iter().any(told));
    assert!(lab.hosts[A].tables.sources.contains(&(PORT, vm_ip(1))), "what it had before it keeps");
    lab.connect(A);
    lab.settle();
    assert_eq!(binds(&lab, A).len(), 1, "the next word counts");
    assert!(!refuses(&mut lab, 78, true));
    assert!(lab.hosts[A].tables.sources.contains(&(PORT, vm_ip(78))));
}
