//! Connections of NVEs: opening, subscriptions, ports, queries, reports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use godwit_model::message::{Attachment, Change, NvaToNve, NveToNva, QueryBy};
use godwit_model::{BindingState, DirectoryMode, NveId, Version, VmKey};
use godwit_wire::{Instant, Span, Vni};

use super::bind::Wish;
use super::claim::{Asked, Flags};
use super::clones::Hello;
use super::interest::{Interests, Subscription};
use super::{Directory, Level, Nve, NveRecord, Output, SessionId, Write};

/// A VM granted so recently may be missing in a report that is still under way.
const REPORT_GRACE: Span = Span::from_ms(2000);

/// What the directory knows of a connection. All of it ends with the connection.
pub(super) struct Session {
    /// Who speaks; none before Hello.
    pub nve: Option<NveId>,
    /// Address of the other side, for people.
    pub address: Option<SocketAddr>,
    /// A Hello that is not answered while another switch has what it names (R96).
    pub pending: Option<Box<Hello>>,
    /// When it began.
    pub since: Instant,
    /// When it was last heard, and last spoken to.
    pub heard: Instant,
    pub sent: Instant,
    /// The VNs that it takes part in.
    pub subscribed: BTreeMap<Vni, Subscription>,
    /// Those of them in which it has no port any more, by its word (R17).
    pub lingering: BTreeSet<Vni>,
    /// Of VNs in pull mode: VMs whose changes it is told.
    pub interests: Interests,
    /// Its ports by VM.
    pub ports: BTreeMap<VmKey, BTreeSet<String>>,
    /// Updates that it has not acknowledged.
    pub unacked: BTreeSet<u64>,
    /// It left updates unacknowledged and got a snapshot instead (R38).
    pub dirty: bool,
}

impl Directory {
    pub(super) fn connected(&mut self, session: SessionId, address: Option<SocketAddr>) {
        let s = Session {
            nve: None,
            address,
            pending: None,
            since: self.now,
            heard: self.now,
            sent: self.now,
            subscribed: BTreeMap::new(),
            lingering: BTreeSet::new(),
            interests: Interests::default(),
            ports: BTreeMap::new(),
            unacked: BTreeSet::new(),
            dirty: false,
        };
        self.sessions.entry(session).or_insert(s);
    }

    pub(super) fn other(&mut self, session: SessionId, error: Option<String>) {
        if let Some(s) = self.sessions.get_mut(&session) {
            s.heard = self.now;
            self.refuse_clones_of(session);
            if let Some(text) = error {
                self.error(session, text);
            }
        }
    }

    pub(super) fn error(&mut self, session: SessionId, text: String) {
        let who = self.name_of(session);
        self.log(Level::Warn, format!("refused a message of {who}: {text}"));
        self.send(session, NvaToNve::Error { text });
    }

    pub(super) fn name_of(&self, session: SessionId) -> String {
        match self.sessions.get(&session).and_then(|s| s.nve.as_ref()) {
            Some(nve) => format!("NVE {nve}"),
            None => session.to_string(),
        }
    }

    pub(super) fn message(&mut self, session: SessionId, message: NveToNva) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        s.heard = self.now;
        let (nve, waits) = (s.nve.clone(), s.pending.is_some());
        self.refuse_clones_of(session);
        match (message, nve) {
            (NveToNva::Hello { nve, locators, software, last_epoch, instance }, _) => {
                self.hello(session, Hello { nve, locators, software, last_epoch, instance });
            }
            (NveToNva::Keepalive, _) => {}
            // It may belong to what is not decided yet.
            (_, None) if waits => {}
            (_, None) => self.error(session, "say Hello first".into()),
            (m, Some(nve)) => self.spoken(session, nve, m),
        }
    }

    /// A message of an NVE that has said Hello.
    fn spoken(&mut self, session: SessionId, nve: NveId, message: NveToNva) {
        match message {
            NveToNva::Hello { .. } | NveToNva::Keepalive => {}
            NveToNva::Subscribe { vni, mode } => self.subscribe(session, nve, vni, mode),
            NveToNva::Unsubscribe { vni } => self.unsubscribe(session, &nve, vni),
            NveToNva::Linger { vni, lingers } => self.linger(session, &nve, vni, lingers),
            NveToNva::Associate { key, port } => self.associate(session, &nve, key, port),
            NveToNva::Disassociate { key, port } => self.disassociate(session, key, &port),
            NveToNva::Query { seq, vni, by } => self.query(session, seq, vni, by),
            NveToNva::Claim { seq, key, ips, cause, base, port: _, router, overrides } => {
                let flags = Flags { router, overrides };
                self.claim(session, nve, Asked { seq, key, ips, cause, base, flags, story: Vec::new() });
            }
            NveToNva::Bind { seq, key, mac, ip, announced, age_ms } => {
                self.bind(session, &nve, Wish { seq, key, mac, ip, announced, age_ms });
            }
            NveToNva::Unbind { key, ip } => self.unbind(&nve, key, ip),
            NveToNva::Withdraw { key, version } => self.withdraw(&nve, key, version),
            NveToNva::Ack { ack_id } => self.ack(session, ack_id),
            NveToNva::ForwardEnding { key, version } => self.forward_ending(session, &nve, key, version),
            NveToNva::Departed { key, ips: _, version } => self.departed(session, &nve, key, version),
            NveToNva::Redirect { key, to, version, sender } => {
                self.redirect(session, nve, key, to, version, sender);
            }
            NveToNva::Verified { key, version, alive, note } => {
                self.verified(&nve, key, version, alive, &note);
            }
            NveToNva::MoveReport { id, key: _, step, counts } => self.move_report(nve, id, step, counts),
            NveToNva::Report { attachments } => self.report(session, nve, attachments),
        }
    }

    pub(super) fn hello(&mut self, session: SessionId, hello: Hello) {
        let pending = self.sessions.get_mut(&session).and_then(|s| s.pending.take());
        self.contends_no_more(session, pending);
        let nve = &hello.nve;
        let said = self.sessions.get(&session).and_then(|s| s.nve.clone());
        if said.as_ref().is_some_and(|n| n != nve) {
            return self.error(session, "this session has said Hello as another NVE".into());
        }
        if hello.locators.is_empty() {
            return self.error(session, "a Hello needs an IPv4 or an IPv6 locator".into());
        }
        if let Some(n) = self.nves.get(nve).filter(|n| n.record.foreign) {
            let text = format!(
                "NVE {} is defined by the operator as one without a session; `godwitctl nve delete` it first",
                n.record.id
            );
            self.error(session, text.clone());
            return self.close(session, text);
        }
        if !self.nves.contains_key(nve) && self.nves.len() >= self.config.max_nves {
            let text = format!("the directory knows {} NVEs and takes no more", self.config.max_nves);
            self.error(session, text.clone());
            return self.close(session, text);
        }
        match self.rival_of(session, &hello) {
            Some(rival) => self.contend(session, hello, rival),
            None => self.admit(session, hello),
        }
    }

    /// Takes a session as that of the NVE that it names.
    fn admit(&mut self, session: SessionId, hello: Hello) {
        let Hello { nve, last_epoch, .. } = &hello;
        if *last_epoch > self.epoch {
            self.log(
                Level::Warn,
                format!(
                    "NVE {nve} has seen epoch {last_epoch}, this NVA has {}: was its data replaced?",
                    self.epoch
                ),
            );
        }
        let is_new = self.sessions.get(&session).is_some_and(|s| s.nve.is_none());
        let nve = nve.clone();
        let moved = self.enter(session, hello);
        self.send(session, NvaToNve::Welcome { epoch: self.epoch, keepalive_ms: self.config.keepalive_ms });
        self.tell_policies(session);
        if is_new {
            self.log(Level::Info, format!("NVE {nve} is connected"));
            self.give_channel_key(session);
            self.repeat_moves(session, &nve);
        }
        if moved {
            self.relocate(&nve);
        }
    }

    /// Ties the session to its NVE; true where the locators of a known NVE differ from before.
    fn enter(&mut self, session: SessionId, hello: Hello) -> bool {
        let Hello { nve, locators, software, last_epoch: _, instance } = hello;
        if let Some(older) = self.session_of(&nve).filter(|s| *s != session) {
            if let Some(n) = self.nves.get_mut(&nve) {
                // It is here; nobody comes in its place.
                n.expected = true;
            }
            self.close(older, format!("a newer session of NVE {nve} replaces it"));
        }
        self.guard(&nve, locators);
        let known = self.nves.contains_key(&nve);
        let n = self.nves.entry(nve.clone()).or_insert_with(|| {
            Nve::new(NveRecord {
                id: nve.clone(),
                locators,
                foreign: false,
                software: software.clone(),
                instance,
                vnis: BTreeSet::new(),
            })
        });
        n.session = Some(session);
        n.expected = false;
        let moved = n.record.locators != locators;
        let changed = !known || moved || n.record.software != software || n.record.instance != instance;
        n.record.locators = locators;
        n.record.software = software;
        n.record.instance = instance;
        if changed {
            self.save_nve(&nve);
        }
        if let Some(s) = self.sessions.get_mut(&session) {
            s.nve = Some(nve);
        }
        known && moved
    }

    /// Forgets a session and asks for the end of its connection.
    pub(super) fn close(&mut self, session: SessionId, reason: String) {
        let who = self.name_of(session);
        self.log(Level::Warn, format!("closing the session of {who}: {reason}"));
        self.disconnected(session);
        self.out.push(Output::Close { session, reason });
    }

    /// The NVE stays a member and keeps its VMs: it may be back in a moment, and its data plane runs on.
    pub(super) fn disconnected(&mut self, session: SessionId) {
        let knew_below = self.knows_below(session);
        let Some(s) = self.sessions.remove(&session) else { return };
        for vni in s.subscribed.keys() {
            if let Some(vn) = self.vns.get_mut(vni) {
                vn.subscribers.remove(&session);
            }
        }
        for key in s.ports.keys() {
            self.drop_association(session, *key);
        }
        self.contends_no_more(session, s.pending);
        if let Some(nve) = &s.nve {
            if let Some(n) = self.nves.get_mut(nve).filter(|n| n.session == Some(session)) {
                n.session = None;
                n.heard = Some(s.heard);
                n.dirty = s.dirty;
                n.knew_below = knew_below;
            }
            self.log(Level::Info, format!("NVE {nve} is disconnected"));
        }
        // Late, because a move may be done now that nobody waits for this session.
        self.forget_acks(session, s.unacked);
        if let Some(nve) = s.nve {
            self.no_longer_live(&nve);
        }
    }

    fn subscribe(&mut self, session: SessionId, nve: NveId, vni: Vni, mode: DirectoryMode) {
        let Some(n) = self.nves.get_mut(&nve) else { return };
        let joins = !n.record.vnis.contains(&vni);
        if joins && n.record.vnis.len() >= self.config.max_vns_per_nve {
            let text = format!("NVE {nve} is a member of {} VNs and may not join more", n.record.vnis.len());
            return self.error(session, text);
        }
        n.record.vnis.insert(vni);
        let mut lingers = false;
        if let Some(s) = self.sessions.get_mut(&session) {
            s.subscribed.entry(vni).or_default().mode = mode;
            if mode == DirectoryMode::Push {
                s.interests.forget_vn(vni);
            }
            lingers = s.lingering.contains(&vni);
        }
        let vn = self.vns.entry(vni).or_default();
        vn.subscribers.insert(session);
        vn.members.insert(nve.clone());
        // What it said on an earlier connection may be over.
        let returns = !lingers && vn.lingering.remove(&nve);
        if joins {
            self.save_nve(&nve);
        }
        if joins || returns {
            self.announce_member(session, &nve, vni);
        }
        // Asked again after a gap: what was under way is part of the snapshot.
        self.settle_by_snapshot(session, vni);
        self.snapshot(session, vni);
    }

    fn announce_member(&mut self, session: SessionId, nve: &NveId, vni: Vni) {
        if let Some(news) = self.membership(nve, vni) {
            self.update_all(vni, news, Some(session));
        }
    }

    /// How the NVE takes part in the VN, as news for the others.
    fn membership(&self, nve: &NveId, vni: Vni) -> Option<Change> {
        let location = self.location_of(nve)?;
        let lingers = self.vns.get(&vni).is_some_and(|vn| vn.lingering.contains(nve));
        Some(if lingers { Change::MemberLingers(location) } else { Change::MemberJoined(location) })
    }

    /// The NVE has no port in the VN any more but still forwards, or it has one again: it is told all the same, and
    /// others replicate to it or do not (R17).
    fn linger(&mut self, session: SessionId, nve: &NveId, vni: Vni, lingers: bool) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        if !s.subscribed.contains_key(&vni) {
            return self.error(session, format!("VN {vni} is not subscribed to, so nobody lingers in it"));
        }
        let Some(vn) = self.vns.get_mut(&vni) else { return };
        let changed = if lingers {
            s.lingering.insert(vni);
            vn.lingering.insert(nve.clone())
        } else {
            s.lingering.remove(&vni);
            vn.lingering.remove(nve)
        };
        if changed {
            self.announce_member(session, nve, vni);
        }
    }

    fn unsubscribe(&mut self, session: SessionId, nve: &NveId, vni: Vni) {
        if let Some(s) = self.sessions.get_mut(&session) {
            s.subscribed.remove(&vni);
            s.lingering.remove(&vni);
            s.interests.forget_vn(vni);
        }
        if let Some(vn) = self.vns.get_mut(&vni) {
            vn.subscribers.remove(&session);
        }
        self.settle_by_snapshot(session, vni);
        self.leave(nve, vni);
    }

    /// The NVE has no ports in the VN any more.
    fn leave(&mut self, nve: &NveId, vni: Vni) {
        let Some(n) = self.nves.get_mut(nve) else { return };
        if !n.record.vnis.remove(&vni) {
            return;
        }
        self.save_nve(nve);
        self.drop_member(nve, vni);
    }

    pub(super) fn drop_member(&mut self, nve: &NveId, vni: Vni) {
        let Some(vn) = self.vns.get_mut(&vni) else { return };
        vn.lingering.remove(nve);
        if vn.members.remove(nve) {
            self.update_all(vni, Change::MemberLeft(nve.clone()), None);
        }
        self.drop_empty_vn(vni);
    }

    /// A VN that nobody defined and nobody uses leaves no trace.
    pub(super) fn drop_empty_vn(&mut self, vni: Vni) {
        let unused =
            |vn: &super::Vn| vn.record.is_none() && vn.members.is_empty() && vn.subscribers.is_empty();
        if self.vns.get(&vni).is_some_and(unused) {
            self.vns.remove(&vni);
        }
    }

    /// All records of a VN, or in pull mode those that the session hears of, its properties and its members (R37).
    pub(super) fn snapshot(&mut self, session: SessionId, vni: Vni) {
        let Some(s) = self.sessions.get(&session) else { return };
        let Some(Subscription { revision, mode }) = s.subscribed.get(&vni).copied() else { return };
        let nve = s.nve.clone();
        let records: Vec<_> = match mode {
            DirectoryMode::Push => self.vms_of(vni).cloned().collect(),
            DirectoryMode::Pull => {
                self.heard_of(session, vni).iter().filter_map(|key| self.vms.get(key)).cloned().collect()
            }
        };
        for vms in super::publish::parts(records, self.config.snapshot_chunk) {
            self.send(session, NvaToNve::Snapshot { vni, vms });
        }
        let vn = self.vns.get(&vni);
        let members = vn.into_iter().flat_map(|v| &v.members).filter(|m| Some(*m) != nve.as_ref());
        let members: Vec<_> = members.filter_map(|m| self.location_of(m)).collect();
        let lingers = |m: &NveId| vn.is_some_and(|v| v.lingering.contains(m));
        let lingering = members.iter().map(|l| l.nve.clone()).filter(lingers).collect();
        let record = vn.and_then(|v| v.record.as_ref());
        let end = NvaToNve::End {
            vni,
            revision,
            known: record.is_some(),
            settings: record.map(|r| r.settings).unwrap_or_default(),
            gateway: vn.and_then(|v| self.told_gateway(v, mode)),
            members,
            lingering,
        };
        self.send(session, end);
    }

    fn associate(&mut self, session: SessionId, nve: &NveId, key: VmKey, port: String) {
        if let Some(s) = self.sessions.get_mut(&session) {
            s.ports.entry(key).or_default().insert(port);
        }
        self.associated.entry(key).or_default().insert(session);
        self.provision(session, key);
        self.repeat_target_move(session, nve, key);
    }

    fn provision(&mut self, session: SessionId, key: VmKey) {
        let record = self.vms.get(&key).cloned();
        self.send(session, NvaToNve::Provision { key, record });
    }

    fn disassociate(&mut self, session: SessionId, key: VmKey, port: &str) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let Some(ports) = s.ports.get_mut(&key) else { return };
        ports.remove(port);
        if ports.is_empty() {
            s.ports.remove(&key);
            self.drop_association(session, key);
        }
    }

    fn drop_association(&mut self, session: SessionId, key: VmKey) {
        if let Some(sessions) = self.associated.get_mut(&key) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.associated.remove(&key);
            }
        }
    }

    /// Pull (R34): the record, or the authoritative word that there is none.
    fn query(&mut self, session: SessionId, seq: u64, vni: Vni, by: QueryBy) {
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

    /// Compares what the NVE has with what the directory has, and mends the difference by version (R17).
    fn report(&mut self, session: SessionId, nve: NveId, attachments: Vec<Attachment>) {
        self.report_ports(session, &nve, &attachments);
        let mut stale: BTreeSet<Vni> = BTreeSet::new();
        for a in attachments.iter().filter(|a| a.active && a.version != Version::ZERO) {
            let differs = self.vms.get(&a.key).is_none_or(|r| {
                let here =
                    r.state == BindingState::Active && r.location.as_ref().is_some_and(|l| l.nve == nve);
                !here || r.version != a.version
            });
            // Not while the news is under way anyhow.
            if differs && !self.fanouts.contains_key(&a.key) {
                stale.insert(a.key.vni);
            }
        }
        for vni in stale {
            let idle = self.sessions.get(&session).is_some_and(|s| s.unacked.is_empty());
            if idle {
                self.log(Level::Info, format!("NVE {nve} differs in VN {vni}: snapshot"));
                self.snapshot(session, vni);
            }
        }
        self.report_missing(session, &nve, &attachments);
        self.report_memberships(session, &nve, &attachments);
    }

    /// The NVE's ports are exactly those of its report.
    fn report_ports(&mut self, session: SessionId, nve: &NveId, attachments: &[Attachment]) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let mut ports: BTreeMap<VmKey, BTreeSet<String>> = BTreeMap::new();
        for a in attachments {
            ports.entry(a.key).or_default().insert(a.port.clone());
        }
        let before: BTreeSet<VmKey> = s.ports.keys().copied().collect();
        let after: BTreeSet<VmKey> = ports.keys().copied().collect();
        s.ports = ports;
        for key in before.difference(&after) {
            self.drop_association(session, *key);
        }
        for key in after.difference(&before) {
            self.associated.entry(*key).or_default().insert(session);
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
            let recent = |(at, on): &(_, _)| *on == session && self.now.since(*at) < REPORT_GRACE;
            let fresh = self.granted.get(&key).is_some_and(recent);
            if let (false, Some(version)) = (fresh, self.vms.get(&key).map(|r| r.version)) {
                self.withdraw(nve, key, version);
            }
        }
    }

    /// VNs that the NVE was a member of and that it neither subscribed to again nor has ports in.
    fn report_memberships(&mut self, session: SessionId, nve: &NveId, attachments: &[Attachment]) {
        let Some(s) = self.sessions.get(&session) else { return };
        let used: BTreeSet<Vni> =
            attachments.iter().map(|a| a.key.vni).chain(s.subscribed.keys().copied()).collect();
        let Some(n) = self.nves.get(nve) else { return };
        let left: Vec<Vni> = n.record.vnis.difference(&used).copied().collect();
        for vni in left {
            self.leave(nve, vni);
        }
    }

    /// The NVE's locators changed: all that is there gets a new version, and everybody learns it.
    pub(super) fn relocate(&mut self, nve: &NveId) {
        let Some(n) = self.nves.get(nve) else { return };
        let (locators, keys) = (n.record.locators, n.vms.clone());
        let member_of = super::view::memberships(n);
        self.log(Level::Info, format!("NVE {nve} has new locators; {} VMs follow", keys.len()));
        for key in keys {
            let Some(mut record) = self.vms.get(&key).cloned() else { continue };
            record.version = self.next_version();
            if let Some(l) = &mut record.location {
                l.locators = locators;
            }
            self.put_vm(record);
            self.publish(key, None);
        }
        let own = self.session_of(nve);
        for vni in member_of {
            if let Some(news) = self.membership(nve, vni) {
                self.update_all(vni, news, own);
            }
        }
    }

    pub(super) fn forget_nve(&mut self, nve: &NveId) {
        self.nves.remove(nve);
        self.no_longer_live(nve);
        self.persist(Write::RemoveNve(nve.clone()));
    }
}
