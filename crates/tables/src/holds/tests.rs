use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

fn about(n: u64) -> About {
    let ingress = PortIdx(n as u16);
    match n % 3 {
        0 => About::local(Instant(n), ingress, Dscp::new(n as u8)),
        1 => About::overlay(Instant(n), ingress, IpAddr::from([10, 0, 0, n as u8]), n as u8, None),
        _ => {
            let sender = IpAddr::from([0, 0, 0, 0, 0, 0xffff, n as u16, 1]);
            About::overlay(Instant(n), ingress, sender, 255, Dscp::new(0))
        }
    }
}

fn alone(bytes: usize) -> Holds {
    Holds::new(bytes, SharedChunks::default())
}

#[test]
fn frames_come_back_in_order_and_whole() {
    let mut h = alone(100_000);
    let mut q = Queue::EMPTY;
    let frames: Vec<Vec<u8>> = [0, 1, 217, 218, 219, 482, 483, 1514, 9000]
        .into_iter()
        .map(|n: usize| (0..n).map(|i| (i * 7 + n) as u8).collect())
        .collect();
    for (i, f) in frames.iter().enumerate() {
        h.push(&mut q, f, about(i as u64)).unwrap();
    }
    assert_eq!((h.frames(), q.slots()), (9, h.slots_used()));
    let mut got = Vec::new();
    for (i, f) in frames.iter().enumerate() {
        assert_eq!(h.oldest(&q), Some(about(i as u64)));
        assert_eq!(h.pop_into(&mut q, &mut got), Some(about(i as u64)));
        assert_eq!(&got, f);
    }
    assert_eq!(h.pop_into(&mut q, &mut got), None);
    assert_eq!((h.frames(), h.slots_used(), q), (0, 0, Queue::EMPTY));
}

#[test]
fn r45_what_a_frame_takes_bookkeeping_included() {
    let slots = [60, 218, 219, 1514, 1522, 1539].map(Holds::slots_of);
    assert_eq!(slots, [1, 1, 2, 6, 6, 7]);
    // 50,000 packets/s of 1,514 bytes for 2 s, and a million short ones for 200 ms, fit half of 320 MiB.
    let half = alone(160 << 20);
    assert!(half.slots() >= 100_000 * 6 && half.slots() >= 200_000);
    assert!(half.slots() as usize * SLOT <= 160 << 20);
}

#[test]
fn no_memory_changes_nothing() {
    let mut h = alone(2 * SLOT);
    let mut q = Queue::EMPTY;
    h.push(&mut q, &[1; 10], about(1)).unwrap();
    let before = q;
    assert_eq!(h.push(&mut q, &[2; 300], about(2)), Err(NoMemory));
    assert_eq!((q, h.slots_used()), (before, 1));
    h.push(&mut q, &[3; 200], about(3)).unwrap();
    assert_eq!(h.push(&mut q, &[], about(4)), Err(NoMemory));
}

#[test]
fn r45_workers_share_what_is_beyond_their_own() {
    let shared = SharedChunks::of(3 * CHUNK);
    let mut workers = [(); 2].map(|()| (Holds::new(CHUNK, shared.clone()), Queue::EMPTY));
    let per_chunk = (CHUNK / SLOT) as u32;
    let fill = |(h, q): &mut (Holds, Queue)| while h.push(q, &[1; 60], about(0)).is_ok() {};
    fill(&mut workers[0]);
    assert_eq!(workers[0].1.len(), 4 * per_chunk, "its own and all shared ones");
    assert_eq!(workers[0].0.miss_slots(), per_chunk);
    assert!(workers[1].0.has_room(60));
    fill(&mut workers[1]);
    assert_eq!((workers[1].1.len(), shared.left()), (per_chunk, 0), "its own is left to it");
    assert!(!workers[1].0.has_room(60));
    // What the first one no longer needs is the second one's.
    let (h, q) = &mut workers[0];
    while h.pop(q).is_some() {}
    assert_eq!((h.slots_used(), shared.left()), (0, 0), "little stays for the next hold");
    let mut large = Holds::new(CHUNK, shared.clone());
    assert_eq!(large.slots(), 4 * per_chunk);
    let mut q = Queue::EMPTY;
    while large.push(&mut q, &[1; 60], about(0)).is_ok() {}
    assert_eq!(q.len(), per_chunk);
}

/// Bytes that are resident of the mapping with this address.
fn resident(address: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((from, end)) = first.split_once('-') {
            let hex = |s| usize::from_str_radix(s, 16).unwrap();
            inside = (hex(from)..hex(end)).contains(&address);
        } else if inside && first == "Rss:" {
            return words.next().unwrap().parse::<usize>().unwrap() << 10;
        }
    }
    panic!("no mapping");
}

#[test]
fn r45_memory_is_taken_when_it_is_needed_and_goes_back() {
    const MIB: usize = 1 << 20;
    let mut h = alone(64 * MIB);
    let at = h.arena.address() + 32 * MIB;
    let (small, mut before) = (4 * MIB, resident(at));
    assert!(before < small, "{before} bytes of an empty arena");
    for round in 0..2 {
        let mut q = Queue::EMPTY;
        for n in 0..20_000 {
            h.push(&mut q, &[7; 1514], about(n)).unwrap();
        }
        let full = resident(at) - before;
        assert!((30 * MIB..34 * MIB).contains(&full), "{full} bytes for 32 MB, round {round}");
        let mut got = Vec::new();
        for n in 0..20_000 {
            assert_eq!(h.pop_into(&mut q, &mut got), Some(about(n)));
            assert_eq!(got, [7; 1514]);
        }
        let after = resident(at);
        assert!(after < before + small, "{after} bytes stay");
        assert!(h.resident() <= 2 * MIB);
        before = before.min(after);
    }
}

proptest! {
    #[test]
    fn queues_do_not_disturb_each_other(
        // Many large frames, so that chunks are taken and given back.
        ops in proptest::collection::vec((0usize..3, 0usize..90_000, 0u8..5), 0..200),
        bytes in proptest::sample::select(vec![12_000, 20 * CHUNK]),
    ) {
        let mut h = alone(bytes);
        let mut queues = [Queue::EMPTY; 3];
        let mut oracle: [VecDeque<(u64, Vec<u8>)>; 3] = Default::default();
        let mut got = Vec::new();
        let size = |len: usize| 1 + len.saturating_sub(218).div_ceil(264);
        for (n, (q, len, push)) in ops.into_iter().enumerate() {
            let n = n as u64;
            if push < 3 {
                let frame = vec![n as u8; if bytes == 12_000 { len % 900 } else { len }];
                let room = size(frame.len()) <= (h.slots() - h.slots_used()) as usize;
                prop_assert_eq!(h.has_room(frame.len()), room);
                prop_assert_eq!(h.push(&mut queues[q], &frame, about(n)).is_ok(), room);
                if room {
                    oracle[q].push_back((n, frame));
                }
            } else {
                let want = oracle[q].pop_front();
                let a = h.pop_into(&mut queues[q], &mut got);
                prop_assert_eq!(a, want.as_ref().map(|w| about(w.0)));
                if let Some((_, frame)) = want {
                    prop_assert_eq!(&got, &frame);
                }
            }
            let frames: usize = oracle.iter().map(VecDeque::len).sum();
            prop_assert_eq!(h.frames() as usize, frames);
            for (queue, oracle) in queues.iter().zip(&oracle) {
                let slots: usize = oracle.iter().map(|f| size(f.1.len())).sum();
                prop_assert_eq!(queue.slots() as usize, slots);
            }
            prop_assert_eq!(h.slots_used(), queues.iter().map(Queue::slots).sum::<u32>());
            prop_assert!(h.frames() > 0 || h.resident() <= 8 * CHUNK);
        }
    }
}
