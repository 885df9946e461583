//! Reproducible numbers from a seed: byte patterns that a receiver can check, and a scenario's dice.

/// SplitMix64: the state is the seed plus a multiple of a constant, so any position can be computed
/// directly.
#[derive(Clone, Debug)]
pub struct Dice(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Dice {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number from `low` up to but not including `high`; `low` where the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next_u64() % high.saturating_sub(low).max(1)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The byte of the endless pattern `seed` at `offset`.
fn byte_at(seed: u64, offset: u64) -> u8 {
    let word = mix(seed.wrapping_add((offset / 8 + 1).wrapping_mul(STEP)));
    word.to_le_bytes()[(offset % 8) as usize]
}

/// Fills `out` with the pattern from `offset` on.
pub fn fill(seed: u64, offset: u64, out: &mut [u8]) {
    for (i, b) in out.iter_mut().enumerate() {
        *b = byte_at(seed, offset + i as u64);
    }
}

/// The position of the first byte of `data` that differs from the pattern from `offset` on.
pub fn first_difference(seed: u64, offset: u64, data: &[u8]) -> Option<usize> {
    (0..data.len()).find(|&i| data[i] != byte_at(seed, offset + i as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_pattern_fit_together() {
        let mut whole = [0; 100];
        fill(7, 0, &mut whole);
        let mut piece = [0; 33];
        fill(7, 13, &mut piece);
        assert_eq!(whole[13..46], piece);
        assert_eq!(first_difference(7, 13, &piece), None);
        piece[20] ^= 1;
        assert_eq!(first_difference(7, 13, &piece), Some(20));
    }

    #[test]
    fn dice_stay_in_range_and_repeat() {
        let (mut a, mut b) = (Dice::new(3), Dice::new(3));
        for _ in 0..100 {
            let x = a.between(10, 20);
            assert!((10..20).contains(&x));
            assert_eq!(x, b.between(10, 20));
        }
        assert_eq!(a.between(5, 5), 5);
    }
}
