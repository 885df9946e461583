//! What each update does to the tables.

use godwit_wire::{Instant, Mac};

use crate::event::Event;
use crate::neighbors::Neighbor;
use crate::update::{HoldLimits, Key, NextHop, PortIdx, PortRole, Update, VmState, VnIdx};
use crate::vms::{Fib, State};
use crate::{DropReason, OutOfRange, Tables};

use core::net::IpAddr;

impl Tables {
    /// Applies an update. Held frames that may go now are sent by the next tick, or before the next
    /// frame for the same VM. The event, if any, is for control: a table is full, or the last word
    /// on a handover that the update ended.
    #[must_use = "the event is for control"]
    pub fn apply(&mut self, update: Update, now: Instant) -> Option<Event> {
        self.counters.worker.updates += 1;
        match update {
            Update::VmSet { key, state } => self.set_vm(key, state, now),
            Update::VmSettle { key, hold } => self.settle_vm(key, hold, now),
            Update::VmRemove { key } => self.remove_vm(key, now),
            Update::NeighborSet { vn, ip, mac, router } => {
                self.set_neighbor(vn, ip, Neighbor::Known { mac, router }, mac, now)
            }
            Update::NeighborAbsent { vn, ip, until } => {
                self.set_neighbor(vn, ip, Neighbor::Absent { until }, Mac::ZERO, now)
            }
            Update::NeighborRemove { vn, ip } => {
                if self.neighbors.remove(vn, ip)
                    && let Some(v) = self.vns.slot(vn)
                {
                    v.neighbors = v.neighbors.saturating_sub(1);
                }
                None
            }
            Update::ReplicaAdd { vn, tunnel } => {
                let done = self.vns.add_replica(vn, tunnel);
                self.refused(done, Some(Key::new(vn, Mac::BROADCAST)))
            }
            Update::ReplicaRemove { vn, tunnel } => {
                self.vns.remove_replica(vn, tunnel);
                None
            }
            Update::SenderAdd { vn, ip } => {
                let done = self.vns.add_sender(vn, ip);
                self.refused(done, Some(Key::new(vn, Mac::BROADCAST)))
            }
            Update::SenderRemove { vn, ip } => {
                self.vns.remove_sender(vn, ip);
                None
            }
            Update::SendersKnown { vn, known } => {
                self.vns.set_senders_known(vn, known);
                None
            }
            Update::VnRemove { vn } => {
                self.remove_vn(vn);
                None
            }
            Update::SourceRulesSet { port, .. }
            | Update::MacSet { port, .. }
            | Update::MacRemove { port, .. }
            | Update::PrefixSet { port, .. }
            | Update::PrefixRemove { port, .. }
            | Update::SourceSet { port, .. }
            | Update::SourceRemove { port, .. } => self.apply_source(port, update, now),
            other => self.apply_topology(other, now),
        }
    }

    /// What a port's VM may send from.
    fn apply_source(&mut self, port: PortIdx, update: Update, now: Instant) -> Option<Event> {
        let ports = &mut self.ports;
        let done = match update {
            Update::SourceRulesSet { rules, .. } => ports.set_sources(port, |s| {
                s.set_rules(rules);
                Ok(())
            }),
            Update::MacSet { mac, shared, .. } => ports.set_sources(port, |s| s.add_mac(mac, shared)),
            Update::PrefixSet { prefix, kind, .. } => ports.set_sources(port, |s| s.add_prefix(prefix, kind)),
            Update::SourceSet { ip, .. } => ports.set_sources(port, |s| s.add(ip)),
            Update::MacRemove { mac, .. } => {
                ports.unset_sources(port, |s| s.remove_mac(mac));
                Ok(())
            }
            Update::PrefixRemove { prefix, kind, .. } => {
                ports.unset_sources(port, |s| s.remove_prefix(prefix, kind));
                Ok(())
            }
            Update::SourceRemove { ip, .. } => {
                ports.unset_sources(port, |s| s.remove(ip, now));
                Ok(())
            }
            _ => Ok(()),
        };
        let key = match self.ports.role(port) {
            Some(&PortRole::Access { vn, mac, .. }) => Some(Key::new(vn, mac)),
            _ => None,
        };
        self.refused(done, key)
    }

    fn apply_topology(&mut self, update: Update, now: Instant) -> Option<Event> {
        let done = match update {
            Update::VnSet { vn, vni, mtu, transparent_vlan } => self.vns.set(vn, vni, mtu, transparent_vlan),
            Update::VnSilent { vn, flood_gap } => {
                if let Some(v) = self.vns.slot(vn) {
                    v.flood_gap = flood_gap;
                }
                Ok(())
            }
            Update::PortSet { port, role } => self.ports.set(port, Some(role)),
            Update::ServerSet { port, server } => self.ports.set_server(port, server),
            Update::PolicyRule { port, at, rule } => self.ports.stage_rule(port, at, rule),
            Update::PolicySet { port, rules, default, rate, dscp } => {
                self.ports.enforce_policy(port, rules, default, rate, dscp)
            }
            Update::PolicyClear { port } => {
                self.ports.clear_policy(port);
                Ok(())
            }
            Update::PortRemove { port } => self.ports.set(port, None),
            Update::TunnelSet { tunnel, uplink, remote, mtu, header } => {
                // Frames may wait for just this.
                self.vms.due(now);
                self.tunnels.set(tunnel, uplink, remote, mtu, header)
            }
            Update::TunnelPending { tunnel, remote } => self.tunnels.set_pending(tunnel, remote),
            Update::TunnelTwin { tunnel, twin } => self.tunnels.set_twin(tunnel, twin),
            Update::TunnelWay { tunnel, at, uplink, mtu, header } => {
                self.tunnels.set_way(tunnel, at, uplink, mtu, header)
            }
            Update::TunnelSpread { tunnel, shares } => self.tunnels.spread(tunnel, shares),
            Update::TunnelRemove { tunnel } => {
                // Frames that wait for it must not wait for their age.
                self.vms.due(now);
                self.tunnels.remove(tunnel);
                Ok(())
            }
            // In `apply`, each by itself.
            Update::VmSet { .. }
            | Update::VmSettle { .. }
            | Update::VmRemove { .. }
            | Update::NeighborSet { .. }
            | Update::NeighborAbsent { .. }
            | Update::NeighborRemove { .. }
            | Update::SenderAdd { .. }
            | Update::SenderRemove { .. }
            | Update::SendersKnown { .. }
            | Update::ReplicaAdd { .. }
            | Update::ReplicaRemove { .. }
            | Update::VnRemove { .. }
            | Update::SourceRulesSet { .. }
            | Update::MacSet { .. }
            | Update::MacRemove { .. }
            | Update::PrefixSet { .. }
            | Update::PrefixRemove { .. }
            | Update::SourceSet { .. }
            | Update::SourceRemove { .. } => Ok(()),
            Update::VnMulticastSet { vn, multicast } => {
                if let Some(v) = self.vns.slot(vn) {
                    v.multicast = multicast;
                }
                Ok(())
            }
            Update::VnUnderlayGroup { vn, tunnel } => {
                if let Some(v) = self.vns.slot(vn) {
                    v.underlay_group = tunnel;
                }
                Ok(())
            }
            Update::GroupMemberSet { vn, group, member } => match self.vns.get(vn) {
                Some(_) => self.groups.add(vn, group, member),
                None => Err(OutOfRange),
            },
            Update::GroupMemberRemove { vn, group, member } => {
                self.groups.remove(vn, group, member);
                Ok(())
            }
            Update::DomainSet { .. }
            | Update::DomainRemove { .. }
            | Update::VnRoutingSet { .. }
            | Update::SubnetSet { .. }
            | Update::SubnetRemove { .. }
            | Update::RouteSet { .. }
            | Update::RouteRemove { .. } => return self.apply_routing(update),
        };
        self.refused(done, None)
    }

    /// Domains and their routes (R58). Control is told of a route without room, and of the room that there is later.
    fn apply_routing(&mut self, update: Update) -> Option<Event> {
        let before = self.routes.len();
        let done = self.set_routing(update);
        match update {
            Update::RouteSet { domain, prefix, .. } if done.is_err() => {
                self.routes_refused = self.routes_refused.saturating_add(1);
                self.refused(done, None);
                Some(Event::RouteFull { domain, prefix })
            }
            _ if self.routes.len() < before && self.routes_refused > 0 => {
                self.routes_refused -= 1;
                Some(Event::RouteRoom)
            }
            _ => self.refused(done, None),
        }
    }

    fn set_routing(&mut self, update: Update) -> Result<(), OutOfRange> {
        // Packets may wait for just this.
        self.awaited.told(match update {
            Update::RouteSet { domain, prefix, .. } | Update::RouteRemove { domain, prefix } => {
                Some((domain, prefix))
            }
            _ => None,
        });
        let routes = &mut self.routes;
        match update {
            Update::DomainSet { domain, v4, v6 } => return routes.set_domain(domain, v4, v6),
            Update::SubnetSet { vn, prefix, gateway } => return routes.set_subnet(vn, prefix, gateway),
            Update::RouteSet { domain, prefix, to } => {
                let fib = if let NextHop::Vm(vm) = to { self.vms.get(vm) } else { None };
                return routes.set(domain, prefix, to, fib);
            }
            Update::DomainRemove { domain } => routes.remove_domain(domain),
            Update::VnRoutingSet { vn, routing } => return routes.set_vn(vn, routing),
            Update::SubnetRemove { vn, prefix } => routes.remove_subnet(vn, prefix),
            Update::RouteRemove { domain, prefix } => routes.remove(domain, prefix),
            _ => {}
        }
        Ok(())
    }

    /// Counts a refusal and puts it into words.
    fn refused(&mut self, done: Result<(), OutOfRange>, key: Option<Key>) -> Option<Event> {
        if done.is_ok() {
            return None;
        }
        self.counters.worker.table_full += 1;
        key.map(|key| Event::TableFull { key })
    }

    fn set_vm(&mut self, key: Key, state: VmState, now: Instant) -> Option<Event> {
        if self.vns.slot(key.vn()).is_none() {
            return self.refused(Err(OutOfRange), Some(key));
        }
        let plain = match state {
            VmState::Local { port } => Some(Fib::Local(port)),
            VmState::Remote { to } => Some(Fib::Remote(to)),
            VmState::Ageing { to } => Some(Fib::Ageing(to)),
            VmState::Detached { reset } => Some(Fib::Detached(reset)),
            _ => None,
        };
        match (self.vms.get(key), plain) {
            (Some(Fib::Special(at)), _) => {
                self.query_over(at);
                self.vms.enter(at, state, now);
                let word = self.vms.collapsed(at, now)?;
                let last = self.vms.report(at, now, true);
                self.vms.free_special(at, Some(word), &mut self.routes);
                last
            }
            (_, Some(word)) => match self.vms.set_plain(key, word, &mut self.routes) {
                Ok(is_new) => {
                    self.count_vm(key, is_new);
                    None
                }
                Err(_) => self.refused(Err(OutOfRange), Some(key)),
            },
            (_, None) => match (self.special(key, State::Known(state)), state) {
                (Some(at), _) => {
                    self.vms.enter(at, state, now);
                    None
                }
                // Delivered out of order rather than not at all (R77).
                (None, VmState::Arrived { port, .. }) => self.set_vm(key, VmState::Local { port }, now),
                (None, _) => self.refused(Err(OutOfRange), Some(key)),
            },
        }
    }

    fn settle_vm(&mut self, key: Key, hold: HoldLimits, now: Instant) -> Option<Event> {
        let at = match self.vms.get(key)? {
            Fib::Special(at) => at,
            // Where there is no room it is delivered as before, and what its port does not take is dropped.
            Fib::Local(port) => self.special(key, State::Known(VmState::Local { port }))?,
            Fib::Remote(_) | Fib::Ageing(_) | Fib::Detached(_) => return None,
        };
        self.vms.begin_settling(at, hold, now);
        None
    }

    fn remove_vm(&mut self, key: Key, now: Instant) -> Option<Event> {
        match self.vms.get(key)? {
            Fib::Special(at) => {
                self.drop_all_held(at, DropReason::HoldAborted);
                let last = self.vms.report(at, now, true);
                self.forget(at, DropReason::HoldAborted);
                last
            }
            Fib::Local(_) | Fib::Remote(_) | Fib::Ageing(_) | Fib::Detached(_) => {
                self.vms.remove_plain(key, &mut self.routes);
                self.uncount_vm(key);
                None
            }
        }
    }

    fn set_neighbor(&mut self, vn: VnIdx, ip: IpAddr, n: Neighbor, mac: Mac, now: Instant) -> Option<Event> {
        if self.vns.slot(vn).is_none() {
            return self.refused(Err(OutOfRange), Some(Key::new(vn, mac)));
        }
        let mut set = self.neighbors.set(vn, ip, n);
        if set.is_err() {
            let vns = &mut self.vns;
            let purged = self.neighbors.purge(now, |vn| {
                if let Some(v) = vns.slot(vn) {
                    v.neighbors = v.neighbors.saturating_sub(1);
                }
            });
            if purged {
                set = self.neighbors.set(vn, ip, n);
            }
        }
        self.asks.told(vn, ip);
        self.awaited.told_of(vn, ip);
        match set {
            Ok(is_new) => {
                if is_new && let Some(v) = self.vns.slot(vn) {
                    v.neighbors += 1;
                }
                None
            }
            Err(e) => self.refused(Err(e), Some(Key::new(vn, mac))),
        }
    }

    /// Forgets a VN. Control removes its VMs and neighbors one by one before; what it left over is
    /// looked for in the whole of each table, so that a VN that gets the number next inherits
    /// nothing.
    fn remove_vn(&mut self, vn: VnIdx) {
        let Some(left) = self.vns.slot(vn).map(|v| (v.vms, v.neighbors)) else { return };
        if left.0 > 0 {
            let mut place = 0;
            while let Some(at) = self.vms.at_place(place) {
                if self.vms.special(at).key.vn() == vn {
                    self.forget(at, DropReason::HoldAborted);
                } else {
                    place += 1;
                }
            }
            self.vms.remove_vn(vn, &mut self.routes);
        }
        if left.1 > 0 {
            self.neighbors.remove_vn(vn);
        }
        let mut at = 0;
        while let Some(ask) = self.asks.get(at) {
            if ask.vn == vn {
                self.take_ask(at);
                self.counters.drop_one(ask.port, DropReason::AskExpired);
            } else {
                at += 1;
            }
        }
        if let Some(v) = self.vns.slot(vn) {
            (v.vms, v.neighbors) = (0, 0);
        }
        self.routes.remove_vn(vn);
        self.groups.remove_vn(vn);
        self.vns.remove(vn);
    }
}
