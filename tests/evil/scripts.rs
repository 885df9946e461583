//! Hostile guests made of random bytes, as the fuzz target `guest` plays them; strings that did harm are kept here.

use godwit_frontend::script;
use godwit_testkit::Rng;

use super::arena::Arena;

/// Scripts between two looks at the others.
const AT_ONCE: usize = 25;

fn played(scripts: &[Vec<u8>]) {
    let _alone = crate::common::alone();
    let mut arena = Arena::start();
    let frame = arena.frame(&[0x77; 400]);
    for (n, some) in scripts.chunks(AT_ONCE).enumerate() {
        for bytes in some {
            // The port may be busy with the end of the last one.
            let _ = script::play(&arena.socket(), bytes, &frame);
        }
        arena.check(&format!("scripts from {}", n * AT_ONCE)).expect("nobody is harmed");
    }
}

fn random(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| (0..rng.between(1, 300)).map(|_| rng.next() as u8).collect()).collect()
}

#[test]
fn r11_random_guests_harm_nobody() {
    played(&random(24, 300));
}

#[test]
#[ignore = "long: ten thousand random guests"]
fn r11_many_random_guests_harm_nobody() {
    played(&random(25, 10_000));
}
