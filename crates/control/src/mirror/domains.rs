//! Routing domains as the directory told them: the VNs that they join, and their static routes (R58).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use godwit_model::{Domain, DomainId, StaticRoute, VmKey};
use godwit_wire::{Mac, Prefix, Vni};

/// A static route that changed: where it led, and where it leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RouteChange {
    pub(crate) prefix: Prefix,
    pub(crate) old: Option<VmKey>,
    pub(crate) new: Option<VmKey>,
}

/// One domain.
#[derive(Debug)]
pub(crate) struct KnownDomain {
    pub(crate) domain: Domain,
    routes: BTreeMap<Prefix, VmKey>,
    /// The same by the VNs of their next hops.
    by_vn: BTreeSet<(Vni, Prefix)>,
    /// Told in this session.
    confirmed: bool,
    /// Routes that were there before they were told anew, and have not been named yet.
    untold: BTreeSet<Prefix>,
}

impl KnownDomain {
    /// Routes whose next hop is in the VN.
    pub(crate) fn routes_via(&self, vni: Vni) -> BTreeMap<Prefix, Mac> {
        let first = Prefix::of(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let mine = self.by_vn.range((vni, first)..).take_while(|(v, _)| *v == vni);
        mine.filter_map(|(_, prefix)| Some((*prefix, self.routes.get(prefix)?.mac))).collect()
    }

    fn set_route(&mut self, prefix: Prefix, new: Option<VmKey>) -> RouteChange {
        let old = match new {
            Some(via) => self.routes.insert(prefix, via),
            None => self.routes.remove(&prefix),
        };
        if let Some(via) = old {
            self.by_vn.remove(&(via.vni, prefix));
        }
        if let Some(via) = new {
            self.by_vn.insert((via.vni, prefix));
        }
        RouteChange { prefix, old, new }
    }
}

/// All domains that were told.
#[derive(Default, Debug)]
pub(crate) struct Domains {
    known: BTreeMap<DomainId, KnownDomain>,
    by_vn: BTreeSet<(Vni, DomainId)>,
}

impl Domains {
    pub(crate) fn get(&self, id: DomainId) -> Option<&KnownDomain> {
        self.known.get(&id)
    }

    /// The domains that join a VN: one, but for a moment while it changes from one to another.
    pub(crate) fn of_vn(&self, vni: Vni) -> impl Iterator<Item = DomainId> + '_ {
        let all = (vni, DomainId(u32::MIN))..=(vni, DomainId(u32::MAX));
        self.by_vn.range(all).map(|(_, id)| *id)
    }

    /// All of them, by number.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Domain> {
        self.known.values().map(|d| &d.domain)
    }

    /// Takes what the directory says of a domain. Returns the VNs that left it.
    pub(crate) fn told(&mut self, domain: Domain, reset: bool) -> Vec<Vni> {
        let id = domain.id;
        let old: Vec<Vni> = self.get(id).map(|d| d.domain.vns.clone()).unwrap_or_default();
        let stay: BTreeSet<Vni> = domain.vns.iter().copied().collect();
        for vni in &old {
            self.by_vn.remove(&(*vni, id));
        }
        self.by_vn.extend(domain.vns.iter().map(|vni| (*vni, id)));
        let known = self.known.entry(id).or_insert_with(|| KnownDomain {
            domain: domain.clone(),
            routes: BTreeMap::new(),
            by_vn: BTreeSet::new(),
            confirmed: true,
            untold: BTreeSet::new(),
        });
        known.domain = domain;
        known.confirmed = true;
        if reset {
            known.untold = known.routes.keys().copied().collect();
        }
        old.into_iter().filter(|vni| !stay.contains(vni)).collect()
    }

    /// Takes what the directory says of routes of a domain. Returns those that changed: the ones that go first, so that
    /// no more are there than the directory allows.
    pub(crate) fn routes_told(
        &mut self,
        id: DomainId,
        routes: &[StaticRoute],
        gone: &[Prefix],
    ) -> Vec<RouteChange> {
        let Some(known) = self.known.get_mut(&id) else { return Vec::new() };
        let stays: BTreeSet<Prefix> = routes.iter().map(|r| r.prefix).collect();
        for prefix in stays.iter().chain(gone) {
            known.untold.remove(prefix);
        }
        let gone = gone.iter().copied().filter(|p| !stays.contains(p));
        let mut changes: Vec<RouteChange> = gone.map(|p| known.set_route(p, None)).collect();
        changes.extend(routes.iter().map(|r| known.set_route(r.prefix, Some(r.via))));
        changes.retain(|c| c.old != c.new);
        changes
    }

    /// All routes of the domain have been told: those that were not are gone.
    pub(crate) fn all_told(&mut self, id: DomainId) -> Vec<RouteChange> {
        let Some(known) = self.known.get_mut(&id) else { return Vec::new() };
        let untold = core::mem::take(&mut known.untold);
        untold.into_iter().map(|p| known.set_route(p, None)).collect()
    }

    /// The domain is gone. Returns its VNs.
    pub(crate) fn gone(&mut self, id: DomainId) -> Vec<Vni> {
        let vns = self.known.remove(&id).map(|d| d.domain.vns).unwrap_or_default();
        for vni in &vns {
            self.by_vn.remove(&(*vni, id));
        }
        vns
    }

    /// The session is over: what the next one does not tell is gone.
    pub(crate) fn doubt(&mut self) {
        self.known.values_mut().for_each(|d| d.confirmed = false);
    }

    /// Those that this session has not told.
    pub(crate) fn unconfirmed(&self) -> Vec<DomainId> {
        self.known.values().filter(|d| !d.confirmed).map(|d| d.domain.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vni(n: u32) -> Vni {
        Vni::from_low24(n)
    }

    fn domain(vns: &[u32]) -> Domain {
        let vns = vns.iter().map(|n| vni(*n)).collect();
        Domain { id: DomainId(1), name: String::from("d"), gateway_mac: godwit_model::GATEWAY_MAC, vns }
    }

    fn route(prefix: &str, vn: u32) -> StaticRoute {
        StaticRoute {
            prefix: prefix.parse().unwrap(),
            via: VmKey { vni: vni(vn), mac: Mac([2, 0, 0, 0, 0, 1]) },
        }
    }

    #[test]
    fn r58_only_what_changed_is_a_change_and_what_goes_comes_first() {
        let mut all = Domains::default();
        let (a, b) = (route("10.1.0.0/16", 1), route("10.2.0.0/16", 2));
        let id = DomainId(1);
        assert_eq!(all.routes_told(id, &[a], &[]), [], "nobody has told of the domain");
        assert_eq!(all.told(domain(&[1, 2]), true), []);
        assert_eq!(all.routes_told(id, &[a, b], &[]).len(), 2);
        all.told(domain(&[1, 2]), true);
        assert_eq!(all.routes_told(id, &[a, b], &[]), [], "said again");
        let b2 = StaticRoute { via: a.via, ..b };
        let changes = all.routes_told(id, &[b2], &[a.prefix]);
        assert_eq!(changes[0], RouteChange { prefix: a.prefix, old: Some(a.via), new: None });
        assert_eq!(changes[1], RouteChange { prefix: b.prefix, old: Some(b.via), new: Some(a.via) });
        let known = all.get(DomainId(1)).unwrap();
        assert_eq!(known.routes_via(vni(2)).len(), 0);
        assert_eq!(known.routes_via(vni(1)).into_iter().collect::<Vec<_>>(), [(b.prefix, a.via.mac)]);
        assert_eq!(all.told(domain(&[1]), true), [vni(2)]);
        assert_eq!(all.routes_told(id, &[a], &[]).len(), 1, "more may be told");
        let gone = RouteChange { prefix: b.prefix, old: Some(a.via), new: None };
        assert_eq!(all.all_told(DomainId(1)), [gone], "what was told before and is not told anew");
        assert_eq!(all.all_told(DomainId(1)), []);
        assert_eq!((all.of_vn(vni(1)).count(), all.of_vn(vni(2)).count()), (1, 0));
        assert_eq!(all.gone(DomainId(1)), [vni(1)]);
        assert_eq!((all.of_vn(vni(1)).count(), all.all().count()), (0, 0));
    }
}
