//! Connections of NVEs: their beginning, their end, and the messages on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{DomainId, Identity, NveId, VmKey};
use godwit_wire::{Instant, Span, Vni};

use super::authority::Attempts;
use super::bind::BindRequest;
use super::claim::{ClaimRequest, Flags};
use super::clones::Hello;
use super::interest::{Interests, Subscription};
use super::keys::Told;
use super::{Directory, Level, Nve, NveRecord, Output, SessionId};

/// What the directory knows of a connection. All of it ends with the connection.
pub(super) struct Session {
    /// Who speaks; none before Hello.
    pub nve: Option<NveId>,
    /// Address of the other side, for people.
    pub address: Option<SocketAddr>,
    /// What the connection proved (R68).
    pub identity: Identity,
    /// Keys of the datagrams between NVEs that it was told (D13).
    pub told: Told,
    /// What it tried and may not.
    pub attempts: Attempts,
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
    /// Routing domains that it was told of (R58).
    pub domains: BTreeSet<DomainId>,
    /// Updates that it has not acknowledged.
    pub unacked: BTreeSet<u64>,
    /// It left updates unacknowledged and got a snapshot instead (R38).
    pub dirty: bool,
}

impl Session {
    fn new(now: Instant, address: Option<SocketAddr>, identity: Identity) -> Session {
        Session {
            nve: None,
            address,
            identity,
            told: Told::default(),
            attempts: Attempts::default(),
            pending: None,
            since: now,
            heard: now,
            sent: now,
            subscribed: BTreeMap::new(),
            lingering: BTreeSet::new(),
            interests: Interests::default(),
            ports: BTreeMap::new(),
            domains: BTreeSet::new(),
            unacked: BTreeSet::new(),
            dirty: false,
        }
    }

    /// The other side expects to hear something while it is silent itself.
    fn wants_keepalives(&self) -> bool {
        self.nve.is_some() || self.pending.is_some()
    }
}

/// All connections that are open.
#[derive(Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
}

impl Sessions {
    /// A connection is there.
    fn open(&mut self, id: SessionId, now: Instant, address: Option<SocketAddr>, identity: Identity) {
        self.by_id.entry(id).or_insert_with(|| Session::new(now, address, identity));
    }

    pub fn get(&self, id: &SessionId) -> Option<&Session> {
        self.by_id.get(id)
    }

    pub fn get_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(id)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.by_id.values_mut()
    }

    fn remove(&mut self, id: &SessionId) -> Option<Session> {
        self.by_id.remove(id)
    }

    /// Every session with the VNs that it subscribed to.
    pub fn subscriptions(&self) -> Vec<(SessionId, Vec<Vni>)> {
        self.by_id.iter().map(|(id, s)| (*id, s.subscribed.keys().copied().collect())).collect()
    }

    /// Nobody could be heard for so long.
    pub fn forgive(&mut self, gap: Span, now: Instant) {
        for s in self.by_id.values_mut() {
            s.heard = (s.heard + gap).min(now);
        }
    }

    /// Those that were told of a routing domain.
    pub fn that_know(&self, id: DomainId) -> Vec<SessionId> {
        self.by_id.iter().filter(|(_, s)| s.domains.contains(&id)).map(|(session, _)| *session).collect()
    }

    /// Those that were not heard for more than `limit`, with the milliseconds.
    pub fn silent(&self, now: Instant, limit: Span) -> Vec<(SessionId, u64)> {
        let silence = self.by_id.iter().map(|(id, s)| (*id, now.since(s.heard)));
        silence.filter(|(_, silence)| *silence > limit).map(|(id, silence)| (id, silence.as_ms())).collect()
    }

    /// Those of the others that were not spoken to for `interval`.
    pub fn quiet(&self, now: Instant, limit: Span, interval: Span) -> Vec<SessionId> {
        let alive = self.by_id.iter().filter(|(_, s)| now.since(s.heard) <= limit);
        let quiet = alive.filter(|(_, s)| s.wants_keepalives() && now.since(s.sent) >= interval);
        quiet.map(|(id, _)| *id).collect()
    }
}

impl Directory {
    pub(super) fn connected(&mut self, session: SessionId, address: Option<SocketAddr>, identity: Identity) {
        self.sessions.open(session, self.now, address, identity);
        self.counts.sessions_opened += 1;
        self.is_stranger(session);
    }

    pub(super) fn message(&mut self, session: SessionId, message: NveToNva) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        s.heard = self.now;
        self.counts.messages += 1;
        let (nve, waits) = (s.nve.clone(), s.pending.is_some());
        self.refuse_clones_of(session);
        match (message, nve) {
            (NveToNva::Hello { nve, locators, software, last_epoch, instance, abilities }, _) => {
                self.hello(session, Hello { nve, locators, software, last_epoch, instance, abilities });
            }
            (NveToNva::Keepalive, _) => {}
            // It may belong to what is not decided yet.
            (_, None) if waits => {}
            (_, None) => self.error(session, "say Hello first".into()),
            (m, Some(nve)) if self.may_say(session, &nve, &m) => self.spoken(session, nve, m),
            (_, Some(_)) => {}
        }
    }

    /// A message of an NVE that has said Hello.
    fn spoken(&mut self, session: SessionId, nve: NveId, message: NveToNva) {
        match message {
            NveToNva::Hello { .. } | NveToNva::Keepalive => {}
            NveToNva::Subscribe { vni, mode, lingers } => self.subscribe(session, nve, vni, mode, lingers),
            NveToNva::Unsubscribe { vni } => self.unsubscribe(session, &nve, vni),
            NveToNva::Linger { vni, lingers } => self.linger(session, &nve, vni, lingers),
            NveToNva::Groups { vni, reset, joined, left } => {
                self.groups(session, &nve, vni, reset, joined, left);
            }
            NveToNva::Associate { key, port } => self.associate(session, &nve, key, port),
            NveToNva::Disassociate { key, port } => self.disassociate(session, key, &port),
            NveToNva::Query { seq, vni, by } => self.query(session, seq, vni, by),
            NveToNva::Claim { seq, key, ips, cause, base, port: _, router, overrides } => {
                let flags = Flags { router, overrides };
                self.claim(
                    session,
                    nve,
                    ClaimRequest { seq, key, ips, cause, base, flags, story: Vec::new() },
                );
            }
            NveToNva::Bind { seq, key, mac, ip, announced, age_ms } => {
                self.bind(session, &nve, BindRequest { seq, key, mac, ip, announced, age_ms });
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
            NveToNva::Report { attachments } => {
                let attachments = self.may_report(&nve, attachments);
                self.report(session, nve, attachments);
            }
        }
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
        self.counts.messages_refused += 1;
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

    pub(super) fn hello(&mut self, session: SessionId, hello: Hello) {
        let pending = self.sessions.get_mut(&session).and_then(|s| s.pending.take());
        self.contends_no_more(session, pending);
        if !self.may_be(session, &hello) {
            return;
        }
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
        let marked = self.nves.get(&nve).is_some_and(|n| n.abilities.end_markers);
        let moved = self.enter(session, hello);
        self.send(session, NvaToNve::Welcome { epoch: self.epoch, keepalive_ms: self.config.keepalive_ms });
        self.tell_policies(session);
        self.tell_markers(session, &nve, marked);
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
        let Hello { nve, locators, software, last_epoch: _, instance, abilities } = hello;
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
        n.abilities = abilities;
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
        self.counts.sessions_closed += 1;
        for vni in s.subscribed.keys() {
            if let Some(vn) = self.vns.get_mut(*vni) {
                vn.subscribers.remove(&session);
            }
        }
        for key in s.ports.keys() {
            self.ports.remove(*key, session);
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
}
