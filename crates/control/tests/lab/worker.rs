//! A worker's tables as a model: applies updates and refuses those that make no sense.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_tables::event::Event;
use godwit_tables::update::{
    DomainIdx, Key, Lengths, Member, Multicast, NextHop, PortIdx, PortRole, PrefixKind, Shares, SourceRules,
    TunnelIdx, Update, VmState, VnIdx, VnRouting,
};
use godwit_wire::arp::{self, Arp};
use godwit_wire::ethernet;
use godwit_wire::outer::OuterHeader;
use godwit_wire::policy::{Rule, Verdict};
use godwit_wire::{Dscp, Instant, Mac, Prefix, Span};

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tables {
    pub vns: BTreeMap<VnIdx, (u32, u16)>,
    pub ports: BTreeMap<PortIdx, PortRole>,
    pub vms: BTreeMap<Key, VmState>,
    /// VMs that were said to have moved here.
    pub settled: BTreeSet<Key>,
    pub neighbors: BTreeMap<(VnIdx, IpAddr), Option<Mac>>,
    pub absent_ips: BTreeMap<(VnIdx, IpAddr), Instant>,
    pub tunnels: BTreeMap<TunnelIdx, (IpAddr, Option<(OuterHeader, u16)>)>,
    pub replicas: BTreeSet<(VnIdx, TunnelIdx)>,
    /// Whom VXLAN is accepted from (R69).
    pub senders: BTreeSet<(VnIdx, IpAddr)>,
    pub known_senders: BTreeSet<VnIdx>,
    pub sources: BTreeSet<(PortIdx, IpAddr)>,
    /// Addresses that were set no more, or refused.
    pub refused: BTreeSet<(PortIdx, IpAddr)>,
    pub rules: BTreeMap<PortIdx, SourceRules>,
    /// Nested MACs, and virtual ones: these are shared.
    pub macs: BTreeMap<(PortIdx, Mac), bool>,
    /// Routed prefixes, and shared ones.
    pub prefixes: BTreeSet<(PortIdx, Prefix, bool)>,
    pub servers: BTreeSet<PortIdx>,
    /// Rules that are in force, the default, and the DSCP.
    pub policies: BTreeMap<PortIdx, (Vec<Rule>, Verdict, Option<Dscp>)>,
    staged: BTreeMap<(PortIdx, u8), Rule>,
    pub twins: BTreeMap<TunnelIdx, TunnelIdx>,
    /// Ways of tunnels that have several: uplink, header and MTU.
    pub ways: BTreeMap<(TunnelIdx, u8), (PortIdx, OuterHeader, u16)>,
    pub spread: BTreeMap<TunnelIdx, Shares>,
    pub silent: BTreeMap<VnIdx, Span>,
    pub multicast: BTreeMap<VnIdx, Multicast>,
    pub members: BTreeSet<(VnIdx, IpAddr, Member)>,
    pub underlay_groups: BTreeMap<VnIdx, TunnelIdx>,
    pub domains: BTreeMap<DomainIdx, (Lengths, Lengths)>,
    pub routing: BTreeMap<VnIdx, VnRouting>,
    pub subnets: BTreeMap<(VnIdx, Prefix), IpAddr>,
    pub routes: BTreeMap<(DomainIdx, Prefix), NextHop>,
    pub routers: BTreeSet<(VnIdx, IpAddr)>,
}

impl Tables {
    /// Applies an update twice: that must be as good as once.
    pub fn apply_checked(&mut self, update: Update) {
        self.check(update);
        self.apply(update);
        let once = self.clone();
        self.apply(update);
        assert_eq!(*self, once, "{update:?} is not idempotent");
    }

    fn tunnel_of(state: VmState) -> Option<TunnelIdx> {
        state.target().map(|to| to.tunnel)
    }

    /// Nothing names what is not there, and nothing goes that is still named.
    fn check(&self, update: Update) {
        match update {
            Update::VmSet { key, state } => {
                assert!(self.vns.contains_key(&key.vn()), "{update:?}: no such VN");
                if let Some(to) = state.target() {
                    assert!(self.tunnels.contains_key(&to.tunnel), "{update:?}: no such tunnel");
                    assert_eq!(to.vni.get(), self.vns[&key.vn()].0, "{update:?}: the VNI of another VN");
                }
                if let VmState::Local { port } | VmState::Arrived { port, .. } = state {
                    assert!(self.ports.contains_key(&port), "{update:?}: no such port");
                }
            }
            Update::PortSet { role: PortRole::Access { vn, .. }, .. } => {
                assert!(self.vns.contains_key(&vn), "{update:?}: no such VN");
            }
            Update::PortRemove { port } => {
                let here = |s: &VmState| match s {
                    VmState::Local { port: p } | VmState::Arrived { port: p, .. } => *p == port,
                    _ => false,
                };
                let named = self.vms.values().any(here);
                assert!(!named, "{update:?}: a VM is still delivered there");
                let wants = self.members.iter().any(|(.., m)| *m == Member::Port(port));
                assert!(!wants, "{update:?}: it is still a member of a group");
            }
            Update::TunnelTwin { tunnel, twin } => {
                let there = |t: TunnelIdx| self.tunnels.contains_key(&t);
                assert!(there(tunnel) && twin.is_none_or(there), "{update:?}: no such tunnel");
            }
            Update::TunnelWay { tunnel, .. } => {
                assert!(self.tunnels.contains_key(&tunnel), "{update:?}: no such tunnel");
            }
            Update::TunnelSpread { tunnel, shares: Some(shares) } => {
                assert!(self.tunnels[&tunnel].1.is_some(), "{update:?}: not ready");
                let told = shares.iter().all(|at| self.ways.contains_key(&(tunnel, *at)));
                assert!(told, "{update:?}: no such way");
            }
            Update::PolicySet { port, rules, .. } => {
                let staged = (0..rules).all(|at| self.staged.contains_key(&(port, at)));
                assert!(staged && self.ports.contains_key(&port), "{update:?}: no such rules or port");
            }
            Update::SourceSet { port, .. }
            | Update::SourceRulesSet { port, .. }
            | Update::MacSet { port, .. }
            | Update::PrefixSet { port, .. } => {
                assert!(self.ports.contains_key(&port), "{update:?}: no such port");
            }
            Update::SenderAdd { vn, .. } | Update::SendersKnown { vn, .. } => {
                assert!(self.vns.contains_key(&vn), "{update:?}: no such VN");
            }
            Update::ReplicaAdd { vn, tunnel } => {
                assert!(self.vns.contains_key(&vn) && self.tunnels.contains_key(&tunnel), "{update:?}");
            }
            Update::GroupMemberSet { vn, member, .. } => {
                let there = match member {
                    Member::Port(port) => self.ports.contains_key(&port),
                    Member::Tunnel(tunnel) => self.tunnels.contains_key(&tunnel),
                };
                assert!(there && self.vns.contains_key(&vn), "{update:?}: no such VN, port or tunnel");
            }
            Update::TunnelRemove { tunnel } => {
                let named = self.twins.values().any(|t| *t == tunnel)
                    || self.vms.values().any(|s| Self::tunnel_of(*s) == Some(tunnel))
                    || self.replicas.iter().any(|(_, t)| *t == tunnel)
                    || self.underlay_groups.values().any(|t| *t == tunnel)
                    || self.members.iter().any(|(.., m)| *m == Member::Tunnel(tunnel));
                assert!(!named, "{update:?}: still named");
            }
            Update::DomainSet { domain, v4, v6 } => {
                let lengths = (v4, v6);
                let tried = |p: &Prefix| is_tried(*p, &lengths);
                let all = self.routes.keys().filter(|(d, _)| *d == domain).all(|(_, p)| tried(p));
                assert!(all, "{update:?}: routes have other lengths");
            }
            Update::VnRoutingSet { vn, routing: Some(routing) } => {
                let there = self.vns.contains_key(&vn) && self.domains.contains_key(&routing.domain);
                assert!(there, "{update:?}: no such VN or domain");
            }
            Update::SubnetSet { vn, .. } => assert!(self.vns.contains_key(&vn), "{update:?}: no such VN"),
            Update::RouteSet { domain, prefix, to } => {
                let lengths = self.domains.get(&domain);
                assert!(lengths.is_some_and(|l| is_tried(prefix, l)), "{update:?}: no such domain or length");
                let vn = vn_of(to);
                assert!(self.vns.contains_key(&vn), "{update:?}: no such VN");
            }
            Update::DomainRemove { domain } => {
                let named = self.routing.values().any(|r| r.domain == domain)
                    || self.routes.keys().any(|(d, _)| *d == domain);
                assert!(!named, "{update:?}: still named");
            }
            Update::VnRemove { vn } => {
                let named = self.vms.keys().any(|k| k.vn() == vn)
                    || self.routes.values().any(|to| vn_of(*to) == vn)
                    || self.routing.contains_key(&vn)
                    || self.subnets.keys().any(|(v, _)| *v == vn)
                    || self.ports.values().any(|r| matches!(r, PortRole::Access { vn: v, .. } if *v == vn));
                assert!(!named, "{update:?}: still named");
            }
            _ => {}
        }
    }

    fn gather(&mut self, tunnel: TunnelIdx) {
        self.spread.remove(&tunnel);
        self.ways.retain(|(t, _), _| *t != tunnel);
    }

    pub fn apply(&mut self, update: Update) {
        match update {
            Update::SourceRulesSet { port, rules } => {
                self.rules.insert(port, rules);
            }
            Update::MacSet { port, mac, shared } => {
                self.macs.insert((port, mac), shared);
            }
            Update::MacRemove { port, mac } => {
                self.macs.remove(&(port, mac));
            }
            Update::PrefixSet { port, prefix, kind } => {
                self.prefixes.insert((port, prefix, kind == PrefixKind::Shared));
            }
            Update::PrefixRemove { port, prefix, kind } => {
                self.prefixes.remove(&(port, prefix, kind == PrefixKind::Shared));
            }
            Update::VnSet { vn, vni, mtu, .. } => {
                self.vns.insert(vn, (vni.get(), mtu));
            }
            Update::VnRemove { vn } => {
                self.vns.remove(&vn);
                self.neighbors.retain(|(v, _), _| *v != vn);
                self.absent_ips.retain(|(v, _), _| *v != vn);
                self.replicas.retain(|(v, _)| *v != vn);
                assert!(!self.senders.iter().any(|(v, _)| *v == vn), "senders of a VN that is gone");
                self.known_senders.remove(&vn);
                self.silent.remove(&vn);
                self.multicast.remove(&vn);
                self.underlay_groups.remove(&vn);
                self.members.retain(|(v, ..)| *v != vn);
                self.routing.remove(&vn);
                self.subnets.retain(|(v, _), _| *v != vn);
                self.routers.retain(|(v, _)| *v != vn);
            }
            Update::PortSet { port, role } => {
                self.ports.insert(port, role);
            }
            Update::PortRemove { port } => {
                self.ports.remove(&port);
                self.sources.retain(|(p, _)| *p != port);
                self.rules.remove(&port);
                self.macs.retain(|(p, _), _| *p != port);
                self.prefixes.retain(|(p, ..)| *p != port);
                self.servers.remove(&port);
                self.policies.remove(&port);
                self.staged.retain(|(p, _), _| *p != port);
            }
            Update::PolicyRule { port, at, rule } => {
                self.staged.insert((port, at), rule);
            }
            Update::PolicySet { port, rules, default, dscp, .. } => {
                let rules = (0..rules).map(|at| self.staged[&(port, at)]).collect();
                self.policies.insert(port, (rules, default, dscp));
            }
            Update::PolicyClear { port } => {
                self.policies.remove(&port);
            }
            Update::ServerSet { port, server: true } => {
                self.servers.insert(port);
            }
            Update::ServerSet { port, server: false } => {
                self.servers.remove(&port);
            }
            Update::SourceSet { port, ip } => {
                self.sources.insert((port, ip));
            }
            Update::SourceRemove { port, ip } => {
                self.refused.insert((port, ip));
                self.sources.remove(&(port, ip));
            }
            Update::VmSet { key, state } => {
                self.vms.insert(key, state);
            }
            Update::VmSettle { key, .. } => {
                self.settled.insert(key);
            }
            Update::VmRemove { key } => {
                self.vms.remove(&key);
            }
            Update::VnSilent { vn, flood_gap: Some(gap) } => {
                self.silent.insert(vn, gap);
            }
            Update::VnSilent { vn, flood_gap: None } => {
                self.silent.remove(&vn);
            }
            Update::VnMulticastSet { vn, multicast } => {
                self.multicast.insert(vn, multicast);
            }
            Update::VnUnderlayGroup { vn, tunnel } => {
                self.underlay_groups.remove(&vn);
                self.underlay_groups.extend(tunnel.map(|t| (vn, t)));
            }
            Update::GroupMemberSet { vn, group, member } => {
                self.members.insert((vn, group, member));
            }
            Update::GroupMemberRemove { vn, group, member } => {
                self.members.remove(&(vn, group, member));
            }
            Update::DomainSet { domain, v4, v6 } => {
                self.domains.insert(domain, (v4, v6));
            }
            Update::DomainRemove { domain } => {
                self.domains.remove(&domain);
            }
            Update::VnRoutingSet { vn, routing: Some(routing) } => {
                self.routing.insert(vn, routing);
            }
            Update::VnRoutingSet { vn, routing: None } => {
                self.routing.remove(&vn);
            }
            Update::SubnetSet { vn, prefix, gateway } => {
                self.subnets.insert((vn, prefix), gateway);
            }
            Update::SubnetRemove { vn, prefix } => {
                self.subnets.remove(&(vn, prefix));
            }
            Update::RouteSet { domain, prefix, to } => {
                self.routes.insert((domain, prefix), to);
            }
            Update::RouteRemove { domain, prefix } => {
                self.routes.remove(&(domain, prefix));
            }
            Update::NeighborSet { vn, ip, mac, router } => {
                self.routers.remove(&(vn, ip));
                self.routers.extend(router.then_some((vn, ip)));
                self.absent_ips.remove(&(vn, ip));
                self.neighbors.insert((vn, ip), Some(mac));
            }
            Update::NeighborAbsent { vn, ip, until } => {
                self.neighbors.remove(&(vn, ip));
                self.absent_ips.insert((vn, ip), until);
            }
            Update::NeighborRemove { vn, ip } => {
                self.neighbors.remove(&(vn, ip));
                self.absent_ips.remove(&(vn, ip));
            }
            Update::TunnelSet { tunnel, remote, mtu, header, .. } => {
                self.tunnels.insert(tunnel, (remote, Some((header, mtu))));
            }
            Update::TunnelPending { tunnel, remote } => {
                self.gather(tunnel);
                self.tunnels.insert(tunnel, (remote, None));
            }
            Update::TunnelTwin { tunnel, twin } => {
                self.twins.remove(&tunnel);
                self.twins.extend(twin.map(|t| (tunnel, t)));
            }
            Update::TunnelWay { tunnel, at, uplink, mtu, header } => {
                self.ways.insert((tunnel, at), (uplink, header, mtu));
            }
            Update::TunnelSpread { tunnel, shares: Some(shares) } => {
                self.spread.insert(tunnel, shares);
                self.ways.retain(|(t, at), _| *t != tunnel || shares.contains(at));
            }
            Update::TunnelSpread { tunnel, shares: None } => self.gather(tunnel),
            Update::TunnelRemove { tunnel } => {
                self.gather(tunnel);
                self.twins.remove(&tunnel);
                self.tunnels.remove(&tunnel);
            }
            Update::SenderAdd { vn, ip } => {
                self.senders.insert((vn, ip));
            }
            Update::SenderRemove { vn, ip } => {
                self.senders.remove(&(vn, ip));
            }
            Update::SendersKnown { vn, known: true } => {
                self.known_senders.insert(vn);
            }
            Update::SendersKnown { vn, known: false } => {
                self.known_senders.remove(&vn);
            }
            Update::ReplicaAdd { vn, tunnel } => {
                self.replicas.insert((vn, tunnel));
            }
            Update::ReplicaRemove { vn, tunnel } => {
                self.replicas.remove(&(vn, tunnel));
            }
        }
    }
}

fn vn_of(to: NextHop) -> VnIdx {
    match to {
        NextHop::Vm(key) => key.vn(),
        NextHop::Subnet { vn, .. } | NextHop::Gateway(vn) => vn,
    }
}

/// A lookup finds the prefix: a host route, or one of a length that is tried.
fn is_tried(prefix: Prefix, (v4, v6): &(Lengths, Lengths)) -> bool {
    let lengths = if prefix.addr().is_ipv4() { v4 } else { v6 };
    prefix == Prefix::host(prefix.addr()) || lengths.contains(&prefix.prefix_len())
}

/// What the underlay's owner of the address answers to an ARP request of ours.
pub fn arp_answer(uplink: PortIdx, frame: &[u8]) -> Option<Event> {
    let packet = Arp::new_checked(frame.get(ethernet::HEADER_LEN..)?).ok()?;
    if frame.len() != arp::FRAME_LEN || !packet.is_request() || packet.spa() == packet.tpa() {
        return None;
    }
    let mac = Mac([2, 0xff, 0, 0, 0, packet.tpa().octets()[3].wrapping_sub(1)]);
    Some(Event::Neighbor { uplink, ip: packet.tpa().into(), mac, solicited: true })
}
