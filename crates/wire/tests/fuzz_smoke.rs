//! The fuzz targets on a stable compiler: the seeds, and a seeded walk of mutations from them.
//! What libFuzzer finds beyond that is added here as a named case.

use godwit_testkit::{Rng, fuzzing};

/// Values at which length and type fields change their meaning.
const EDGES: [u8; 12] = [0, 1, 4, 5, 6, 7, 8, 0x40, 0x7f, 0x80, 0xfe, 0xff];

fn mutate(frame: &mut Vec<u8>, other: &[u8], r: &mut Rng) {
    for _ in 0..=r.index(4) {
        let at = r.index(frame.len());
        match r.index(7) {
            _ if frame.is_empty() => frame.push(r.next() as u8),
            // Headers matter more than payload.
            0 | 1 => {
                let at = r.index(frame.len().min(110));
                frame[at] ^= 1 << r.index(8);
            }
            2 => frame[at] = EDGES[r.index(EDGES.len())],
            3 => frame.truncate(at),
            4 => frame.insert(at, r.next() as u8),
            5 => drop(frame.remove(at)),
            _ => {
                let from = r.index(other.len());
                frame.truncate(at);
                frame.extend(&other[from..]);
            }
        }
    }
}

fn walk(seed: u64, iterations: usize, target: fn(&[u8])) {
    walk_from(&fuzzing::seeds(), seed, iterations, target);
}

fn walk_from(seeds: &[Vec<u8>], seed: u64, iterations: usize, target: fn(&[u8])) {
    let mut r = Rng::new(seed);
    for i in 0..iterations {
        let mut frame = seeds[r.index(seeds.len())].clone();
        let other = &seeds[r.index(seeds.len())];
        mutate(&mut frame, other, &mut r);
        let ran = std::panic::catch_unwind(|| target(&frame));
        assert!(ran.is_ok(), "iteration {i} of seed {seed}: {frame:02x?}");
    }
}

#[test]
fn outer_survives_200_000_mutations() {
    walk(0x9e37_79b9, 200_000, fuzzing::outer);
}

#[test]
fn inner_survives_200_000_mutations() {
    walk(0x7f4a_7c15, 200_000, fuzzing::inner);
}

#[test]
fn offload_survives_200_000_mutations() {
    // Segments of 20 bytes, all headers in the first piece.
    walk(0x243f_6a88, 200_000, |frame| fuzzing::offload(&[&[0, 20, 255], frame].concat()));
}

#[test]
fn r47_peer_survives_200_000_mutations() {
    walk_from(&fuzzing::peer_seeds(), 0x1319_8a2e, 200_000, fuzzing::peer);
}

#[test]
fn seeds_pass() {
    fuzzing::peer_seeds().iter().for_each(|seed| fuzzing::peer(seed));
    for seed in fuzzing::seeds() {
        fuzzing::outer(&seed);
        fuzzing::inner(&seed);
    }
}
