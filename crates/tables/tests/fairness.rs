//! Holds share their memory fairly: against an oracle that looks at all of them each time (R45).

use std::collections::VecDeque;

use crate::common::*;
use godwit_tables::holds::{Holds, Origin, SLOT};
use godwit_tables::update::*;
use godwit_tables::vms::{Fib, SpecialIdx};
use godwit_tables::{DropReason, Tables, TablesConfig};
use godwit_wire::Instant;
use proptest::prelude::*;

const VMS: u64 = 5;
/// Slots of all holds together.
const SLOTS: u32 = 64;

fn small() -> Tables {
    tables_of(&TablesConfig { hold_bytes: SLOTS as usize * SLOT, ..config() })
}

fn paused(t: &mut Tables, n: u64, packets: u32) -> SpecialIdx {
    let hold = HoldLimits { packets, age: ms(1000) };
    assert_eq!(t.apply(Update::VmSet { key: key(n), state: VmState::Paused { hold } }, NOW), None);
    let Some(Fib::Special(at)) = t.vms.get(key(n)) else { panic!("a special entry") };
    at
}

/// A frame of its VM, with its number.
fn numbered(n: u64, number: u32, len: usize) -> Vec<u8> {
    let mut f = vec![n as u8; len.max(4)];
    f[..4].copy_from_slice(&number.to_be_bytes());
    f
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[..4].try_into().unwrap())
}

/// What an entry holds: number and slots of each frame.
type Held = VecDeque<(u32, u32)>;

fn slots(held: &Held) -> u32 {
    held.iter().map(|f| f.1).sum()
}

/// All that is held, as the rule has it.
#[derive(Default)]
struct Oracle {
    held: [Held; VMS as usize],
    lost: u64,
}

impl Oracle {
    /// Puts a frame to the others of its VM; false where it finds no room.
    fn push(&mut self, vm: usize, number: u32, needs: u32) -> bool {
        let most = |o: &Oracle| o.held.iter().map(slots).max().unwrap();
        let free = |o: &Oracle| SLOTS - o.held.iter().map(slots).sum::<u32>();
        let mine = slots(&self.held[vm]);
        if free(self) < needs && mine < needs && most(self) <= mine + needs {
            return false;
        }
        while free(self) < needs {
            let mine = slots(&self.held[vm]);
            let largest = self.held.iter().position(|h| slots(h) == most(self)).unwrap();
            let pays = if most(self) > mine + needs || mine == 0 { largest } else { vm };
            self.held[pays].pop_front();
            self.lost += 1;
        }
        self.held[vm].push_back((number, needs));
        true
    }
}

fn everything(t: &mut Tables, at: SpecialIdx) -> Vec<u32> {
    let (mut all, mut bytes) = (Vec::new(), Vec::new());
    while let Some((origin, _)) = t.next_held(at) {
        t.take_held(at, origin, &mut bytes);
        all.push(number(&bytes));
    }
    all
}

proptest! {
    #[test]
    fn r45_whoever_holds_most_loses_its_oldest(
        frames in proptest::collection::vec(
            (0..VMS, proptest::sample::select(vec![60usize, 300, 1514]), any::<bool>()), 0..250),
    ) {
        let mut t = small();
        let entries: Vec<SpecialIdx> = (0..VMS).map(|n| paused(&mut t, 10 + n, u32::MAX)).collect();
        let mut oracle = Oracle::default();
        for (i, (vm, len, local)) in frames.into_iter().enumerate() {
            let i = i as u32;
            let origin = if local { Origin::Local } else { Origin::Overlay };
            let fits = oracle.push(vm as usize, i, Holds::slots_of(len));
            let held = t.hold(entries[vm as usize], &numbered(vm, i, len), about(origin, NOW));
            prop_assert_eq!(held, if fits { Ok(()) } else { Err(DropReason::HoldMemory) });
            for (at, held) in entries.iter().zip(&oracle.held) {
                let s = t.vms.special(*at);
                prop_assert_eq!((s.waiting() as usize, s.slots()), (held.len(), slots(held)));
            }
            let used = u64::from(oracle.held.iter().map(slots).sum::<u32>()) * SLOT as u64;
            prop_assert_eq!(t.counters.worker.hold_bytes, used);
            prop_assert_eq!(drops(&t, DropReason::HoldMemory), oracle.lost);
        }
        let peak = t.counters.worker.hold_peak_bytes;
        prop_assert!(peak <= u64::from(SLOTS) * SLOT as u64 && peak >= t.counters.worker.hold_bytes);
        for (n, at) in entries.into_iter().enumerate() {
            let local = VmState::Local { port: P1 };
            let _ = t.apply(Update::VmSet { key: key(10 + n as u64), state: local }, NOW);
            if oracle.held[n].is_empty() {
                continue;
            }
            let numbers: Vec<u32> = oracle.held[n].iter().map(|f| f.0).collect();
            prop_assert_eq!(everything(&mut t, at), numbers);
        }
        prop_assert_eq!((t.waiting(), t.counters.worker.hold_bytes), (0, 0));
    }
}

#[test]
fn r45_below_its_share_a_vm_loses_nothing_however_much_another_one_gets() {
    let mut t = small();
    let (loud, quiet) = (paused(&mut t, 10, u32::MAX), paused(&mut t, 11, u32::MAX));
    for n in 0..1000 {
        t.hold(loud, &numbered(0, n, 60), about(Origin::Overlay, NOW)).expect("its oldest makes room");
        if n % 31 == 0 {
            let held = t.hold(quiet, &numbered(1, n, 60), about(Origin::Overlay, NOW));
            held.expect("the other one's oldest makes room");
        }
    }
    assert_eq!(t.vms.special(loud).waiting(), SLOTS / 2);
    assert_eq!(t.vms.special(quiet).waiting(), SLOTS / 2, "33 less the oldest: both have their half");
    assert_eq!(drops(&t, DropReason::HoldMemory), 1033 - u64::from(SLOTS));
    assert_eq!((t.vms.special(quiet).stats.dropped_memory, t.vms.special(quiet).stats.dropped), (1, 1));
    let stats = t.vms.special(loud).stats;
    assert_eq!((stats.dropped_memory, stats.dropped), (1000 - 32, 1000 - 32));
    assert_eq!(stats.peak_bytes, 64 * SLOT as u64 - 2 * SLOT as u64, "never all: the first frame was shared");
}

#[test]
fn r45_each_loss_has_its_reason() {
    let mut t = small();
    let at = paused(&mut t, 10, 3);
    for n in 0..5 {
        t.hold(at, &numbered(0, n, 60), about(Origin::Overlay, NOW)).expect("room");
    }
    assert_eq!(drops(&t, DropReason::HoldOverflow), 2, "its limit of packets");
    tick(&mut t, NOW + ms(1001));
    assert_eq!(drops(&t, DropReason::HoldExpired), 3, "their age");
    let huge = vec![0; SLOTS as usize * SLOT];
    let held = t.hold(at, &huge, about(Origin::Overlay, NOW));
    assert_eq!(held, Err(DropReason::HoldMemory), "larger than all memory");
    let s = t.vms.special(at).stats;
    assert_eq!((s.dropped, s.dropped_limit, s.dropped_age, s.dropped_memory), (6, 2, 3, 1));
    assert_eq!((s.held, s.peak_bytes), (5, 3 * SLOT as u64));
}

#[test]
fn r35_misses_leave_half_to_handovers_and_take_nothing_from_them() {
    let mut t = small();
    let miss = |t: &mut Tables, n: u64| {
        let at = match t.vms.get(key(n)) {
            Some(Fib::Special(at)) => at,
            _ => t.begin_query(key(n), P1, NOW).expect("few questions"),
        };
        t.hold(at, &numbered(n, 0, 1514), about(Origin::Local, NOW))
    };
    // Four questions of four packets of six slots: more than half of 64.
    let held = (0..16).filter(|i| miss(&mut t, 100 + i % 4).is_ok()).count();
    assert_eq!(held, 5);
    let at = paused(&mut t, 10, u32::MAX);
    for n in 0..34 {
        t.hold(at, &numbered(0, n, 60), about(Origin::Overlay, NOW)).expect("what misses leave");
    }
    assert_eq!(drops(&t, DropReason::HoldMemory), 0);
    assert_eq!(miss(&mut t, 100), Err(DropReason::HoldMemory));
    t.hold(at, &numbered(0, 34, 60), about(Origin::Overlay, NOW)).expect("its own oldest goes");
    assert_eq!((drops(&t, DropReason::HoldMemory), t.vms.special(at).waiting()), (1, 34));
    // A question that has its answer is a miss no longer.
    let _ = t.apply(Update::VmSet { key: key(100), state: VmState::Paused { hold: limits(9) } }, NOW);
    tick(&mut t, NOW);
    assert_eq!(t.apply(Update::VmRemove { key: key(10) }, NOW).map(|_| ()), Some(()));
    assert_eq!(miss(&mut t, 101), Ok(()), "three misses and this one");
}

#[test]
fn r45_what_a_vm_says_before_its_port_is_open_finds_room_beside_a_large_hold() {
    let mut t = small();
    let at = paused(&mut t, 10, u32::MAX);
    for n in 0..SLOTS {
        t.hold(at, &numbered(0, n, 60), about(Origin::Overlay, NOW)).expect("room");
    }
    assert_eq!(t.apply(access(P2, VN, mac(2), Admission::Associated), NOW), None);
    for _ in 0..10 {
        assert_eq!(t.room_for_arrival(P2, 1514), if t.vms.special(at).slots() > 34 { Ok(()) } else { FULL });
        let _ = t.await_opening(P2, &[1; 1514], NOW);
    }
    assert_eq!((t.vms.special(at).slots(), t.waiting()), (34, 34 + 5));
    assert_eq!(drops(&t, DropReason::HoldMemory), 30);
}

const FULL: Result<(), DropReason> = Err(DropReason::HoldMemory);

#[test]
fn r45_a_pause_of_two_seconds_at_50_000_packets_a_second_loses_nothing_by_default() {
    let half = (320usize << 20) / 2;
    let c = TablesConfig {
        hold_bytes: half / 4,
        hold_shared: godwit_tables::holds::SharedChunks::of(half),
        ..config()
    };
    for (rate, pause_ms, len) in [(50_000u64, 2000, 1514), (1_000_000, 200, 60)] {
        let mut t = tables_of(&c);
        let at = paused(&mut t, 10, u32::MAX);
        let frames = rate * pause_ms / 1000;
        for n in 0..frames {
            let now = Instant(NOW.0 + n * 1_000_000_000 / rate / 4);
            t.hold(at, &numbered(0, n as u32, len), about(Origin::Overlay, now)).expect("room");
        }
        assert_eq!(t.vms.special(at).stats.dropped, 0);
        let _ = t.apply(Update::VmSet { key: key(10), state: VmState::Local { port: P1 } }, NOW);
        assert!(everything(&mut t, at).into_iter().eq(0..frames as u32));
        assert!(t.counters.worker.hold_peak_bytes <= 320 << 20);
        assert!(t.holds().resident() <= 4 << 20, "it is given back");
    }
}
