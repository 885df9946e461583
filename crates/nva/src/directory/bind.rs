//! What a VM has by its own word: virtual addresses and MACs (R92) and learned addresses (R93).
//!
//! The NVE at which a VM is asks for each; the directory grants it where the VM is allowed it and nobody else has it,
//! or where it is virtual and the VM spoke of it last. An address leads to one VM of a VN at most, and each change is
//! a new version of a record: the loser's before the winner's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_model::message::NvaToNve;
use godwit_model::{BindRefusal, Bound, BoundIp, Deadlines, LearningOf, MAX_BOUND, NveId, VmKey, VmRecord};
use godwit_wire::{Bucket, Instant, Mac, Rate, Span, Vni};

use super::{Directory, Level, SessionId, allowed};

/// Requests of one VM that change something or are refused; the rest is not answered, and repeated by the NVE.
const WISHES: Rate = Rate::per_second(32, 256);
/// As [`WISHES`] with a burst of one: a token is there exactly where nothing was used of late.
const FULL: Rate = Rate::per_second(32, 1);
/// The holder of a learned address is not asked again so soon.
const ASK_AGAIN: Span = Span::from_ms(3000);
/// What was said of addresses that nobody has any more is looked for in this interval.
const SWEEP: Span = Span::from_ms(10_000);

/// What an NVE asks for.
#[derive(Clone, Copy)]
pub(super) struct BindRequest {
    pub seq: u64,
    pub key: VmKey,
    pub mac: Mac,
    pub ip: Option<IpAddr>,
    pub announced: bool,
    pub age_ms: u32,
}

/// What several VMs may have in turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shared {
    Ip(IpAddr),
    Mac(Mac),
}

/// What is known of bindings beside the records. Each part is bounded: by what is bound, and by the rate of requests.
#[derive(Default)]
pub(super) struct Binding {
    /// When its owner spoke of something shared last.
    spoken: BTreeMap<(Vni, Shared), Instant>,
    /// What VMs have used of [`WISHES`]; and that this was said.
    used: BTreeMap<VmKey, (Bucket, bool)>,
    /// Until when holders of learned addresses are not asked again.
    asked: Deadlines<(Vni, IpAddr)>,
    /// When `spoken` is looked through next.
    next_sweep: Instant,
}

/// One change that a request leads to.
#[derive(Clone, Copy)]
enum Take {
    Mac { from: Option<VmKey> },
    Ip { bound: BoundIp, from: Option<VmKey> },
}

impl Take {
    fn from(&self) -> Option<VmKey> {
        let (Take::Mac { from } | Take::Ip { from, .. }) = self;
        *from
    }
}

/// Why a request is refused: for programs, for people, and who is to be asked whether it uses the address still.
struct Refused {
    reason: BindRefusal,
    text: String,
    ask: Option<VmKey>,
}

fn refused<T>(reason: BindRefusal, text: String) -> Result<T, Refused> {
    Err(Refused { reason, text, ask: None })
}

/// The address is virtual, and not for this VM.
fn not_shared<T>(r: &VmRecord, what: &str, ip: IpAddr) -> Result<T, Refused> {
    let text = format!(
        "{what}; `godwitctl vm set {} --virtual {ip}` lets VM {} have it too (VRRP, keepalived, MetalLB)",
        r.name, r.name
    );
    refused(BindRefusal::NotAllowed, text)
}

/// Takes out of a record what it is not allowed any more to have bound; what became virtual is so from now on.
pub(super) fn trim(record: &mut VmRecord, vn: LearningOf) {
    let allowed = record.allowed.clone();
    record.bound.macs.retain(|mac| allowed.shares_mac(*mac));
    let mut bound = Bound { ips: Vec::new(), macs: record.bound.macs.clone() };
    let before = std::mem::take(&mut record.bound.ips);
    record.bound.macs.clone_from(&bound.macs);
    for b in before {
        let ours = record.macs().any(|mac| mac == b.mac) && !record.ips().any(|ip| ip == b.ip);
        let shared = allowed.shares_ip(b.ip);
        let keeps = shared || !b.is_virtual && learned(&bound, &b) < room(record, vn, &b);
        if ours && keeps {
            bound.ips.push(BoundIp { is_virtual: shared, ..b });
        }
    }
    record.bound = bound;
}

/// Learned addresses of the same MAC and kind as this one.
fn learned(bound: &Bound, b: &BoundIp) -> usize {
    let alike = |o: &&BoundIp| !o.is_virtual && o.mac == b.mac && o.ip != b.ip && kind(o.ip) == kind(b.ip);
    bound.ips.iter().filter(alike).count()
}

fn room(record: &VmRecord, vn: LearningOf, b: &BoundIp) -> usize {
    record.learning(vn, b.mac, b.ip).room().into()
}

/// Addresses are counted by family, and link-local ones apart (R93).
fn kind(ip: IpAddr) -> (bool, bool) {
    (ip.is_ipv4(), matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local()))
}

impl Directory {
    /// A VM spoke of something as its own.
    pub(super) fn bind(&mut self, session: SessionId, nve: &NveId, request: BindRequest) {
        let verdict = self.judge_request(nve, &request);
        if matches!(&verdict, Ok(takes) if takes.is_empty()) {
            self.counts.binds_confirmed += 1;
            self.spoke(&request);
            return self.bound(session, &request);
        }
        let at_home =
            !matches!(&verdict, Err(r) if matches!(r.reason, BindRefusal::UnknownVm | BindRefusal::NotHere));
        if at_home && !self.may_request(request.key) {
            self.counts.binds_limited += 1;
            return;
        }
        match verdict {
            Ok(takes) => self.take(session, &request, &takes),
            Err(r) => {
                self.counts.binds_refused += 1;
                let what = request
                    .ip
                    .map_or(format!("MAC {}", request.mac), |ip| format!("{ip} at {}", request.mac));
                let level = if at_home { Level::Info } else { Level::Debug };
                self.log(level, format!("{what} is not bound to VM {}: {}", request.key, r.text));
                if let (Some(holder), Some(ip)) = (r.ask, request.ip) {
                    self.ask_holder(holder, ip);
                }
                let BindRequest { seq, key, mac, ip, .. } = request;
                let (reason, text) = (r.reason, r.text);
                self.send(session, NvaToNve::BindRefused { seq, key, mac, ip, reason, text });
            }
        }
    }

    fn bound(&mut self, session: SessionId, request: &BindRequest) {
        if let Some(record) = self.records.get(&request.key).cloned() {
            self.send(session, NvaToNve::Bound { seq: request.seq, record });
        }
    }

    /// One of the VM's requests is looked at; false where there were too many of late.
    fn may_request(&mut self, key: VmKey) -> bool {
        let (bucket, said) = self.binding.used.entry(key).or_default();
        let may = bucket.take(WISHES, self.now);
        if !may && !std::mem::replace(said, true) {
            let text = format!("VM {key} asks for too many addresses: it is answered 32 times a second");
            self.log(Level::Warn, text);
        }
        may
    }

    /// What is to change for the request; nothing where the VM has it.
    fn judge_request(&self, nve: &NveId, request: &BindRequest) -> Result<Vec<Take>, Refused> {
        let Some(r) = self.records.get(&request.key) else {
            let text =
                format!("the directory has no VM {}; define it with `godwitctl vm define`", request.key);
            return refused(BindRefusal::UnknownVm, text);
        };
        let moves = || self.intent(r).is_some_and(|(_, from, to)| from == *nve || to == *nve);
        if !r.is_at(nve) && !moves() {
            let place = r.active_nve().map_or("attached nowhere".into(), |nve| format!("at NVE {nve}"));
            return refused(BindRefusal::NotHere, format!("VM {} is {place}", r.name));
        }
        let mut takes = Vec::new();
        if !r.macs().any(|mac| mac == request.mac) {
            takes.push(self.judge_mac(r, request)?);
        }
        if let Some(ip) = request.ip {
            takes.extend(self.judge_ip(r, request, ip)?);
        }
        Ok(takes)
    }

    /// The VM speaks from a MAC that it does not have: a virtual one goes to who spoke from it last.
    fn judge_mac(&self, r: &VmRecord, request: &BindRequest) -> Result<Take, Refused> {
        let (mac, name) = (request.mac, &r.name);
        let owner = self.records.get(&self.records.key_of_mac(r.key.vni, mac));
        if !r.allowed.shares_mac(mac) {
            return match owner {
                Some(o) => refused(
                    BindRefusal::Taken,
                    format!("{mac} is VM {}; what VM {name} sends from it is spoofed", o.name),
                ),
                None => refused(
                    BindRefusal::NotAllowed,
                    format!(
                        "{mac} is no MAC of VM {name}: `godwitctl vm set {name} --nested {mac}` allows that of a VM \
                         or a container within it, `--virtual-mac {mac}` one that several VMs share (VRRP, keepalived)"
                    ),
                ),
            };
        }
        match owner {
            Some(o) if self.is_present(o) && !self.is_later(r.key.vni, Shared::Mac(mac), request) => {
                refused(BindRefusal::Taken, format!("VM {} spoke from the virtual MAC {mac} later", o.name))
            }
            o => Ok(Take::Mac { from: o.map(|o| o.key) }),
        }
    }

    /// The request is younger than what its owner said.
    fn is_later(&self, vni: Vni, what: Shared, request: &BindRequest) -> bool {
        self.binding.spoken.get(&(vni, what)).is_none_or(|at| self.said_at(request) > *at)
    }

    fn said_at(&self, request: &BindRequest) -> Instant {
        self.now - Span::from_ms(request.age_ms.into())
    }

    fn judge_ip(&self, r: &VmRecord, request: &BindRequest, ip: IpAddr) -> Result<Option<Take>, Refused> {
        if !allowed::is_individual(ip) {
            return refused(BindRefusal::NotAllowed, format!("{ip} is no address for a VM"));
        }
        let had = r.mac_of(ip).is_some();
        if let Err(refusal) = self.check_routed_ip(r.key.vni, &r.name, ip, had) {
            return refused(BindRefusal::NotAllowed, refusal.to_string());
        }
        if r.ips().any(|own| own == ip) {
            return Ok(None);
        }
        let has = r.bound.at(ip);
        if has.is_some_and(|b| b.mac == request.mac || !request.announced) {
            return Ok(None);
        }
        let is_virtual = r.allowed.shares_ip(ip);
        let from = match self.holder(r.key, ip) {
            Some(o) if is_virtual => Some(self.judge_virtual(o, request, ip)?),
            Some(o) => Some(self.judge_taken_ip(r, o, ip)?),
            None => None,
        };
        let bound = BoundIp { ip, mac: request.mac, is_virtual };
        if !is_virtual {
            self.judge_room(r, &bound)?;
        }
        if has.is_none() && r.bound.ips.len() >= MAX_BOUND {
            let text = format!("VM {} has bound {MAX_BOUND} addresses, and none has more", r.name);
            return refused(BindRefusal::Full, text);
        }
        // Asked only where all else allows it.
        match from.flatten() {
            Some(holder) if !is_virtual && self.records.get(&holder).is_some_and(|o| self.is_present(o)) => {
                let name = self.records.get(&holder).map_or("", |o| &o.name);
                let text = format!(
                    "VM {name} uses {ip} too, and had it first; it is asked whether it still does (for an address \
                     that VMs share: `godwitctl vm set {} --virtual {ip}`)",
                    r.name
                );
                Err(Refused { reason: BindRefusal::Taken, text, ask: Some(holder) })
            }
            from => Ok(Some(Take::Ip { bound, from })),
        }
    }

    /// A virtual address that another VM has goes to who announced it last.
    fn judge_virtual(
        &self,
        o: &VmRecord,
        request: &BindRequest,
        ip: IpAddr,
    ) -> Result<Option<VmKey>, Refused> {
        let Some(shared) = o.bound.at(ip).map(|b| b.is_virtual) else {
            let text = format!("{ip} is an address of VM {} in the directory", o.name);
            return refused(BindRefusal::Taken, text);
        };
        let text = if !request.announced {
            format!(
                "VM {} has the virtual address {ip}; an announcement takes it (gratuitous ARP, NA)",
                o.name
            )
        } else if shared && self.is_present(o) && !self.is_later(o.key.vni, Shared::Ip(ip), request) {
            format!("VM {} announced the virtual address {ip} later", o.name)
        } else {
            return Ok(Some(o.key));
        };
        refused(BindRefusal::Taken, text)
    }

    /// An address that leads to another VM: it can be had only where that one learned it.
    fn judge_taken_ip(&self, r: &VmRecord, o: &VmRecord, ip: IpAddr) -> Result<Option<VmKey>, Refused> {
        match o.bound.at(ip) {
            Some(b) if !b.is_virtual => Ok(Some(o.key)),
            Some(_) => not_shared(r, &format!("{ip} is a virtual address of VM {}", o.name), ip),
            None => {
                refused(BindRefusal::Taken, format!("{ip} is an address of VM {} in the directory", o.name))
            }
        }
    }

    /// The VM may learn one more address of this kind, and it is not kept for others.
    fn judge_room(&self, r: &VmRecord, b: &BoundIp) -> Result<(), Refused> {
        for o in self.others_allowed(r.key) {
            if o.allowed.shares_ip(b.ip) {
                return not_shared(r, &format!("{} is a virtual address of VM {}", b.ip, o.name), b.ip);
            }
            if o.allowed.routes_ip(b.ip) {
                return refused(BindRefusal::Taken, format!("VM {} routes for {}", o.name, b.ip));
            }
        }
        let (name, room) = (&r.name, room(r, self.learning_of(r.key.vni), b));
        if learned(&r.bound, b) < room {
            return Ok(());
        }
        let record = if b.ip.is_ipv4() { "--ipv4" } else { "--ipv6" };
        let family = if b.ip.is_ipv4() { "--addresses-v4" } else { "--addresses-v6" };
        if room == 0 {
            let text = format!(
                "{} is not recorded for VM {name}: `godwitctl vm set {name} {record} {}` records it, `{family} \
                 learned` lets it bind addresses by itself (DHCP, privacy addresses), `--virtual {}` lets it \
                 share this one (VRRP, keepalived, MetalLB)",
                b.ip, b.ip, b.ip
            );
            return refused(BindRefusal::NotAllowed, text);
        }
        let text = format!(
            "VM {name} has bound the {room} addresses that it may at {}; `godwitctl vm set {name} {family} \
             learned={}` allows more, up to 64",
            b.mac,
            (room * 2).min(64)
        );
        refused(BindRefusal::Full, text)
    }

    /// It is the VM's from now on.
    fn take(&mut self, session: SessionId, request: &BindRequest, takes: &[Take]) {
        let key = request.key;
        let Some(mut record) = self.records.get(&key).cloned() else { return };
        let mut losers: Vec<VmKey> = takes.iter().filter_map(Take::from).collect();
        losers.dedup();
        for take in takes {
            match *take {
                Take::Mac { from } => {
                    record.bound.macs.push(request.mac);
                    record.bound.ips.extend(self.goes_along(from, request.mac, &record));
                }
                Take::Ip { bound, .. } => {
                    record.bound.ips.retain(|b| b.ip != bound.ip);
                    record.bound.ips.push(bound);
                }
            }
        }
        record.bound.macs.sort_unstable();
        record.bound.ips.sort_unstable();
        record.bound.ips.dedup_by_key(|b| b.ip);
        for loser in &losers {
            self.pass_interest(*loser, key);
        }
        let why = format!("VM {} has it now", record.name);
        for loser in losers {
            let takes = takes.iter().filter(|t| t.from() == Some(loser));
            let takes: Vec<Take> = takes.copied().collect();
            self.lose(loser, &why, |bound| {
                for take in &takes {
                    match take {
                        Take::Mac { .. } => {
                            bound.macs.retain(|mac| *mac != request.mac);
                            bound.ips.retain(|b| b.mac != request.mac);
                        }
                        Take::Ip { bound: b, .. } => bound.ips.retain(|o| o.ip != b.ip),
                    }
                }
            });
        }
        record.version = self.next_version();
        let what = request.ip.map_or_else(|| "speaks".into(), |ip| format!("has {ip}"));
        let text =
            format!("VM {} ({key}) {what} at {}, version {}", record.name, request.mac, record.version);
        self.log(Level::Info, text);
        self.put_vm(record);
        self.counts.binds_granted += 1;
        self.spoke(request);
        self.publish_in_place(key, Some(session));
        self.bound(session, request);
    }

    /// The virtual addresses that answer by a virtual MAC go with it to whom they are allowed as well.
    fn goes_along(&self, from: Option<VmKey>, mac: Mac, to: &VmRecord) -> Vec<BoundIp> {
        let from = from.and_then(|key| self.records.get(&key));
        let here = from.into_iter().flat_map(|r| &r.bound.ips).filter(|b| b.is_virtual && b.mac == mac);
        let room = MAX_BOUND.saturating_sub(to.bound.ips.len() + 1);
        here.filter(|b| to.allowed.shares_ip(b.ip) && to.mac_of(b.ip).is_none()).take(room).copied().collect()
    }

    /// The owner spoke of what it shares: who wants it must have spoken later.
    fn spoke(&mut self, request: &BindRequest) {
        let at = self.said_at(request);
        let Some(r) = self.records.get(&request.key) else { return };
        let shares_mac = r.bound.macs.contains(&request.mac);
        let has = |ip: &IpAddr| r.bound.at(*ip).is_some_and(|b| b.is_virtual && b.mac == request.mac);
        let ip = request.ip.filter(|ip| request.announced && has(ip));
        let what = shares_mac.then_some(Shared::Mac(request.mac)).into_iter().chain(ip.map(Shared::Ip));
        for what in what {
            let spoken = self.binding.spoken.entry((request.key.vni, what)).or_insert(at);
            *spoken = at.max(*spoken);
        }
    }

    /// A VM has less than before.
    pub(super) fn lose(&mut self, key: VmKey, why: &str, change: impl FnOnce(&mut Bound)) {
        let Some(mut record) = self.records.get(&key).cloned() else { return };
        let before = record.bound.clone();
        change(&mut record.bound);
        if record.bound == before {
            return;
        }
        let gone = before.ips.iter().filter(|b| !record.bound.ips.contains(b)).map(|b| b.ip.to_string());
        let macs = before.macs.iter().filter(|m| !record.bound.macs.contains(m)).map(Mac::to_string);
        let gone = gone.chain(macs).collect::<Vec<_>>().join(", ");
        record.version = self.next_version();
        let text = format!("VM {} ({key}) loses {gone}: {why}, version {}", record.name, record.version);
        self.log(Level::Info, text);
        for b in before.ips.iter().filter(|b| !record.bound.ips.contains(b)) {
            self.binding.spoken.remove(&(key.vni, Shared::Ip(b.ip)));
        }
        for mac in before.macs.iter().filter(|m| !record.bound.macs.contains(m)) {
            self.binding.spoken.remove(&(key.vni, Shared::Mac(*mac)));
        }
        self.put_vm(record);
        self.publish_in_place(key, None);
    }

    /// Who hears of the VM that has an address hears of the one that gets it (R24, R38).
    fn pass_interest(&mut self, from: VmKey, to: VmKey) {
        for session in self.hearers(from) {
            self.note_interest(session, to, self.config.pos_life);
        }
    }

    /// Another VM uses an address that this one learned: its NVE looks whether it is in use here.
    fn ask_holder(&mut self, key: VmKey, ip: IpAddr) {
        let place = (key.vni, ip);
        let recent = self.binding.asked.get(place).is_some_and(|until| until > self.now);
        let nve = self.records.get(&key).and_then(VmRecord::active_nve);
        if let Some(session) = nve.and_then(|nve| self.session_of(nve)).filter(|_| !recent) {
            self.binding.asked.set(place, Some(self.now + ASK_AGAIN));
            self.send(session, NvaToNve::VerifyIp { key, ip });
        }
    }

    /// A learned address is not in use any more.
    pub(super) fn unbind(&mut self, nve: &NveId, key: VmKey, ip: IpAddr) {
        let Some(r) = self.records.get(&key) else { return };
        if !r.is_at(nve) || r.bound.at(ip).is_none_or(|b| b.is_virtual) {
            let text = format!("NVE {nve} gives up {ip} of {key}, which has not learned it there");
            return self.log(Level::Debug, text);
        }
        self.lose(key, "it does not answer for it", |bound| bound.ips.retain(|b| b.ip != ip));
    }

    /// Forgets what says nothing any more.
    pub(super) fn sweep_binding(&mut self) {
        let (now, records) = (self.now, &self.records);
        self.binding.asked.take_due(now);
        self.binding.used.retain(|_, (bucket, _)| bucket.next(FULL, now) > now);
        if now < self.binding.next_sweep {
            return;
        }
        self.binding.next_sweep = now + SWEEP;
        let owner = |key: Option<VmKey>| records.get(&key?);
        self.binding.spoken.retain(|(vni, what), _| match what {
            Shared::Ip(ip) => owner(records.key_of_ip(*vni, *ip)).is_some_and(|r| r.bound.at(*ip).is_some()),
            Shared::Mac(mac) => {
                owner(records.key_of_other_mac(*vni, *mac)).is_some_and(|r| r.bound.macs.contains(mac))
            }
        });
    }

    /// No part of what is kept beside the records has more entries; for tests.
    #[cfg(test)]
    pub(super) fn binding_is_bounded(&self, max: usize) -> bool {
        let b = &self.binding;
        [b.spoken.len(), b.used.len(), b.asked.len()].into_iter().all(|n| n <= max)
    }
}
