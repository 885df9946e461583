//! Routes of routing domains (R58): host routes and prefixes of all domains in one table, and what a VN has of routing.
//!
//! A lookup looks for the host route; where there is none, it tries the domain's prefix lengths, longest first. A
//! domain costs its entry here and its routes; no VN has a table of its own.
//!
//! A route to a VM has all that a frame needs in its own entry, so that a routed frame costs one lookup as a bridged
//! one does: the VM's MAC and, where the forwarding table says no more of it than a tunnel or a port, these too. Each
//! change of what that table says of a VM goes by `Routes::follow`: a routed frame never passes by a special entry.

mod burst;
mod entry;
mod filter;
mod followers;
mod table;

use core::net::IpAddr;

use godwit_wire::Prefix;

use crate::update::{DomainIdx, Key, Lengths, MAX_LENGTHS, NO_LENGTH, NextHop, VnIdx, VnRouting};
use crate::vms::Fib;
use crate::{OutOfRange, TablesConfig};

use entry::{Scope, Words};
use followers::Followers;
use table::{Place, Table};

pub use burst::{InDomain, Step, Tries};
pub use entry::Found;

/// A subnet of a VN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Subnet {
    vn: VnIdx,
    prefix: Prefix,
    gateway: IpAddr,
}

/// The prefix lengths of a routing domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Domain {
    v4: Lengths,
    v6: Lengths,
    /// Those of each family that lead to VMs.
    to_vms: [ToVms; 2],
}

/// Prefixes that lead to VMs, host routes left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ToVms {
    number: u32,
    /// None is shorter.
    shortest: u8,
}

impl ToVms {
    const NONE: ToVms = ToVms { number: 0, shortest: NO_LENGTH };

    fn add(&mut self, len: u8) {
        *self = ToVms { number: self.number.saturating_add(1), shortest: self.shortest.min(len) };
    }

    fn remove(&mut self) {
        self.number = self.number.saturating_sub(1);
        if self.number == 0 {
            *self = ToVms::NONE;
        }
    }
}

const VACANT: Domain =
    Domain { v4: [NO_LENGTH; MAX_LENGTHS], v6: [NO_LENGTH; MAX_LENGTHS], to_vms: [ToVms::NONE; 2] };

/// All routes.
pub struct Routes {
    table: Table,
    followers: Followers,
    domains: Vec<Domain>,
    vns: Vec<Option<VnRouting>>,
    subnets: Vec<Subnet>,
    subnet_capacity: usize,
}

impl Routes {
    pub(crate) fn new(config: &TablesConfig) -> Routes {
        Routes {
            table: Table::new(config.route_capacity, config.table_seed),
            followers: Followers::new(config.route_capacity, config.vn_capacity, config.table_seed),
            domains: vec![VACANT; config.domain_capacity],
            vns: vec![None; config.vn_capacity],
            subnets: Vec::with_capacity(config.subnet_capacity),
            subnet_capacity: config.subnet_capacity,
        }
    }

    /// Routes of all domains.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where packets of the domain for `dst` go: by the host route, else by the longest prefix. Martians have
    /// prefixes too here: who routes looks at `godwit_wire::route::is_martian`.
    pub fn get(&self, domain: DomainIdx, dst: IpAddr) -> Option<NextHop> {
        self.matching(domain, dst).map(|(_, to)| to)
    }

    /// The same with the prefix of the route.
    pub fn matching(&self, domain: DomainIdx, dst: IpAddr) -> Option<(Prefix, NextHop)> {
        let exact = |prefix: Prefix| Some((prefix, self.exact(domain, prefix)?));
        if let Some(found) = exact(Prefix::host(dst)) {
            return Some(found);
        }
        let d = self.domains.get(usize::from(domain.0))?;
        let lengths = if dst.is_ipv4() { &d.v4 } else { &d.v6 };
        let known = lengths.iter().take_while(|len| **len != NO_LENGTH);
        known.filter_map(|len| exact(Prefix::of(dst, *len))).next()
    }

    /// Where the route of just this prefix leads.
    pub fn exact(&self, domain: DomainIdx, prefix: Prefix) -> Option<NextHop> {
        let (place, number) = self.find(domain, prefix)?;
        Some(self.table.get(place).found()?.next_hop(self.followers.vm(number)))
    }

    /// The VN's part in a routing domain.
    #[inline]
    pub fn of_vn(&self, vn: VnIdx) -> Option<VnRouting> {
        *self.vns.get(usize::from(vn.0))?
    }

    /// The gateway's address in the VN towards `ip`: that of its subnet, else the first of the family.
    pub fn gateway(&self, vn: VnIdx, ip: IpAddr) -> Option<IpAddr> {
        let mut of_family = self.subnets_of(vn).filter(|s| s.gateway.is_ipv4() == ip.is_ipv4()).peekable();
        let first = of_family.peek().map(|s| s.gateway);
        of_family.find(|s| s.prefix.contains(ip)).map(|s| s.gateway).or(first)
    }

    /// They are sorted by their VNs.
    fn subnets_of(&self, vn: VnIdx) -> impl Iterator<Item = &Subnet> {
        let from = self.subnets.partition_point(|s| s.vn < vn);
        self.subnets[from..].iter().take_while(move |s| s.vn == vn)
    }

    pub(crate) fn set_domain(
        &mut self,
        domain: DomainIdx,
        v4: Lengths,
        v6: Lengths,
    ) -> Result<(), OutOfRange> {
        let d = self.domains.get_mut(usize::from(domain.0)).ok_or(OutOfRange)?;
        (d.v4, d.v6) = (v4, v6);
        Ok(())
    }

    pub(crate) fn remove_domain(&mut self, domain: DomainIdx) {
        if let Some(d) = self.domains.get_mut(usize::from(domain.0)) {
            // Its routes go one by one, before or after.
            *d = Domain { to_vms: d.to_vms, ..VACANT };
        }
    }

    /// What the domain of a prefix knows of those that lead to VMs; `None` for a host route.
    fn known_to_vms(&mut self, scope: Scope) -> Option<&mut ToVms> {
        let d = self.domains.get_mut(usize::from(scope.domain().0)).filter(|_| !scope.is_host())?;
        Some(&mut d.to_vms[usize::from(!scope.is_v4())])
    }

    pub(crate) fn set_vn(&mut self, vn: VnIdx, routing: Option<VnRouting>) -> Result<(), OutOfRange> {
        *self.vns.get_mut(usize::from(vn.0)).ok_or(OutOfRange)? = routing;
        Ok(())
    }

    pub(crate) fn set_subnet(
        &mut self,
        vn: VnIdx,
        prefix: Prefix,
        gateway: IpAddr,
    ) -> Result<(), OutOfRange> {
        self.remove_subnet(vn, prefix);
        if self.subnets.len() >= self.subnet_capacity {
            return Err(OutOfRange);
        }
        let at = self.subnets.partition_point(|s| (s.vn, s.prefix) < (vn, prefix));
        self.subnets.insert(at, Subnet { vn, prefix, gateway });
        Ok(())
    }

    pub(crate) fn remove_subnet(&mut self, vn: VnIdx, prefix: Prefix) {
        self.subnets.retain(|s| (s.vn, s.prefix) != (vn, prefix));
    }

    fn find(&self, domain: DomainIdx, prefix: Prefix) -> Option<(Place, u32)> {
        self.table.find(prefix.addr().into(), Scope::of(domain, prefix))
    }

    /// Adds a route, or replaces where it leads: to a VM of which the forwarding table says `fib`.
    pub(crate) fn set(
        &mut self,
        domain: DomainIdx,
        prefix: Prefix,
        to: NextHop,
        fib: Option<Fib>,
    ) -> Result<(), OutOfRange> {
        if let NextHop::Vm(vm) = to {
            self.followers.check(vm)?;
        }
        let found = Found::of(Scope::of(domain, prefix), to, fib);
        let number = match self.find(domain, prefix) {
            Some((place, number)) => {
                self.unfollow(place, number);
                self.table.set(place, found);
                number
            }
            None => {
                let number = self.followers.number().ok_or(OutOfRange)?;
                self.table.insert(Words::new(prefix.addr().into(), found), number);
                number
            }
        };
        if let NextHop::Vm(vm) = to {
            self.followers.add(number, vm);
            if let Some(to_vms) = self.known_to_vms(Scope::of(domain, prefix)) {
                to_vms.add(prefix.prefix_len());
            }
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, domain: DomainIdx, prefix: Prefix) {
        if let Some((place, number)) = self.find(domain, prefix) {
            self.unfollow(place, number);
            self.table.remove(place);
            self.followers.release(number);
        }
    }

    fn unfollow(&mut self, place: Place, number: u32) {
        let words = self.table.get(place);
        if words.found().is_some_and(Found::is_vm) {
            self.followers.remove(number);
            if let Some(to_vms) = self.known_to_vms(words.scope()) {
                to_vms.remove();
            }
        }
    }

    /// The forwarding table has a new word for a VM, or none.
    #[inline]
    pub(crate) fn follow(&mut self, vm: Key, fib: Option<Fib>) {
        if self.followers.any(vm.vn()) {
            self.change(vm, fib);
        }
    }

    #[inline(never)]
    fn change(&mut self, vm: Key, fib: Option<Fib>) {
        for number in self.followers.of(vm) {
            let place = self.table.place(number);
            let scope = self.table.get(place).scope();
            self.table.set(place, Found::of(scope, NextHop::Vm(vm), fib));
        }
    }

    /// A VN is forgotten.
    pub(crate) fn remove_vn(&mut self, vn: VnIdx) {
        if let Some(routing) = self.vns.get_mut(usize::from(vn.0)) {
            *routing = None;
        }
        self.subnets.retain(|s| s.vn != vn);
    }
}
