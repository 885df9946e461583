//! Whatever comes in, on whatever port, in whatever state: nothing panics, every frame and every
//! buffer is accounted for (the lab checks the balance after each step), and the trace tells before
//! what processing does after.

mod orders;

use crate::common::routing::*;
use crate::common::*;
use crate::multicast;
use godwit_pipeline::mem::{MemPacket, MemPool};
use godwit_pipeline::trace::{Ending, Trace, trace};
use godwit_tables::counters::DropReason;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Nd, Vxlan};
use godwit_wire::outer::OuterHeader;
use godwit_wire::policy::{self, Direction, Rule};
use godwit_wire::{Dscp, Mac, Prefix, Rate, Vni};
use proptest::prelude::*;
use std::net::IpAddr;

const MACS: [Mac; 8] = [M1, M2, R4, R6, STRANGER, Mac::BROADCAST, mac(0x50), GW];
const PORTS: [PortIdx; 6] = [UPLINK, P1, P2, P3, EXCEPTION, PortIdx(33)];

fn any_mac() -> impl Strategy<Value = Mac> {
    prop_oneof![6 => proptest::sample::select(&MACS[..]), 1 => any::<[u8; 6]>().prop_map(Mac)]
}

/// A frame as a VM may send it.
fn vm_frame() -> BoxedStrategy<Vec<u8>> {
    let small = 0u8..8;
    let arp = (any_mac(), small.clone(), small.clone(), 0usize..4).prop_map(|(m, a, b, kind)| match kind {
        0 => frames::arp_request(m, v4(a), v4(b)),
        1 => frames::garp(m, v4(a)),
        2 => frames::arp_probe(m, v4(b)),
        _ => frames::rarp_announce(m),
    });
    let nd =
        (any_mac(), any_mac(), small.clone(), small, 0usize..6).prop_map(|(m, to, a, b, kind)| match kind {
            0 => Nd::solicit(m, v6(a.into()), v6(b.into())).frame(),
            1 => Nd::announce(m, v6(a.into())).frame(),
            2 => Nd::dad(m, v6(b.into())).frame(),
            3 => Nd { eth: (m, to), ..Nd::solicit(m, v6(a.into()), v6(b.into())) }.frame(),
            4 => {
                let ip = (v6(a.into()), v6(b.into()));
                Nd { eth: (m, to), ip, flags: 0x60, ..Nd::announce(m, v6(a.into())) }.frame()
            }
            _ => Nd { kind: 133, ..Nd::solicit(m, v6(a.into()), v6(b.into())) }.frame(),
        });
    let source = prop_oneof![3 => Just(1u8), 2 => 0u8..8, 1 => 100u8..200];
    let data = (any_mac(), any_mac(), source, any::<u32>(), any::<bool>(), 0usize..1700).prop_map(
        |(s, d, from, n, six, len)| {
            let payload = vec![n as u8; len];
            if six {
                frames::udp_frame((s, v6(from.into()).into(), 1), (d, v6(2).into(), 2), &payload)
            } else {
                frames::udp_frame((s, v4(from).into(), 1), (d, v4(2).into(), 2), &payload)
            }
        },
    );
    let plain =
        prop_oneof![3 => arp, 3 => nd, 3 => data, 3 => to_gateway(), 2 => multicast::frame(any_mac())];
    (plain, 0u8..10)
        .prop_map(|(f, tag)| match tag {
            0 => frames::tagged(&f, 0x8100, 5),
            1 => frames::tagged(&frames::tagged(&f, 0x8100, 5), 0x88a8, 6),
            _ => f,
        })
        .boxed()
}

/// A frame as a VM sends it to its gateway, or to groups that control answers for.
fn to_gateway() -> impl Strategy<Value = Vec<u8>> {
    let mac = prop_oneof![4 => Just(GW), 1 => any_mac()];
    let to = (0u8..8, prop_oneof![4 => 0u8..10, 1 => Just(254)]);
    let ttl = prop_oneof![1 => 0u8..3, 3 => Just(64)];
    let options = prop_oneof![3 => Just(vec![]), 1 => proptest::collection::vec(any::<u8>(), 8)];
    let len = prop_oneof![2 => 0usize..200, 1 => 1300usize..4000];
    (any_mac(), mac, to, ttl, (any::<bool>(), 0usize..6, any::<bool>()), options, len).prop_map(
        |(from, mac, (net, n), ttl, (six, kind, may_cut), options, len)| {
            let src = near(six, 1);
            let dst = match net {
                0 => near(six, n),
                1 => GW.link_local().into(),
                2 => "172.16.1.1".parse().unwrap(),
                3 => "127.0.0.1".parse().unwrap(),
                4 => "203.0.113.1".parse().unwrap(),
                _ => far(six, n),
            };
            let dst = if dst.is_ipv6() == six { dst } else { far(six, 4) };
            let frag = if may_cut { 0 } else { 0x4000 };
            let (proto, message) = match kind {
                0 => return frames::ping((from, src), (mac, dst), 1, &vec![1; len]),
                1 if six => (17, frames::udp(src, dst, (546, 547), &[1; 40], frames::Ck::Good)),
                1 => (17, frames::udp(src, dst, (68, 67), &[1; 300], frames::Ck::Good)),
                2 => (99, vec![2; len]),
                _ => (17, frames::udp(src, dst, (1, 2), &vec![3; len], frames::Ck::Good)),
            };
            let packet = match (src, dst) {
                (IpAddr::V4(s), IpAddr::V4(d)) => {
                    frames::V4 { ttl, frag, options, ..frames::V4::new(s, d, proto) }.packet(&message)
                }
                ips => ip_packet(ips, proto, ttl, &message),
            };
            frames::ethernet(mac, from, frames::ethertype(src), &packet)
        },
    )
}

/// A frame as the underlay may bring it.
fn underlay_frame() -> impl Strategy<Value = Vec<u8>> {
    let vni = prop_oneof![4 => Just(vni()), 2 => Just(other_vni()), 1 => Just(Vni::from_low24(9))];
    let vxlan =
        (vm_frame(), vni, any::<bool>(), any::<u8>(), any::<u8>()).prop_map(|(inner, vni, six, ttl, tos)| {
            let sender = if six { NVE_B6.into() } else { NVE_C.into() };
            Vxlan { ttl, tos, ..vxlan_from(sender, vni) }.frame(&inner)
        });
    let own = (0usize..5).prop_map(|kind| match kind {
        0 => frames::arp_request(HOP_MAC, NVE_B, LOC4),
        1 => frames::arp_reply(HOP_MAC, NVE_B, UP_MAC, LOC4),
        2 => Nd::solicit(HOP_MAC, NVE_B6, LOC6).frame(),
        3 => frames::ping((HOP_MAC, NVE_B.into()), (UP_MAC, LOC4.into()), 1, b"x"),
        _ => frames::ping((HOP_MAC, NVE_B6.into()), (UP_MAC, LOC6.into()), 1, b"x"),
    });
    prop_oneof![4 => vxlan, 1 => own]
}

/// Any of these, whole or damaged.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![vm_frame(), underlay_frame()];
    let damaged = (good.clone(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    prop_oneof![
        5 => good,
        3 => damaged.prop_map(|(mut f, at, value, cut)| {
            let i = at.index(f.len());
            if cut { f.truncate(i) } else { f[i] = value }
            f
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

/// A frame and a port that it might really come in on.
fn arrival() -> impl Strategy<Value = (PortIdx, Vec<u8>)> {
    prop_oneof![
        3 => (proptest::sample::select(&[P1, P2, P3][..]), vm_frame()),
        3 => (Just(UPLINK), underlay_frame()),
        2 => (proptest::sample::select(&PORTS[..]), any_frame()),
    ]
}

fn vm_state() -> impl Strategy<Value = VmState> {
    let vni =
        prop_oneof![2 => Just(vni()), 1 => Just(other_vni()), 1 => any::<u32>().prop_map(Vni::from_low24)];
    let to = (0u32..4, vni).prop_map(|(n, vni)| Target { tunnel: TunnelIdx(n), vni });
    let hold = (0u32..6, 0u64..20).prop_map(|(p, a)| limits(p, a));
    let until = (0u64..60).prop_map(|t| godwit_wire::Instant(1_000_000_000) + ms(t));
    prop_oneof![
        to.clone().prop_map(|to| VmState::Remote { to }),
        to.clone().prop_map(|to| VmState::Ageing { to }),
        proptest::sample::select(&[P1, P2, P3, UPLINK, PortIdx(33), PortIdx(5000)][..])
            .prop_map(|port| VmState::Local { port }),
        (proptest::option::of(to.clone()), hold.clone())
            .prop_map(|(via, hold)| VmState::Expected { via, hold }),
        (proptest::sample::select(&[P1, P3, UPLINK][..]), hold.clone())
            .prop_map(|(port, hold)| VmState::Arrived { port, hold }),
        hold.prop_map(|hold| VmState::Paused { hold }),
        (to, until.clone()).prop_map(|(to, until)| VmState::Departed { to, until }),
        until.prop_map(|until| VmState::Absent { until }),
        Just(VmState::Blocked),
        any::<bool>().prop_map(|reset| VmState::Detached { reset }),
    ]
}

#[derive(Clone, Debug)]
pub enum Op {
    Frames(Vec<(PortIdx, Vec<u8>)>),
    Vm(Mac, VnIdx, VmState),
    Other(u8, Mac, u8),
    Wait(u64),
    Tick,
    Buffers(usize),
}

pub fn op() -> impl Strategy<Value = Op> {
    // No VM has the gateway's.
    let mac = proptest::sample::select(&MACS[..MACS.len() - 1]);
    prop_oneof![
        5 => proptest::collection::vec(arrival(), 1..6).prop_map(Op::Frames),
        4 => (mac.clone(), prop_oneof![4 => Just(VN), 1 => Just(OTHER_VN)], vm_state())
            .prop_map(|(m, v, s)| Op::Vm(m, v, s)),
        3 => (0u8..60, mac, 0u8..8).prop_map(|(k, m, n)| Op::Other(k, m, n)),
        2 => (0u64..30).prop_map(Op::Wait),
        2 => Just(Op::Tick),
        1 => (0usize..20).prop_map(Op::Buffers),
    ]
}

/// What became of one frame, in the words of a trace.
fn observed(lab: &mut Lab, port: PortIdx, frame: &[u8]) -> Ending {
    observed_packet(lab, port, MemPacket::new(frame))
}

/// The same of a packet.
pub fn observed_packet(lab: &mut Lab, port: PortIdx, packet: MemPacket) -> Ending {
    lab.clear();
    let before = (*lab.tables.counters.worker_copy(), lab.tables.counters.total(), lab.tables.waiting());
    lab.input_packets(port, vec![packet]);
    let (w, t) = (lab.tables.counters.worker, lab.tables.counters.total());
    for reason in DropReason::ALL {
        let i = reason as usize;
        // A full hold, or memory, lets the oldest go, several where a limit has shrunk since, and a flood makes
        // copies: neither is this frame's end.
        let own = match reason {
            DropReason::HoldOverflow | DropReason::HoldMemory => w.held == before.0.held,
            DropReason::ReplicationLimit => lab.tables.waiting() + (lab.out.sent.len() as u64) < before.2 + 1,
            _ => true,
        };
        if t.drops[i] > before.1.drops[i] && own && w.replicated == before.0.replicated {
            return Ending::Drop(reason);
        }
    }
    if w.replicated > before.0.replicated {
        let copies = w.copies
            - before.0.copies
            - (t.drops[DropReason::ReplicationLimit as usize]
                - before.1.drops[DropReason::ReplicationLimit as usize]);
        return Ending::Replicated(copies as usize + 1);
    }
    if w.consumed > before.0.consumed {
        return Ending::Consumed;
    }
    if w.answered_arp + w.answered_nd + w.answered_echo
        > before.0.answered_arp + before.0.answered_nd + before.0.answered_echo
    {
        return Ending::Answered;
    }
    if w.misses > before.0.misses {
        return Ending::Miss;
    }
    if w.held > before.0.held {
        return Ending::Held;
    }
    if lab.tables.waiting() > before.2 {
        return Ending::Waits;
    }
    if w.fragmented > before.0.fragmented {
        let first = lab.to(lab.out.sent[0].0)[0];
        return Ending::Fragmented { remote: open(first).0.dst, pieces: lab.out.sent.len() };
    }
    let in_flight = w.forwarded_in_flight > before.0.forwarded_in_flight;
    let (to, sent) = (lab.out.sent[0].0, lab.to(lab.out.sent[0].0)[0]);
    if in_flight || w.encapsulated > before.0.encapsulated {
        return Ending::Encapsulated { remote: open(sent).0.dst, in_flight };
    }
    Ending::Send { port: to }
}

fn text(t: &Trace) -> String {
    let s = t.to_string();
    assert!(s.lines().count() == t.steps().len() && s.lines().all(|l| l.len() > 5));
    s
}

/// 400, or as many as `PROPTEST_CASES` says.
pub fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { usual } else { ProptestConfig { cases: 400, ..usual } }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn everything_is_accounted_for(ops in proptest::collection::vec(op(), 1..60)) {
        let mut lab = Lab::new();
        for op in ops {
            lab.run(op);
        }
        // Time ends everything that waits.
        let taken = lab.pool.taken();
        lab.pool = MemPool::endless();
        lab.forget_buffers(taken);
        for _ in 0..4 {
            lab.wait(ms(600));
            lab.settle();
        }
        prop_assert_eq!(lab.tables.waiting(), 0);
        prop_assert_eq!(lab.tables.vms.querying(), 0);
    }

    #[test]
    fn bursts_do_what_single_frames_do(
        ops in proptest::collection::vec(op(), 0..20),
        port in proptest::sample::select(&[UPLINK, P1, P2][..]),
        frames in proptest::collection::vec(prop_oneof![vm_frame(), underlay_frame()], 1..90),
    ) {
        let (mut one, mut all) = (Lab::new(), Lab::new());
        for op in ops {
            one.run(op.clone());
            all.run(op);
        }
        for f in &frames {
            one.one(port, f);
        }
        all.input(port, &frames);
        prop_assert_eq!(&one.out.sent, &all.out.sent);
        prop_assert_eq!(&one.out.events, &all.out.events);
        prop_assert_eq!(one.tables.counters.total(), all.tables.counters.total());
        prop_assert_eq!(one.tables.counters.worker, all.tables.counters.worker);
    }

    #[test]
    fn the_trace_tells_what_happens(
        ops in proptest::collection::vec(op(), 0..25),
        arrivals in proptest::collection::vec(arrival(), 1..10),
    ) {
        let mut lab = Lab::new();
        for op in ops {
            lab.run(op);
        }
        let taken = lab.pool.taken();
        lab.pool = MemPool::endless();
        lab.forget_buffers(taken);
        for (port, frame) in arrivals {
            lab.settle();
            let told = trace(&lab.tables, port, &frame, lab.now);
            let words = text(&told);
            let seen = observed(&mut lab, port, &frame);
            prop_assert_eq!(told.verdict(), seen, "{}", words);
        }
    }
}

trait Copied {
    fn worker_copy(&self) -> &godwit_tables::WorkerCounters;
}

impl Copied for godwit_tables::Counters {
    fn worker_copy(&self) -> &godwit_tables::WorkerCounters {
        &self.worker
    }
}

#[test]
fn a_trace_reads_as_a_story() {
    let mut lab = Lab::new();
    let t = trace(&lab.tables, P1, &numbered(M1, R4, 1), lab.now);
    let want = "\
port 1: VM 02:00:00:00:00:01 of VN 1, Activated
frame: from 02:00:00:00:00:01 to 02:00:00:00:00:04, type 0x0800
VN 1: VNI 1
source 02:00:00:00:00:01 is the port's VM
destination 02:00:00:00:00:04 in VN 1: Remote { to: tunnel 0 with vni 1 }
tunnel 0: to NVE 198.18.0.2, MTU 1600, by port 0 to the next hop 02:00:00:00:bb:00
=> goes to NVE 198.18.0.2
";
    assert_eq!(t.to_string(), want);
    lab.vm(M1, VmState::Paused { hold: limits(10, 1000) });
    let frame = vxlan().frame(&numbered(R4, M1, 1));
    assert_eq!(trace(&lab.tables, UPLINK, &frame, lab.now).verdict(), Ending::Held);
    assert_eq!(lab.tables.counters.total().rx_packets, 0, "a trace leaves no trace");
}

#[test]
fn the_trace_knows_each_state() {
    let until = Lab::new().now + ms(1000);
    let hold = limits(2, 100);
    let states = [
        VmState::Local { port: P1 },
        VmState::Local { port: PortIdx(33) },
        VmState::Remote { to: through(T4) },
        VmState::Remote { to: through(PENDING) },
        VmState::Ageing { to: through(T4) },
        VmState::Ageing { to: through(PENDING) },
        VmState::Expected { via: None, hold },
        VmState::Expected { via: Some(through(T6)), hold },
        VmState::Paused { hold },
        VmState::Paused { hold: limits(0, 100) },
        VmState::Departed { to: through(T4), until },
        VmState::Departed { to: through(PENDING), until },
        VmState::Departed { to: through(TunnelIdx(7)), until },
        VmState::Absent { until },
    ];
    for state in states {
        for ttl in [64, 32, 31, 0] {
            let from_nve = Vxlan { ttl, ..vxlan() }.frame(&numbered(R4, M1, 1));
            for (port, frame) in [(UPLINK, from_nve), (P2, numbered(M2, M1, 1))] {
                let mut lab = Lab::new();
                lab.vm(M1, state);
                let told = trace(&lab.tables, port, &frame, lab.now);
                assert_eq!(told.verdict(), observed(&mut lab, port, &frame), "{}", text(&told));
            }
        }
    }
}
