//! VMs and their special entries under any orders: against a map of what control said last, and the balance of what
//! is held.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::common::*;
use godwit_tables::event::Event;
use godwit_tables::holds::Origin;
use godwit_tables::update::*;
use godwit_tables::vms::{Fib, SpecialIdx, State};
use godwit_tables::{Action, DropReason, Inbound, Tables, TablesConfig};
use godwit_wire::{Instant, Prefix, Span};
use proptest::prelude::*;

const DOMAIN: DomainIdx = DomainIdx(0);

#[derive(Clone, Debug)]
enum Op {
    Set(u64, VmState),
    Remove(u64),
    Frame(u64, Origin),
    Tunnel(Update),
    Wait(u64),
}

fn vm_state() -> impl Strategy<Value = VmState> {
    let target = proptest::sample::select(&[READY, PENDING, MISSING][..]).prop_map(to);
    let hold = (0u32..5).prop_map(limits);
    let until = (0u64..1500).prop_map(|t| NOW + ms(t));
    prop_oneof![
        proptest::sample::select(&[P1, P2][..]).prop_map(|port| VmState::Local { port }),
        target.clone().prop_map(|to| VmState::Remote { to }),
        target.clone().prop_map(|to| VmState::Ageing { to }),
        (proptest::option::of(target.clone()), hold.clone())
            .prop_map(|(via, hold)| VmState::Expected { via, hold }),
        hold.prop_map(|hold| VmState::Paused { hold }),
        (target, until.clone()).prop_map(|(to, until)| VmState::Departed { to, until }),
        until.prop_map(|until| VmState::Absent { until }),
        Just(VmState::Blocked),
        any::<bool>().prop_map(|reset| VmState::Detached { reset }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let n = 10u64..16;
    prop_oneof![
        4 => (n.clone(), vm_state()).prop_map(|(n, s)| Op::Set(n, s)),
        1 => n.clone().prop_map(Op::Remove),
        6 => (n, any::<bool>()).prop_map(|(n, o)| Op::Frame(n, if o { Origin::Local } else { Origin::Overlay })),
        1 => proptest::sample::select(vec![
            tunnel_set(PENDING), tunnel_pending(PENDING), tunnel_set(READY), tunnel_pending(READY),
            Update::TunnelRemove { tunnel: READY },
        ]).prop_map(Op::Tunnel),
        2 => (0u64..200).prop_map(Op::Wait),
    ]
}

/// What a test knows besides the tables.
struct Model {
    t: Tables,
    now: Instant,
    /// What control, or a question, said last.
    states: BTreeMap<u64, State>,
    /// Frames that were to wait.
    frames: u64,
    /// Of them, those that went.
    gone: u64,
    /// The last frame that went, of each VM and origin.
    last: BTreeMap<(u64, u8), u64>,
}

impl Model {
    fn new() -> Model {
        let mut t = tables();
        for n in 10..16 {
            let set = Update::RouteSet {
                domain: DOMAIN,
                prefix: Prefix::host(v4(n)),
                to: NextHop::Vm(key(n.into())),
            };
            assert_eq!(t.apply(set, NOW), None);
        }
        Model { t, now: NOW, states: BTreeMap::new(), frames: 0, gone: 0, last: BTreeMap::new() }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Set(n, state) => {
                self.apply(Update::VmSet { key: key(n), state });
                self.states.insert(n, State::Known(state));
            }
            Op::Remove(n) => {
                self.apply(Update::VmRemove { key: key(n) });
                self.states.remove(&n);
            }
            Op::Frame(n, origin) => self.frame(n, origin),
            Op::Tunnel(update) => self.apply(update),
            Op::Wait(n) => self.now = self.now + ms(n),
        }
        self.tick();
        self.check();
    }

    fn apply(&mut self, update: Update) {
        let event = self.t.apply(update, self.now);
        assert!(event.is_none_or(is_progress), "{event:?}");
    }

    /// A frame that tells its VM, its origin and its number, where it is to wait.
    fn frame(&mut self, n: u64, origin: Origin) {
        let ingress = if origin == Origin::Local { P1 } else { UPLINK };
        let mut bytes = frame(v4(1), v4(2), 0);
        bytes.extend(n.to_be_bytes());
        bytes.push(origin as u8);
        bytes.extend(self.frames.to_be_bytes());
        let inbound = Inbound { ingress, origin, flight: Some(48), routed: false, frame: &bytes };
        let (at, room): (SpecialIdx, _) = match self.t.decide(key(n), &inbound, self.now).action {
            Action::Query { room } => {
                let until = self.now + TablesConfig::default().miss_hold_age;
                self.states.insert(n, State::Querying { port: ingress, until });
                (self.t.begin_query(key(n), ingress, self.now).expect("decided"), room)
            }
            Action::AwaitTunnel { target, room } => {
                self.states.insert(n, State::Known(VmState::Remote { to: target }));
                (self.t.await_tunnel(key(n), target).expect("decided"), room)
            }
            Action::Hold { at, behind: false, room } => (at, room),
            Action::Hold { behind: true, .. } => panic!("all that may go has gone"),
            _ => return,
        };
        let about = about(origin, self.now);
        assert_eq!(self.t.hold(at, &bytes, about), room, "as decided");
        let s = self.t.vms.special(at);
        assert!(room.is_err() || s.waiting() <= s.limits.packets, "{s:?}");
        self.frames += u64::from(room.is_ok());
    }

    fn tick(&mut self) {
        let (gone, events) = tick(&mut self.t, self.now);
        assert!(events.iter().copied().all(is_progress), "{events:?}");
        self.gone += gone.len() as u64;
        for (bytes, _) in gone {
            let rest = &bytes[bytes.len() - 17..];
            let number = |at: usize| u64::from_be_bytes(rest[at..at + 8].try_into().unwrap());
            let before = self.last.insert((number(0), rest[8]), number(9));
            assert!(before.is_none_or(|b| b < number(9)), "R45: in their order");
        }
        let now = self.now;
        self.states.retain(|_, s| match *s {
            State::Querying { until, .. } | State::Known(VmState::Absent { until }) => until > now,
            State::Known(VmState::Departed { to, until }) => {
                if until <= now {
                    *s = State::Known(VmState::Remote { to });
                }
                true
            }
            State::Known(_) => true,
        });
    }

    fn check(&self) {
        let t = &self.t;
        let (mut specials, mut waiting, mut querying) = (0, 0, 0);
        for n in 10..16 {
            assert_eq!(state(t, key(n)), self.states.get(&n).copied(), "VM {n}");
            assert_eq!(
                routed(t, n),
                t.vms.get(key(n)).filter(|f| matches!(f, Fib::Local(_) | Fib::Remote(_)))
            );
            let Some(s) = t.vms.special_of(key(n)) else { continue };
            specials += 1;
            waiting += u64::from(s.waiting());
            querying += usize::from(matches!(s.state, State::Querying { .. }));
            let plain = is_plain(s.state);
            assert!(!plain || s.waiting() > 0, "nothing special is left of VM {n}: {s:?}");
        }
        assert_eq!((t.vms.specials(), t.waiting(), t.vms.querying()), (specials, waiting, querying));
        assert_eq!(t.vms.len(), 2 + self.states.len());
        let lost: u64 = [
            DropReason::HoldOverflow,
            DropReason::HoldExpired,
            DropReason::HoldAborted,
            DropReason::UnknownUnicast,
            DropReason::NoTunnel,
            DropReason::NotLocal,
            DropReason::Detached,
            DropReason::VmPaused,
        ]
        .iter()
        .map(|r| drops(t, *r))
        .sum();
        assert_eq!(self.frames, self.gone + lost + waiting, "every frame is accounted for");
        let w = &t.counters.worker;
        assert_eq!((w.held, w.flushed), (self.frames, self.gone));
    }
}

/// What the host route of a VM says of it: never more than the forwarding table does, and no special entry is passed by
/// (R58).
fn routed(t: &Tables, n: u64) -> Option<Fib> {
    let routes = t.routes.in_domain(DOMAIN);
    let IpAddr::V4(ip) = v4(n as u8) else { panic!("IPv4 alone") };
    let found = routes.host_v4(routes.home_v4(ip.to_bits()), ip.to_bits()).expect("a route");
    found.remote().map(Fib::Remote).or(found.local().map(|(_, port)| Fib::Local(port)))
}

/// The state fits into a word.
fn is_plain(state: State) -> bool {
    matches!(state, State::Known(VmState::Local { .. } | VmState::Remote { .. } | VmState::Ageing { .. }))
}

/// Nothing is refused.
fn is_progress(event: Event) -> bool {
    matches!(event, Event::Handover { .. })
}

proptest! {
    #[test]
    fn r45_states_are_what_was_said_and_every_frame_is_accounted_for(
        ops in proptest::collection::vec(op(), 0..120),
    ) {
        let mut m = Model::new();
        ops.into_iter().for_each(|op| m.run(op));
        // Time ends what waits, but for what a VM that stays paused or expected holds no longer than its age.
        m.run(Op::Wait(2000));
        m.run(Op::Wait(2000));
        prop_assert_eq!(m.t.waiting(), 0);
    }
}

#[test]
fn r45_a_vm_that_has_moved_in_stays_special_for_a_while() {
    let mut t = tables_of(&TablesConfig { settle: ms(50), ..config() });
    let set = |t: &mut Tables, state, now| t.apply(Update::VmSet { key: key(9), state }, now);
    set(&mut t, VmState::Expected { via: None, hold: limits(3) }, NOW);
    set(&mut t, VmState::Local { port: P1 }, NOW);
    assert!(matches!(t.vms.get(key(9)), Some(Fib::Special(_))));
    tick(&mut t, NOW + ms(49));
    assert!(matches!(t.vms.get(key(9)), Some(Fib::Special(_))));
    tick(&mut t, NOW + ms(50));
    assert_eq!(t.vms.get(key(9)), Some(Fib::Local(P1)));
    // The directory has learnt of the move only now: the while begins anew.
    assert_eq!(t.apply(Update::VmSettle { key: key(9), hold: limits(3) }, NOW + ms(60)), None);
    tick(&mut t, NOW + ms(109));
    assert!(matches!(t.vms.get(key(9)), Some(Fib::Special(_))));
    tick(&mut t, NOW + ms(110));
    assert_eq!(t.vms.get(key(9)), Some(Fib::Local(P1)));
}

#[test]
fn a_vm_that_did_not_move_in_becomes_plain_at_once() {
    let mut t = tables_of(&TablesConfig { settle: Span::from_ms(50), ..config() });
    let absent = VmState::Absent { until: NOW + ms(1000) };
    for state in [absent, VmState::Local { port: P1 }] {
        assert_eq!(t.apply(Update::VmSet { key: key(9), state }, NOW), None);
    }
    assert_eq!(t.vms.get(key(9)), Some(Fib::Local(P1)));
    assert_eq!(t.vms.specials(), 0);
}

#[test]
fn r36_a_full_slab_forgets_a_negative_answer_and_refuses_only_then() {
    let mut t = tables_of(&TablesConfig { special_capacity: 3, ..config() });
    let until = NOW + ms(1000);
    for n in 0..5 {
        let state = VmState::Absent { until };
        assert_eq!(t.apply(Update::VmSet { key: key(20 + n), state }, NOW), None);
        assert_eq!(t.vms.specials(), 3.min(n as usize + 1));
    }
    let paused = VmState::Paused { hold: limits(1) };
    for n in 0..3 {
        assert_eq!(t.apply(Update::VmSet { key: key(30 + n), state: paused }, NOW), None);
    }
    let refused = t.apply(Update::VmSet { key: key(33), state: paused }, NOW);
    assert_eq!(refused, Some(Event::TableFull { key: key(33) }));
    assert_eq!((state(&t, key(33)), t.counters.worker.table_full), (None, 1));
}
