//! Multicast only where it is wanted (R61): from IGMP and MLD to the workers' groups and to the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_model::message::NveToNva;
use godwit_model::{Locators, Multicast as Setting, NveId, VmKey};
use godwit_tables::groups::routers_of;
use godwit_tables::update::{Admission, Member, Multicast as Policy, PortIdx};
use godwit_wire::membership::{self, Version};
use godwit_wire::{Frame, Mac, Rate, Span, Vni, igmp, mld};

use crate::io::Outputs;
use crate::multicast::{Family, MAX_GROUPS_OF_PORT, Outcome, QUERY_INTERVAL, Question, ROBUSTNESS};

use super::Nve;
use super::sync::choose_remote;

/// Alarms on groups that found no room.
const ALARMS: Rate = Rate::every(Span::from_ms(60_000), 1);
/// The groups of multicast routers.
const ROUTERS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// In whose name VMs are asked.
struct Querier {
    mac: Mac,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    /// It is a gateway.
    routes: bool,
}

impl Querier {
    /// The addresses that count in elections of a querier: a gateway's.
    fn candidates(&self) -> [Option<IpAddr>; 2] {
        let v4 = (!self.v4.is_unspecified()).then_some(IpAddr::V4(self.v4));
        [v4, self.routes.then_some(IpAddr::V6(self.v6))]
    }
}

impl Nve {
    /// The VN is snooped or is not any more, as its settings say.
    pub(super) fn follow_multicast(&mut self, vni: Vni, out: &mut Outputs) {
        let Some(vn) = self.desired.vn(vni) else { return };
        let wanted = match self.mirror.settings(vni).multicast {
            Setting::Flood => Policy::Flood,
            Setting::Snoop => Policy::Snoop,
            Setting::Off => Policy::Off,
        };
        self.desired.set_multicast(vn, wanted);
        match (wanted, self.multicast.is_snooped(vni)) {
            // Its ports follow, each with its VM.
            (Policy::Snoop, false) => self.multicast.add_vn(vni, self.now),
            (Policy::Flood | Policy::Off, true) => {
                self.multicast.remove_vn(vni);
                self.desired.clear_groups(vn);
                if self.groups_told.remove(&vni).is_some_and(|told| !told.is_empty()) {
                    let (joined, left) = (Vec::new(), Vec::new());
                    self.send(NveToNva::Groups { vni, reset: true, joined, left }, out);
                }
            }
            _ => {}
        }
    }

    /// This NVE takes no part in the VN any more.
    pub(super) fn forget_groups(&mut self, vni: Vni) {
        self.multicast.remove_vn(vni);
        self.groups_told.remove(&vni);
    }

    /// The ports of a VM let it talk, or do not any more.
    pub(super) fn follow_open_ports(&mut self, key: VmKey, out: &mut Outputs) {
        if !self.multicast.is_snooped(key.vni) {
            return;
        }
        let Some(vm) = self.vms.get(&key) else { return };
        let mut to = Outcome::default();
        for &port in vm.ports.keys() {
            let router = self.desired.bindings(port).is_some_and(|b| b.server);
            match vm.admission(port) {
                Admission::Activated => {
                    self.multicast.port_opened(key.vni, port, router, self.now, &mut to);
                }
                _ => self.multicast.port_closed(key.vni, port, &mut to),
            }
        }
        self.multicast_led_to(to, out);
    }

    /// The port is about to go.
    pub(super) fn port_wants_no_groups(&mut self, vni: Vni, port: PortIdx, out: &mut Outputs) {
        let mut to = Outcome::default();
        self.multicast.port_closed(vni, port, &mut to);
        self.multicast_led_to(to, out);
    }

    /// A VM sent IGMP or MLD; false: the frame is something else.
    pub(super) fn membership_heard(
        &mut self,
        vni: Vni,
        port: PortIdx,
        frame: &[u8],
        out: &mut Outputs,
    ) -> bool {
        let Some(message) = Frame::read(frame).ok().as_ref().and_then(membership::read) else { return false };
        if let Ok(message) = message {
            let mut to = Outcome::default();
            let own = self.querier(vni).candidates();
            self.multicast.heard(vni, port, &message, own, self.now, &mut to);
            self.multicast_led_to(to, out);
        }
        true
    }

    /// What time brings about.
    pub(super) fn multicast_due(&mut self, out: &mut Outputs) {
        if self.multicast.deadline().is_some_and(|at| at <= self.now) {
            let mut to = Outcome::default();
            self.multicast.tick(self.now, &mut to);
            self.multicast_led_to(to, out);
        }
    }

    /// The directory told of another NVE's groups.
    pub(super) fn groups_of_other(
        &mut self,
        vni: Vni,
        nve: &NveId,
        reset: bool,
        groups: (Vec<IpAddr>, Vec<IpAddr>),
        out: &mut Outputs,
    ) {
        if *nve == self.config.nve || !self.mirror.is_told_member(vni, nve) {
            return;
        }
        let mut to = Outcome::default();
        self.multicast.others(vni, nve, reset, groups, &mut to);
        self.multicast_led_to(to, out);
    }

    fn multicast_led_to(&mut self, to: Outcome, out: &mut Outputs) {
        let mut vns: BTreeMap<Vni, Vec<IpAddr>> = BTreeMap::new();
        for (vni, group) in to.changed {
            vns.entry(vni).or_default().push(group);
        }
        for (vni, groups) in vns {
            let others = self.mirror.replicas(vni, &self.config.nve);
            for &group in &groups {
                self.sync_group(vni, group, &others, out);
            }
            self.tell_groups(vni, &groups, out);
        }
        for (vni, question) in to.questions {
            self.ask_group(vni, question, out);
        }
        for (vni, port, group) in to.refused {
            self.counts.groups_refused += 1;
            if self.groups_full.take(ALARMS, self.now) {
                let name = self.ports.get(&port).map_or("?", |p| p.name.as_str());
                let text = format!(
                    "port {name}: its VM wants multicast group {group} of VN {vni}, beyond {MAX_GROUPS_OF_PORT} of the \
                    port or {} of the VN here: it gets nothing of that group",
                    godwit_model::MAX_GROUPS
                );
                self.alarm(text, out);
            }
        }
    }

    // ---- Workers ----

    /// All groups of a VN, after its NVEs or their locators changed.
    pub(super) fn sync_groups(&mut self, vni: Vni, out: &mut Outputs) {
        if !self.multicast.is_snooped(vni) {
            return;
        }
        let mut to = Outcome::default();
        let mirror = &self.mirror;
        self.multicast.retain_others(vni, |nve| mirror.is_told_member(vni, nve), &mut to);
        let mut groups: BTreeSet<IpAddr> = self.multicast.groups(vni).into_iter().chain(ROUTERS).collect();
        groups.extend(to.changed.into_iter().map(|(_, group)| group));
        let others = self.mirror.replicas(vni, &self.config.nve);
        for group in groups {
            self.sync_group(vni, group, &others, out);
        }
    }

    fn sync_group(&mut self, vni: Vni, group: IpAddr, others: &BTreeMap<NveId, Locators>, out: &mut Outputs) {
        let Some(vn) = self.desired.vn(vni) else { return };
        let mut members: BTreeSet<Member> = self.multicast.ports(vni, group).map(Member::Port).collect();
        let mut wanting: Vec<Locators> =
            self.multicast.nves(vni, group).filter_map(|nve| others.get(nve).copied()).collect();
        if group == routers_of(group) {
            // Of NVEs that only the configuration file knows, nobody says what they want.
            let silent = others.iter().filter(|(nve, _)| !self.mirror.is_told_member(vni, nve));
            wanting.extend(silent.map(|(_, locators)| *locators));
        }
        for locators in wanting {
            let remote = choose_remote(self.underlay.locators(), locators, self.config.outer, None);
            members.extend(remote.and_then(|r| self.tunnel_pair(r, locators, out)).map(Member::Tunnel));
        }
        self.desired.set_members(vn, group, members);
    }

    // ---- The directory ----

    /// All groups, at the beginning of a session or of snooping.
    pub(super) fn tell_all_groups(&mut self, vni: Vni, out: &mut Outputs) {
        if !self.multicast.is_snooped(vni) || !self.session.is_up() {
            return;
        }
        let groups = self.multicast.wanted_here(vni);
        let joined = groups.iter().copied().collect();
        self.groups_told.insert(vni, groups);
        self.send(NveToNva::Groups { vni, reset: true, joined, left: Vec::new() }, out);
    }

    /// Groups that the first VM here joined, or the last one left.
    fn tell_groups(&mut self, vni: Vni, groups: &[IpAddr], out: &mut Outputs) {
        let Some(told) = self.groups_told.get_mut(&vni) else { return };
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for &group in groups {
            match self.multicast.ports(vni, group).next() {
                Some(_) if told.insert(group) => joined.push(group),
                None if told.remove(&group) => left.push(group),
                _ => {}
            }
        }
        if !joined.is_empty() || !left.is_empty() {
            self.send(NveToNva::Groups { vni, reset: false, joined, left }, out);
        }
    }

    // ---- VMs ----

    fn ask_group(&mut self, vni: Vni, q: Question, out: &mut Outputs) {
        let querier = self.querier(vni);
        let (robustness, interval, eth_src) = (ROBUSTNESS, QUERY_INTERVAL, querier.mac);
        let Question { port, version, max_response, .. } = q;
        let mut buf = [0; mld::MAX_FRAME_LEN];
        let len = match (q.family, q.group) {
            (Family::V4, group) => {
                let group = if let Some(IpAddr::V4(group)) = group { Some(group) } else { None };
                // Version 1 knows no question about one group.
                let version = if version == Version::Igmp3 { version } else { Version::Igmp2 };
                let src = querier.v4;
                igmp::QueryFrame { eth_src, src, group, version, max_response, robustness, interval }
                    .emit_frame(&mut buf)
            }
            (Family::V6, group) => {
                let group = if let Some(IpAddr::V6(group)) = group { Some(group) } else { None };
                let src = querier.v6;
                mld::QueryFrame { eth_src, src, group, version, max_response, robustness, interval }
                    .emit_frame(&mut buf)
            }
        };
        if let Ok(len) = len {
            self.counts.group_queries += 1;
            out.frames.push((port, buf[..len].to_vec()));
        }
    }

    /// The gateway where the VN has one; otherwise the switch itself, which has no IPv4 address there (RFC 4541 section
    /// 2.1.1).
    fn querier(&self, vni: Vni) -> Querier {
        let routing = self.mirror.settings(vni).routing.as_ref();
        let domain = routing.and_then(|r| self.mirror.domains.get(r.domain));
        let mac = domain.map_or(Mac::PROBER, |known| known.domain.gateway_mac);
        let mut gateways = routing.into_iter().flat_map(|r| r.subnets.iter().map(|s| s.gateway));
        let v4 = gateways.find_map(|ip| if let IpAddr::V4(v4) = ip { Some(v4) } else { None });
        let (v4, v6) = (v4.unwrap_or(Ipv4Addr::UNSPECIFIED), mac.link_local());
        Querier { mac, v4, v6, routes: domain.is_some() }
    }
}
