//! Who owns a VM: claims by compare-and-set, withdrawals by compare-and-delete (R18, R19, R21, R55).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use godwit_model::message::NvaToNve;
use godwit_model::{
    ClaimCause, DenyReason, Location, MoveId, MoveStep, MoveStepKind, NveId, Unplanned, Version, VmKey,
    VmRecord,
};

use super::{Directory, Level, SessionId};

/// What a VM's own advertisements said (R25).
#[derive(Clone)]
pub(super) struct Flags {
    /// The R flag; `None`: not heard.
    pub router: Option<bool>,
    /// The O flags of the addresses that were heard of.
    pub overrides: BTreeMap<Ipv6Addr, bool>,
}

/// What an NVE claims.
#[derive(Clone)]
pub(super) struct ClaimRequest {
    pub seq: u64,
    pub key: VmKey,
    pub ips: Vec<IpAddr>,
    pub cause: ClaimCause,
    pub base: Version,
    pub flags: Flags,
    /// What was done about it so far, where another NVE is asked first (R21).
    pub story: Vec<MoveStep>,
}

/// Takes the advertised flags over, the R flag unless the operator has said what holds; whether there is news.
fn learn(record: &mut VmRecord, flags: &Flags) -> bool {
    let router = flags.router.filter(|r| !record.router_pinned && *r != record.router);
    record.router = router.unwrap_or(record.router);
    let cleared = |ip: &Ipv6Addr| flags.overrides.get(ip).map_or(record.no_override.contains(ip), |set| !set);
    let no_override: Vec<_> = record.ipv6.iter().copied().filter(cleared).collect();
    let news = router.is_some() || no_override != record.no_override;
    record.no_override = no_override;
    news
}

/// What a claim comes to.
enum Judgment {
    /// It is there already: the same version again, so that a repeated claim changes nothing.
    Confirm,
    /// It becomes the owner, by this move if it was a planned one.
    Grant(Option<MoveId>),
    Deny(DenyReason, String),
    /// Another NVE has it, which is asked whether that is still so (R21).
    Verify,
}

impl Directory {
    pub(super) fn claim(&mut self, session: SessionId, nve: NveId, mut asked: ClaimRequest) {
        asked.ips.sort_unstable();
        asked.ips.dedup();
        let ClaimRequest { seq, key, .. } = asked;
        let verdict = self.judge(&nve, key, &asked.ips, asked.base);
        if !matches!(verdict, Judgment::Verify) {
            self.end_contest(&nve, key);
        }
        match verdict {
            Judgment::Deny(reason, text) => self.deny(session, &nve, &asked, reason, text),
            Judgment::Verify => self.contest(session, nve, asked),
            Judgment::Confirm => {
                self.counts.claims_confirmed += 1;
                self.source_came_back(&nve, key);
                self.flags_heard(session, key, &asked.flags);
                if let Some(record) = self.records.get(&key).cloned() {
                    self.send(session, NvaToNve::Grant { seq, record });
                }
            }
            Judgment::Grant(by) => self.grant(session, nve, &asked, by, ""),
        }
    }

    /// The owner's own advertisement says that it is a router, or none, or that an address is to override what is
    /// known, or not (R25). A new version, so that no older word undoes it; the location stays.
    fn flags_heard(&mut self, session: SessionId, key: VmKey, flags: &Flags) {
        let Some(mut record) = self.records.get(&key).cloned() else { return };
        let was_router = record.router;
        if !learn(&mut record, flags) {
            return;
        }
        record.version = self.next_version();
        let what = match (record.router == was_router, record.router) {
            (true, _) => {
                format!(
                    "advertises without the O flag: {}",
                    list(record.no_override.iter().copied().map(IpAddr::V6))
                )
            }
            (false, true) => "says that it is a router".into(),
            (false, false) => "says that it is no router".into(),
        };
        self.log(Level::Info, format!("VM {} ({key}) {what}", record.name));
        self.put_vm(record);
        self.publish_in_place(key, Some(session));
    }

    /// The rules, in the order in which they bind.
    fn judge(&self, nve: &NveId, key: VmKey, ips: &[IpAddr], base: Version) -> Judgment {
        let Some(r) = self.records.get(&key) else {
            let text = format!("the directory has no VM {key}; define it with `godwitctl vm define`");
            return Judgment::Deny(DenyReason::UnknownVm, text);
        };
        if !r.ips().eq(ips.iter().copied()) && base < r.version {
            // A definition crossed it: with the record in hand it is made again (R55).
            let text = format!(
                "the claim rests on version {base}, VM {} has the addresses {} since version {} at the latest",
                r.name,
                list(r.ips()),
                r.version
            );
            return Judgment::Deny(DenyReason::StaleVersion, text);
        }
        if !r.ips().eq(ips.iter().copied()) {
            let text = format!(
                "VM {} has the addresses {} in the directory, the claim has {}",
                r.name,
                list(r.ips()),
                list(ips.iter().copied())
            );
            return Judgment::Deny(DenyReason::AddressMismatch, text);
        }
        let intent = self.intent(r);
        match r.active() {
            Some(l) if l.nve == *nve => Judgment::Confirm,
            Some(l) if r.pinned => {
                Judgment::Deny(DenyReason::Pinned, format!("VM {} is pinned to NVE {}", r.name, l.nve))
            }
            _ if self.is_newcomer(nve, r, intent.as_ref()) => {
                let text = format!(
                    "NVE {nve} is being drained and takes no VMs; start VM {} at another NVE, or `godwitctl nve \
                     undrain {nve}` first",
                    r.name
                );
                Judgment::Deny(DenyReason::Draining, text)
            }
            Some(_) if let Some(text) = self.runs_at_old(r, nve) => {
                Judgment::Deny(DenyReason::OwnedElsewhere, text)
            }
            Some(l) => {
                let late = self.late_move(key, nve).is_some();
                judge_taken(r, l, intent, nve, base, self.unplanned(key), late)
            }
            None => judge_free(r, intent, nve),
        }
    }

    /// The move of this VM that waits for its grant: its id, old and new NVE.
    pub(super) fn intent(&self, r: &VmRecord) -> Option<(MoveId, NveId, NveId)> {
        let m = self.moves.get(r.moving.as_ref()?)?;
        let waits = m.awaits_grant();
        waits.then(|| (m.record.id.clone(), m.record.from.clone(), m.record.to.clone()))
    }

    /// The policy of the VM's VN (R21).
    fn unplanned(&self, key: VmKey) -> Unplanned {
        self.vns.record(key.vni).map_or(Unplanned::default(), |r| r.settings.unplanned)
    }

    /// The claimer gets the VM, by this ordered move if there is one; `why`, where that is to be explained.
    pub(super) fn grant(
        &mut self,
        session: SessionId,
        nve: NveId,
        asked: &ClaimRequest,
        by: Option<MoveId>,
        why: &str,
    ) {
        let (seq, key) = (asked.seq, asked.key);
        let Some(location) = self.location_of(&nve) else { return };
        let Some(mut record) = self.records.get(&key).cloned() else { return };
        let old = record.bind(location).map(|l| l.nve);
        // Its state is here now; where it is mirrored to from here is its manager's to say.
        record.standby.take_if(|m| m.nve == nve);
        record.version = self.next_version();
        learn(&mut record, &asked.flags);
        let froze = by.is_none() && old.is_some() && self.count_unplanned(key);
        record.frozen |= froze;
        let by = by.or_else(|| self.unplanned_move(key, old.clone()?, &nve, asked));
        let text = match &old {
            Some(old) => format!("VM {} ({key}) moves from NVE {old} to {nve}", record.name),
            None => format!("VM {} ({key}) is at NVE {nve}", record.name),
        };
        self.log(Level::Info, format!("{text}, version {}", record.version));
        let (n, s) = (self.config.flap_limit, self.config.flap_window.as_ms() / 1000);
        let often = format!("moved {n} times within {s} s without being ordered to");
        if froze {
            self.counts.vms_frozen += 1;
            self.log(Level::Alarm, format!("ALARM: VM {} ({key}) {often}: frozen at NVE {nve}", record.name));
        }
        self.put_vm(record.clone());
        self.counts.claims_granted += 1;
        self.claims.note_granted(key, self.now, session);
        if by.is_none() {
            self.started_at_old(key, &nve);
        }
        let news = match &by {
            Some(id) => format!("move {id} took the VM on to {nve}"),
            None => format!("NVE {nve} took the VM over"),
        };
        self.overtake(key, &news);
        if let Some(id) = &by {
            self.move_granted(id, record.version, why);
            if froze {
                let clear = format!("`godwitctl vm clear {}`", record.name);
                self.nva_step(id, MoveStepKind::Frozen, format!("it {often}; {clear} lets it move again"));
                self.save_move(id);
            }
        }
        // The old NVE first: what it holds shall lead, before others send to the new one (R45).
        self.publish_move(key, old, session, by.clone());
        self.send(session, NvaToNve::Grant { seq, record });
        if let Some(id) = by {
            self.check_done(&id);
        }
    }

    /// Compare-and-delete: a withdrawal that rests on an older version changes nothing (R19), unless all that changed
    /// since is something else than where the VM is: its NVE may not have heard of that yet.
    pub(super) fn withdraw(&mut self, nve: &NveId, key: VmKey, version: Version) {
        let Some(r) = self.records.get(&key) else { return };
        let intent = self.intent(r);
        let current = r.version == version || self.claims.has_stayed_since(key, version);
        if !r.is_at(nve) || !current {
            let text = format!("ignored a stale withdrawal of {key} by NVE {nve}: it holds {version}");
            return self.log(Level::Info, text);
        }
        if r.pinned || r.frozen {
            let why = if r.pinned { "pinned" } else { "frozen" };
            let text = format!("ignored a withdrawal of {key} by NVE {nve}: the VM is {why} there");
            return self.log(Level::Info, text);
        }
        // One that interrupts the VM begins with just that.
        if self.stopped_for_move(key, "its NVE") {
            return;
        }
        // While it moves, others keep sending to the old NVE, which holds and then forwards. Telling
        // them that the VM is nowhere would lose what they send until the new NVE's claim.
        if let Some((id, _, _)) = intent {
            if let Some(m) = self.moves.get_mut(&id) {
                m.withdrawn = Some(version);
            }
            let text = format!("NVE {nve} withdrew {key} during the move {id}: kept until the move ends");
            return self.log(Level::Info, text);
        }
        self.detach(key);
    }

    pub(super) fn detach(&mut self, key: VmKey) {
        let Some(mut record) = self.records.get(&key).cloned() else { return };
        record.detach();
        record.version = self.next_version();
        self.log(Level::Info, format!("VM {} ({key}) is detached, version {}", record.name, record.version));
        self.overtake(key, &format!("the VM was detached, version {},", record.version));
        self.put_vm(record);
        self.publish(key, None);
    }

    /// The old NVE claims again what it had withdrawn during a move: the VM is back there.
    fn source_came_back(&mut self, nve: &NveId, key: VmKey) {
        let Some(id) = self.records.get(&key).and_then(|r| r.moving.clone()) else { return };
        if let Some(m) = self.moves.get_mut(&id).filter(|m| m.record.from == *nve) {
            m.withdrawn = None;
        }
    }
}

/// Somebody else has it: a planned move takes it from them, and otherwise what the VN's policy allows (R21).
fn judge_taken(
    r: &VmRecord,
    owner: &Location,
    intent: Option<(MoveId, NveId, NveId)>,
    nve: &NveId,
    base: Version,
    policy: Unplanned,
    late: bool,
) -> Judgment {
    let ordered = intent.is_some();
    if let Some((id, _, to)) = intent
        && to == *nve
    {
        return Judgment::Grant(Some(id));
    }
    if r.frozen {
        let text = format!(
            "VM {} is frozen at NVE {} after too many unplanned moves; find the second one that uses its MAC, then \
             `godwitctl vm clear {}`",
            r.name, owner.nve, r.name
        );
        return Judgment::Deny(DenyReason::Frozen, text);
    }
    if base != Version::ZERO && base < r.version {
        let text = format!(
            "the claim rests on version {base}, VM {} is at NVE {} since version {}",
            r.name, owner.nve, r.version
        );
        return Judgment::Deny(DenyReason::StaleVersion, text);
    }
    match policy {
        Unplanned::Verify if !ordered => return Judgment::Verify,
        // Ordered, and only its time was over: the old NVE says whether it is too late.
        Unplanned::Deny if !ordered && late => return Judgment::Verify,
        Unplanned::Accept if !ordered => return Judgment::Grant(None),
        _ => {}
    }
    let text = format!(
        "VM {} is at NVE {}; order a move (`godwitctl vm move {} --to {nve}`) or stop it there first",
        r.name, owner.nve, r.name
    );
    Judgment::Deny(DenyReason::OwnedElsewhere, text)
}

/// Nobody has it: the first one gets it, unless a planned move says who.
fn judge_free(r: &VmRecord, intent: Option<(MoveId, NveId, NveId)>, nve: &NveId) -> Judgment {
    match intent {
        Some((id, _, to)) if to == *nve => Judgment::Grant(Some(id)),
        Some((id, from, to)) if from != *nve => {
            let text = format!("VM {} is on its way from NVE {from} to {to} (move {id})", r.name);
            Judgment::Deny(DenyReason::OwnedElsewhere, text)
        }
        _ => Judgment::Grant(None),
    }
}

fn list(ips: impl Iterator<Item = IpAddr>) -> String {
    let text = ips.map(|ip| ip.to_string()).collect::<Vec<_>>().join(", ");
    if text.is_empty() { "none".into() } else { text }
}
