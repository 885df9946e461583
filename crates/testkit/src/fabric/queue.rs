//! The discrete-event queue: virtual time goes from event to event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use godwit_wire::Instant;

/// Events by time; those of one instant happen in the order in which they were scheduled.
///
/// The heap has times and places only: sifting moves three words, whatever an event has with it.
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    number: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        let (heap, events) = (BinaryHeap::with_capacity(256), Vec::with_capacity(256));
        Queue { heap, events, free: Vec::with_capacity(256), number: 0 }
    }
}

impl<E> Queue<E> {
    /// Lets `event` happen at `at`.
    pub fn push(&mut self, at: Instant, event: E) {
        self.number += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                self.events.len() as u32 - 1
            }
        };
        self.heap.push(Reverse((at, self.number, place)));
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|e| e.0.0)
    }

    /// The next event.
    pub fn pop(&mut self) -> Option<(Instant, E)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        self.events[place as usize].take().map(|event| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_and_then_in_the_order_of_scheduling() {
        let mut q = Queue::default();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            q.push(Instant(at), event);
        }
        assert_eq!(q.pop(), Some((Instant(1), 'a')));
        q.push(Instant(5), 'e');
        assert_eq!(q.next_at(), Some(Instant(2)));
        let rest: Vec<char> = std::iter::from_fn(|| q.pop()).map(|(_, e)| e).collect();
        assert_eq!(rest, ['b', 'c', 'd', 'e']);
    }
}
