//! Who hears of a VM: in push mode every subscriber of its VN, in pull mode those who asked for it of late (R37,
//! R38, R40), and those who have a part in it anyhow.
//!
//! An interest is remembered from the answer on until the answer's life and the update windows are over. The NVE
//! counts that life from its question, so what it still uses is always of interest here.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use godwit_model::message::Change;
use godwit_model::{Deadlines, DirectoryMode, NveId, VmKey, VmRecord, timing};
use godwit_wire::{Mac, Span, Vni};

use super::session::Session;
use super::{Directory, Level, SessionId};

/// A subscription of a VN.
#[derive(Clone, Copy, Default)]
pub(super) struct Subscription {
    /// The number of updates so far on this connection.
    pub revision: u64,
    pub mode: DirectoryMode,
}

/// What one session was told in pull mode and may still use.
#[derive(Default)]
pub(super) struct Interests {
    vms: Deadlines<VmKey>,
    /// Addresses that no VM had.
    absent: Deadlines<(Vni, IpAddr)>,
}

impl Interests {
    fn of_vn(&self, vni: Vni) -> impl Iterator<Item = VmKey> + '_ {
        self.vms.range(VmKey { vni, mac: Mac::ZERO }..=VmKey { vni, mac: Mac::BROADCAST }).map(|(key, _)| key)
    }

    fn absent_of_vn(&self, vni: Vni) -> impl Iterator<Item = IpAddr> + '_ {
        let from = (vni, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.absent.range(from..).map(|(k, _)| k).take_while(move |(v, _)| *v == vni).map(|(_, ip)| ip)
    }

    /// It was told that nobody has an address, or a nested or virtual MAC, which this VM has got.
    fn misses_address_of(&self, record: &VmRecord) -> bool {
        let vni = record.key.vni;
        let ip = || record.addresses().any(|(ip, _)| self.absent.has((vni, ip)));
        let mac = || record.macs().skip(1).any(|mac| self.vms.has(VmKey { vni, mac }));
        !self.absent.is_empty() && ip() || mac()
    }

    /// The VN is not pulled any more.
    pub fn forget_vn(&mut self, vni: Vni) {
        self.vms.retain(|key| key.vni != vni);
        self.absent.retain(|(v, _)| *v != vni);
    }
}

impl Session {
    /// How it takes part in a VN; `None`: not at all.
    pub(super) fn mode(&self, vni: Vni) -> Option<DirectoryMode> {
        self.subscribed.get(&vni).map(|s| s.mode)
    }

    /// It pulls some VN.
    fn pulls(&self) -> bool {
        self.subscribed.values().any(|s| s.mode == DirectoryMode::Pull)
    }
}

impl Directory {
    /// After an answer of this life an NVE is told of changes for so long: its question may have been under way
    /// for as long as questions are repeated, and an update for as long as updates are.
    fn interest_of(&self, life: Span) -> Span {
        let query = Span::from_ms(timing::QRY_TIMEOUT_MS * (u64::from(timing::QRY_RETRIES) + 1));
        let updates = Span(self.config.upd_timeout.0 * (u64::from(self.config.upd_retries) + 1));
        Span(life.0 + query.0 + updates.0 + self.config.upd_delay.0)
    }

    /// The session was told of a VM, or that there is none: it hears of changes while it may use that (R38). Too
    /// many, and the oldest is called in, so that nobody goes on with what he is not told of.
    pub(super) fn note_interest(&mut self, session: SessionId, key: VmKey, life: Span) {
        let end = self.now + self.interest_of(life);
        let max = self.config.max_interests;
        let Some(s) = self.sessions.get_mut(&session) else { return };
        // What it is told before it subscribes is part of the snapshot then, if it pulls.
        if s.mode(key.vni) == Some(DirectoryMode::Push) {
            return;
        }
        s.interests.vms.extend(key, end);
        let called_in = s.interests.vms.pop_beyond(max);
        if let Some(key) = called_in {
            let who = self.name_of(session);
            self.log(
                Level::Debug,
                format!("{who} uses more than {max} VMs of VNs in pull mode: it is to ask again for {key}"),
            );
            self.update(session, key.vni, Change::Forgotten { key });
        }
    }

    /// The session was told that no VM has an address: for so long it hears of one that gets it (R36). Of too many the
    /// first is forgotten; what was said of it ends by itself, and soon.
    pub(super) fn note_absent(&mut self, session: SessionId, vni: Vni, ip: IpAddr, life: Span) {
        let end = self.now + self.interest_of(life);
        let Some(s) = self.sessions.get_mut(&session) else { return };
        if s.mode(vni) != Some(DirectoryMode::Push) {
            s.interests.absent.extend((vni, ip), end);
            s.interests.absent.pop_beyond(self.config.max_interests);
        }
    }

    /// The VM is told of for the first time to a session that missed one of its addresses: what follows is told too.
    pub(super) fn note_news(&mut self, session: SessionId, key: VmKey) {
        let missed = |s: &Session| self.records.get(&key).is_some_and(|r| s.interests.misses_address_of(r));
        if self.sessions.get(&session).is_some_and(missed) {
            self.note_interest(session, key, self.config.pos_life);
        }
    }

    /// The NVE lost the VM and may have to forward for it: it hears where the VM goes next (R43).
    pub(super) fn note_former(&mut self, nve: &NveId, key: VmKey) {
        if let Some(session) = self.session_of(nve) {
            self.note_interest(session, key, self.config.pos_life);
        }
    }

    /// The session is told of changes of this VM.
    pub(super) fn hears_of(&self, session: SessionId, key: VmKey) -> bool {
        let Some(s) = self.sessions.get(&session) else { return false };
        match s.mode(key.vni) {
            None => false,
            Some(DirectoryMode::Push) => true,
            Some(DirectoryMode::Pull) => {
                let missed = || self.records.get(&key).is_some_and(|r| s.interests.misses_address_of(r));
                s.interests.vms.has(key) || self.has_part(session, s, key) || missed()
            }
        }
    }

    /// It has the VM, a port for it, or a part in its move.
    fn has_part(&self, session: SessionId, s: &Session, key: VmKey) -> bool {
        if self.ports.has(key, session) {
            return true;
        }
        let (Some(r), Some(nve)) = (self.records.get(&key), &s.nve) else { return false };
        let moves = || {
            let m = self.moves.get(r.moving.as_ref()?)?;
            Some(m.record.from == *nve || m.record.to == *nve)
        };
        r.bindings.at(nve).is_some() || moves().unwrap_or(false)
    }

    /// The subscribers of the VM's VN that are told of its changes.
    pub(super) fn hearers(&self, key: VmKey) -> BTreeSet<SessionId> {
        let all = self.vns.get(key.vni).into_iter().flat_map(|v| &v.subscribers);
        all.copied().filter(|s| self.hears_of(*s, key)).collect()
    }

    /// What a session in pull mode is told of a VN at its subscription: what it hears of anyhow.
    pub(super) fn heard_of(&self, session: SessionId, vni: Vni) -> BTreeSet<VmKey> {
        let Some(s) = self.sessions.get(&session) else { return BTreeSet::new() };
        let vms = s.nve.as_ref().and_then(|nve| self.nves.get(nve)).map(|n| &n.vms);
        let moving = self.moves.open().map(|m| m.record.key);
        let parts = vms.into_iter().flatten().chain(s.ports.keys()).copied().chain(moving);
        let parts = parts.filter(|key| key.vni == vni && self.has_part(session, s, *key));
        let missed = s.interests.absent_of_vn(vni).filter_map(|ip| self.records.key_of_ip(vni, ip));
        parts.chain(s.interests.of_vn(vni)).chain(missed).collect()
    }

    /// A session that pulls may use, for so long after its beginning, what it was told on an earlier one.
    pub(super) fn may_use_earlier(&self, s: &Session) -> bool {
        s.pulls() && self.now.since(s.since) < self.interest_of(self.config.pos_life)
    }

    pub(super) fn sweep_interests(&mut self) {
        let now = self.now;
        for s in self.sessions.values_mut() {
            s.interests.vms.take_due(now);
            s.interests.absent.take_due(now);
        }
    }
}
