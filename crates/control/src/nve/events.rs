//! What workers tell, and the questions that follow from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_model::message::NveToNva;
use godwit_model::{VmKey, VmRecord};
use godwit_tables::event::{AnnounceKind, Event, HandoverStats, Refused};
use godwit_tables::update::{DomainIdx, Key, PortIdx};
use godwit_wire::arp::ArpRepr;
use godwit_wire::ndp::{self, AdvertFrame, SolicitFrame};
use godwit_wire::{Mac, Prefix, Rate, Span};

use crate::binds::Wanted;
use crate::io::{Level, Outputs};
use crate::mobility::Vm;
use crate::queries::Asked;

use super::bind::Standing;
use super::{Nve, PortKind, Timer};

/// After so long a sender should have learned the new location (R48).
const TRIANGLE: Span = Span::from_ms(5000);
/// Link-local address that goes with `Mac::PROBER`.
const PROBER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0067, 0x77ff, 0xfe74, 0x0001);
/// Alarms on full tables.
const FULL_ALARMS: Rate = Rate::per_second(1, 1);

impl Nve {
    pub(super) fn worker_event(&mut self, worker: usize, event: Event, out: &mut Outputs) {
        match event {
            Event::MissMac { key, port: _ } => {
                self.seek(self.vm_key(key), out);
                self.miss_mac(worker, key);
            }
            Event::MissIp { vn, ip, port: _ } => {
                if self.desired.repeat_answer(worker, vn, ip) {
                    return;
                }
                if let Some(vni) = self.desired.vni(vn) {
                    let owner = self.mirror.owners(vni, ip).first().map(|r| r.key);
                    self.seek(owner, out);
                    self.ask_within_bounds(Asked::Ip(vni, ip));
                }
            }
            Event::Announce { port, kind, mac, ip } => self.announced(port, kind, mac, ip, out),
            Event::SourceSeen { port, mac, ip, announced } => self.source_seen(port, mac, ip, announced, out),
            Event::Spoofed { port, mac, ip, why } => {
                if let (Refused::Taken, Some(ip)) = (why, ip) {
                    self.contest(port, Some(mac), ip, out);
                }
                self.refused(port, mac, ip, why, out);
            }
            Event::NotRouter { port } => self.not_router(port, out),
            Event::AddressTaken { port, ip, owner } => {
                self.contest(port, None, ip, out);
                self.address_taken(port, ip, owner, out);
            }
            Event::Neighbor { uplink, ip, mac, solicited } => {
                self.underlay.learned(self.now, uplink, ip, mac, solicited);
            }
            Event::PathTooBig { local, remote, mtu } => self.path_too_big(local, remote, mtu, out),
            Event::Peer { src, dst, datagram } => self.peer_datagram(src, dst, &datagram, out),
            Event::NotLocal { key, sender } => self.not_local(worker, key, sender, out),
            Event::StaleSender { key, sender } => self.stale_sender(key, sender, out),
            Event::TtlExhausted { key, sender, to } => self.goes_round(key, sender, to, out),
            Event::Handover { key, stats } => self.handover(worker, key, stats, out),
            Event::Flushed { token } => self.flush_answered(worker, token, out),
            Event::UnknownSender { vni, ip, frames } => self.unknown_sender(vni, ip, frames, out),
            Event::TableFull { key } => self.table_full(key, out),
            Event::GroupQuery { uplink, group, max_response } => {
                self.underlay_asks(uplink, group, max_response);
            }
            Event::RouteFull { domain, prefix } => self.route_full(worker, domain, prefix, out),
            Event::RouteRoom => self.desired.retry_route(worker),
            Event::InUse { key } => self.in_use(key, out),
        }
    }

    /// A router's word on the way to another NVE, which anybody can forge (R9): believed for locators that we
    /// send to, as far as it is possible at all.
    fn path_too_big(&mut self, local: IpAddr, remote: IpAddr, mtu: u32, out: &mut Outputs) {
        let believed = self.underlay.path_mtu(self.now, local, remote, mtu);
        let what = if believed {
            "from now on"
        } else {
            "ignored, for it is no news, not possible, or no NVE of ours"
        };
        out.note(
            Level::Info,
            format!("a router says that packets to {remote} have {mtu} bytes at most: {what}"),
        );
    }

    /// The workers bound how often they say it.
    fn not_router(&mut self, port: PortIdx, out: &mut Outputs) {
        let Some(p) = self.ports.get(&port) else { return };
        let text = format!(
            "port {}: its VM speaks as a router or as a DHCP server and was not defined as one: dropped; \
             `godwitctl vm define --router` allows it",
            p.name
        );
        self.alarm(text, out);
    }

    /// Likewise. Nothing follows from it: the VM heard that the address is taken, and nobody is moved by a probe (R30).
    fn address_taken(&mut self, port: PortIdx, ip: IpAddr, owner: Mac, out: &mut Outputs) {
        let Some(p) = self.ports.get(&port) else { return };
        let PortKind::Access(VmKey { vni, .. }) = p.kind else { return };
        let name = self.mirror.record(self.carrier(VmKey { vni, mac: owner })).map(|r| r.name.as_str());
        let who = name.filter(|n| !n.is_empty()).map(|n| format!("VM {n}, ")).unwrap_or_default();
        let text = format!(
            "port {}: its VM wants to use {ip}, which is an address of {who}{owner}: it was told so",
            p.name
        );
        self.alarm(text, out);
    }

    /// Somebody sends to a VM that may be behind a port here and is not known to be (R32).
    pub(super) fn seek(&mut self, key: Option<VmKey>, out: &mut Outputs) {
        if let Some(key) = key.filter(|k| self.vms.get(k).is_some_and(|vm| !vm.is_hosted())) {
            self.with_known_vm(key, out, Vm::seek_now);
        }
    }

    /// The VM that frames for this MAC are for: for a nested or virtual one that of its VM (R92, R94).
    pub(super) fn vm_key(&self, key: Key) -> Option<VmKey> {
        self.named(key).map(|key| self.carrier(key))
    }

    /// VN and MAC.
    fn named(&self, key: Key) -> Option<VmKey> {
        self.desired.vni(key.vn()).map(|vni| VmKey { vni, mac: key.mac() })
    }

    pub(super) fn miss_mac(&mut self, worker: usize, key: Key) {
        // The answer may have crossed the miss on its way: it is said again rather than asked for.
        if self.desired.repeat_vm(worker, key) {
            return;
        }
        if let Some(VmKey { vni, mac }) = self.named(key) {
            self.ask_within_bounds(Asked::Mac(vni, mac));
        }
    }

    /// Puts a question that VMs' frames raised, unless those are too many for the directory (R67): the frames wait
    /// as long as for an answer that does not come.
    pub(super) fn ask_within_bounds(&mut self, asked: Asked) {
        if !self.may_ask(asked) {
            self.counts.queries_limited += 1;
        }
    }

    /// Puts a question, or finds that there are too many; one that waits already counts as put.
    pub(super) fn may_ask(&mut self, asked: Asked) -> bool {
        let may = self.queries.is_waiting(asked) || self.query_bucket.take(self.config.query_rate, self.now);
        if may {
            self.ask(asked);
        }
        may
    }

    /// Puts a question, unless it waits already (R34).
    pub(super) fn ask(&mut self, asked: Asked) {
        if let Some(at) = self.queries.miss(self.now, asked, &mut self.seq) {
            self.timers.set(Timer::Query(asked), Some(at));
        }
    }

    /// A question is to be put, first or again; without a session it only passes.
    pub(super) fn query_due(&mut self, asked: Asked, out: &mut Outputs) {
        if self.is_awaited(asked) {
            self.queries.forget(asked);
            self.timers.set(Timer::Query(asked), None);
            return self.negative_unless_known(asked, u64::MAX, out);
        }
        let (seq, next) = self.queries.due(self.now, asked, &self.config, &mut self.seq);
        self.timers.set(Timer::Query(asked), next);
        if let Some(seq) = seq {
            self.send(NveToNva::Query { seq, vni: asked.vni(), by: asked.by() }, out);
        }
    }

    /// The answers to questions that a record settles need not be awaited.
    pub(super) fn settle_questions(&mut self, record: &VmRecord) {
        let vni = record.key.vni;
        let by_ip = record.addresses().map(|(ip, _)| Asked::Ip(vni, ip));
        for asked in by_ip.chain(record.macs().map(|mac| Asked::Mac(vni, mac))) {
            if self.queries.is_waiting(asked) {
                self.queries.forget(asked);
                self.timers.set(Timer::Query(asked), None);
            }
        }
    }

    fn announced(
        &mut self,
        port: PortIdx,
        kind: AnnounceKind,
        mac: Mac,
        ip: Option<IpAddr>,
        out: &mut Outputs,
    ) {
        let Some(PortKind::Access(key)) = self.ports.get(&port).map(|p| p.kind) else { return };
        if kind == AnnounceKind::Alive {
            self.with_known_vm(key, out, |vm, cx| vm.announced(port, kind, ip, cx));
            return self.address_alive(key, ip, out);
        }
        if let Standing::Refused(why) = self.standing(Wanted { key, mac, ip }, true) {
            return self.refused(port, mac, ip, why, out);
        }
        self.with_known_vm(key, out, |vm, cx| vm.announced(port, kind, ip, cx));
        if ip.is_some() || mac != key.mac {
            self.source_seen(port, mac, ip, true, out);
        }
        if kind == AnnounceKind::Rarp {
            self.rarp_asked(key, port, out);
        }
    }

    /// A VM left: the others of its VN that run here are asked, one after the other, whether they still do (R32).
    pub(super) fn scan_others(&mut self, left: VmKey, out: &mut Outputs) {
        if self.config.scan_rate == 0 {
            return;
        }
        let rate = Rate::per_second(self.config.scan_rate, 1);
        let others: Vec<VmKey> =
            self.vms.keys().filter(|k| k.vni == left.vni && **k != left).copied().collect();
        for key in others {
            let at = self.scan_bucket.next(rate, self.now);
            let mut asked = false;
            self.with_known_vm(key, out, |vm, cx| asked = vm.scan_from(at, cx));
            if asked {
                self.scan_bucket.take(rate, at);
                self.counts.scanned += 1;
            }
        }
    }

    /// Asks a local VM, by address, whether it is there: unicast, so that nobody else hears it (R21).
    pub(super) fn probe(&self, key: VmKey, port: PortIdx, ips: &[IpAddr], out: &mut Outputs) {
        for ip in ips {
            let owner = self.mirror.record(key).and_then(|r| r.mac_of(*ip)).unwrap_or(key.mac);
            let mut buf = [0; ndp::MAX_FRAME_LEN];
            let written = match ip {
                // Sender 0, as in a probe: it binds nothing in the VM's table.
                IpAddr::V4(ip) => {
                    let request = ArpRepr::request(Mac::PROBER, Ipv4Addr::UNSPECIFIED, *ip);
                    request.emit_frame(&mut buf, owner, Mac::PROBER)
                }
                IpAddr::V6(ip) => {
                    SolicitFrame::probe(Mac::PROBER, PROBER_V6, owner, *ip).emit_frame(&mut buf)
                }
            };
            if let Ok(n) = written {
                out.frames.push((port, buf[..n].to_vec()));
            }
        }
    }

    /// Someone still sends to us what left: so it shall be for a short time only (R48), and it is told where to
    /// send instead (R47).
    fn stale_sender(&mut self, key: Key, sender: IpAddr, out: &mut Outputs) {
        let Some(key) = self.vm_key(key) else { return };
        let now = self.now;
        let Some(forward) = self.vms.get_mut(&key).and_then(|vm| vm.forward.as_mut()) else { return };
        if forward.to.locators.contains(sender) {
            // The NVE that we forward to sends here: one of us is wrong (R46e).
            return self.ask(Asked::Mac(key.vni, key.mac));
        }
        let to = (forward.to.locators, forward.version);
        if now.since(forward.since) > TRIANGLE && forward.told(sender) {
            let text =
                format!("{sender} still sends packets for {key} here, which left for {}", forward.to.nve);
            self.alarm(text, out);
        }
        self.tell_sender(key, sender, Some(to), out);
    }

    /// Frames for a VM were sent on until their outer TTL was used up: two NVEs at least are wrong about where it
    /// is (R46). The workers bound how often they say it.
    fn goes_round(&mut self, key: Key, sender: IpAddr, to: IpAddr, out: &mut Outputs) {
        let Some(key) = self.vm_key(key) else { return };
        let members = self.mirror.members(key.vni, &self.config.nve);
        let named = |ip: IpAddr| match members.iter().find(|(_, locators)| locators.contains(ip)) {
            Some((nve, _)) => format!("{nve} ({ip})"),
            None => ip.to_string(),
        };
        let text = format!(
            "packets for {key} go round: {} sends them here, from here they go to {}, and their outer TTL is used \
             up: dropped; `godwitctl entries --nve NVE --vn {}` shows what each of them believes",
            named(sender),
            named(to),
            key.vni
        );
        self.alarm(text, out);
        // If it is us, the directory says so.
        self.ask(Asked::Mac(key.vni, key.mac));
    }

    /// Tells the VMs that run here of addresses that have got another MAC, by gratuitous ARP or an
    /// unsolicited advertisement in the new owner's name (R24). Local ports only: other NVEs have the
    /// directory's word.
    pub(super) fn tell_local_vms(&mut self, out: &mut Outputs) {
        let untold = self.announcer.take_dropped();
        if untold > 0 {
            self.alarm(format!("{untold} changed owners of addresses were too many to tell local VMs"), out);
        }
        while let Some((vni, ip)) = self.announcer.next(self.now) {
            let owner = self.desired.vn(vni).and_then(|vn| self.desired.owner(vn, ip));
            let Some((mac, router)) = owner else { continue };
            let mut buf = [0; ndp::MAX_FRAME_LEN];
            let written = match ip {
                IpAddr::V4(ip) => ArpRepr::gratuitous(mac, ip).emit_frame(&mut buf, Mac::BROADCAST, mac),
                IpAddr::V6(ip) => AdvertFrame::unsolicited(mac, ip, router).emit_frame(&mut buf),
            };
            let Ok(n) = written else { continue };
            let running = |(key, vm): (&VmKey, &Vm)| {
                vm.phase.running_on().filter(|_| !self.macs_of(*key).contains(&mac))
            };
            let ports: Vec<PortIdx> = self.vms_of(vni).filter_map(running).collect();
            self.announcer.told(self.now, ports.len());
            out.note(Level::Info, format!("VN {vni}: {ip} is at {mac} now: {} local VMs told", ports.len()));
            out.frames.extend(ports.into_iter().map(|port| (port, buf[..n].to_vec())));
        }
    }

    fn handover(&mut self, worker: usize, key: Key, stats: HandoverStats, out: &mut Outputs) {
        if let Some(vm) = self.vm_key(key) {
            let from = (worker, key.mac());
            self.path_counts(from, vm, stats, out);
            self.with_known_vm(vm, out, |m, cx| m.handover.heard(from, stats, vm, cx));
        }
    }

    fn table_full(&mut self, key: Key, out: &mut Outputs) {
        // A group of the underlay takes the place of copies (R60).
        let is_carried = key.mac() == Mac::BROADCAST && self.desired.has_underlay_group(key.vn());
        if is_carried || !self.table_full.take(FULL_ALARMS, self.now) {
            return;
        }
        let what = match self.named(key) {
            Some(VmKey { vni, mac: Mac::BROADCAST }) => {
                return self.alarm(
                    format!("VN {vni}: a worker's replication list is full: broadcast misses some NVEs"),
                    out,
                );
            }
            Some(key) => key.to_string(),
            None => format!("entry {:#x}", key.0),
        };
        self.alarm(format!("a worker's table is full: {what} found no room"), out);
    }

    /// The route is told again when another one has gone.
    fn route_full(&mut self, worker: usize, domain: DomainIdx, prefix: Prefix, out: &mut Outputs) {
        self.desired.route_refused(worker, domain, prefix);
        if !self.table_full.take(FULL_ALARMS, self.now) {
            return;
        }
        let id = self.desired.domain_id(domain).and_then(|id| self.mirror.domains.get(id));
        let of = id.map(|known| format!(" of routing domain {}", known.domain.name)).unwrap_or_default();
        let text = format!(
            "a worker's table of routes is full: {prefix}{of} is not reached; raise nve.routes, or remove routes"
        );
        self.alarm(text, out);
    }
}
