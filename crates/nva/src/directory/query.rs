//! Queries of NVEs (R34).

use std::collections::BTreeSet;

use godwit_model::message::{NvaToNve, QueryBy};
use godwit_wire::Vni;

use super::{Directory, SessionId};

impl Directory {
    /// Pull (R34): the record, or the authoritative word that there is none.
    pub(super) fn query(&mut self, session: SessionId, seq: u64, vni: Vni, by: QueryBy) {
        let key = match by {
            QueryBy::Mac(mac) => Some(self.records.key_of_mac(vni, mac)),
            QueryBy::Ip(ip) => self.records.key_of_ip(vni, ip),
        };
        let record = key.and_then(|key| self.records.get(&key)).cloned();
        let nowhere = record.as_ref().is_some_and(|r| !r.is_active());
        let life = if record.is_some() { self.config.pos_life } else { self.config.neg_life };
        self.counts.queries_answered += 1;
        self.send(session, NvaToNve::Response { seq, record, lifetime_ms: life.as_ms() });
        // After the answer, because where there are too many this one may be the one that is called in.
        match (key, by) {
            (Some(key), _) => self.note_interest(session, key, life),
            (None, QueryBy::Ip(ip)) => self.note_absent(session, vni, ip, life),
            (None, QueryBy::Mac(_)) => {}
        }
        // Somebody sends to it: who has a port for it looks whether it is there (R32).
        if let Some(key) = key.filter(|_| nowhere) {
            self.tell_ports(key, &BTreeSet::from([session]));
        }
    }
}
