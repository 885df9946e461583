//! The hot move's order, among two and three NVEs (R42 to R49).

use crate::lab::{self, Lab, PORT, key, locator, mac, vm, vm_ip};
use godwit_control::Input;
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{MoveId, MoveStepKind, Version};
use godwit_tables::event::{Event, HandoverStats};
use godwit_tables::update::{Admission, PortIdx, PortRole, VmState};
use godwit_wire::Instant;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// v (VM 1) runs at A, its peer p (VM 2) at C.
fn v_at_a() -> Lab {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(C, 2);
    lab
}

fn admission(lab: &Lab, i: usize, port: PortIdx) -> Admission {
    match lab.hosts[i].tables.ports[&port] {
        PortRole::Access { admission, .. } => admission,
        other => panic!("{other:?}"),
    }
}

fn steps(lab: &Lab, i: usize) -> Vec<MoveStepKind> {
    let step = |m: &NveToNva| match m {
        NveToNva::MoveReport { step, .. } => step.as_ref().map(|s| s.what),
        _ => None,
    };
    lab.hosts[i].said.iter().filter_map(step).collect()
}

fn is_departed_to(lab: &Lab, i: usize, to: usize) -> bool {
    matches!(lab.hosts[i].state(1), Some(VmState::Departed { .. }))
        && lab.hosts[i].tunnel_ip(1) == Some(locator(to))
}

#[test]
fn r49_the_whole_hot_move() {
    let mut lab = v_at_a();
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(A)));

    lab.add_port(B, PORT, 1);
    lab.settle();
    assert!(matches!(lab.hosts[B].state(1), Some(VmState::Remote { .. })), "R15: associated only");
    assert_eq!(admission(&lab, B, PORT), Admission::Associated);

    lab.order_move("m1", 1, A, B);
    lab.settle();
    assert!(matches!(lab.hosts[B].state(1), Some(VmState::Expected { via: Some(_), .. })));
    assert_eq!(lab.hosts[B].tunnel_ip(1), Some(locator(A)), "local senders reach it where it runs");
    assert_eq!(steps(&lab, A), [MoveStepKind::Prepared]);
    assert_eq!(steps(&lab, B), [MoveStepKind::Prepared]);
    let way = lab.hosts[A].tables.tunnels.values().find(|t| t.0 == locator(B)).expect("R42: resolved ahead");
    assert!(way.1.is_some());

    lab.input(A, Input::PausePort { port: PORT });
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })), "R45");
    assert_eq!(admission(&lab, A, PORT), Admission::Activated, "its own frames still leave");
    assert_eq!(steps(&lab, A), [MoveStepKind::Prepared, MoveStepKind::Paused]);

    lab.announce(B, PORT, 1);
    assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: PORT }), "R18: delivery before the grant");
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })));
    let before = lab.version(1);
    lab.settle();

    assert!(lab.version(1) > before);
    assert!(is_departed_to(&lab, A, B), "R43");
    assert_eq!(admission(&lab, A, PORT), Admission::Closed, "R41");
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)), "R48: straight to B");
    assert_eq!(steps(&lab, B), [MoveStepKind::Prepared, MoveStepKind::Activated]);
    assert_eq!(lab.hosts[C].tables.neighbors[&(key(1).vn(), vm_ip(1))], Some(mac(1)));

    lab.input(A, Input::PortRemoved { port: PORT });
    lab.pass(59_000);
    assert!(is_departed_to(&lab, A, B), "R43: for fwd_timer, whatever becomes of the port");
    lab.pass(2_000);
    assert!(!matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
    assert!(lab.hosts[A].tables.vns.is_empty(), "R17: A has left the VN");
    assert!(!lab.hosts[A].said.iter().any(|m| matches!(m, NveToNva::Withdraw { .. })), "R19");
    assert_eq!((0..3).map(|i| lab.hosts[i].alarms()).sum::<usize>(), 0);
}

#[test]
fn r49_the_old_nve_says_that_its_vm_runs_again_and_reports_the_next_pause_anew() {
    use MoveStepKind::{Activated, Paused, Prepared};
    let mut lab = v_at_a();
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.input(A, Input::PausePort { port: PORT });
    lab.input(A, Input::ActivatePort { port: PORT });
    lab.input(A, Input::ActivatePort { port: PORT });
    lab.settle();
    assert_eq!(steps(&lab, A), [Prepared, Paused, Activated], "once a pause");
    lab.input(A, Input::PausePort { port: PORT });
    lab.settle();
    assert_eq!(steps(&lab, A), [Prepared, Paused, Activated, Paused]);
}

#[test]
fn r46_local_delivery_and_the_end_of_the_forward_entry_precede_the_claim() {
    // B hosted v before, so B has a forward entry; the claim waits until its worker let go of it.
    let mut lab = v_at_a();
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    assert!(is_departed_to(&lab, A, B));

    lab.order_move("m2", 1, B, A);
    lab.settle();
    assert!(is_departed_to(&lab, A, B), "R46c: association alone does not delete it; v runs at B");
    assert_eq!(admission(&lab, A, PORT), Admission::Associated, "its port may speak again");
    lab.apply = false;
    lab.announce(A, PORT, 1);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    let claims =
        |lab: &Lab| lab.hosts[A].outbox.iter().filter(|m| matches!(m, NveToNva::Claim { .. })).count();
    assert_eq!(claims(&lab), 0, "not before every worker has applied it");
    let (worker, token) = lab.hosts[A].barriers.pop_front().unwrap();
    lab.input(A, Input::Applied { worker, token });
    assert_eq!(claims(&lab), 1);
    lab.apply = true;
    lab.settle();
    assert!(is_departed_to(&lab, B, A));
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(A)));
}

#[test]
fn r45_workers_hear_of_the_grant_however_late_it_comes() {
    let mut lab = v_at_a();
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.nva.mute = true;
    lab.announce(B, PORT, 1);
    lab.pass(20_000);
    assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: PORT }));
    assert!(!lab.hosts[B].tables.settled.contains(&key(1)), "what A holds has not been let go");
    lab.nva.mute = false;
    lab.pass(20_000);
    assert!(is_departed_to(&lab, A, B));
    assert!(lab.hosts[B].tables.settled.contains(&key(1)));
    // A new session claims again what runs here: nothing comes of that.
    lab.hosts[B].tables.settled.clear();
    lab.disconnect(B);
    lab.connect(B);
    lab.settle();
    assert!(!lab.hosts[B].tables.settled.contains(&key(1)));
}

#[test]
fn r43_a_second_move_retargets_the_forward_entry_and_keeps_its_deadline() {
    let mut lab = v_at_a();
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    let Some(VmState::Departed { until, .. }) = lab.hosts[A].state(1) else { panic!() };
    lab.pass(1_000);
    lab.add_port(C, PORT, 1);
    lab.order_move("m2", 1, B, C);
    lab.settle();
    lab.announce(C, PORT, 1);
    lab.settle();
    assert!(is_departed_to(&lab, A, C), "A forwards straight to C");
    assert!(is_departed_to(&lab, B, C));
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { until: u, .. }) if u == until));
}

fn endings(lab: &Lab) -> usize {
    lab.hosts[A].said.iter().filter(|m| matches!(m, NveToNva::ForwardEnding { .. })).count()
}

#[test]
fn r43_the_nva_extends_the_forward_entry_ten_times_and_then_it_ends() {
    let mut lab = v_at_a();
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    lab.nva.needs_forwarding = true;
    lab.pass(44_000);
    assert_eq!(endings(&lab), 0, "not before the last quarter of its life");
    lab.pass(600_000);
    assert!(is_departed_to(&lab, A, B), "eleven lifetimes of 60 s");
    assert_eq!(endings(&lab), 10, "and no question when no extension is left");
    lab.pass(20_000);
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Remote { .. })), "dropped after that");
}

#[test]
fn r43_a_forward_entry_that_nobody_needs_ends_in_time() {
    let mut lab = v_at_a();
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    let Some(VmState::Departed { until, .. }) = lab.hosts[A].state(1) else { panic!() };
    let version = lab.version(1);
    let unasked = NvaToNve::ForwardExtend { key: vm(1), version };
    lab.input(A, Input::Nva(unasked.clone()));
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { until: u, .. }) if u == until));
    lab.pass(50_000);
    assert_eq!(endings(&lab), 1, "asked and not answered");
    lab.disconnect(A);
    lab.connect(A);
    lab.settle();
    assert_eq!(endings(&lab), 2, "asked again on the next session");
    lab.input(A, Input::Nva(unasked.clone()));
    lab.input(A, Input::Nva(unasked));
    let until = until + godwit_wire::Span::from_ms(60_000);
    assert!(
        matches!(lab.hosts[A].state(1), Some(VmState::Departed { until: u, .. }) if u == until),
        "one answer counts once"
    );
    lab.pass(80_000);
    assert!(!is_departed_to(&lab, A, B));
}

#[test]
fn r49_a_move_called_off_gives_the_vm_back_with_what_was_held() {
    let mut lab = v_at_a();
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.input(A, Input::PausePort { port: PORT });
    for i in [A, B] {
        let abort = NvaToNve::MoveAbort { id: MoveId("m1".into()), key: vm(1), reason: "test".into() };
        lab.hosts[i].inbox.push_back(abort);
    }
    let claims = lab.hosts[A].said.len();
    lab.settle();
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    assert!(matches!(lab.hosts[B].state(1), Some(VmState::Remote { .. })));
    assert_eq!(lab.hosts[A].said.len(), claims, "it never left: no claim");
}

#[test]
fn r49_a_move_without_an_end_leaves_the_vm_where_it_was() {
    let mut lab = v_at_a();
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.input(A, Input::PausePort { port: PORT });
    lab.disconnect(A);
    lab.pass(301_000);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    assert!(lab.hosts[A].alarms() > 0);
}

#[test]
fn r45_resumed_by_an_order_without_a_move() {
    let mut lab = v_at_a();
    lab.input(A, Input::PausePort { port: PORT });
    lab.announce(A, PORT, 1);
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })), "a queued GARP ends no pause");
    lab.input(A, Input::ActivatePort { port: PORT });
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
}

#[test]
fn r45_a_link_that_falls_during_a_move_is_a_pause_and_its_return_a_resumption() {
    let mut lab = v_at_a();
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.input(A, Input::PortLink { port: PORT, up: false });
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })));
    assert!(steps(&lab, A).contains(&MoveStepKind::Paused));
    lab.pass(10_000);
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })), "R19: the move explains it");
    lab.input(A, Input::PortLink { port: PORT, up: true });
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
}

#[test]
fn r45_a_port_that_goes_while_paused_does_not_lose_the_hold() {
    let mut lab = v_at_a();
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.input(A, Input::PausePort { port: PORT });
    lab.input(A, Input::PortRemoved { port: PORT });
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })));
    lab.pass(5_000);
    assert!(!lab.hosts[A].said.iter().any(|m| matches!(m, NveToNva::Withdraw { .. })));
    lab.announce(B, PORT, 1);
    lab.settle();
    assert!(is_departed_to(&lab, A, B));
}

#[test]
fn r49_the_order_may_come_before_the_port_and_the_pause_before_the_order() {
    let mut lab = v_at_a();
    lab.input(A, Input::PausePort { port: PORT });
    lab.order_move("m1", 1, A, B);
    lab.settle();
    assert_eq!(steps(&lab, A), [MoveStepKind::Paused, MoveStepKind::Prepared]);
    assert_eq!(steps(&lab, B), [], "nothing is prepared without a port");
    lab.add_port(B, PORT, 1);
    lab.settle();
    assert_eq!(steps(&lab, B), [MoveStepKind::Prepared]);
    assert!(matches!(lab.hosts[B].state(1), Some(VmState::Expected { .. })));
}

#[test]
fn r42_prepared_is_said_after_a_while_even_without_the_next_hop() {
    let mut lab = v_at_a();
    lab.answer_arp = false;
    lab.order_move("m1", 1, A, B);
    lab.settle();
    assert_eq!(steps(&lab, A), []);
    lab.pass(1_100);
    assert_eq!(steps(&lab, A), [MoveStepKind::Prepared]);
}

#[test]
fn r38_an_update_is_acknowledged_when_every_worker_applied_it() {
    let mut lab = v_at_a();
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.apply = false;
    lab.hosts[A].barriers.clear();
    lab.nva.acks.clear();
    lab.announce(B, PORT, 1);
    lab.settle();
    assert!(is_departed_to(&lab, A, B));
    assert!(!lab.nva.acks.iter().any(|(i, _)| *i == A));
    while let Some((worker, token)) = lab.hosts[A].barriers.pop_front() {
        lab.input(A, Input::Applied { worker, token });
    }
    lab.settle();
    assert!(lab.nva.acks.iter().any(|(i, _)| *i == A));
}

#[test]
fn r43_counts_of_all_workers_reach_the_nva_and_stop_when_forwarding_stops() {
    let mut lab = v_at_a();
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.input(A, Input::PausePort { port: PORT });
    lab.announce(B, PORT, 1);
    lab.settle();
    lab.hosts[A].said.clear();
    for burst in 1..=20u64 {
        let at = Instant(lab.now.0 - 1000);
        for worker in [0, 1] {
            let stats = HandoverStats {
                held: 5,
                flushed: 5,
                forwarded: burst,
                first_forward: Instant(1_000_000_000),
                last_forward: at,
                ..HandoverStats::default()
            };
            lab.input(A, Input::Worker { worker, event: Event::Handover { key: key(1), stats } });
        }
        lab.pass(10);
    }
    lab.pass(2_000);
    assert_eq!(steps(&lab, A), [MoveStepKind::FirstForwarded, MoveStepKind::LastForwarded]);
    let reports: Vec<_> = lab.hosts[A]
        .said
        .iter()
        .filter_map(|m| match m {
            NveToNva::MoveReport { id, counts, .. } => Some((id.clone(), counts.unwrap())),
            _ => None,
        })
        .collect();
    assert!(reports.len() <= 5, "at most one in 100 ms: {}", reports.len());
    let (id, last) = reports.last().unwrap();
    assert_eq!((id.0.as_str(), last.held, last.flushed, last.forwarded), ("m1", 10, 10, 40));
    let wall = 1_700_000_000_000_000;
    assert!(last.first_forward_us >= wall + 1_000_000 && last.first_forward_us <= wall + 1_000_001);
    assert!(last.last_forward_us > last.first_forward_us);
}

#[test]
fn r46_stale_news_never_moves_a_vm_away() {
    let mut lab = v_at_a();
    let record = lab.nva.records[&vm(1)].clone();
    for version in [Version::ZERO, Version { epoch: 1, seq: record.version.seq - 1 }, record.version] {
        let stale =
            godwit_model::VmRecord { bindings: Some(lab::location(B)).into(), version, ..record.clone() };
        lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(1), record: Some(stale) }));
        assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }), "R20: {version}");
    }
}

#[test]
fn lab_option_without_forwarding_in_flight() {
    let mut lab = Lab::with(2, |c| c.forward_in_flight = false);
    lab.run_vm(A, 1);
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.input(A, Input::PausePort { port: PORT });
    lab.announce(B, PORT, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Remote { .. })));
}

#[test]
fn r73_a_move_survives_sessions_that_break_at_every_point() {
    // `broken` sessions are down at that step; they come back after the last.
    for at_step in 0..4 {
        for broken in [A, B, C] {
            let mut lab = v_at_a();
            lab.add_port(B, PORT, 1);
            lab.settle();
            for step in 0..4 {
                if step == at_step {
                    lab.disconnect(broken);
                }
                match step {
                    0 => lab.order_move("m1", 1, A, B),
                    1 => lab.input(A, Input::PausePort { port: PORT }),
                    2 => lab.announce(B, PORT, 1),
                    _ => lab.input(A, Input::PortRemoved { port: PORT }),
                }
                lab.settle();
                lab.pass(50);
            }
            lab.connect(broken);
            lab.settle();
            lab.pass(6_000);
            let what = format!("session {broken} broken at step {at_step}");
            assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: PORT }), "{what}");
            assert!(is_departed_to(&lab, A, B), "{what}: {:?}", lab.hosts[A].state(1));
            assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)), "{what}");
        }
    }
}
