//! Queries of NVEs (R34).

use std::collections::BTreeSet;

use godwit_model::message::{NvaToNve, QueryBy};
use godwit_model::{BindingState, VmKey};
use godwit_wire::Vni;

use super::{Directory, SessionId};

impl Directory {
    /// Pull (R34): the record, or the authoritative word that there is none.
    pub(super) fn query(&mut self, session: SessionId, seq: u64, vni: Vni, by: QueryBy) {
        let mac = match by {
            QueryBy::Mac(mac) => Some(self.macs.get(&(vni, mac)).copied().unwrap_or(mac)),
            QueryBy::Ip(ip) => self.ips.get(&(vni, ip)).copied(),
        };
        let record = mac.and_then(|mac| self.vms.get(&VmKey { vni, mac })).cloned();
        let nowhere = record.as_ref().is_some_and(|r| r.state == BindingState::Detached);
        let life = if record.is_some() { self.config.pos_life } else { self.config.neg_life };
        self.send(session, NvaToNve::Response { seq, record, lifetime_ms: life.as_ms() });
        // After the answer, because where there are too many this one may be the one that is called in.
        match (mac, by) {
            (Some(mac), _) => self.note_interest(session, VmKey { vni, mac }, life),
            (None, QueryBy::Ip(ip)) => self.note_absent(session, vni, ip, life),
            (None, QueryBy::Mac(_)) => {}
        }
        // Somebody sends to it: who has a port for it looks whether it is there (R32).
        if let Some(mac) = mac.filter(|_| nowhere) {
            self.tell_ports(VmKey { vni, mac }, &BTreeSet::from([session]));
        }
    }
}
