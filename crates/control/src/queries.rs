//! Pulls: one question a key at a time, repeated with its number, left alone after that (R34).

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_model::message::QueryBy;
use godwit_wire::{Instant, Mac, Vni};

use crate::config::NveConfig;

/// Questions that may wait at a time; more are dropped and asked again by their packets.
const MAX_WAITING: usize = 8192;

/// What is asked for, in an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Asked {
    Mac(Vni, Mac),
    Ip(Vni, IpAddr),
}

impl Asked {
    pub(crate) fn vni(self) -> Vni {
        match self {
            Asked::Mac(vni, _) | Asked::Ip(vni, _) => vni,
        }
    }

    pub(crate) fn by(self) -> QueryBy {
        match self {
            Asked::Mac(_, mac) => QueryBy::Mac(mac),
            Asked::Ip(_, ip) => QueryBy::Ip(ip),
        }
    }
}

#[derive(Debug)]
struct Query {
    seq: u64,
    /// When it first went out, in this session.
    since: Instant,
    /// Times it went out.
    tries: u32,
    /// Nobody answered; it rests until `next`.
    given_up: bool,
    /// Asked for again while it rested.
    wanted: bool,
    next: Instant,
}

/// The questions that wait for an answer or rest after none.
#[derive(Default, Debug)]
pub(crate) struct Queries {
    by_key: BTreeMap<Asked, Query>,
    by_seq: BTreeMap<u64, Asked>,
    /// Questions dropped because too many waited, since the start.
    pub(crate) dropped: u64,
}

impl Queries {
    /// A worker misses a key. `Some`: a new question waits, due at once.
    pub(crate) fn miss(&mut self, now: Instant, asked: Asked, seq: &mut u64) -> Option<Instant> {
        if let Some(q) = self.by_key.get_mut(&asked) {
            q.wanted = true;
            return None;
        }
        if self.by_key.len() >= MAX_WAITING {
            self.dropped += 1;
            return None;
        }
        *seq += 1;
        self.by_seq.insert(*seq, asked);
        let q = Query { seq: *seq, since: now, tries: 0, given_up: false, wanted: false, next: now };
        self.by_key.insert(asked, q);
        Some(now)
    }

    /// It is due: `(number to ask with, next time)`; no number: it only rests; no time: it is over.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        asked: Asked,
        config: &NveConfig,
        seq: &mut u64,
    ) -> (Option<u64>, Option<Instant>) {
        let Some(q) = self.by_key.get_mut(&asked) else { return (None, None) };
        if q.given_up {
            if !q.wanted {
                self.forget(asked);
                return (None, None);
            }
            self.by_seq.remove(&q.seq);
            *seq += 1;
            self.by_seq.insert(*seq, asked);
            *q = Query { seq: *seq, since: now, tries: 0, given_up: false, wanted: false, next: now };
        }
        if q.tries > config.qry_retries {
            // A late answer is still welcome: the number stays known while it rests (R42: 1/s).
            q.given_up = true;
            q.next = now + config.requery;
            return (None, Some(q.next));
        }
        if q.tries == 0 {
            q.since = now;
        }
        q.tries += 1;
        q.wanted = false;
        q.next = now + config.qry_timeout;
        (Some(q.seq), Some(q.next))
    }

    /// A new session: every question is put again.
    pub(crate) fn restart(&mut self, now: Instant) -> Vec<Asked> {
        for q in self.by_key.values_mut() {
            q.tries = 0;
            q.given_up = false;
            q.next = now;
        }
        self.by_key.keys().copied().collect()
    }

    /// What was asked with this number; the question is over.
    pub(crate) fn answered(&mut self, seq: u64) -> Option<Asked> {
        let asked = self.by_seq.get(&seq).copied()?;
        self.forget(asked);
        Some(asked)
    }

    /// What was asked with this number, and when first.
    pub(crate) fn asked(&self, seq: u64) -> Option<(Asked, Instant)> {
        let asked = self.by_seq.get(&seq).copied()?;
        Some((asked, self.by_key.get(&asked)?.since))
    }

    /// Nobody needs to know any more.
    pub(crate) fn forget(&mut self, asked: Asked) {
        if let Some(q) = self.by_key.remove(&asked) {
            self.by_seq.remove(&q.seq);
        }
    }

    /// Forgets all questions of a VN; returns them.
    pub(crate) fn forget_vn(&mut self, vni: Vni) -> Vec<Asked> {
        let gone: Vec<Asked> = self.by_key.keys().copied().filter(|a| a.vni() == vni).collect();
        for a in &gone {
            self.forget(*a);
        }
        gone
    }

    /// A question on this key waits or rests.
    pub(crate) fn is_waiting(&self, asked: Asked) -> bool {
        self.by_key.contains_key(&asked)
    }

    /// All that wait or rest, in order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Asked> + '_ {
        self.by_key.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Asked {
        Asked::Mac(Vni::from_low24(7), Mac([2, 0, 0, 0, 0, 1]))
    }

    #[test]
    fn r34_one_question_a_key_repeated_with_its_number_then_a_rest() {
        let config = NveConfig::new(godwit_model::NveId::new("a").unwrap(), 1);
        let (mut q, mut seq, mut now) = (Queries::default(), 0, Instant(0));
        assert_eq!(q.miss(now, key(), &mut seq), Some(now));
        assert_eq!(q.miss(now, key(), &mut seq), None, "one outstanding");
        for _ in 0..4 {
            let (number, next) = q.due(now, key(), &config, &mut seq);
            assert_eq!(number, Some(1), "first and three repetitions carry one number");
            now = next.unwrap();
        }
        assert_eq!(now.since(Instant(0)).as_ms(), 400);
        let (number, next) = q.due(now, key(), &config, &mut seq);
        assert_eq!((number, next), (None, Some(now + config.requery)), "it rests");
        assert_eq!(q.miss(now, key(), &mut seq), None, "R42: no question more than once a second");
        let (number, _) = q.due(now + config.requery, key(), &config, &mut seq);
        assert_eq!(number, Some(2), "wanted meanwhile: a new question");
        assert_eq!(q.answered(1), None, "the old number is void");
        assert_eq!(q.answered(2), Some(key()));
        assert!(!q.is_waiting(key()));
    }
}
