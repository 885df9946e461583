//! Routing domains: the part that VNs have in them, and the routes that follow from it (R58).
//!
//! Each route is of a VN, and goes with the VN's part. Where two say something of one prefix, the order of [`Source`]
//! decides, so that the outcome does not depend on who came first. The lengths of a domain's prefixes are told before
//! the first route of a length, and taken back after the last one.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::net::IpAddr;

use godwit_model::DomainId;
use godwit_tables::update::{
    DomainIdx, Key, Lengths, MAX_DOMAINS, MAX_LENGTHS, NO_LENGTH, NextHop, Update, VnIdx, VnRouting,
};
use godwit_wire::{Mac, Prefix};

use super::vms::Answer;
use super::{DesiredState, Numbers};

/// The part of a VN in a routing domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RoutedVn {
    pub(crate) domain: DomainId,
    /// The gateway's MAC.
    pub(crate) mac: Mac,
    pub(crate) routed_only: bool,
    /// What control answers in it.
    pub(crate) dhcp_v4: bool,
    pub(crate) dhcp_v6: bool,
    pub(crate) advertise: bool,
    /// The VN is pulled: addresses without a route are asked for.
    pub(crate) ask: bool,
    /// Subnets with the gateway's address.
    pub(crate) subnets: BTreeMap<Prefix, IpAddr>,
    /// Static routes by a VM of this VN.
    pub(crate) statics: BTreeMap<Prefix, Mac>,
}

impl RoutedVn {
    fn routing(&self, domain: DomainIdx) -> VnRouting {
        VnRouting {
            dhcp_v4: self.dhcp_v4,
            dhcp_v6: self.dhcp_v6,
            advertise: self.advertise,
            ..VnRouting::new(domain, self.mac, self.routed_only)
        }
    }

    /// The addresses that the gateway has in the VN.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.subnets.values().copied().chain([IpAddr::V6(self.mac.link_local())])
    }

    /// A VM's address that others of the domain reach: one of a subnet. Anything else a VM may have bound by its own
    /// word, and it may be another VN's.
    fn reaches(&self, ip: IpAddr) -> bool {
        let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        !link_local && self.subnets.keys().any(|p| p.contains(ip))
    }
}

/// Whose a route is; the first counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Source {
    Gateway(VnIdx),
    Vm(VnIdx),
    Subnet(VnIdx),
    Static(VnIdx),
}

/// Routes of a worker that are told again when there is room, at most.
const MAX_REFUSED: usize = 65_536;

const FIRST: Source = Source::Gateway(VnIdx(u16::MIN));
const LAST: Source = Source::Static(VnIdx(u16::MAX));

#[derive(Debug)]
struct Domain {
    idx: DomainIdx,
    /// VNs that have a part in it.
    vns: usize,
    /// How many of its prefixes have each length, by family; host routes are not counted.
    v4: BTreeMap<u8, usize>,
    v6: BTreeMap<u8, usize>,
}

impl Domain {
    fn update(&self) -> Update {
        Update::DomainSet { domain: self.idx, v4: lengths(&self.v4), v6: lengths(&self.v6) }
    }
}

/// The longest come first. The directory allows no more than there is room for.
fn lengths(counted: &BTreeMap<u8, usize>) -> Lengths {
    let mut all = [NO_LENGTH; MAX_LENGTHS];
    for (place, len) in all.iter_mut().zip(counted.keys().rev()) {
        *place = *len;
    }
    all
}

/// Of one address.
fn is_host(prefix: Prefix) -> bool {
    prefix == Prefix::host(prefix.addr())
}

/// What workers should have of routing.
#[derive(Default, Debug)]
pub(super) struct DesiredRoutes {
    numbers: Numbers,
    domains: BTreeMap<DomainId, Domain>,
    ids: BTreeMap<DomainIdx, DomainId>,
    vns: BTreeMap<VnIdx, RoutedVn>,
    routes: BTreeMap<(DomainIdx, Prefix, Source), NextHop>,
    /// Numbers that name nothing any more, once that is applied.
    left: Vec<DomainIdx>,
    /// Routes that workers have no room for, by worker.
    refused: BTreeMap<usize, BTreeSet<(DomainIdx, Prefix)>>,
}

impl DesiredRoutes {
    /// The number of the domain that a VN has a part in, with that part.
    fn part(&self, vn: VnIdx) -> Option<(DomainIdx, &RoutedVn)> {
        let part = self.vns.get(&vn)?;
        Some((self.domains.get(&part.domain)?.idx, part))
    }

    /// The route that counts.
    fn route(&self, domain: DomainIdx, prefix: Prefix) -> Option<NextHop> {
        self.routes.range((domain, prefix, FIRST)..=(domain, prefix, LAST)).next().map(|(_, to)| *to)
    }

    /// All that count.
    fn routes(&self) -> impl Iterator<Item = Update> + '_ {
        let mut last = None;
        self.routes.iter().filter_map(move |(&(domain, prefix, _), &to)| {
            let first = last.replace((domain, prefix)) != Some((domain, prefix));
            first.then_some(Update::RouteSet { domain, prefix, to })
        })
    }

    /// What a new worker is told before it knows of VMs.
    pub(super) fn domains(&self) -> impl Iterator<Item = Update> + '_ {
        let subnets = self.vns.iter().flat_map(|(&vn, part)| {
            let set = move |(&prefix, &gateway): (&_, &_)| Update::SubnetSet { vn, prefix, gateway };
            part.subnets.iter().map(set)
        });
        self.domains.values().map(Domain::update).chain(subnets)
    }

    /// What it is told after that: nothing is routed before all routes are there.
    pub(super) fn parts(&self) -> impl Iterator<Item = Update> + '_ {
        let parts = self.vns.keys().filter_map(|&vn| {
            let (domain, part) = self.part(vn)?;
            Some(Update::VnRoutingSet { vn, routing: Some(part.routing(domain)) })
        });
        self.routes().chain(parts)
    }
}

impl DesiredState {
    /// A VN's part in a routing domain.
    pub(crate) fn routing(&self, vn: VnIdx) -> Option<&RoutedVn> {
        self.routes.vns.get(&vn)
    }

    /// Routes of a domain, host routes and others.
    pub(crate) fn routes_of(&self, id: DomainId) -> (usize, usize) {
        let (mut hosts, mut prefixes) = (0, 0);
        for (prefix, ..) in self.routes_in(id) {
            let count = if is_host(prefix) { &mut hosts } else { &mut prefixes };
            *count += 1;
        }
        (hosts, prefixes)
    }

    /// The routes of a domain that count, by prefix; of each whether it is a static one.
    pub(crate) fn routes_in(&self, id: DomainId) -> impl Iterator<Item = (Prefix, NextHop, bool)> + '_ {
        let domain = self.routes.domains.get(&id).map(|d| d.idx);
        let first = Prefix::of(IpAddr::from([0; 4]), 0);
        let all = domain.into_iter().flat_map(move |d| self.routes.routes.range((d, first, FIRST)..));
        let mine = all.take_while(move |((d, ..), _)| Some(*d) == domain);
        let mut last = None;
        mine.filter_map(move |(&(_, prefix, source), &to)| {
            let counts = last.replace(prefix) != Some(prefix);
            counts.then_some((prefix, to, matches!(source, Source::Static(_))))
        })
    }

    /// The MAC of the gateway, if `ip` is one of its addresses in the VN.
    pub(crate) fn gateway(&self, vn: VnIdx, ip: IpAddr) -> Option<Mac> {
        self.routing(vn).filter(|part| part.gateways().any(|g| g == ip)).map(|part| part.mac)
    }

    /// Numbers of domains that were given up since the last call; free once that is applied.
    pub(crate) fn take_left_domains(&mut self) -> Vec<DomainIdx> {
        core::mem::take(&mut self.routes.left)
    }

    /// Its removal is applied everywhere.
    pub(crate) fn free_domain(&mut self, domain: DomainIdx) {
        self.routes.numbers.free.insert(u32::from(domain.0));
    }

    /// Sets a VN's part in a routing domain; false: there are too many domains.
    pub(crate) fn set_routing(&mut self, vn: VnIdx, wanted: Option<RoutedVn>) -> bool {
        if self.routing(vn) == wanted.as_ref() {
            return true;
        }
        let before = self.routing(vn).map(|part| part.domain);
        if before.is_some() && before != wanted.as_ref().map(|part| part.domain) {
            self.leave_domain(vn);
        }
        match wanted {
            Some(wanted) => self.take_part(vn, wanted),
            None => true,
        }
    }

    fn take_part(&mut self, vn: VnIdx, new: RoutedVn) -> bool {
        let old = self.routes.vns.get(&vn).cloned();
        let joins = old.is_none();
        let Some(domain) = self.join_domain(new.domain, joins) else { return false };
        let none = (BTreeMap::new(), BTreeMap::new());
        let (subnets, statics) = old.as_ref().map_or((&none.0, &none.1), |old| (&old.subnets, &old.statics));
        let ask_changed = old.as_ref().is_some_and(|old| old.ask != new.ask);
        self.routes.vns.insert(vn, new.clone());
        for (&prefix, &gateway) in &new.subnets {
            let before = subnets.get(&prefix);
            if before != Some(&gateway) {
                self.set_subnet(vn, domain, prefix, gateway);
            }
            if before.is_none() || ask_changed {
                let to = NextHop::Subnet { vn, ask: new.ask };
                self.put_route(domain, prefix, Source::Subnet(vn), Some(to));
            }
        }
        self.put_statics(vn, domain, statics, &new.statics);
        if *subnets != new.subnets {
            self.drop_subnets(vn, domain, subnets);
            self.put_vms(vn, domain);
        }
        if old.is_none_or(|old| old.routing(domain) != new.routing(domain)) {
            self.emit(Update::VnRoutingSet { vn, routing: Some(new.routing(domain)) });
        }
        true
    }

    fn set_subnet(&mut self, vn: VnIdx, domain: DomainIdx, prefix: Prefix, gateway: IpAddr) {
        self.emit(Update::SubnetSet { vn, prefix, gateway });
        let to = NextHop::Gateway(vn);
        self.put_route(domain, Prefix::host(gateway), Source::Gateway(vn), Some(to));
    }

    /// Subnets and gateways of before that the VN has no more.
    fn drop_subnets(&mut self, vn: VnIdx, domain: DomainIdx, old: &BTreeMap<Prefix, IpAddr>) {
        let Some(now) = self.routing(vn).map(|part| part.subnets.clone()) else { return };
        for (prefix, gateway) in old {
            if !now.values().any(|g| g == gateway) {
                self.put_route(domain, Prefix::host(*gateway), Source::Gateway(vn), None);
            }
            if !now.contains_key(prefix) {
                self.put_route(domain, *prefix, Source::Subnet(vn), None);
                self.emit(Update::SubnetRemove { vn, prefix: *prefix });
            }
        }
    }

    fn put_statics(
        &mut self,
        vn: VnIdx,
        domain: DomainIdx,
        old: &BTreeMap<Prefix, Mac>,
        new: &BTreeMap<Prefix, Mac>,
    ) {
        for (&prefix, &mac) in new.iter().filter(|(prefix, mac)| old.get(prefix) != Some(mac)) {
            let to = NextHop::Vm(Key::new(vn, mac));
            self.put_route(domain, prefix, Source::Static(vn), Some(to));
        }
        for prefix in old.keys().filter(|prefix| !new.contains_key(prefix)) {
            self.put_route(domain, *prefix, Source::Static(vn), None);
        }
    }

    /// Sets a static route by a VM of the VN, if the VN has a part in the domain.
    pub(crate) fn set_static_route(&mut self, vn: VnIdx, id: DomainId, prefix: Prefix, via: Option<Mac>) {
        let Some((domain, _)) = self.routes.part(vn).filter(|(_, part)| part.domain == id) else { return };
        if let Some(part) = self.routes.vns.get_mut(&vn) {
            match via {
                Some(mac) => part.statics.insert(prefix, mac),
                None => part.statics.remove(&prefix),
            };
        }
        let to = via.map(|mac| NextHop::Vm(Key::new(vn, mac)));
        self.put_route(domain, prefix, Source::Static(vn), to);
    }

    /// The host routes of all VMs of the VN, after its subnets changed.
    fn put_vms(&mut self, vn: VnIdx, domain: DomainIdx) {
        let all = (vn, IpAddr::from([0; 4]))..=(vn, IpAddr::from([0xff; 16]));
        let all: Vec<(IpAddr, Answer)> = self.answers.range(all).map(|((_, ip), a)| (*ip, *a)).collect();
        for (ip, answer) in all {
            self.put_vm(vn, domain, ip, Some(answer));
        }
    }

    fn put_vm(&mut self, vn: VnIdx, domain: DomainIdx, ip: IpAddr, answer: Option<Answer>) {
        let reached = self
            .routing(vn)
            .is_some_and(|part| part.reaches(ip) && !part.subnets.values().any(|gateway| *gateway == ip));
        let to = match answer {
            Some(Answer::Owner { mac, .. }) if reached && self.routing(vn).is_some_and(|p| p.mac != mac) => {
                Some(NextHop::Vm(Key::new(vn, mac)))
            }
            _ => None,
        };
        self.put_route(domain, Prefix::host(ip), Source::Vm(vn), to);
    }

    /// An address of a VN has another owner: it has another host route.
    pub(super) fn follow_answer(&mut self, vn: VnIdx, ip: IpAddr, answer: Option<Answer>) {
        if let Some((domain, _)) = self.routes.part(vn) {
            self.put_vm(vn, domain, ip, answer);
        }
    }

    /// The domain that workers know by this number.
    pub(crate) fn domain_id(&self, domain: DomainIdx) -> Option<DomainId> {
        self.routes.ids.get(&domain).copied()
    }

    /// A worker has no room for a route.
    pub(crate) fn route_refused(&mut self, worker: usize, domain: DomainIdx, prefix: Prefix) {
        let of_worker = self.routes.refused.entry(worker).or_default();
        if of_worker.len() < MAX_REFUSED {
            of_worker.insert((domain, prefix));
        }
    }

    /// A worker has room for one route more: it is told one that it had no room for.
    pub(crate) fn retry_route(&mut self, worker: usize) {
        while let Some((domain, prefix)) = self.routes.refused.get_mut(&worker).and_then(BTreeSet::pop_first)
        {
            if let Some(to) = self.routes.route(domain, prefix) {
                return self.updates.push((worker, Update::RouteSet { domain, prefix, to }));
            }
        }
    }

    /// The worker has gone, or has empty tables.
    pub(super) fn forget_refused_routes(&mut self, worker: usize) {
        self.routes.refused.remove(&worker);
    }

    /// Tells a worker once more by which route an address is reached.
    pub(super) fn repeat_route(&mut self, worker: usize, vn: VnIdx, ip: IpAddr) {
        let Some((domain, _)) = self.routes.part(vn) else { return };
        let prefix = Prefix::host(ip);
        if let Some(to) = self.routes.route(domain, prefix) {
            self.updates.push((worker, Update::RouteSet { domain, prefix, to }));
        }
    }

    /// Ends a VN's part: first nothing is routed, then its routes go, then what nobody has a part in.
    fn leave_domain(&mut self, vn: VnIdx) {
        let Some((domain, part)) = self.routes.part(vn) else { return };
        let part = part.clone();
        self.emit(Update::VnRoutingSet { vn, routing: None });
        let empty = RoutedVn { subnets: BTreeMap::new(), statics: BTreeMap::new(), ..part.clone() };
        self.routes.vns.insert(vn, empty);
        self.put_statics(vn, domain, &part.statics, &BTreeMap::new());
        self.drop_subnets(vn, domain, &part.subnets);
        self.put_vms(vn, domain);
        self.routes.vns.remove(&vn);
        let btree_map::Entry::Occupied(mut entry) = self.routes.domains.entry(part.domain) else { return };
        entry.get_mut().vns -= 1;
        if entry.get().vns == 0 {
            entry.remove();
            self.routes.ids.remove(&domain);
            self.routes.left.push(domain);
            self.emit(Update::DomainRemove { domain });
        }
    }

    /// The number of a domain, for one more VN of it where it `joins`.
    fn join_domain(&mut self, id: DomainId, joins: bool) -> Option<DomainIdx> {
        if let Some(domain) = self.routes.domains.get_mut(&id) {
            domain.vns += usize::from(joins);
            return Some(domain.idx);
        }
        let number = self.routes.numbers.take(u32::try_from(MAX_DOMAINS).ok()?)?;
        let idx = DomainIdx(u16::try_from(number).ok()?);
        let domain = Domain { idx, vns: 1, v4: BTreeMap::new(), v6: BTreeMap::new() };
        self.emit(domain.update());
        self.routes.ids.insert(idx, id);
        self.routes.domains.insert(id, domain);
        Some(idx)
    }

    /// What one source says of a prefix; the workers hear of it where that changes what counts.
    fn put_route(&mut self, domain: DomainIdx, prefix: Prefix, source: Source, to: Option<NextHop>) {
        let before = self.routes.route(domain, prefix);
        match to {
            Some(to) => self.routes.routes.insert((domain, prefix, source), to),
            None => self.routes.routes.remove(&(domain, prefix, source)),
        };
        let now = self.routes.route(domain, prefix);
        if before == now {
            return;
        }
        match now {
            Some(to) => {
                if before.is_none() {
                    self.count_length(domain, prefix, true);
                }
                self.emit(Update::RouteSet { domain, prefix, to });
            }
            None => {
                self.emit(Update::RouteRemove { domain, prefix });
                self.count_length(domain, prefix, false);
            }
        }
    }

    /// One more prefix of this length, or one less; the lengths that workers try follow.
    fn count_length(&mut self, domain: DomainIdx, prefix: Prefix, more: bool) {
        if is_host(prefix) {
            return;
        }
        let routes = &mut self.routes;
        let domain = routes.ids.get(&domain).and_then(|id| routes.domains.get_mut(id));
        let Some(domain) = domain else { return };
        let before = domain.update();
        let counted = if prefix.addr().is_ipv4() { &mut domain.v4 } else { &mut domain.v6 };
        let count = counted.entry(prefix.prefix_len()).or_insert(0);
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            counted.remove(&prefix.prefix_len());
        }
        let now = domain.update();
        if before != now {
            self.emit(now);
        }
    }
}
