//! The discrete-event queue: virtual time goes from event to event.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use godwit_wire::Instant;

struct Entry<E> {
    at: Instant,
    /// Events of one instant happen in the order in which they were scheduled.
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// The heap gives its greatest entry first: the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// Events by time.
pub struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    number: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue { heap: BinaryHeap::with_capacity(1024), number: 0 }
    }
}

impl<E> Queue<E> {
    /// Lets `event` happen at `at`.
    pub fn push(&mut self, at: Instant, event: E) {
        self.number += 1;
        self.heap.push(Entry { at, number: self.number, event });
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|e| e.at)
    }

    /// The next event.
    pub fn pop(&mut self) -> Option<(Instant, E)> {
        self.heap.pop().map(|e| (e.at, e.event))
    }
}
