//! Static routes: prefixes that go by way of a VM.
//!
//! A route leads away from the switches' gateways into a VM, so it may not cover what they deliver themselves: it is
//! refused where it is a subnet or a part of one, and allowed where it contains subnets, a default route say. What the
//! VM sends for others from there must be allowed to it (R94), by `--route` or `--router`; a definition that takes this
//! away is refused while the route is there.

use godwit_model::routable::{holds, unrouted};
use godwit_model::{DomainId, MAX_ROUTES, StaticRoute, VmKey, VmRecord};
use godwit_wire::{Prefix, Vni};

use super::super::{Directory, Level, Refusal, VmDefinition, Write};
use super::{Domain, some};

/// A static route as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteInfo {
    /// Name of the domain.
    pub domain: String,
    /// The prefix.
    pub prefix: Prefix,
    /// The next hop.
    pub via: VmKey,
    /// Its name.
    pub vm: String,
    /// The name of its VN.
    pub vn: String,
}

/// What a VM may send from covers the prefix.
fn may_route(router: bool, routes: &[Prefix], prefix: &Prefix) -> bool {
    router || routes.iter().any(|r| holds(r, prefix))
}

impl Directory {
    /// Packets of the domain for the prefix go to a VM; a route that is there gets this next hop.
    ///
    /// # Errors
    /// Where the domain or the VM is not there, the VM is not in the domain or may not send from the prefix, or the
    /// prefix cannot be routed so.
    pub(in super::super) fn add_route(
        &mut self,
        domain: &str,
        prefix: Prefix,
        via: &str,
    ) -> Result<RouteInfo, Refusal> {
        let id = self.domain_id(domain)?;
        let vm = self.vm_named(via)?;
        let key = vm.key;
        self.check_route(id, prefix, vm)?;
        let before = self.domains.get(id).and_then(|d| d.routes.get(&prefix).copied());
        if before != Some(key) {
            self.domains.set_route(id, prefix, key);
            let route = StaticRoute { prefix, via: key };
            self.persist(Write::PutRoute(id, route));
            let instead = before.map(|k| format!(", not {k} any more")).unwrap_or_default();
            self.log(
                Level::Info,
                format!("routing domain {domain}: {prefix} goes by VM {via} ({key}){instead}"),
            );
            self.tell_routes(id, &[route], &[]);
        }
        self.route_info(id, prefix).ok_or_else(|| unknown(domain, prefix))
    }

    fn check_route(&self, id: DomainId, prefix: Prefix, vm: &VmRecord) -> Result<(), Refusal> {
        let d = self.domains.get(id).ok_or_else(|| Refusal::UnknownDomain(String::new()))?;
        if let Some(why) = unrouted(&prefix, true) {
            return Err(Refusal::BadRoute { prefix, why });
        }
        if !d.vns.contains(&vm.key.vni) {
            return Err(Refusal::NextHopElsewhere {
                vm: vm.name.clone(),
                vn: self.vn_name(vm.key.vni),
                domain: d.name.clone(),
            });
        }
        if let Some((subnet, vni)) = d.subnet_of(prefix.addr()).filter(|(s, _)| holds(s, &prefix)) {
            return Err(self.route_in_subnet(d, prefix, subnet, vni));
        }
        if !may_route(vm.router_pinned, &vm.allowed.routes, &prefix) {
            return Err(Refusal::MayNotRoute { vm: vm.name.clone(), prefix });
        }
        if !d.routes.contains_key(&prefix) && d.routes.len() >= MAX_ROUTES {
            return Err(Refusal::AtMost { what: format!("routes of domain {:?}", d.name), max: MAX_ROUTES });
        }
        self.check_lengths(id, &[prefix])
    }

    pub(super) fn route_in_subnet(&self, d: &Domain, prefix: Prefix, subnet: Prefix, vni: Vni) -> Refusal {
        Refusal::RouteInSubnet { prefix, domain: d.name.clone(), subnet, vn: self.vn_name(vni) }
    }

    /// The prefix is routed no more; gives the route as it was.
    ///
    /// # Errors
    /// Where there is no such route.
    pub(in super::super) fn remove_route(
        &mut self,
        domain: &str,
        prefix: Prefix,
    ) -> Result<RouteInfo, Refusal> {
        let id = self.domain_id(domain)?;
        let info = self.route_info(id, prefix).ok_or_else(|| unknown(domain, prefix))?;
        self.domains.unset_route(id, &prefix);
        self.persist(Write::RemoveRoute(id, prefix));
        self.log(Level::Info, format!("routing domain {domain}: {prefix} is not routed any more"));
        self.tell_routes(id, &[], &[prefix]);
        Ok(info)
    }

    fn route_info(&self, id: DomainId, prefix: Prefix) -> Option<RouteInfo> {
        let d = self.domains.get(id)?;
        Some(self.described(d, prefix, *d.routes.get(&prefix)?))
    }

    fn described(&self, d: &Domain, prefix: Prefix, via: VmKey) -> RouteInfo {
        let vm = self.records.get(&via).map(|r| r.name.clone()).unwrap_or_default();
        RouteInfo { domain: d.name.clone(), prefix, via, vm, vn: self.vn_name(via.vni) }
    }

    /// All static routes of a domain, by prefix.
    ///
    /// # Errors
    /// Where there is no such domain.
    pub fn routes(&self, domain: &str) -> Result<Vec<RouteInfo>, Refusal> {
        let d = self.domains.get(self.domain_id(domain)?);
        let routes = d.into_iter().flat_map(|d| d.routes.iter().map(move |(p, via)| (d, *p, *via)));
        Ok(routes.map(|(d, prefix, via)| self.described(d, prefix, via)).collect())
    }

    /// A VM that is a next hop is not deleted.
    pub(in super::super) fn check_not_next_hop(&self, r: &VmRecord) -> Result<(), Refusal> {
        let Some(prefixes) = self.domains.by_way_of(r.key) else { return Ok(()) };
        let domain = self.routing_of(r.key.vni).and_then(|v| self.domain_name(v.domain)).unwrap_or_default();
        Err(Refusal::IsNextHop {
            vm: r.name.clone(),
            domain: domain.into(),
            routes: prefixes.len(),
            some: some(prefixes.iter().map(Prefix::to_string)),
        })
    }

    /// A VM that is a next hop may still send from what goes by it.
    pub(super) fn check_next_hop(&self, key: VmKey, def: &VmDefinition) -> Result<(), Refusal> {
        let mut prefixes = self.domains.by_way_of(key).into_iter().flatten();
        match prefixes.find(|p| !may_route(def.router, &def.allowed.routes, p)) {
            None => Ok(()),
            Some(prefix) => {
                let routing = self.routing_of(key.vni);
                let domain = routing.and_then(|r| self.domain_name(r.domain)).unwrap_or_default().into();
                Err(Refusal::RouteNeeds { vm: def.name.clone(), prefix: *prefix, domain })
            }
        }
    }
}

fn unknown(domain: &str, prefix: Prefix) -> Refusal {
    Refusal::UnknownRoute { domain: domain.into(), prefix }
}
