//! A seeded walk of mutations from valid frames, for tests on a stable compiler.

use crate::Rng;

/// Values at which length and type fields change their meaning.
const EDGES: [u8; 12] = [0, 1, 4, 5, 6, 7, 8, 0x40, 0x7f, 0x80, 0xfe, 0xff];

fn mutate(frame: &mut Vec<u8>, other: &[u8], first: usize, r: &mut Rng) {
    for _ in 0..=r.index(4) {
        let at = r.index(frame.len());
        match r.index(7) {
            _ if frame.is_empty() => frame.push(r.next() as u8),
            // Headers matter more than payload.
            0 | 1 => {
                let at = r.index(frame.len().min(first));
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

/// Runs `target` over mutations of the seeds, of whose first `first` bytes more bits change than of the rest.
///
/// # Panics
/// Where `target` does, with the frame.
pub fn walk(seeds: &[Vec<u8>], first: usize, seed: u64, iterations: usize, target: fn(&[u8])) {
    let mut r = Rng::new(seed);
    for i in 0..iterations {
        let mut frame = seeds[r.index(seeds.len())].clone();
        let other = &seeds[r.index(seeds.len())];
        mutate(&mut frame, other, first, &mut r);
        let ran = std::panic::catch_unwind(|| target(&frame));
        assert!(ran.is_ok(), "iteration {i} of seed {seed}: {frame:02x?}");
    }
}
