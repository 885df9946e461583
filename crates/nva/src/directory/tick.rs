//! What only time brings about.

use godwit_model::message::NvaToNve;
use godwit_wire::{Instant, Span};

use super::Directory;

/// Sessions and moves are looked at in this interval.
const SWEEP: Span = Span::from_ms(100);
/// A gap between ticks above this is our own stall, and not the NVEs' silence.
const STALL: Span = Span::from_ms(300);

/// What is remembered of time, beside the time of the step.
#[derive(Default)]
pub(super) struct Clock {
    /// When this incarnation made its first step.
    pub started: Option<Instant>,
    /// Wall clock at the first step of this incarnation.
    pub started_us: u64,
    last_tick: Option<Instant>,
    next_sweep: Instant,
}

impl Clock {
    /// A step begins.
    pub fn step(&mut self, now: Instant, wall_us: u64) {
        self.started.get_or_insert(now);
        if self.started_us == 0 {
            self.started_us = wall_us;
        }
    }

    /// The time since the last tick.
    fn gap(&mut self, now: Instant) -> Span {
        let gap = self.last_tick.map_or(Span(0), |at| now.since(at));
        self.last_tick = Some(now);
        gap
    }

    /// It is time to look at sessions and moves.
    fn sweep_is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next_sweep;
        if due {
            self.next_sweep = now + SWEEP;
        }
        due
    }
}

impl Directory {
    pub(super) fn tick(&mut self) {
        self.forgive_stall();
        let now = self.now;
        for key in self.updates.held_where(|f| f.due <= now) {
            self.release(key);
        }
        self.retry_updates();
        if self.clock.sweep_is_due(now) {
            self.sweep_sessions();
            self.sweep_clones();
            self.sweep_moves();
            self.sweep_interests();
            self.sweep_contests();
            self.sweep_binding();
            self.claims.forget_granted(now);
            self.save_moves();
        }
        self.go_on_draining();
        self.tick_keys();
    }

    /// Where this process did not run, NVEs had no chance to be heard.
    fn forgive_stall(&mut self) {
        let gap = self.clock.gap(self.now);
        if gap > STALL {
            self.sessions.forgive(gap, self.now);
        }
    }

    /// Keepalives for the quiet, the end for the silent.
    fn sweep_sessions(&mut self) {
        let now = self.now;
        let limit = Span::from_ms(self.config.keepalive_ms.into());
        let interval = Span::from_ms((self.config.keepalive_ms / 3).into());
        let silent = self.sessions.silent(now, limit);
        let quiet = self.sessions.quiet(now, limit, interval);
        for (session, ms) in silent {
            self.close(session, format!("nothing was heard for {ms} ms"));
        }
        for session in quiet {
            self.send(session, NvaToNve::Keepalive);
        }
    }

    fn save_moves(&mut self) {
        for stored in self.moves.take_unsaved() {
            self.persist(super::Write::PutMove(stored));
        }
    }
}
