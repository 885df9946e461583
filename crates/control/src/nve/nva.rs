//! The session with the NVA: what it says and what we say when it begins.

use godwit_model::message::{Attachment, Change, NvaToNve, NveToNva};
use godwit_model::{Locators, MoveMode, Version, VmKey, VmRecord};
use godwit_wire::Vni;

use crate::barrier::After;
use crate::io::{Level, Outputs};
use crate::mirror::{Offer, SnapshotEnd};
use crate::mobility::Vm;
use crate::records::Touched;

use super::notices::By;
use super::{Nve, Timer};

/// Attachments in one message: the NVA takes messages of 64 KiB, and a port's name may have 255 bytes.
const REPORT_PART: usize = 200;

impl Nve {
    // ---- The session's beginning and end ----

    pub(super) fn nva_connected(&mut self, out: &mut Outputs) {
        if self.session.connected {
            self.nva_lost(out);
        }
        let (number, epoch) = (self.session.number + 1, self.session.epoch);
        self.session = super::Session { number, epoch, connected: true, ..super::Session::default() };
        self.hello(out);
    }

    pub(super) fn nva_lost(&mut self, out: &mut Outputs) {
        let was_up = self.session.is_up();
        if was_up {
            out.note(Level::Warn, String::from("the NVA is away: forwarding goes on with what is known"));
        }
        let (number, epoch) = (self.session.number, self.session.epoch);
        self.session = super::Session { number, epoch, ..super::Session::default() };
        self.mirror.session_down();
        self.forget_who_sends();
        self.groups_told.clear();
        self.timers.set(Timer::Report, None);
        let keys: Vec<VmKey> = self.vms.keys().copied().collect();
        for key in keys {
            self.with_known_vm(key, out, Vm::session_down);
        }
        // What was nowhere may be there by now, and nobody would say so (R72).
        self.clear_negative_cache(out);
        if was_up {
            self.nva_gone = self.now;
            self.timers.set(Timer::Headless, Some(self.now + self.config.headless));
            self.bind_without_nva(out);
        }
    }

    /// The NVA stays away: where VMs are at other NVEs is not known any more, and no forward entry waits for the
    /// NVA's word on it (R72). What is here stays as it is.
    pub(super) fn headless(&mut self, out: &mut Outputs) {
        let keys: Vec<VmKey> = self.vms.keys().copied().collect();
        for key in keys {
            self.with_known_vm(key, out, |vm, cx| vm.resume_forward(cx.now));
        }
        let (us, vms) = (self.config.nve.clone(), &self.vms);
        let gone = self.mirror.forget_others(|r| vms.contains_key(&r.key) || r.is_at(&us));
        let text = format!(
            "the NVA has been away for {} s: {} VMs at other NVEs are forgotten",
            self.config.headless.as_ms() / 1000,
            gone.len()
        );
        out.note(Level::Alarm, text);
        for record in gone {
            self.directory_changed(record.key, Touched::of(&record), out);
        }
    }

    /// Says who we are, as soon as we have a locator; again when the locators change.
    pub(super) fn hello(&mut self, out: &mut Outputs) {
        let locators: Locators = self.locators();
        if self.clone.busy
            || !self.session.connected
            || locators.is_empty()
            || self.session.hello == Some(locators)
        {
            return;
        }
        self.session.hello = Some(locators);
        out.to_nva.push(NveToNva::Hello {
            nve: self.config.nve.clone(),
            locators,
            software: self.config.software.clone(),
            last_epoch: self.session.epoch,
            instance: self.config.instance,
            abilities: self.config.abilities,
        });
    }

    fn welcome(&mut self, epoch: u32, out: &mut Outputs) {
        self.session.outdated = epoch < self.session.epoch;
        if self.session.outdated {
            let text =
                format!("this NVA is of epoch {epoch}, older than {}: not listened to", self.session.epoch);
            return self.alarm(text, out);
        }
        out.note(Level::Info, format!("the NVA welcomes us (epoch {epoch})"));
        self.session.epoch = epoch;
        self.session.welcomed = true;
        self.timers.set(Timer::Headless, None);
        self.is_no_clone(out);
        self.resync(out);
    }

    /// Says everything that the NVA should know, and asks for everything that we should (R73).
    fn resync(&mut self, out: &mut Outputs) {
        self.clear_negative_cache(out);
        let (pulled, pushed): (Vec<Vni>, Vec<Vni>) = self.mirror.vns().partition(|vni| self.is_pulled(*vni));
        for vni in pushed {
            self.subscribe(vni, out);
        }
        let keys: Vec<VmKey> = self.vms.keys().copied().collect();
        for key in keys {
            self.with_known_vm(key, out, Vm::session_up);
        }
        // The NVA knows our ports by now, and names the VMs that they are for.
        for vni in pulled {
            self.subscribe(vni, out);
        }
        for (key, version) in core::mem::take(&mut self.withdrawals) {
            // It may have come back meanwhile.
            if !self.vms.get(&key).is_some_and(Vm::is_hosted) {
                self.send(NveToNva::Withdraw { key, version }, out);
            }
        }
        out.to_nva.extend(core::mem::take(&mut self.reports));
        self.report(out);
        self.bind_again(out);
        for asked in self.queries.restart(self.now) {
            self.timers.set(Timer::Query(asked), Some(self.now));
        }
    }

    /// Every attachment (R17).
    pub(super) fn report(&mut self, out: &mut Outputs) {
        let mut attachments = Vec::new();
        for (key, vm) in &self.vms {
            let on = vm.phase.port();
            for (port, p) in &vm.ports {
                let active = on == Some(*port);
                let version = if active { vm.hosted } else { Version::ZERO };
                attachments.push(Attachment { key: *key, port: p.name.clone(), version, active });
            }
            if vm.is_hosted() && on.is_none() {
                // Held for its handover although its port is gone.
                let port = vm.last_port.clone();
                attachments.push(Attachment { key: *key, port, version: vm.hosted, active: true });
            }
        }
        let mut parts: Vec<Vec<Attachment>> = attachments.chunks(REPORT_PART).map(<[_]>::to_vec).collect();
        let last = parts.pop().unwrap_or_default();
        for attachments in parts {
            self.send(NveToNva::Report { attachments, more: true }, out);
        }
        self.send(NveToNva::Report { attachments: last, more: false }, out);
        self.timers.set(Timer::Report, Some(self.now + self.config.report_ival));
    }

    // ---- Its messages ----

    pub(super) fn nva_message(&mut self, message: NvaToNve, out: &mut Outputs) {
        if !self.session.connected {
            return;
        }
        if let NvaToNve::Welcome { epoch, keepalive_ms: _ } = message {
            return self.welcome(epoch, out);
        }
        if let NvaToNve::Refused { text } = message {
            return self.refused_as_clone(text, out);
        }
        if !self.session.is_up() {
            return;
        }
        match message {
            NvaToNve::Welcome { .. } | NvaToNve::Refused { .. } | NvaToNve::Keepalive => {}
            NvaToNve::Snapshot { vni, vms } => {
                for record in vms.into_iter().filter(|r| r.key.vni == vni) {
                    self.hear(record, out);
                }
            }
            NvaToNve::End { vni, revision, known, settings, gateway, members, lingering } => {
                if !known {
                    out.note(Level::Warn, format!("VN {vni} is not in the directory"));
                }
                let end = SnapshotEnd { revision, settings, gateway, members, lingering };
                self.snapshot_end(vni, end, out);
            }
            NvaToNve::Update { vni, revision, ack_id, change } => {
                self.change(vni, change, out);
                if !self.mirror.revision(vni, revision) {
                    out.note(
                        Level::Info,
                        format!("VN {vni}: updates are missing before {revision}: new snapshot"),
                    );
                    self.subscribe(vni, out);
                }
                if ack_id != 0 {
                    self.barriers.after_applied(After::Ack { session: self.session.number, ack_id });
                }
            }
            NvaToNve::EndMarkers { reset, nves, gone } => self.end_markers(reset, nves, &gone),
            NvaToNve::Policies { reset, policies, gone } => self.policies_came(reset, policies, &gone, out),
            NvaToNve::Groups { vni, nve, reset, joined, left } => {
                self.groups_of_other(vni, &nve, reset, (joined, left), out);
            }
            NvaToNve::Domain { domain, reset } => self.domain_told(domain, reset, out),
            NvaToNve::DomainRoutes { id, routes, gone } => self.domain_routes_told(id, &routes, &gone),
            NvaToNve::DomainGone { id } => self.domain_gone(id, out),
            NvaToNve::Response { seq, record, lifetime_ms } => self.response(seq, record, lifetime_ms, out),
            NvaToNve::Grant { seq, record } => self.grant(seq, record, out),
            NvaToNve::Deny { seq, key, reason, text, record } => {
                if let Some(record) = record.filter(|r| r.key == key) {
                    self.learn(record, out);
                }
                self.with_known_vm(key, out, |vm, cx| vm.denied(seq, reason, &text, cx));
            }
            NvaToNve::MovePrepare { id, role, record, from, to, mode } => {
                let key = record.key;
                let known = self.mirror.record(key).filter(|r| r.version > record.version);
                self.prepared.insert(key, known.unwrap_or(&record).clone());
                let at = self.is_here(&record).then_some(record.version);
                self.learn(record, out);
                let from_ip = self.common_locator(from.locators);
                let marks = mode == MoveMode::Hot && from_ip.is_some_and(|ip| self.marks(key, ip));
                self.with_vm(key, out, |vm, cx| {
                    vm.prepare(id, role, (from, to), mode, cx);
                    vm.expect_marker(marks);
                });
                if self.vms.get(&key).is_some_and(Vm::ends_for_move) {
                    self.give_back(key, at, out);
                }
            }
            NvaToNve::MoveAbort { id, key, reason } => {
                self.with_known_vm(key, out, |vm, cx| vm.abort(&id, &reason, cx));
            }
            NvaToNve::Provision { key, record } => {
                let record = record.filter(|r| r.key == key);
                let ours = record.as_ref().and_then(|r| self.given_to_us(r));
                if let Some(record) = record {
                    self.learn(record, out);
                }
                self.with_known_vm(key, out, Vm::port_answered);
                self.give_back(key, ours, out);
            }
            NvaToNve::ForwardExtend { key, version } => {
                self.with_known_vm(key, out, |vm, cx| vm.extend_forward(version, cx));
            }
            NvaToNve::Departed { key, version, from } => {
                self.departed_elsewhere(key, version, By::Nve(&from), out);
            }
            NvaToNve::Redirect { key, to, version, from } => {
                self.redirected(key, to, version, By::Nve(&from), out);
            }
            NvaToNve::ChannelKey { number, sender, secret, alone } => {
                self.seals.set_key(number, sender, secret, alone);
            }
            NvaToNve::PairKeys { keys } => self.seals.add_pairs(&keys),
            NvaToNve::Bound { seq, record } => self.bound(seq, record, out),
            NvaToNve::BindRefused { seq, reason, text, .. } => self.bind_refused(seq, reason, &text, out),
            NvaToNve::VerifyIp { key, ip } => self.verify_ip(key, ip, out),
            NvaToNve::Verify { key, version } => {
                if self.vms.contains_key(&key) {
                    self.with_vm(key, out, |vm, cx| vm.verify_asked(version, cx));
                } else {
                    let note = String::from("it has no port here");
                    self.send(NveToNva::Verified { key, version, alive: false, note }, out);
                }
            }
            NvaToNve::Error { text } => out.note(Level::Warn, format!("the NVA refused a message: {text}")),
        }
    }

    /// Takes a record, and contradicts it where it has a VM here that is not (R19).
    pub(super) fn hear(&mut self, record: VmRecord, out: &mut Outputs) {
        let (key, ours) = (record.key, self.given_to_us(&record));
        self.learn(record, out);
        self.give_back(key, ours, out);
    }

    /// The version by which the directory has a VM here, where a withdrawal could change that.
    fn given_to_us(&self, r: &VmRecord) -> Option<Version> {
        let settled = r.moving.is_none() || self.vms.get(&r.key).is_some_and(Vm::ends_for_move);
        (self.is_here(r) && settled).then_some(r.version)
    }

    /// The directory has the VM here, by the newest word of it, and that may change.
    fn is_here(&self, r: &VmRecord) -> bool {
        let newest = self.mirror.record(r.key).is_none_or(|known| known.version <= r.version);
        r.is_at(&self.config.nve) && newest && !r.pinned && !r.frozen
    }

    /// Withdraws a VM that the directory has here by this version, if it is on none of our ports: what we said of it
    /// before rested on less.
    fn give_back(&mut self, key: VmKey, version: Option<Version>, out: &mut Outputs) {
        let Some(version) = version else { return };
        if self.vms.get_mut(&key).is_none_or(|vm| vm.disowns(version)) {
            out.note(
                Level::Info,
                format!("the directory has {key} here ({version}), where it is not: withdrawn"),
            );
            self.withdraw(key, version, out);
        }
    }

    /// Takes a record, from whatever message, and lets its VM and its addresses follow.
    pub(super) fn learn(&mut self, record: VmRecord, out: &mut Outputs) {
        let key = record.key;
        let active = record.is_active();
        let mut touched = Touched::of(&record);
        if active {
            self.settle_questions(&record);
        }
        let heard = self.settle_unconfirmed(key, Some(record.version));
        if let Some(kept) = self.prepared.get_mut(&key).filter(|kept| kept.version < record.version) {
            kept.clone_from(&record);
        }
        match self.mirror.offer(record) {
            Offer::Ignored if heard => {}
            Offer::Ignored => return,
            Offer::Newer(None) => {}
            Offer::Newer(Some(old)) | Offer::Confirmed(old) => touched = touched.and(&old),
        }
        self.directory_changed(key, touched, out);
        self.rarp_known(key, out);
    }

    pub(super) fn directory_changed(&mut self, key: VmKey, touched: Touched, out: &mut Outputs) {
        if self.vms.contains_key(&key) {
            self.with_vm(key, out, Vm::directory_changed);
        } else {
            self.sync_vm(key, out);
            self.follow_life(key);
        }
        for mac in touched.macs {
            let nested = VmKey { mac, ..key };
            // Of another VM by now, or of none.
            if self.carrier(nested) != key {
                self.sync_vm(nested, out);
            }
        }
        for ip in touched.ips {
            self.sync_ip(key.vni, ip);
        }
    }

    pub(super) fn static_vm(&mut self, record: VmRecord, out: &mut Outputs) {
        let (key, touched) = (record.key, Touched::of(&record));
        if let Offer::Newer(old) = self.mirror.set_static(record) {
            let touched = old.iter().fold(touched, Touched::and);
            self.directory_changed(key, touched, out);
            self.sync_replicas(key.vni, out);
        }
    }

    fn snapshot_end(&mut self, vni: Vni, end: SnapshotEnd, out: &mut Outputs) {
        let missed = self.mirror.has_missed(vni, end.revision);
        let pulled = self.is_pulled(vni);
        let was_in = self.domain_of(vni);
        let unconfirmed = self.mirror.end_snapshot(vni, end, pulled);
        if pulled {
            let keys: Vec<VmKey> = unconfirmed.iter().map(|r| r.key).collect();
            self.doubt_pulled(vni, &keys, out);
        } else {
            for gone in unconfirmed {
                self.settle_unconfirmed(gone.key, None);
                self.directory_changed(gone.key, Touched::of(&gone), out);
            }
        }
        self.sync_whole_vn(vni, out);
        self.tell_all_groups(vni, out);
        let is_in = self.domain_of(vni);
        if let Some(id) = is_in {
            self.all_routes_told(id);
        }
        // Of one that it was in before, other VNs are nothing new.
        if is_in != was_in {
            for id in is_in.into_iter().chain(was_in) {
                self.follow_domain(id, out);
            }
        }
        self.forget_untold_domains(out);
        let keys: Vec<VmKey> = self.vms_of(vni).map(|(k, _)| *k).collect();
        for key in keys {
            self.with_known_vm(key, out, |vm, cx| vm.snapshot_complete(!pulled, cx));
            self.rarp_known(key, out);
        }
        // Moves to here may have waited for these records.
        self.check_peers(out);
        if missed {
            out.note(Level::Info, format!("VN {vni}: updates were lost: new snapshot"));
            self.subscribe(vni, out);
        }
    }

    fn change(&mut self, vni: Vni, change: Change, out: &mut Outputs) {
        match change {
            Change::Vm(record) if record.key.vni == vni => self.hear(record, out),
            Change::Removed { key, version } if key.vni == vni => {
                self.prepared.remove(&key);
                if let Some(old) = self.mirror.removed(key, version) {
                    self.settle_unconfirmed(key, None);
                    self.directory_changed(key, Touched::of(&old), out);
                }
            }
            Change::Vm(_) | Change::Removed { .. } => {
                out.note(Level::Warn, format!("the NVA sent news of another VN in one for {vni}: ignored"));
            }
            Change::MemberJoined(location) => {
                self.mirror.member_joined(vni, location);
                self.sync_replicas(vni, out);
            }
            Change::MemberLingers(location) => {
                self.mirror.member_lingers(vni, location);
                self.sync_replicas(vni, out);
            }
            Change::MemberLeft(nve) => {
                self.mirror.member_left(vni, &nve);
                self.sync_replicas(vni, out);
            }
            Change::Members(all) => {
                all.joined.into_iter().for_each(|l| self.mirror.member_joined(vni, l));
                all.lingering.into_iter().for_each(|l| self.mirror.member_lingers(vni, l));
                all.left.iter().for_each(|nve| self.mirror.member_left(vni, nve));
                self.sync_replicas(vni, out);
            }
            Change::Forgotten { key } => self.pulled_is_untold(key, out),
        }
    }

    fn grant(&mut self, seq: u64, record: VmRecord, out: &mut Outputs) {
        let (key, version) = (record.key, record.version);
        if !record.is_at(&self.config.nve) {
            return self.alarm(format!("the NVA granted {key} to us but names another NVE: refused"), out);
        }
        self.learn(record, out);
        if !self.vms.contains_key(&key) {
            out.note(Level::Warn, format!("{key} was granted ({version}) but runs here no more: withdrawn"));
            return self.withdraw(key, version, out);
        }
        self.with_vm(key, out, |vm, cx| vm.granted(seq, version, cx));
    }
}
