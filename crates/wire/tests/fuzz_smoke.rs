//! The fuzz targets on a stable compiler: the seeds, and a seeded walk of mutations from them.
//! What libFuzzer finds beyond that is added here as a named case.

use godwit_testkit::fuzzing;

/// Outer headers, and the beginning of inner ones.
const FIRST: usize = 110;

fn walk(seed: u64, iterations: usize, target: fn(&[u8])) {
    fuzzing::walk(&fuzzing::seeds(), FIRST, seed, iterations, target);
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
    fuzzing::walk(&fuzzing::peer_seeds(), FIRST, 0x1319_8a2e, 200_000, fuzzing::peer);
}

#[test]
fn seeds_pass() {
    fuzzing::peer_seeds().iter().for_each(|seed| fuzzing::peer(seed));
    for seed in fuzzing::seeds() {
        fuzzing::outer(&seed);
        fuzzing::inner(&seed);
    }
}
