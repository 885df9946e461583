//! ARP and ND requests that wait for the directory: what bounds them.

use godwit_wire::Instant;

use crate::Tables;
use crate::neighbors::{Ask, AskRefused};

impl Tables {
    /// Whether a request may wait; `Ok(true)` where the directory must be asked. Changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn check_ask(&self, ask: &Ask, now: Instant) -> Result<bool, AskRefused> {
        self.asks.check(ask, self.ports.under_way(ask.port).1, self.bounds.asks_per_port)?;
        let query = !self.asks.is_asked(ask.vn, ask.target);
        if query && !self.ports.may_ask(ask.port, now) {
            return Err(AskRefused::Full);
        }
        Ok(query)
    }

    /// Lets a request wait (R31) as [`Tables::check_ask`] said: `query` where the directory is asked.
    pub fn ask(&mut self, ask: Ask, query: bool, now: Instant) {
        if query {
            self.ports.asked(ask.port, now);
        }
        self.ports.counts(ask.port).asks += 1;
        self.asks.push(ask);
    }

    /// When a request that comes now has waited long enough.
    pub fn ask_expires(&self, now: Instant) -> Instant {
        now + self.bounds.miss_hold_age
    }

    /// Waiting requests are worth a look.
    #[inline(always)]
    pub fn asks_due(&self, now: Instant) -> bool {
        self.asks.due <= now
    }

    /// Ends a look through the waiting requests: the next one is due when the first expires.
    pub fn asks_seen(&mut self) {
        let first = (0..self.asks.len()).filter_map(|i| self.asks.get(i)).map(|a| a.expires).min();
        self.asks.due = first.unwrap_or(Instant::NEVER);
    }

    /// Takes a waiting request out; the last one takes its place.
    pub fn take_ask(&mut self, at: usize) -> Ask {
        let ask = self.asks.remove(at);
        let count = &mut self.ports.counts(ask.port).asks;
        *count = count.saturating_sub(1);
        ask
    }
}
