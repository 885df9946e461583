//! The gate that all senders of a guest pass before each packet: it lets the lab stop them as a
//! hypervisor stops a guest, knowing that none is halfway through a packet.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::now_ns;

const HOLD: u8 = 0;
const RUN: u8 = 1;
const STOP: u8 = 2;

/// What a sender is told at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Send; it stood at the gate for so many nanoseconds.
    Go(u64),
    /// End.
    Stop,
}

/// Shut at first.
#[derive(Default)]
pub struct Gate {
    // The fast path of a sender reads only this; it changes under the lock.
    wanted: AtomicU8,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    senders: usize,
    parked: usize,
}

/// A sender's membership; it leaves when dropped.
pub struct Sender<'a>(&'a Gate);

impl Gate {
    /// A thread will send and must be waited for.
    pub fn join(&self) -> Sender<'_> {
        self.lock().senders += 1;
        Sender(self)
    }

    /// Lets senders go.
    pub fn open(&self) {
        self.set(RUN);
    }

    /// Ends senders for good.
    pub fn stop(&self) {
        self.set(STOP);
    }

    /// Stops senders; true when all stand still, false where that took too long.
    pub fn shut(&self, patience: Duration) -> bool {
        self.set(HOLD);
        let guard = self.lock();
        let (_guard, result) = self
            .changed
            .wait_timeout_while(guard, patience, |w| w.parked < w.senders)
            .unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    fn set(&self, wanted: u8) {
        let _guard = self.lock();
        // Nothing reopens after the end: late orders must not revive senders.
        if self.wanted.load(Ordering::Relaxed) != STOP {
            self.wanted.store(wanted, Ordering::Release);
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender<'_> {
    /// Waits while the gate is shut.
    pub fn pass(&self) -> Pass {
        match self.0.wanted.load(Ordering::Acquire) {
            RUN => Pass::Go(0),
            STOP => Pass::Stop,
            _ => self.wait(),
        }
    }

    fn wait(&self) -> Pass {
        let since = now_ns();
        let mut guard = self.0.lock();
        guard.parked += 1;
        self.0.changed.notify_all();
        while self.0.wanted.load(Ordering::Acquire) == HOLD {
            guard = self.0.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        guard.parked -= 1;
        match self.0.wanted.load(Ordering::Acquire) {
            STOP => Pass::Stop,
            _ => Pass::Go(now_ns() - since),
        }
    }
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn nothing_is_sent_while_shut_and_nothing_after_the_end() {
        let (gate, sent) = (Arc::new(Gate::default()), Arc::new(AtomicU64::new(0)));
        let thread = {
            let (gate, sent) = (gate.clone(), sent.clone());
            std::thread::spawn(move || {
                let sender = gate.join();
                while sender.pass() != Pass::Stop {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        gate.open();
        while sent.load(Ordering::Relaxed) < 1000 {
            std::thread::yield_now();
        }
        assert!(gate.shut(Duration::from_secs(30)));
        let before = sent.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(sent.load(Ordering::Relaxed), before);
        gate.stop();
        gate.open();
        thread.join().unwrap();
        assert!(gate.shut(Duration::from_secs(30)), "nobody is left to wait for");
    }
}
