//! What becomes of a frame for a single VM, state by state.

use crate::common::*;
use godwit_tables::holds::Origin;
use godwit_tables::update::*;
use godwit_tables::vms::Fib;
use godwit_tables::{Action, DropReason, Egress, Inbound, Tables};
use godwit_wire::policy::{Direction, Rule, Verdict};
use godwit_wire::{Instant, Rate};

/// A decision without what only packet processing needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Short {
    Deliver(PortIdx),
    Encapsulate(Target),
    Forward(Target, u8),
    Query,
    AwaitTunnel(Target),
    Hold,
    Drop(DropReason),
    /// It would have waited.
    NoRoom(DropReason),
}

fn decide(t: &Tables, key: Key, origin: Origin, flight: Option<u8>, frame: &[u8], now: Instant) -> Short {
    let ingress = if origin == Origin::Local { P2 } else { UPLINK };
    let decision = t.decide(key, &Inbound { ingress, origin, flight, routed: false, frame }, now);
    assert_eq!(decision.entry, t.vms.get(key));
    let waits = |room: Result<(), DropReason>, short| room.map_or_else(Short::NoRoom, |()| short);
    match decision.action {
        Action::Deliver(port) => Short::Deliver(port),
        Action::Encapsulate { target, .. } => Short::Encapsulate(target),
        Action::Forward { at, target, ttl, .. } => {
            assert_eq!(decision.entry, Some(Fib::Special(at)));
            Short::Forward(target, ttl)
        }
        Action::Query { room } => waits(room, Short::Query),
        Action::AwaitTunnel { target, room } => waits(room, Short::AwaitTunnel(target)),
        Action::Hold { at, behind, room } => {
            assert!(!behind && decision.entry == Some(Fib::Special(at)));
            waits(room, Short::Hold)
        }
        Action::Drop { reason, .. } => Short::Drop(reason),
    }
}

/// From a VM here, and from another NVE that may and that may not send it on once more.
fn all(t: &Tables, n: u64, len: usize) -> [Short; 3] {
    let f = frame(v4(2), v4(1), len);
    [(Origin::Local, None), (Origin::Overlay, Some(48)), (Origin::Overlay, None)]
        .map(|(origin, flight)| decide(t, key(n), origin, flight, &f, NOW))
}

#[test]
fn each_state_and_origin() {
    use DropReason::*;
    use Short::*;
    let until = NOW + ms(1000);
    let (hold, none) = (limits(2), limits(0));
    let same = |s| [s, s, s];
    for (state, expected) in [
        (None, [Query, Drop(NotLocal), Drop(NotLocal)]),
        (Some(VmState::Local { port: P1 }), same(Deliver(P1))),
        (Some(VmState::Local { port: UPLINK }), same(Drop(PortGone))),
        (Some(VmState::Arrived { port: P1, hold }), [Hold, Deliver(P1), Deliver(P1)]),
        (Some(VmState::Remote { to: to(READY) }), [Encapsulate(to(READY)), Drop(NotLocal), Drop(NotLocal)]),
        (Some(VmState::Ageing { to: to(READY) }), [Encapsulate(to(READY)), Drop(NotLocal), Drop(NotLocal)]),
        (
            Some(VmState::Remote { to: to(PENDING) }),
            [AwaitTunnel(to(PENDING)), Drop(NotLocal), Drop(NotLocal)],
        ),
        (Some(VmState::Remote { to: to(MISSING) }), [Drop(NoTunnel), Drop(NotLocal), Drop(NotLocal)]),
        (Some(VmState::Expected { via: None, hold }), same(Hold)),
        (Some(VmState::Expected { via: Some(to(READY)), hold }), [Encapsulate(to(READY)), Hold, Hold]),
        (Some(VmState::Expected { via: Some(to(PENDING)), hold }), same(Hold)),
        (Some(VmState::Expected { via: Some(to(MISSING)), hold }), [Drop(NoTunnel), Hold, Hold]),
        (Some(VmState::Paused { hold }), same(Hold)),
        (Some(VmState::Paused { hold: none }), same(NoRoom(HoldOverflow))),
        (
            Some(VmState::Departed { to: to(READY), until }),
            [Encapsulate(to(READY)), Forward(to(READY), 48), Drop(TtlExhausted)],
        ),
        (Some(VmState::Departed { to: to(PENDING), until }), same(Hold)),
        (Some(VmState::Departed { to: to(MISSING), until }), same(Drop(NoTunnel))),
        (Some(VmState::Absent { until }), same(Drop(UnknownUnicast))),
    ] {
        let mut t = tables();
        if let Some(state) = state {
            assert_eq!(t.apply(Update::VmSet { key: key(9), state }, NOW), None);
        }
        assert_eq!(all(&t, 9, 10), expected, "{state:?}");
        assert_eq!(t.counters.total().dropped() + t.waiting(), 0, "nothing has happened");
    }
}

#[test]
fn a_query_under_way_holds_for_vms_here_alone() {
    let mut t = tables();
    t.begin_query(key(9), P2, NOW).expect("room");
    assert_eq!(
        all(&t, 9, 10),
        [Short::Hold, Short::Drop(DropReason::NotLocal), Short::Drop(DropReason::NotLocal)]
    );
}

#[test]
fn a_frame_does_not_return_to_its_port() {
    let t = tables();
    let f = frame(v4(1), v4(2), 10);
    assert_eq!(decide(&t, key(2), Origin::Local, None, &f, NOW), Short::Drop(DropReason::Hairpin));
}

/// A port that another VN has got meanwhile is none of the entry's (R13).
#[test]
fn r13_a_stale_entry_leads_into_no_other_vn() {
    let mut t = tables();
    assert_eq!(t.apply(access(P1, OTHER_VN, mac(1), Admission::Activated), NOW), None);
    assert_eq!(all(&t, 1, 10), [Short::Drop(DropReason::PortGone); 3]);
}

#[test]
fn r8_what_is_larger_than_the_way_is_dropped_and_the_way_named() {
    let mut t = tables();
    let state = VmState::Remote { to: to(READY) };
    assert_eq!(t.apply(Update::VmSet { key: key(9), state }, NOW), None);
    // The outer headers after Ethernet's: IPv4, UDP, VXLAN. The inner ones: Ethernet, IPv4, UDP.
    let most = usize::from(MTU) - (20 + 8 + 8) - (14 + 20 + 8);
    assert_eq!(all(&t, 9, most)[0], Short::Encapsulate(to(READY)));
    assert_eq!(all(&t, 9, most + 1)[0], Short::Drop(DropReason::TooBig));
    let f = frame(v4(2), v4(1), most + 1);
    let inbound = Inbound { ingress: P2, origin: Origin::Local, flight: None, routed: false, frame: &f };
    assert_eq!(t.decide(key(9), &inbound, NOW).egress(), Some(Egress::Tunnel(to(READY))));
}

#[test]
fn r23_the_receivers_policy_has_its_say() {
    let mut t = tables();
    let rule = Rule { verdict: Verdict::Deny, direction: Direction::In, ..Rule::ANY };
    let (default, rate) = (Verdict::Allow, Rate::UNLIMITED);
    for update in [
        Update::PolicyRule { port: P1, at: 0, rule },
        Update::PolicySet { port: P1, rules: 1, default, rate, dscp: None },
    ] {
        assert_eq!(t.apply(update, NOW), None);
    }
    assert_eq!(all(&t, 1, 10), [Short::Drop(DropReason::PolicyDenied); 3]);
    assert_eq!(t.apply(Update::PolicyClear { port: P1 }, NOW), None);
    assert_eq!(all(&t, 1, 10), [Short::Deliver(P1); 3]);
}

#[test]
fn r67_a_port_that_may_not_ask_has_its_frames_dropped() {
    let mut t = tables();
    for n in 0..4 {
        t.begin_query(key(100 + n), P2, NOW).expect("room");
    }
    assert_eq!(all(&t, 9, 10)[0], Short::Drop(DropReason::MissLimit), "misses_per_port");
    assert_eq!(t.begin_query(key(9), P2, NOW), Err(DropReason::MissLimit));
}

/// Newer frames do not overtake those that may go and have not gone yet.
#[test]
fn r45_a_frame_waits_behind_older_ones_that_may_go() {
    let mut t = tables();
    let state = VmState::Paused { hold: limits(10) };
    assert_eq!(t.apply(Update::VmSet { key: key(1), state }, NOW), None);
    let Some(Fib::Special(at)) = t.vms.get(key(1)) else { panic!("a special entry") };
    let f = frame(v4(2), v4(1), 10);
    t.hold(at, &f, about(Origin::Overlay, NOW)).expect("room");
    assert_eq!(t.apply(Update::VmSet { key: key(1), state: VmState::Local { port: P1 } }, NOW), None);
    let inbound = Inbound { ingress: P2, origin: Origin::Local, flight: None, routed: false, frame: &f };
    let action = t.decide(key(1), &inbound, NOW).action;
    assert_eq!(action, Action::Hold { at, behind: true, room: Ok(()) });
    assert_eq!(tick(&mut t, NOW).0.len(), 1);
    assert_eq!(t.decide(key(1), &inbound, NOW).action, Action::Deliver(P1));
}

/// Without a free special entry a frame for a tunnel that is not ready has no place to wait.
#[test]
fn r35_special_entries_that_are_used_up() {
    let mut t = tables_of(&godwit_tables::TablesConfig { special_capacity: 2, ..config() });
    let state = VmState::Remote { to: to(PENDING) };
    assert_eq!(t.apply(Update::VmSet { key: key(9), state }, NOW), None);
    let until = NOW + ms(1000);
    for (n, state) in [(20, VmState::Paused { hold: limits(1) }), (21, VmState::Absent { until })] {
        assert_eq!(t.apply(Update::VmSet { key: key(n), state }, NOW), None);
    }
    assert_eq!(all(&t, 9, 10)[0], Short::AwaitTunnel(to(PENDING)), "a negative answer makes room");
    let state = VmState::Paused { hold: limits(1) };
    assert_eq!(t.apply(Update::VmSet { key: key(21), state }, NOW), None);
    assert_eq!(all(&t, 9, 10)[0], Short::Drop(DropReason::MissLimit));
    assert_eq!(t.await_tunnel(key(9), to(PENDING)), Err(DropReason::MissLimit));
    assert_eq!(all(&t, 30, 10)[0], Short::Drop(DropReason::MissLimit), "nor has a question");
}
