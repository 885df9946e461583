//! Frames that cross several NVEs: what the one sends is what the next one gets, byte by byte.

use std::net::{IpAddr, Ipv6Addr};

use crate::common::*;
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames;
use godwit_wire::Mac;
use godwit_wire::outer::{Family, OuterHeader};

/// Three NVEs with addresses of their own, each with a tunnel to each other one over both families.
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The VM that moves, and one that sends to it.
const V: Mac = M1;
const P: Mac = mac(0x70);

fn locator(nve: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => [LOC4, NVE_B, NVE_C][nve].into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, nve as u16 + 1).into(),
    }
}

fn up_mac(nve: usize) -> Mac {
    mac(0xaa00 + nve as u64)
}

fn tunnel_to(nve: usize, family: Family) -> TunnelIdx {
    TunnelIdx(2 * nve as u32 + u32::from(family == Family::V6))
}

struct Nves(Vec<Lab>);

impl Nves {
    /// No VM is anywhere yet.
    fn new() -> Nves {
        Nves((0..3).map(nve).collect())
    }

    fn vm(&mut self, at: usize, mac: Mac, state: VmState) {
        self.0[at].vm(mac, state);
    }

    fn departed(&mut self, at: usize, to: usize, family: Family) {
        let (tunnel, until) = (tunnel_to(to, family), self.0[at].now + ms(60_000));
        self.vm(at, V, VmState::Departed { to: through(tunnel), until });
    }

    /// The underlay carries what is under way until nothing is, `changed` on the way. Returns what was delivered
    /// to VMs, with the NVE, in order, and how often NVEs sent something.
    fn carry(&mut self, changed: impl Fn(usize, &mut Vec<u8>)) -> (Vec<(usize, Vec<u8>)>, usize) {
        let (mut delivered, mut journeys) = (Vec::new(), 0);
        loop {
            let mut under_way = Vec::new();
            for by in 0..3 {
                self.0[by].settle();
                let nve = &mut self.0[by];
                delivered.extend(nve.to(P1).into_iter().map(|f| (by, f.to_vec())));
                let to = |f: &[u8]| (0..3).find(|n| f[..6] == up_mac(*n).0).expect("for one of the three");
                under_way.extend(nve.to(UPLINK).into_iter().map(|f| (by, to(f), f.to_vec())));
                let events = nve.take_events();
                nve.clear();
                nve.out.events = events;
            }
            if under_way.is_empty() {
                return (delivered, journeys);
            }
            for (by, to, mut frame) in under_way {
                journeys += 1;
                assert!(journeys < 10_000, "frames go round for ever");
                changed(by, &mut frame);
                self.0[to].one(UPLINK, &frame);
            }
        }
    }

    /// Frames that are held.
    fn waiting(&self) -> usize {
        self.0.iter().map(|nve| nve.tables.waiting() as usize).sum()
    }

    fn dropped(&self) -> u64 {
        self.0.iter().map(|nve| nve.tables.counters.total().dropped()).sum()
    }
}

fn nve(me: usize) -> Lab {
    let mut lab = Lab::bare(&config());
    let address = |family| match locator(me, family) {
        IpAddr::V4(ip) => (Some(ip), None),
        IpAddr::V6(ip) => (None, Some(ip)),
    };
    let role = PortRole::Uplink {
        mac: up_mac(me),
        v4: address(Family::V4).0,
        v6: address(Family::V6).1,
        link_v4: None,
        link_v6: None,
        v6_link_local: None,
        exception: None,
        vlan: None,
    };
    lab.apply(Update::PortSet { port: UPLINK, role });
    lab.vn(VN, vni(), false);
    for to in (0..3).filter(|n| *n != me) {
        for family in FAMILIES {
            let (src, dst) = (up_mac(me), up_mac(to));
            let header = match (locator(me, family), locator(to, family)) {
                (IpAddr::V4(own), IpAddr::V4(peer)) => OuterHeader::v4(src, dst, own, peer, 4789, 64),
                (IpAddr::V6(own), IpAddr::V6(peer)) => OuterHeader::v6(src, dst, own, peer, 4789, 64),
                _ => unreachable!("of one family"),
            };
            let (tunnel, remote) = (tunnel_to(to, family), locator(to, family));
            lab.apply(Update::TunnelSet { tunnel, uplink: UPLINK, remote, mtu: MTU, header });
        }
    }
    lab.access(P1, VN, V, Admission::Activated);
    lab.access(P2, VN, P, Admission::Activated);
    lab
}

/// Marks the outer header, as a router with a long queue does, and mends the IPv4 checksum as it would.
fn congest(frame: &mut [u8]) {
    if frame[12..14] == [8, 0] {
        frame[15] |= 3;
        frame[24..26].fill(0);
        let sum = frames::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[15] |= 0x30;
    }
}

/// A UDP frame from P to V, whose sender understands congestion marks.
fn capable(v6_inside: bool, ecn: u8) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) =
        if v6_inside { (v6(7).into(), v6(1).into()) } else { (v4(7).into(), v4(1).into()) };
    let mut frame = frames::udp_frame((P, from, 1000), (V, to, 2000), b"payload");
    if v6_inside {
        frame[15] |= ecn << 4;
    } else {
        frame[15] |= ecn;
        frame[24..26].fill(0);
        let sum = frames::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// The mark of an inner frame, having looked at its checksums.
fn mark_of_sound(frame: &[u8]) -> u8 {
    if frame[12..14] == [8, 0] {
        assert_eq!(frames::checksum(&frame[14..34]), 0, "the inner header's checksum was repaired");
        let end = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
        assert_eq!(frames::upper_checksum(end(26), end(30), 17, &frame[34..]), 0);
        frame[15] & 3
    } else {
        let end = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
        assert_eq!(frames::upper_checksum(end(22), end(38), 17, &frame[54..]), 0);
        frame[15] >> 4 & 3
    }
}

#[test]
fn r6_ce_between_c_and_a_reaches_v_at_b() {
    for (first, second) in FAMILIES.into_iter().flat_map(|f| FAMILIES.map(|s| (f, s))) {
        for (v6_inside, ecn, held) in [(false, 2, false), (false, 1, true), (true, 2, true), (true, 1, false)]
        {
            let mut nves = Nves::new();
            nves.vm(C, V, VmState::Remote { to: through(tunnel_to(A, first)) });
            nves.vm(B, V, VmState::Local { port: P1 });
            if held {
                nves.vm(A, V, VmState::Paused { hold: limits(100, 2000) });
            } else {
                nves.departed(A, B, second);
            }
            let sent = capable(v6_inside, ecn);
            assert_eq!(mark_of_sound(&sent), ecn);
            let mark_on_the_first_way = |by: usize, frame: &mut Vec<u8>| {
                if by == C {
                    congest(frame);
                } else {
                    assert_eq!(
                        open(frame).0.ecn.bits(),
                        3,
                        "the outer header of the second way says it, too"
                    );
                }
            };
            nves.0[C].one(P2, &sent);
            let (mut delivered, mut journeys) = nves.carry(mark_on_the_first_way);
            if held {
                assert_eq!((delivered.len(), journeys), (0, 1));
                nves.departed(A, B, second);
                let (later, more) = nves.carry(mark_on_the_first_way);
                (delivered, journeys) = (later, journeys + more);
            }
            let [(B, frame)] = &delivered[..] else { panic!("{first:?} {second:?}: {delivered:?}") };
            assert_eq!((mark_of_sound(frame), journeys), (3, 2), "{first:?} {second:?} {v6_inside}");
            // Nothing else has changed.
            let mut unmarked = frame.clone();
            unmarked[15] = sent[15];
            if !v6_inside {
                unmarked[24..26].copy_from_slice(&sent[24..26]);
            }
            assert_eq!(unmarked, sent);
        }
    }
}

#[test]
fn r46_a_bounce_between_two_ends_after_three() {
    for family in FAMILIES {
        let mut nves = Nves::new();
        nves.vm(C, V, VmState::Remote { to: through(tunnel_to(A, family)) });
        // Each believes that V went to the other.
        nves.departed(A, B, family);
        nves.departed(B, A, family);
        for n in 0..5 {
            nves.0[C].one(P2, &numbered(P, V, n));
        }
        let (delivered, journeys) = nves.carry(|_, _| {});
        assert_eq!(delivered, []);
        assert_eq!(journeys, 5 * (1 + 3), "from C, then A to B, B to A, A to B");
        let forwarded = |n: usize| nves.0[n].tables.counters.worker.forwarded_in_flight;
        assert_eq!((forwarded(A), forwarded(B)), (10, 5));
        let ended = |n: usize| nves.0[n].drops(DropReason::TtlExhausted);
        assert_eq!((ended(A), ended(B), nves.dropped()), (0, 5, 5), "{family:?}: then counted");
        let (sender, to) = (locator(A, family), locator(A, family));
        let events = nves.0[B].take_events();
        let news = events.iter().filter(|e| **e == Event::TtlExhausted { key: key(V), sender, to });
        assert_eq!(news.count(), 1, "and said once: {events:?}");
    }
}

/// V goes from A to B and back. Some of C goes on sending to A, and later some to B, wherever V is.
#[test]
fn r46_return_move_with_a_stale_sender_loses_nothing() {
    for family in FAMILIES {
        let hold = limits(100, 2000);
        let expected = |via: usize| VmState::Expected { via: Some(through(tunnel_to(via, family))), hold };
        let local = VmState::Local { port: P1 };
        let mut nves = Nves::new();
        nves.vm(A, V, local);
        let (mut sent, mut got) = (0, Vec::<u32>::new());
        // Sends three frames to each, and lets the underlay carry what is under way; says where frames came out.
        let mut traffic = |nves: &mut Nves, to: &[usize]| {
            let before = nves.waiting();
            for nve in to {
                nves.vm(C, V, VmState::Remote { to: through(tunnel_to(*nve, family)) });
                nves.0[C].input(P2, &(sent..sent + 3).map(|n| numbered(P, V, n)).collect::<Vec<_>>());
                sent += 3;
            }
            let (delivered, journeys) = nves.carry(|_, _| {});
            assert!(
                journeys <= 2 * (before + 3 * to.len()),
                "none goes further than to the other: {journeys}"
            );
            got.extend(delivered.iter().map(|(_, f)| number(f)));
            delivered.iter().map(|(nve, _)| *nve).collect::<Vec<_>>()
        };
        assert_eq!(traffic(&mut nves, &[A]), [A; 3]);
        // There.
        nves.vm(B, V, expected(A));
        nves.vm(A, V, VmState::Paused { hold });
        assert_eq!(traffic(&mut nves, &[A]), [A; 0]);
        nves.vm(B, V, local);
        assert_eq!(traffic(&mut nves, &[A, B]), [B; 3], "A still holds for it");
        nves.departed(A, B, family);
        assert_eq!(traffic(&mut nves, &[A, B]), [B; 12], "what was held, and what is sent to either");
        // Back. It is associated at A and still runs at B: A's forward entry stays until it is activated (R46c).
        assert_eq!(traffic(&mut nves, &[A, B]), [B; 6]);
        nves.vm(B, V, VmState::Paused { hold });
        assert_eq!(traffic(&mut nves, &[A, B]), [A; 0], "from A, too, it goes to B, which holds it");
        nves.vm(A, V, local);
        assert_eq!(traffic(&mut nves, &[A, B]), [A; 3], "B holds its part until the grant");
        nves.departed(B, A, family);
        assert_eq!(traffic(&mut nves, &[A, B]), [A; 15], "what was held, and what is sent to either");
        assert_eq!(traffic(&mut nves, &[A, B, B, A]), [A; 12]);
        got.sort_unstable();
        assert_eq!(got, (0..sent).collect::<Vec<_>>(), "each once");
        assert_eq!((nves.dropped(), nves.waiting()), (0, 0), "{family:?}");
    }
}
