//! Routing domains (R58): in which VNs this NVE takes part because of them, and what its workers route.
//!
//! A VM here sends to every VN of its VN's domain, so that this NVE has the records of all of them. A VN without a
//! port here is taken for that alone: it lingers, as one in which VMs that left are forwarded for (R17), and gets no
//! copies. When the last port of a domain goes, so do all VNs that were taken for it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use godwit_model::{Domain, DomainId, Gateway, StaticRoute, VmKey};
use godwit_wire::{Prefix, Vni};

use crate::desired::{Answer, RoutedVn};
use crate::io::Outputs;
use crate::mirror::RouteChange;

use super::{Nve, PortKind};

impl Nve {
    // ---- What the directory says ----

    /// The directory told of a domain.
    pub(super) fn domain_told(&mut self, domain: Domain, reset: bool, out: &mut Outputs) {
        let (id, mac) = (domain.id, domain.gateway_mac);
        let news = self.mirror.domains.get(id).is_none_or(|known| known.domain.gateway_mac != mac);
        let old = self.mirror.domains.told(domain, reset);
        if news {
            self.sync_domain(id, out);
        }
        self.follow_domain(id, out);
        let of_domain = self.mirror.domains.get(id).and_then(|d| d.domain.vns.first().copied());
        of_domain.into_iter().chain(old.iter().copied()).for_each(|vni| self.sync_senders(vni));
        for vni in old {
            self.leave_vn(vni, out);
        }
        self.check_peers(out);
    }

    /// The directory told of routes of a domain.
    pub(super) fn domain_routes_told(&mut self, id: DomainId, routes: &[StaticRoute], gone: &[Prefix]) {
        for change in self.mirror.domains.routes_told(id, routes, gone) {
            self.sync_static_route(id, change);
        }
    }

    /// All of a domain's routes were told; others, told before, are gone.
    pub(super) fn all_routes_told(&mut self, id: DomainId) {
        for change in self.mirror.domains.all_told(id) {
            self.sync_static_route(id, change);
        }
    }

    /// The domain is gone, or joins no VN that this NVE takes part in.
    pub(super) fn domain_gone(&mut self, id: DomainId, out: &mut Outputs) {
        let vns = self.mirror.domains.gone(id);
        self.sync_domain(id, out);
        self.domains.remove(&id);
        for vni in vns {
            self.leave_vn(vni, out);
        }
    }

    /// All VNs' snapshots are complete: of the domains that the NVA has not named in this session there are none.
    pub(super) fn forget_untold_domains(&mut self, out: &mut Outputs) {
        let (all, synced) = self.mirror.synced();
        if all != synced {
            return;
        }
        for id in self.mirror.domains.unconfirmed() {
            self.domain_gone(id, out);
        }
    }

    // ---- Which VNs are taken ----

    /// The domain that the VN's settings name.
    pub(super) fn domain_of(&self, vni: Vni) -> Option<DomainId> {
        self.mirror.settings(vni).routing.as_ref().map(|r| r.domain)
    }

    /// A port or a VM that runs or is held here is in a VN of the domain.
    fn has_part(&self, id: DomainId) -> bool {
        let joins = |vni: Vni| self.domain_of(vni) == Some(id);
        let ports = self.ports.values().any(|p| matches!(p.kind, PortKind::Access(key) if joins(key.vni)));
        ports || self.vms.iter().any(|(key, vm)| vm.is_present() && joins(key.vni))
    }

    /// Takes all VNs of a domain that this NVE has a part in, and drops them when it has none any more.
    pub(super) fn follow_domain(&mut self, id: DomainId, out: &mut Outputs) {
        let vns = self.mirror.domains.get(id).map(|d| d.domain.vns.clone()).unwrap_or_default();
        if self.has_part(id) {
            self.domains.insert(id);
            for vni in vns {
                if !self.take_vn(vni, out) {
                    return;
                }
            }
        } else if self.domains.remove(&id) {
            for vni in vns {
                self.leave_vn(vni, out);
            }
        }
    }

    /// A port of the VN went: it may have been the last of its domain.
    pub(super) fn follow_domain_of(&mut self, vni: Vni, out: &mut Outputs) {
        if let Some(id) = self.domain_of(vni).filter(|id| self.domains.contains(id))
            && !self.has_part(id)
        {
            self.follow_domain(id, out);
        }
    }

    /// VMs here send to the VN by way of its domain.
    pub(super) fn is_routed_to(&self, vni: Vni) -> bool {
        self.mirror.domains.of_vn(vni).any(|id| self.domains.contains(&id))
    }

    /// This NVE takes part in the VN, and no snapshot is on its way of it, or of one that its domain joins.
    pub(super) fn is_informed(&self, vni: Vni) -> bool {
        if self.desired.vn(vni).is_none() {
            return false;
        }
        let domain = self.domain_of(vni).and_then(|id| self.mirror.domains.get(id));
        if domain.is_some_and(|d| !self.domains.contains(&d.domain.id)) {
            return false;
        }
        let joined = domain.into_iter().flat_map(|d| d.domain.vns.iter().copied());
        joined.chain([vni]).all(|vni| !self.mirror.awaits_snapshot(vni))
    }

    /// Neither a port nor a forward entry here needs the VN.
    pub(super) fn is_only_routed_to(&self, vni: Vni) -> bool {
        self.lingering.contains(&vni) && !self.vms_of(vni).any(|(_, vm)| vm.needs_vn())
    }

    /// Begins to take part in a VN without a port; false where there is no room for it.
    fn take_vn(&mut self, vni: Vni, out: &mut Outputs) -> bool {
        if self.desired.vn(vni).is_some() {
            return true;
        }
        self.lingering.insert(vni);
        let begun = self.begin_vn(vni, out);
        if !begun {
            self.lingering.remove(&vni);
        }
        begun
    }

    // ---- What workers are told ----

    /// The VNs here whose settings name the domain, after it came, changed or went.
    fn sync_domain(&mut self, id: DomainId, out: &mut Outputs) {
        let vns: Vec<Vni> = self.mirror.vns().filter(|vni| self.domain_of(*vni) == Some(id)).collect();
        for vni in vns {
            self.sync_routing(vni, out);
            self.follow_advertisers(vni);
        }
    }

    /// A VN's part in its domain, and the gateway's addresses in it.
    pub(super) fn sync_routing(&mut self, vni: Vni, out: &mut Outputs) {
        let Some(vn) = self.desired.vn(vni) else { return };
        let wanted = self.routed_vn(vni);
        if self.desired.routing(vn) == wanted.as_ref() {
            return;
        }
        let gateways = |part: &RoutedVn| part.gateways().collect::<Vec<_>>();
        let mut ips: BTreeSet<IpAddr> = wanted.as_ref().map(gateways).into_iter().flatten().collect();
        ips.extend(self.desired.routing(vn).map(gateways).into_iter().flatten());
        if !self.desired.set_routing(vn, wanted) {
            self.alarm(format!("VN {vni} is not routed: too many routing domains on this NVE"), out);
        }
        for ip in ips {
            self.sync_ip(vni, ip);
        }
    }

    /// What the settings and the domain, where it is known, make of a VN.
    fn routed_vn(&self, vni: Vni) -> Option<RoutedVn> {
        let routing = self.mirror.settings(vni).routing.as_ref()?;
        let known = self.mirror.domains.get(routing.domain)?;
        let dhcp =
            |v4: bool| routing.subnets.iter().any(|s| s.dhcp.is_some() && s.prefix.addr().is_ipv4() == v4);
        Some(RoutedVn {
            domain: routing.domain,
            mac: known.domain.gateway_mac,
            routed_only: routing.routed_only,
            dhcp_v4: dhcp(true),
            dhcp_v6: dhcp(false),
            advertise: routing.subnets.iter().any(|s| s.advertise.is_some()),
            ask: self.is_pulled(vni),
            subnets: routing.subnets.iter().map(|s| (s.prefix, s.gateway)).collect(),
            statics: known.routes_via(vni),
        })
    }

    /// A static route leads elsewhere: the new way comes before the old one goes.
    fn sync_static_route(&mut self, id: DomainId, change: RouteChange) {
        let RouteChange { prefix, old, new } = change;
        let mut set = |key: VmKey, via| {
            if let Some(vn) = self.desired.vn(key.vni) {
                self.desired.set_static_route(vn, id, prefix, via);
            }
        };
        if let Some(key) = new {
            set(key, Some(key.mac));
        }
        if let Some(key) = old.filter(|old| new.is_none_or(|new| new.vni != old.vni)) {
            set(key, None);
        }
    }

    /// The gateway's answer on its own addresses.
    pub(super) fn gateway_answer(&self, vni: Vni, ip: IpAddr) -> Option<Answer> {
        let mac = self.desired.gateway(self.desired.vn(vni)?, ip)?;
        Some(Answer::Owner { mac, router: true })
    }

    /// The gateway in whose name a VM is told its address (R27): this NVE's own where the VN is routed.
    pub(super) fn gateway_for(&self, key: VmKey, ip: Ipv4Addr) -> Option<Gateway> {
        let part = self.desired.vn(key.vni).and_then(|vn| self.desired.routing(vn));
        let own = part.and_then(|part| {
            let of = part.subnets.iter().find(|(prefix, _)| prefix.contains(IpAddr::V4(ip)));
            match of {
                Some((_, IpAddr::V4(gateway))) => Some(Gateway { mac: part.mac, ip: *gateway }),
                _ => None,
            }
        });
        own.or_else(|| self.mirror.gateway(key.vni)).filter(|g| g.mac != key.mac)
    }
}
