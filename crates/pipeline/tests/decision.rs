//! The tables' decision about a frame for a single VM is what becomes of it, on the fast path and on the cold one.

use std::net::IpAddr;

use crate::common::*;
use crate::properties::{cases, observed_packet, op};
use godwit_pipeline::mem::{MemPacket, MemPool};
use godwit_pipeline::trace::{Ending, Step, Trace, trace};
use godwit_tables::holds::Origin;
use godwit_tables::update::*;
use godwit_tables::{Action, Decision, DropReason, Inbound, Tables};
use godwit_testkit::frames::{self, Vxlan};
use godwit_wire::{Mac, Vni, tenant};
use proptest::prelude::*;

const MACS: [Mac; 6] = [M1, M2, R4, R6, STRANGER, mac(0x50)];

/// A tenant's frame, and the NVE that sends it with this outer TTL, if none of VMs here does.
#[derive(Clone, Debug)]
struct Arrival {
    inner: Vec<u8>,
    dst: Mac,
    sender: Option<(IpAddr, u8)>,
}

impl Arrival {
    fn port(&self) -> PortIdx {
        if self.sender.is_some() { UPLINK } else { P1 }
    }

    /// Its frame as it comes in.
    fn frame(&self) -> Vec<u8> {
        match self.sender {
            Some((sender, ttl)) => Vxlan { ttl, ..vxlan_from(sender, vni()) }.frame(&self.inner),
            None => self.inner.clone(),
        }
    }

    /// The same frame, in a shape that the fast path does not take.
    fn for_the_cold_path(&self) -> MemPacket {
        let packet = MemPacket::new(&self.frame());
        if self.sender.is_some() { packet.in_pieces(40) } else { packet.doubted() }
    }

    fn inbound(&self) -> Inbound<'_> {
        // Never more than 64, 16 less for each journey, and at least 16 (R46d).
        let flight = |ttl: u8| Some(ttl.min(64).saturating_sub(16)).filter(|left| *left >= 16);
        let (origin, flight) = match self.sender {
            Some((_, ttl)) => (Origin::Overlay, flight(ttl)),
            None => (Origin::Local, None),
        };
        Inbound { ingress: self.port(), origin, flight, routed: false, frame: &self.inner }
    }
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let sender = proptest::option::of((any::<bool>(), any::<u8>()));
    let len = prop_oneof![4 => 0usize..100, 1 => 1300usize..1700];
    let inner = (proptest::sample::select(&MACS[..]), any::<bool>(), 0u16..50, len);
    (inner, sender).prop_map(|((dst, six, ports, len), sender)| {
        let sender = sender.map(|(six, ttl)| if six { (NVE_B6.into(), ttl) } else { (NVE_C.into(), ttl) });
        let src = if sender.is_some() { R4 } else { M1 };
        let ips: (IpAddr, IpAddr) =
            if six { (v6(1).into(), v6(2).into()) } else { (v4(1).into(), v4(2).into()) };
        let inner = frames::udp_frame((src, ips.0, 1000 + ports), (dst, ips.1, 2000), &vec![7; len]);
        Arrival { inner, dst, sender }
    })
}

/// A decision in the words of a trace.
fn in_words(tables: &Tables, decision: &Decision) -> Ending {
    let remote = |target: Target, look: tenant::Look| {
        let way = tables.tunnels.for_frame(target.tunnel, look.is_v4(), look.hash);
        way.and_then(|(_, t)| t.remote).expect("a tunnel that is ready")
    };
    match decision.action {
        Action::Deliver(port) => Ending::Send { port },
        Action::Encapsulate { target, look } => {
            Ending::Encapsulated { remote: remote(target, look), in_flight: false }
        }
        Action::Forward { target, look, .. } => {
            Ending::Encapsulated { remote: remote(target, look), in_flight: true }
        }
        Action::Query { room } => room.map_or_else(Ending::Drop, |()| Ending::Miss),
        Action::AwaitTunnel { room, .. } | Action::Hold { room, .. } => {
            room.map_or_else(Ending::Drop, |()| Ending::Held)
        }
        Action::Drop { reason, .. } => Ending::Drop(reason),
    }
}

/// VNI and TTL with which a frame is to leave.
fn marks(decision: &Decision) -> Option<(Vni, u8)> {
    match decision.action {
        Action::Encapsulate { target, .. } => Some((target.vni, 64)),
        Action::Forward { target, ttl, .. } => Some((target.vni, ttl)),
        _ => None,
    }
}

fn sent_marks(lab: &Lab) -> Option<(Vni, u8)> {
    let (outer, _) = open(lab.to(UPLINK).first()?);
    Some((outer.vni, outer.ttl))
}

/// Where a frame goes on to that the gateway routes.
fn routed_to(told: &Trace) -> Option<Mac> {
    told.steps().iter().find_map(|step| match step {
        Step::Forwards { dst, .. } => Some(*dst),
        _ => None,
    })
}

fn looked_up(told: &Trace) -> Option<Key> {
    told.steps().iter().find_map(|step| match step {
        Step::FibHit { key, .. } => Some(*key),
        _ => None,
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn fast_path_cold_path_trace_and_decision_agree(
        ops in proptest::collection::vec(op(), 0..25),
        arrivals in proptest::collection::vec(arrival(), 1..10),
    ) {
        let (mut fast, mut cold) = (Lab::new(), Lab::new());
        for op in ops {
            fast.run(op.clone());
            cold.run(op);
        }
        for lab in [&mut fast, &mut cold] {
            let taken = lab.pool.taken();
            lab.pool = MemPool::endless();
            lab.forget_buffers(taken);
        }
        for a in arrivals {
            fast.settle();
            cold.settle();
            let told = trace(&fast.tables, a.port(), &a.frame(), fast.now);
            // Not all are looked up: the VN may be gone, the source or the sender's policy may forbid the frame.
            let key = looked_up(&told);
            let routed = routed_to(&told);
            let inbound = Inbound { routed: routed.is_some(), ..a.inbound() };
            let decision = key.map(|key| fast.tables.decide(key, &inbound, fast.now));
            let words = decision.map(|d| in_words(&fast.tables, &d));
            let seen = observed_packet(&mut fast, a.port(), MemPacket::new(&a.frame()));
            prop_assert_eq!(told.verdict(), seen, "{}", told);
            prop_assert_eq!(observed_packet(&mut cold, a.port(), a.for_the_cold_path()), seen, "{}", told);
            prop_assert_eq!(&fast.out.sent, &cold.out.sent);
            prop_assert_eq!(&fast.out.events, &cold.out.events);
            // What is routed and too big is cut, which comes after the decision.
            let cut = |d: &Decision| {
                routed.is_some() && matches!(d.action, Action::Drop { reason: DropReason::TooBig, .. })
            };
            if let Some(decision) = decision.filter(|d| !cut(d)) {
                prop_assert_eq!(key.map(Key::mac), Some(routed.unwrap_or(a.dst)));
                prop_assert_eq!(words, Some(seen), "{:?}", decision);
                let marks = marks(&decision);
                prop_assert_eq!(marks, marks.and(sent_marks(&fast)));
                let waits = matches!(decision.action, Action::Hold { behind: true, .. });
                prop_assert!(!waits, "all that may go has gone");
            }
        }
    }
}

/// The VNI under which another NVE has a VM is that of its entry, whatever VN the frame comes from.
#[test]
fn a_frame_goes_with_the_vni_of_its_entry() {
    let to = Target { tunnel: T4, vni: Vni::from_low24(0x00ab_cdef) };
    let hold = limits(10, 1000);
    let until = Lab::new().now + ms(1000);
    let local = Arrival { inner: numbered(M1, STRANGER, 1), dst: STRANGER, sender: None };
    let overlay =
        Arrival { inner: numbered(R4, STRANGER, 1), sender: Some((NVE_C.into(), 64)), ..local.clone() };
    for (state, a) in [
        (VmState::Remote { to }, &local),
        (VmState::Ageing { to }, &local),
        (VmState::Expected { via: Some(to), hold }, &local),
        (VmState::Departed { to, until }, &local),
        (VmState::Departed { to, until }, &overlay),
    ] {
        for cold in [false, true] {
            let mut lab = Lab::new();
            lab.vm(STRANGER, state);
            let packet = if cold { a.for_the_cold_path() } else { MemPacket::new(&a.frame()) };
            lab.input_packets(a.port(), vec![packet]);
            let (outer, inner) = open(lab.only().1);
            assert_eq!((outer.vni, outer.dst, inner), (to.vni, NVE_B.into(), &a.inner[..]), "{state:?}");
        }
    }
}

#[test]
fn what_was_held_goes_with_the_vni_of_the_entry_that_lets_it_go() {
    let to = Target { tunnel: T6, vni: other_vni() };
    let mut lab = Lab::new();
    lab.vm(STRANGER, VmState::Paused { hold: limits(10, 1000) });
    lab.one(P1, &numbered(M1, STRANGER, 1));
    lab.one(UPLINK, &vxlan().frame(&numbered(R4, STRANGER, 2)));
    let until = lab.now + ms(1000);
    lab.vm(STRANGER, VmState::Departed { to, until });
    lab.settle();
    let sent: Vec<_> = lab.to(UPLINK).iter().map(|f| (open(f).0.vni, number(f))).collect();
    assert_eq!(sent, [(to.vni, 1), (to.vni, 2)]);
    // The same for a tunnel whose next hop answers late.
    lab.clear();
    let to = Target { tunnel: PENDING, vni: other_vni() };
    lab.vm(R4, VmState::Remote { to });
    lab.one(P1, &numbered(M1, R4, 3));
    lab.tunnel(PENDING, NVE_C.into());
    lab.settle();
    assert_eq!(open(lab.only().1).0.vni, to.vni);
}

#[test]
fn an_answer_to_a_frame_that_is_too_big_goes_with_the_vni_of_its_senders_entry() {
    let mut lab = Lab::new();
    lab.vm(R4, VmState::Remote { to: Target { tunnel: T4, vni: other_vni() } });
    let until = lab.now + ms(1000);
    lab.vm(M1, VmState::Departed { to: through(T6), until });
    lab.tunnel_of_mtu(T6, NVE_B6.into(), 1400);
    let large = frames::udp_frame((R4, v6(1).into(), 1), (M1, v6(2).into(), 2), &[7; 1400]);
    lab.one(UPLINK, &vxlan().frame(&large));
    assert_eq!(lab.drops(DropReason::TooBig), 1);
    assert_eq!(open(lab.only().1).0.vni, other_vni());
}
