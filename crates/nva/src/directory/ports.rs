//! Ports of NVEs: which VMs they are for, and an NVE's report of all of them.

use std::collections::{BTreeMap, BTreeSet};

use godwit_model::message::{Attachment, NvaToNve};
use godwit_model::{NveId, Version, VmKey};
use godwit_wire::{Span, Vni};

use super::{Directory, Level, SessionId};

/// A VM granted so recently may be missing in a report that is still under way.
const REPORT_GRACE: Span = Span::from_ms(2000);

/// Sessions with a port for a VM, whether active or not (R15).
#[derive(Default)]
pub(super) struct Ports {
    by_vm: BTreeMap<VmKey, BTreeSet<SessionId>>,
}

impl Ports {
    pub fn add(&mut self, key: VmKey, session: SessionId) {
        self.by_vm.entry(key).or_default().insert(session);
    }

    pub fn remove(&mut self, key: VmKey, session: SessionId) {
        if let Some(sessions) = self.by_vm.get_mut(&key) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.by_vm.remove(&key);
            }
        }
    }

    pub fn has(&self, key: VmKey, session: SessionId) -> bool {
        self.by_vm.get(&key).is_some_and(|sessions| sessions.contains(&session))
    }

    /// The sessions with a port for the VM.
    pub fn of(&self, key: VmKey) -> BTreeSet<SessionId> {
        self.by_vm.get(&key).cloned().unwrap_or_default()
    }
}

impl Directory {
    pub(super) fn associate(&mut self, session: SessionId, nve: &NveId, key: VmKey, port: String) {
        let max = self.config.max_ports;
        let Some(s) = self.sessions.get_mut(&session) else { return };
        if s.port_count >= max && !s.ports.get(&key).is_some_and(|ports| ports.contains(&port)) {
            return self.error(session, format!("port {port} is one too many: an NVE has {max} at most"));
        }
        s.port_count += usize::from(s.ports.entry(key).or_default().insert(port));
        self.ports.add(key, session);
        self.provision(session, key);
        self.repeat_target_move(session, nve, key);
    }

    fn provision(&mut self, session: SessionId, key: VmKey) {
        let record = self.records.get(&key).cloned();
        self.send(session, NvaToNve::Provision { key, record });
    }

    pub(super) fn disassociate(&mut self, session: SessionId, key: VmKey, port: &str) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let Some(ports) = s.ports.get_mut(&key) else { return };
        s.port_count -= usize::from(ports.remove(port));
        if ports.is_empty() {
            s.ports.remove(&key);
            self.ports.remove(key, session);
        }
    }

    /// A report comes in parts, each of which fits in a message.
    pub(super) fn report_part(&mut self, session: SessionId, nve: NveId, part: Vec<Attachment>, more: bool) {
        let max = self.config.max_ports;
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let room = max.saturating_sub(s.report.len());
        let refused = part.len().saturating_sub(room);
        s.report.extend(part.into_iter().take(room));
        if refused > 0 {
            let text = format!("{refused} ports of a report are too many: an NVE has {max} at most");
            self.error(session, text);
        }
        if let Some(s) = self.sessions.get_mut(&session).filter(|_| !more) {
            let all = std::mem::take(&mut s.report);
            self.report(session, nve, all);
        }
    }

    /// Compares what the NVE has with what the directory has, and mends the difference by version (R17).
    fn report(&mut self, session: SessionId, nve: NveId, attachments: Vec<Attachment>) {
        self.report_ports(session, &nve, &attachments);
        self.compare_versions(&nve, &attachments);
        let mut stale: BTreeSet<Vni> = BTreeSet::new();
        for a in attachments.iter().filter(|a| a.active && a.version != Version::ZERO) {
            let differs = self.records.get(&a.key).is_none_or(|r| !r.is_at(&nve) || r.version != a.version);
            // Not while the news is under way anyhow.
            if differs && self.updates.held(a.key).is_none() {
                stale.insert(a.key.vni);
            }
        }
        for vni in stale {
            let is_told = !self.updates.is_settled(session) || self.streams.has(session, vni);
            if !is_told {
                self.log(Level::Info, format!("NVE {nve} differs in VN {vni}: snapshot"));
                self.snapshot(session, vni);
            }
        }
        self.report_missing(session, &nve, &attachments);
        self.report_memberships(session, &nve, &attachments);
    }

    /// A version that this directory never gave: the last changes before its start were lost with its file.
    fn compare_versions(&mut self, nve: &NveId, attachments: &[Attachment]) {
        // Numbers go on over restarts, those of today's incarnation are its own.
        let before = attachments.iter().map(|a| a.version).filter(|v| v.epoch < self.epoch);
        let Some(newest) = before.max_by_key(|v| v.seq).filter(|v| v.seq > self.restored.seq) else { return };
        if self.told_of_loss {
            return;
        }
        self.told_of_loss = true;
        let text = format!(
            "ALARM: NVE {nve} has version {newest}, and this directory was restored with none above {}: changes before \
             its start are lost; compare a copy of its file (`godwit-nva export`), and order what is missing again",
            self.restored
        );
        self.log(Level::Alarm, text);
    }

    /// The NVE's ports are exactly those of its report.
    fn report_ports(&mut self, session: SessionId, nve: &NveId, attachments: &[Attachment]) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let mut ports: BTreeMap<VmKey, BTreeSet<String>> = BTreeMap::new();
        for a in attachments {
            ports.entry(a.key).or_default().insert(a.port.clone());
        }
        s.port_count = ports.values().map(BTreeSet::len).sum();
        let before: BTreeSet<VmKey> = s.ports.keys().copied().collect();
        let after: BTreeSet<VmKey> = ports.keys().copied().collect();
        s.ports = ports;
        for key in before.difference(&after) {
            self.ports.remove(*key, session);
        }
        for key in after.difference(&before) {
            self.ports.add(*key, session);
            self.provision(session, *key);
            self.repeat_target_move(session, nve, *key);
        }
    }

    /// VMs that the directory has here and the NVE does not: their Withdraw was lost (R19).
    fn report_missing(&mut self, session: SessionId, nve: &NveId, attachments: &[Attachment]) {
        let active: BTreeSet<VmKey> = attachments.iter().filter(|a| a.active).map(|a| a.key).collect();
        let Some(n) = self.nves.get(nve) else { return };
        let gone: Vec<VmKey> = n.vms.difference(&active).copied().collect();
        for key in gone {
            // The grant of another connection was never under way beside this report: the NVE has
            // started anew since.
            let fresh = self.claims.was_granted(key, session, self.now, REPORT_GRACE);
            let has = self.records.get(&key).filter(|r| r.is_at(nve)).map(|r| r.version);
            if let (false, Some(version)) = (fresh, has) {
                self.withdraw(nve, key, version);
            }
        }
    }
}
