//! What the workers should have, derived from the whole of what we know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::message::NveToNva;
use godwit_model::{DirectoryMode, Locators, OnCold, VmKey, VmRecord};
use godwit_tables::update::{Key, PortRole, Target, TunnelIdx, VmState};
use godwit_wire::outer::{OuterHeader, V4_LEN, V6_LEN};
use godwit_wire::{Instant, Span, Vni};

use crate::barrier::After;
use crate::config::OuterChoice;
use crate::desired::{Answer, TunnelWay, TunnelWays};
use crate::io::{Level, Outputs};
use crate::mobility::{DesiredEntry, Vm};
use crate::underlay::{Hop, Ways};

use super::{Nve, Port, PortKind, Timer, half};

/// TTL and hop limit of a first encapsulation (R3, R4).
const OUTER_TTL: u8 = 64;
/// Tenant MTU while there is no uplink, in bytes.
const LONELY_MTU: u16 = 1500;
/// How often negative answers are looked through.
const NEGATIVE_CACHE_EVERY: Span = Span::from_ms(500);

/// The remote locator that carries a VM's frames: the family of its addresses where both NVEs have
/// both (R4). `None`: no common family.
pub(super) fn choose_remote(
    ours: Locators,
    theirs: Locators,
    choice: OuterChoice,
    record: Option<&VmRecord>,
) -> Option<IpAddr> {
    let v4 = theirs.v4.filter(|_| ours.v4.is_some()).map(IpAddr::V4);
    let v6 = theirs.v6.filter(|_| ours.v6.is_some()).map(IpAddr::V6);
    let only_v4 = record.is_some_and(|r| !r.ipv4.is_empty() && r.ipv6.is_empty());
    let prefer_v4 = match choice {
        OuterChoice::V4 => true,
        OuterChoice::V6 => false,
        OuterChoice::Auto => only_v4,
    };
    if prefer_v4 { v4.or(v6) } else { v6.or(v4) }
}

impl Nve {
    // ---- Virtual networks ----

    /// Begins to take part in a VN.
    pub(super) fn ensure_vn(&mut self, vni: Vni, out: &mut Outputs) {
        if self.desired.vn(vni).is_some() {
            if self.lingering.remove(&vni) {
                self.send(NveToNva::Linger { vni, lingers: false }, out);
                self.sync_replicas(vni, out);
            }
        } else {
            self.begin_vn(vni, out);
        }
        // Known already where the configuration file says so, or where the VN was kept for another reason: its domain
        // may have been left meanwhile.
        if let Some(id) = self.domain_of(vni) {
            self.follow_domain(id, out);
        }
    }

    /// Numbers a VN and wants its records; false where there is no room for it.
    pub(super) fn begin_vn(&mut self, vni: Vni, out: &mut Outputs) -> bool {
        let (mtu, transparent) = (self.tenant_mtu(0), false);
        if self.desired.set_vn(vni, mtu, transparent).is_none() {
            self.alarm(format!("VN {vni} finds no room: too many VNs on this NVE"), out);
            return false;
        }
        self.mirror.add_vn(vni);
        self.subscribe(vni, out);
        self.sync_whole_vn(vni, out);
        true
    }

    /// Wants the VN's records, if there is a session (R37).
    pub(super) fn subscribe(&mut self, vni: Vni, out: &mut Outputs) {
        if self.session.is_up() {
            self.mirror.begin_snapshot(vni);
            let mode = if self.is_pulled(vni) { DirectoryMode::Pull } else { DirectoryMode::Push };
            let lingers = self.lingering.contains(&vni);
            self.send(NveToNva::Subscribe { vni, mode, lingers }, out);
        }
    }

    /// Ends taking part in a VN once nothing here needs it, and in those that only its domain needed.
    pub(super) fn drop_vn_if_unneeded(&mut self, vni: Vni, out: &mut Outputs) {
        self.follow_domain_of(vni, out);
        self.leave_vn(vni, out);
    }

    /// Ends taking part in a VN once no port, hold or forward entry of it is left and no VM here sends to it by way of
    /// its domain. It lingers while only the latter two need it: this NVE sends for it and gets no copies (R17, R58).
    pub(super) fn leave_vn(&mut self, vni: Vni, out: &mut Outputs) {
        let has_port = |p: &Port| matches!(p.kind, PortKind::Access(key) if key.vni == vni);
        if self.desired.vn(vni).is_none() || self.ports.values().any(has_port) {
            return;
        }
        let forwards = self.vms_of(vni).any(|(_, vm)| vm.needs_vn());
        if forwards || self.is_routed_to(vni) {
            let lingers = !self.vms_of(vni).any(|(_, vm)| vm.is_present());
            // Otherwise the subscription says so.
            if lingers && self.lingering.insert(vni) && self.mirror.is_subscribed(vni) {
                self.send(NveToNva::Linger { vni, lingers: true }, out);
            }
            if !forwards {
                self.sync_replicas(vni, out);
            }
            return;
        }
        self.lingering.remove(&vni);
        self.forget_groups(vni);
        self.forget_senders(vni);
        self.send(NveToNva::Unsubscribe { vni }, out);
        for asked in self.queries.forget_vn(vni) {
            self.timers.set(Timer::Query(asked), None);
        }
        if let Some(vn) = self.desired.remove_vn(vni) {
            self.barriers.after_applied(After::FreeVn(vn));
        }
        self.join_underlay_groups(out);
        self.mirror.remove_vn(vni);
        let aged: Vec<VmKey> = self.lifetimes.of_vn(vni).collect();
        for key in aged {
            self.follow_life(key);
        }
        self.unconfirmed.forget(|key| key.vni == vni);
        self.announcer.forget_vn(vni);
    }

    pub(super) fn vms_of(&self, vni: Vni) -> impl Iterator<Item = (&VmKey, &Vm)> {
        let first = VmKey { vni, mac: godwit_wire::Mac::ZERO };
        let last = VmKey { vni, mac: godwit_wire::Mac::BROADCAST };
        self.vms.range(first..=last)
    }

    /// Everything of a VN, after something changed for all of it.
    pub(super) fn sync_whole_vn(&mut self, vni: Vni, out: &mut Outputs) {
        if self.desired.vn(vni).is_none() {
            return;
        }
        let settings = self.mirror.settings(vni);
        if let Some(vn) = self.desired.set_vn(vni, self.tenant_mtu(settings.mtu), settings.transparent_vlan) {
            self.desired.set_flood_silent(vn, settings.flood_silent);
        }
        self.follow_multicast(vni, out);
        self.sync_underlay_group(vni, out);
        self.sync_routing(vni, out);
        let mut keys: BTreeSet<VmKey> = self.mirror.records(vni).map(|r| r.key).collect();
        keys.extend(self.vms_of(vni).map(|(k, _)| *k));
        for key in keys {
            self.sync_vm(key, out);
        }
        for ip in self.mirror.static_ips(vni) {
            self.sync_ip(vni, ip);
        }
        self.sync_replicas(vni, out);
        self.follow_advertisers(vni);
    }

    /// Everything, after the locators changed.
    pub(super) fn sync_all(&mut self, out: &mut Outputs) {
        let vnis: Vec<Vni> = self.mirror.vns().collect();
        for vni in vnis {
            self.sync_whole_vn(vni, out);
        }
        self.check_peers(out);
    }

    /// Largest inner IP packet: what the VN is configured for, at most what the uplinks carry (R8).
    pub(super) fn tenant_mtu(&self, configured: u16) -> u16 {
        let l = self.underlay.locators();
        // Outer IP, UDP, VXLAN and the inner Ethernet header: as many bytes as the outer headers
        // with the outer Ethernet header.
        // With both families, what goes over IPv6 must fit too.
        let overhead = u16::try_from(if l.v6.is_some() { V6_LEN } else { V4_LEN }).unwrap_or(u16::MAX);
        let carried = self.underlay.mtu().map_or(LONELY_MTU, |m| m.saturating_sub(overhead));
        if configured == 0 { carried } else { configured.min(carried) }
    }

    // ---- VMs ----

    /// A VM's entry, its addresses and its ports.
    pub(super) fn sync_vm(&mut self, key: VmKey, out: &mut Outputs) {
        let Some(vn) = self.desired.vn(key.vni) else { return };
        let key = self.carrier(key);
        let at = Key::new(vn, key.mac);
        let state = self.vm_state(key, out);
        if matches!(state, Some(VmState::Absent { until: Instant::NEVER })) && self.desired.vm(at) != state {
            self.alarm(format!("{key}: its NVE has no underlay family in common with this one"), out);
        }
        self.sync_policy(key);
        self.sync_bindings(key);
        let state = self.in_order(key, at, state, out);
        self.desired.set_vm(at, state);
        self.sync_nested(key, state);
        self.follow_pending(key, out);
        self.pass_ends(key, out);
        let addresses = self.mirror.record(key).into_iter().flat_map(VmRecord::addresses);
        let ips: Vec<IpAddr> = addresses.map(|(ip, _)| ip).collect();
        for ip in ips {
            self.sync_ip(key.vni, ip);
        }
        let Some(vm) = self.vms.get(&key) else { return };
        for &port in vm.ports.keys() {
            let admission = vm.admission(port);
            self.desired.set_port(port, PortRole::Access { vn, mac: key.mac, admission });
        }
        self.follow_open_ports(key, out);
    }

    /// The old NVE hears of the grant when we do, and sends what it held.
    pub(super) fn settle(&mut self, key: VmKey) {
        let Some(vn) = self.desired.vn(key.vni) else { return };
        for mac in self.macs_of(key) {
            self.desired.settle_vm(Key::new(vn, mac), self.config.arrive_hold);
        }
    }

    fn vm_state(&mut self, key: VmKey, out: &mut Outputs) -> Option<VmState> {
        let record = self.mirror.record(key);
        let entry = self
            .vms
            .get(&key)
            .map_or(DesiredEntry::Directory, |vm| vm.desired_entry(self.now, record, &self.config.nve));
        match entry {
            DesiredEntry::Local(port) => Some(VmState::Local { port }),
            DesiredEntry::Paused => Some(VmState::Paused { hold: self.config.handover_hold }),
            DesiredEntry::Expected { via } => {
                let via = via.and_then(|l| self.target_at(key, l.locators, out));
                Some(VmState::Expected { via, hold: self.config.arrive_hold })
            }
            DesiredEntry::Departed { to, until } if self.config.forward_in_flight => {
                match self.target_at(key, to.locators, out) {
                    Some(to) => Some(VmState::Departed { to, until }),
                    None => self.unreachable_state(),
                }
            }
            DesiredEntry::Departed { .. } | DesiredEntry::Directory => self.directory_state(key, out),
        }
    }

    /// What the directory alone says of a VM.
    fn directory_state(&mut self, key: VmKey, out: &mut Outputs) -> Option<VmState> {
        let record = self.mirror.record(key).filter(|r| r.is_active());
        let elsewhere = record.and_then(VmRecord::active).filter(|l| l.nve != self.config.nve);
        // What another NVE said of late, if the directory has nothing as new (R47).
        let heard = self.unconfirmed.hearsay(key).filter(|h| record.is_none_or(|r| h.version > r.version));
        match heard.map(|h| h.to).or(elsewhere.map(|l| l.locators)) {
            Some(locators) => match self.target_at(key, locators, out) {
                Some(to) if self.lifetimes.is_watched(key) => Some(VmState::Ageing { to }),
                Some(to) => Some(VmState::Remote { to }),
                None => self.unreachable_state(),
            },
            None if self.behind.contains_key(&key) => {
                self.behind.get(&key).map(|&port| VmState::Local { port })
            }
            None => self.detached_state(key).or_else(|| self.absent_state(key)),
        }
    }

    /// Of a VM that the directory has and that is attached nowhere, where its VN wants more than silence (R53). A
    /// router speaks for others too, whose connections are not its own to reset.
    fn detached_state(&self, key: VmKey) -> Option<VmState> {
        let wanted = self.mirror.settings(key.vni).on_cold == OnCold::Reset;
        let record = self.mirror.record(key).filter(|r| wanted && !r.is_active())?;
        Some(VmState::Detached { reset: !record.router && record.allowed.routes.is_empty() })
    }

    /// No family in common (R4); while there is no uplink at all, nothing can be said yet.
    fn unreachable_state(&self) -> Option<VmState> {
        let lonely = self.underlay.locators().is_empty();
        (!lonely).then_some(VmState::Absent { until: Instant::NEVER })
    }

    /// Who answers on an address: the gateway on its own, then the newest record that is alive, then the configuration
    /// file.
    pub(super) fn sync_ip(&mut self, vni: Vni, ip: IpAddr) {
        let Some(vn) = self.desired.vn(vni) else { return };
        if let Some(gateway) = self.gateway_answer(vni, ip) {
            return self.desired.set_answer(vn, ip, Some(gateway));
        }
        let owner = self.mirror.owners(vni, ip).into_iter().find(|r| self.is_alive(r));
        // Two may use the address of a VM that went to and fro: nobody is told either's (R22, RFC 9161 section 3.7).
        let owner = owner.map(|r| match r.frozen {
            true => Answer::Absent { until: Instant::NEVER },
            false => Answer::Owner { mac: r.mac_of(ip).unwrap_or(r.key.mac), router: r.router },
        });
        let fixed =
            || self.mirror.static_owner(vni, ip).map(|o| Answer::Owner { mac: o.mac, router: o.router });
        let absent = || {
            let until = self.mirror.absent_ip(vni, ip).filter(|t| *t > self.now)?;
            Some(Answer::Absent { until })
        };
        let answer = owner.or_else(fixed).or_else(absent);
        let new = if let Some(Answer::Owner { mac, .. }) = answer { Some(mac) } else { None };
        let old = self.desired.owner(vn, ip).map(|(mac, _)| mac);
        // Where VMs are not bridged, they know each other by the gateway's MAC.
        let bridged = self.desired.routing(vn).is_none_or(|part| !part.routed_only);
        if old != new && bridged {
            self.announcer.changed(vni, ip, old, new);
        }
        self.desired.set_answer(vn, ip, answer);
    }

    /// Attached somewhere, or running here with its claim on the way (R28: a detached VM's address is
    /// not answered).
    fn is_alive(&self, record: &VmRecord) -> bool {
        record.is_active() || self.vms.get(&record.key).is_some_and(Vm::is_hosted)
    }

    /// Copies go to each other NVE with members once (R60). From a VN that is only routed to, none leave.
    pub(super) fn sync_replicas(&mut self, vni: Vni, out: &mut Outputs) {
        let Some(vn) = self.desired.vn(vni) else { return };
        self.sync_senders(vni);
        let mut tunnels = BTreeSet::new();
        let members = match self.is_only_routed_to(vni) {
            true => BTreeMap::new(),
            false => self.mirror.replicas(vni, &self.config.nve),
        };
        for (nve, locators) in members {
            match choose_remote(self.underlay.locators(), locators, self.config.outer, None) {
                Some(remote) => tunnels.extend(self.tunnel_pair(remote, locators, out)),
                None => out.note(Level::Warn, format!("VN {vni}: no underlay family in common with {nve}")),
            }
        }
        self.desired.set_replicas(vn, tunnels);
        self.sync_groups(vni, out);
    }

    // ---- Tunnels ----

    /// Where frames for a VM at other locators are sent: its VN is bridged, so the VNI is that of its VN.
    fn target_at(&mut self, key: VmKey, locators: Locators, out: &mut Outputs) -> Option<Target> {
        let tunnel = self.tunnel_to(key, locators, out)?;
        Some(Target { tunnel, vni: key.vni })
    }

    pub(super) fn tunnel_to(
        &mut self,
        key: VmKey,
        locators: Locators,
        out: &mut Outputs,
    ) -> Option<TunnelIdx> {
        let record = self.mirror.record(key);
        let remote = choose_remote(self.underlay.locators(), locators, self.config.outer, record)?;
        self.tunnel_pair(remote, locators, out)
    }

    /// The tunnel to a locator. Where both NVEs have both families, IPv4 packets for one over IPv6 go
    /// over IPv4 (R4): a VM with addresses of both is one entry.
    pub(super) fn tunnel_pair(
        &mut self,
        remote: IpAddr,
        locators: Locators,
        out: &mut Outputs,
    ) -> Option<TunnelIdx> {
        let tunnel = self.tunnel(remote, out)?;
        if remote.is_ipv6() {
            let ours = self.underlay.locators();
            let v4 = locators.v4.filter(|_| ours.v4.is_some() && self.config.outer == OuterChoice::Auto);
            let twin = v4.and_then(|v4| self.tunnel(v4.into(), out));
            self.desired.set_twin(tunnel, twin);
        }
        Some(tunnel)
    }

    /// The tunnel to a locator; it is made where there is none, and its next hop is asked for.
    pub(super) fn tunnel(&mut self, remote: IpAddr, out: &mut Outputs) -> Option<TunnelIdx> {
        if let Some(tunnel) = self.desired.tunnel(remote) {
            return Some(tunnel);
        }
        let ways = self.underlay.watch(self.now, remote);
        if !self.underlay.is_routed(remote) {
            self.alarm(format!("no uplink leads to locator {remote}"), out);
        }
        self.timers.arm(Timer::Tunnels, self.now + half(self.config.tunnel_linger));
        let ways = self.tunnel_ways(remote, &ways);
        self.desired.add_tunnel(remote, ways)
    }

    fn tunnel_ways(&self, remote: IpAddr, ways: &Ways) -> TunnelWays {
        let way = |&(place, hop): &(u8, Hop)| (place, self.way(remote, hop));
        TunnelWays { ways: ways.hops.iter().map(way).collect(), shares: ways.shares }
    }

    fn way(&self, remote: IpAddr, hop: Hop) -> TunnelWay {
        let (src, dst, port) = (hop.src_mac, hop.dst_mac, self.config.vxlan_port);
        let header = match (hop.src_ip, remote) {
            (IpAddr::V6(from), IpAddr::V6(to)) => OuterHeader::v6(src, dst, from, to, port, OUTER_TTL),
            (IpAddr::V4(from), IpAddr::V4(to)) => OuterHeader::v4(src, dst, from, to, port, OUTER_TTL),
            _ => unreachable!("a hop's source has the family of its remote"),
        };
        let header = match hop.vlan {
            Some(vlan) => header.in_vlan(vlan),
            None => header,
        };
        TunnelWay { uplink: hop.uplink, mtu: hop.mtu, header }
    }

    /// Passes on what became known of next hops.
    pub(super) fn follow_underlay(&mut self, out: &mut Outputs) {
        self.underlay.tick(self.now);
        self.tell_hops(out);
        let changed = self.underlay.take_changes();
        for &remote in &changed {
            if let Some(tunnel) = self.desired.tunnel(remote) {
                let ways = self.tunnel_ways(remote, &self.underlay.ways(remote));
                self.desired.set_ways(tunnel, ways);
            }
        }
        if !changed.is_empty() {
            self.join_underlay_groups(out);
            self.check_peers(out);
        }
    }

    pub(super) fn check_peers(&mut self, out: &mut Outputs) {
        let keys: Vec<VmKey> = self.intents.iter().copied().collect();
        for key in keys {
            self.check_peer(key, out);
        }
    }

    /// The next hop to a planned move's other NVE is resolved ahead (R42), and what the VM will send finds its way at
    /// once: the records of its VN are here, and of those that it is routed to (R58).
    pub(super) fn check_peer(&mut self, key: VmKey, out: &mut Outputs) {
        let Some(vm) = self.vms.get(&key) else { return };
        let Some(locators) = vm.peer().map(|l| l.locators) else { return };
        let sends_here = vm.intent.as_ref().is_some_and(crate::mobility::Intent::is_target);
        let Some(tunnel) = self.tunnel_to(key, locators, out) else { return };
        let resolved = self.desired.remote(tunnel).and_then(|r| self.underlay.hop(r)).is_some();
        let informed = !sends_here || self.is_informed(key.vni);
        if resolved && informed && self.vms.get(&key).is_some_and(Vm::awaits_hop) {
            self.with_vm(key, out, Vm::next_hop_ready);
        }
    }

    /// Removes tunnels that nothing has used for a while.
    pub(super) fn sweep_tunnels(&mut self) {
        let mut wanted = BTreeSet::new();
        for vm in self.intents.iter().filter_map(|k| self.vms.get(k)) {
            if let Some(l) = vm.peer() {
                wanted.extend(l.locators.v4.map(IpAddr::V4));
                wanted.extend(l.locators.v6.map(IpAddr::V6));
            }
        }
        self.add_pending_locators(&mut wanted);
        let unused: Vec<_> = self.desired.unused_tunnels().filter(|(_, r)| !wanted.contains(r)).collect();
        let idle = core::mem::take(&mut self.idle_tunnels);
        for (tunnel, remote) in unused {
            if !idle.contains(&remote) {
                self.idle_tunnels.insert(remote);
            } else if self.desired.remove_tunnel(tunnel) {
                self.underlay.unwatch(remote);
                self.barriers.after_applied(After::FreeTunnel(tunnel));
            }
        }
        self.timers.set(Timer::Tunnels, Some(self.now + half(self.config.tunnel_linger)));
    }

    // ---- Negative answers ----

    /// Negative answers end without a word: the workers forget theirs at the same time.
    pub(super) fn negative_cache_due(&mut self) {
        self.expire_negative_cache(self.now);
        self.timers.set(Timer::NegativeCache, Some(self.now + NEGATIVE_CACHE_EVERY));
    }

    fn expire_negative_cache(&mut self, until: Instant) {
        let (keys, ips) = self.mirror.expire_negative_cache(until);
        for key in keys {
            if let Some(vn) = self.desired.vn(key.vni) {
                self.desired.absent_expired(Key::new(vn, key.mac));
            }
        }
        for (vni, ip) in ips {
            if let Some(vn) = self.desired.vn(vni) {
                self.desired.absent_ip_expired(vn, ip);
            }
        }
    }

    /// A new session: what was absent may be there now (R36).
    pub(super) fn clear_negative_cache(&mut self, out: &mut Outputs) {
        let (keys, ips) = self.mirror.expire_negative_cache(Instant::NEVER);
        for key in keys {
            self.sync_vm(key, out);
        }
        for (vni, ip) in ips {
            self.sync_ip(vni, ip);
        }
    }
}
