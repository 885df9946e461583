//! The fuzz targets on a stable compiler: the seeds, and a seeded walk of mutations from them.
//! What libFuzzer finds beyond that is added here as a named case.

use godwit_testkit::fuzzing;

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }
}

/// Values at which length and type fields change their meaning.
const EDGES: [u8; 12] = [0, 1, 4, 5, 6, 7, 8, 0x40, 0x7f, 0x80, 0xfe, 0xff];

fn mutate(frame: &mut Vec<u8>, other: &[u8], r: &mut Random) {
    for _ in 0..=r.below(4) {
        let at = r.below(frame.len());
        match r.below(7) {
            _ if frame.is_empty() => frame.push(r.next() as u8),
            // Headers matter more than payload.
            0 | 1 => {
                let at = r.below(frame.len().min(110));
                frame[at] ^= 1 << r.below(8);
            }
            2 => frame[at] = EDGES[r.below(EDGES.len())],
            3 => frame.truncate(at),
            4 => frame.insert(at, r.next() as u8),
            5 => drop(frame.remove(at)),
            _ => {
                let from = r.below(other.len());
                frame.truncate(at);
                frame.extend(&other[from..]);
            }
        }
    }
}

fn walk(seed: u64, iterations: usize, target: fn(&[u8])) {
    let seeds = fuzzing::seeds();
    let mut r = Random(seed);
    for i in 0..iterations {
        let mut frame = seeds[r.below(seeds.len())].clone();
        let other = &seeds[r.below(seeds.len())];
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
fn seeds_pass() {
    for seed in fuzzing::seeds() {
        fuzzing::outer(&seed);
        fuzzing::inner(&seed);
    }
}
