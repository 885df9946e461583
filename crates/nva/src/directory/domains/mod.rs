//! Routing domains (R58): each joins VNs, so that their VMs reach each other by routing.
//!
//! A domain and its routes are records of their own; a VN's part in it (mode, subnets) is a setting of the VN. Here are
//! the domains with the indexes that orders are checked against, and the orders about domains.
//!
//! | File | Content |
//! |---|---|
//! | `joins` | VNs that join a domain or leave it |
//! | `subnets` | subnets of VNs: orders, and what is refused of them |
//! | `routes` | static routes: orders, and what is refused of them |
//! | `vms` | what being routed means for VMs: which addresses and MACs they may have |
//! | `gateway` | which MAC the gateways may have |
//! | `told` | what NVEs are told of domains |

mod gateway;
mod joins;
mod routes;
mod subnets;
mod told;
mod vms;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::{DomainId, MAX_LENGTHS, StaticRoute, VmKey, VnRouting, check_name};
use godwit_wire::{Mac, Prefix, Vni};

use super::{Directory, DomainRecord, Level, Refusal, State, VnInfo, Write};

pub use gateway::{BadGatewayMac, check_gateway_mac};
pub use routes::RouteInfo;
pub(super) use subnets::{check_underlay_group, put_in_order};

/// Names that a refusal lists at most.
const SOME: usize = 5;

/// A domain as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainInfo {
    /// What was defined.
    pub record: DomainRecord,
    /// MAC of the gateway at every NVE: the installation's.
    pub gateway_mac: Mac,
    /// The VNs that it joins.
    pub vns: Vec<VnInfo>,
    /// Static routes.
    pub routes: usize,
}

/// A domain with all that is in it.
pub(super) struct Domain {
    name: String,
    vns: BTreeSet<Vni>,
    /// Whose subnets these are; none overlaps another one.
    subnets: BTreeMap<Prefix, Vni>,
    routes: BTreeMap<Prefix, VmKey>,
    /// How many prefixes of more than one address have each length: of IPv4 and IPv6.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl Domain {
    fn new(name: String) -> Domain {
        let (vns, subnets, routes) = Default::default();
        Domain { name, vns, subnets, routes, lengths: Default::default() }
    }

    /// The subnet that an address is in.
    fn subnet_of(&self, ip: IpAddr) -> Option<(Prefix, Vni)> {
        let (prefix, vni) = self.subnets.range(..=Prefix::host(ip)).next_back()?;
        prefix.contains(ip).then_some((*prefix, *vni))
    }

    /// A subnet that has an address in common with `prefix`. As none overlaps another one, it is the last that begins
    /// before the end of `prefix`, or there is none.
    fn overlapping(&self, prefix: &Prefix) -> Option<(Prefix, Vni)> {
        let (other, vni) = self.subnets.range(..=Prefix::host(prefix.last())).next_back()?;
        other.overlaps(prefix).then_some((*other, *vni))
    }

    /// A static route to `prefix` or to a part of it.
    fn route_within(&self, prefix: &Prefix) -> Option<(Prefix, VmKey)> {
        let (route, via) = self.routes.range(*prefix..=Prefix::host(prefix.last())).next()?;
        Some((*route, *via))
    }

    fn lengths_of(&self, prefix: &Prefix) -> &BTreeMap<u8, usize> {
        &self.lengths[usize::from(!prefix.is_ipv4())]
    }

    fn count(&mut self, prefix: &Prefix) {
        if !prefix.is_host() {
            *self.lengths[usize::from(!prefix.is_ipv4())].entry(prefix.prefix_len()).or_default() += 1;
        }
    }

    fn count_off(&mut self, prefix: &Prefix) {
        let lengths = &mut self.lengths[usize::from(!prefix.is_ipv4())];
        if let Some(count) = lengths.get_mut(&prefix.prefix_len()).filter(|_| !prefix.is_host()) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&prefix.prefix_len());
            }
        }
    }

    fn add_subnet(&mut self, prefix: Prefix, vni: Vni) {
        if self.subnets.insert(prefix, vni).is_none() {
            self.count(&prefix);
        }
    }

    fn remove_subnet(&mut self, prefix: &Prefix) {
        if self.subnets.remove(prefix).is_some() {
            self.count_off(prefix);
        }
    }
}

/// All domains, by number and by name.
#[derive(Default)]
pub(super) struct Domains {
    by_id: BTreeMap<DomainId, Domain>,
    names: BTreeMap<String, DomainId>,
    /// Prefixes that go by way of a VM, which is in one domain.
    by_hop: BTreeMap<VmKey, BTreeSet<Prefix>>,
    /// The last number that was given to a domain.
    last: u32,
}

impl Domains {
    /// What was persisted; VNs join as they are loaded.
    pub fn restored(state: &State) -> Domains {
        let mut all = Domains { last: state.last_domain, ..Domains::default() };
        for record in state.domains.values() {
            all.define(record.clone());
        }
        for ((id, prefix), via) in &state.routes {
            all.set_route(*id, *prefix, *via);
        }
        all
    }

    /// What is to be persisted.
    pub fn store(&self, state: &mut State) {
        state.last_domain = self.last;
        for (id, d) in &self.by_id {
            state.domains.insert(*id, DomainRecord { id: *id, name: d.name.clone() });
            state.routes.extend(d.routes.iter().map(|(prefix, via)| ((*id, *prefix), *via)));
        }
    }

    pub fn get(&self, id: DomainId) -> Option<&Domain> {
        self.by_id.get(&id)
    }

    /// The domain of this name.
    pub fn named(&self, name: &str) -> Option<DomainId> {
        self.names.get(name).copied()
    }

    fn define(&mut self, record: DomainRecord) {
        self.last = self.last.max(record.id.0);
        self.names.insert(record.name.clone(), record.id);
        self.by_id.insert(record.id, Domain::new(record.name));
    }

    /// A VN and its subnets are in the domain.
    pub fn join(&mut self, vni: Vni, routing: &VnRouting) {
        let Some(d) = self.by_id.get_mut(&routing.domain) else { return };
        d.vns.insert(vni);
        for s in &routing.subnets {
            d.add_subnet(s.prefix, vni);
        }
    }

    /// The VN is in it no more.
    pub fn leave(&mut self, vni: Vni, routing: &VnRouting) {
        let Some(d) = self.by_id.get_mut(&routing.domain) else { return };
        d.vns.remove(&vni);
        for s in &routing.subnets {
            d.remove_subnet(&s.prefix);
        }
    }

    fn set_route(&mut self, id: DomainId, prefix: Prefix, via: VmKey) {
        self.unset_route(id, &prefix);
        let Some(d) = self.by_id.get_mut(&id) else { return };
        d.routes.insert(prefix, via);
        d.count(&prefix);
        self.by_hop.entry(via).or_default().insert(prefix);
    }

    fn unset_route(&mut self, id: DomainId, prefix: &Prefix) -> Option<VmKey> {
        let d = self.by_id.get_mut(&id)?;
        let via = d.routes.remove(prefix)?;
        d.count_off(prefix);
        if let Some(prefixes) = self.by_hop.get_mut(&via) {
            prefixes.remove(prefix);
            if prefixes.is_empty() {
                self.by_hop.remove(&via);
            }
        }
        Some(via)
    }

    /// The prefixes that go by way of a VM.
    fn by_way_of(&self, key: VmKey) -> Option<&BTreeSet<Prefix>> {
        self.by_hop.get(&key)
    }
}

/// Some of the names, and how many more there are.
fn some<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let mut names = names.into_iter();
    let shown: Vec<S> = names.by_ref().take(SOME).collect();
    let shown = shown.iter().map(S::as_ref).collect::<Vec<_>>().join(", ");
    match names.count() {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Directory {
    /// Makes a domain; the same order again changes nothing.
    ///
    /// # Errors
    /// Where its name is none, or there are too many.
    pub(super) fn create_domain(&mut self, name: String) -> Result<DomainInfo, Refusal> {
        check_name("routing domain", &name)?;
        if self.domains.named(&name).is_none() {
            let full = Refusal::Full { what: "routing domains", max: self.config.max_domains };
            if self.domains.by_id.len() >= self.config.max_domains {
                return Err(full);
            }
            let id = DomainId(self.domains.last.checked_add(1).ok_or(full)?);
            let record = DomainRecord { id, name: name.clone() };
            self.persist(Write::PutDomain(record.clone()));
            self.log(Level::Info, format!("routing domain {name} is created with number {}", id.0));
            self.domains.define(record);
        }
        self.domain_named(&name)
    }

    /// Deletes a domain without VNs.
    ///
    /// # Errors
    /// Where it is not there, or joins VNs.
    pub(super) fn delete_domain(&mut self, name: &str) -> Result<DomainInfo, Refusal> {
        let info = self.domain_named(name)?;
        if !info.vns.is_empty() {
            let (domain, vns) = (name.into(), info.vns.len());
            let some = some(info.vns.iter().map(|v| &v.record.name));
            return Err(Refusal::DomainHasVns { domain, vns, some });
        }
        let id = info.record.id;
        // Next hops are VMs of its VNs: without these it has no routes.
        self.domains.by_id.remove(&id);
        self.domains.names.remove(name);
        self.persist(Write::RemoveDomain(id));
        self.log(Level::Info, format!("routing domain {name} is deleted"));
        Ok(info)
    }

    /// A domain by its name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn domain_named(&self, name: &str) -> Result<DomainInfo, Refusal> {
        let id = self.domain_id(name)?;
        self.domain_info(id).ok_or_else(|| Refusal::UnknownDomain(name.into()))
    }

    /// The number of the domain of this name. It is never that of another one.
    ///
    /// # Errors
    /// Where there is none.
    pub fn domain_id(&self, name: &str) -> Result<DomainId, Refusal> {
        self.domains.named(name).ok_or_else(|| Refusal::UnknownDomain(name.into()))
    }

    /// The name of a domain.
    pub fn domain_name(&self, id: DomainId) -> Option<&str> {
        self.domains.get(id).map(|d| d.name.as_str())
    }

    /// All domains, by number.
    pub fn domains(&self) -> Vec<DomainInfo> {
        self.domains.by_id.keys().filter_map(|id| self.domain_info(*id)).collect()
    }

    fn domain_info(&self, id: DomainId) -> Option<DomainInfo> {
        let d = self.domains.get(id)?;
        Some(DomainInfo {
            record: DomainRecord { id, name: d.name.clone() },
            gateway_mac: self.config.gateway_mac,
            vns: d.vns.iter().filter_map(|vni| self.vn_info(*vni)).collect(),
            routes: d.routes.len(),
        })
    }

    /// The VN's part in a domain.
    pub(super) fn routing_of(&self, vni: Vni) -> Option<&VnRouting> {
        self.vns.record(vni)?.settings.routing.as_ref()
    }

    /// The name of a VN that is defined.
    fn vn_name(&self, vni: Vni) -> String {
        self.vns.record(vni).map(|r| r.name.clone()).unwrap_or_default()
    }

    /// The domain's prefixes, with these new ones, have few enough lengths for a lookup that tries each.
    fn check_lengths(&self, id: DomainId, new: &[Prefix]) -> Result<(), Refusal> {
        let d = self.domains.get(id).ok_or_else(|| Refusal::UnknownDomain(format!("number {}", id.0)))?;
        for prefix in new.iter().filter(|p| !p.is_host()) {
            let mut all: BTreeSet<u8> = d.lengths_of(prefix).keys().copied().collect();
            let alike = new.iter().filter(|p| p.is_ipv4() == prefix.is_ipv4() && !p.is_host());
            all.extend(alike.map(Prefix::prefix_len));
            if all.len() > MAX_LENGTHS {
                let known = d.lengths_of(prefix).keys().map(|len| format!("/{len}"));
                return Err(Refusal::Lengths {
                    prefix: *prefix,
                    domain: d.name.clone(),
                    known: known.collect::<Vec<_>>().join(", "),
                    family: if prefix.is_ipv4() { "IPv4" } else { "IPv6" },
                    max: MAX_LENGTHS,
                });
            }
        }
        Ok(())
    }
}

/// A static route as NVEs are told of it.
fn route((prefix, via): (&Prefix, &VmKey)) -> StaticRoute {
    StaticRoute { prefix: *prefix, via: *via }
}
