//! Entries by the memory that they hold, so that the one that holds most is found at once (R45).

use super::{SpecialIdx, State, Vms};
use crate::holds::SLOT;

/// A heap in which each entry knows its place.
pub(super) struct Ranking {
    /// Slots and entry; no entry ranks above the one at half its place.
    heap: Vec<(u32, u32)>,
    /// The place of each entry in the heap.
    places: Vec<u32>,
}

/// Not in the heap.
const OUT: u32 = u32::MAX;

/// Of those that hold the same the first one ranks higher.
fn rank((slots, at): (u32, u32)) -> (u32, u32) {
    (slots, !at)
}

impl Ranking {
    /// For entries up to `entries`, none of which holds anything.
    pub(super) fn new(entries: usize) -> Ranking {
        Ranking { heap: Vec::with_capacity(entries), places: vec![OUT; entries] }
    }

    /// The entry that holds most, and how many slots.
    pub(super) fn top(&self) -> Option<(u32, u32)> {
        self.heap.first().map(|&(slots, at)| (at, slots))
    }

    /// An entry holds so many slots now.
    pub(super) fn set(&mut self, at: u32, slots: u32) {
        let place = self.places[at as usize];
        match (place, slots) {
            (OUT, 0) => {}
            (OUT, _) => {
                self.heap.push((slots, at));
                self.up(self.heap.len() - 1);
            }
            (_, 0) => {
                self.places[at as usize] = OUT;
                self.heap.swap_remove(place as usize);
                if (place as usize) < self.heap.len() {
                    self.up(place as usize);
                    self.down(place as usize);
                }
            }
            _ => {
                self.heap[place as usize].0 = slots;
                let place = self.up(place as usize);
                self.down(place);
            }
        }
    }

    fn put(&mut self, place: usize, entry: (u32, u32)) {
        self.heap[place] = entry;
        self.places[entry.1 as usize] = place as u32;
    }

    /// Moves an entry up to where it belongs; returns its place.
    fn up(&mut self, mut place: usize) -> usize {
        let entry = self.heap[place];
        while place > 0 && rank(self.heap[(place - 1) / 2]) < rank(entry) {
            self.put(place, self.heap[(place - 1) / 2]);
            place = (place - 1) / 2;
        }
        self.put(place, entry);
        place
    }

    /// Moves an entry down to where it belongs.
    fn down(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let Some(best) = children.max_by_key(|&child| rank(self.heap[child])) else { break };
            if rank(self.heap[best]) < rank(entry) {
                break;
            }
            self.put(place, self.heap[best]);
            place = best;
        }
        self.put(place, entry);
    }
}

impl Vms {
    /// Slots of frames for VMs that the directory is being asked for.
    pub(crate) fn querying_slots(&self) -> u32 {
        self.querying_slots
    }

    /// What an entry holds has changed.
    pub(crate) fn weigh(&mut self, at: SpecialIdx) {
        let s = &mut self.specials[at.0 as usize];
        let slots = s.slots();
        if matches!(s.state, State::Querying { .. }) {
            self.querying_slots = self.querying_slots + slots - s.slots;
        }
        s.slots = slots;
        s.stats.peak_bytes = s.stats.peak_bytes.max(u64::from(slots) * SLOT as u64);
        self.ranking.set(at.0, slots);
    }

    /// The entry whose frames take the most memory, and how many slots; the first one of several.
    pub(crate) fn largest(&self) -> Option<(SpecialIdx, u32)> {
        self.ranking.top().map(|(at, slots)| (SpecialIdx(at), slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_top_is_the_one_that_holds_most(
            ops in proptest::collection::vec((0u32..12, 0u32..6), 0..300)
        ) {
            let mut ranking = Ranking::new(12);
            let mut oracle = [0u32; 12];
            for (at, slots) in ops {
                ranking.set(at, slots);
                oracle[at as usize] = slots;
                let most = oracle.iter().copied().max().filter(|&m| m > 0);
                let first = most.and_then(|m| oracle.iter().position(|&s| s == m));
                prop_assert_eq!(ranking.top(), most.zip(first).map(|(m, at)| (at as u32, m)));
            }
        }
    }
}
