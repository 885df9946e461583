//! Routes of routing domains (R58): host routes and prefixes of all domains in one table, and what a VN has of routing.
//!
//! A lookup looks for the host route; where there is none, it tries the domain's prefix lengths, longest first. A
//! domain costs its entry here and its routes; no VN has a table of its own.
//!
//! A route to a VM has all that a frame needs in its own entry, so that a routed frame costs one lookup as a bridged
//! one does: the VM's MAC and, where the forwarding table says no more of it than a tunnel or a port, these too. Each
//! change of what that table says of a VM goes by `Routes::follow`: a routed frame never passes by a special entry.

mod entry;
mod followers;
mod table;

use core::net::IpAddr;

use godwit_wire::{Prefix, route};

use crate::locations::Home;
use crate::update::{DomainIdx, Key, Lengths, NO_LENGTH, NextHop, VnIdx, VnRouting};
use crate::vms::Fib;
use crate::{OutOfRange, TablesConfig};

use entry::{Addr, Scope, Words};
use followers::Followers;
use table::{Mixed, Place, Table, View};

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
}

const VACANT: Domain =
    Domain { v4: [NO_LENGTH; crate::update::MAX_LENGTHS], v6: [NO_LENGTH; crate::update::MAX_LENGTHS] };

/// All routes.
pub struct Routes {
    table: Table,
    followers: Followers,
    domains: Vec<Domain>,
    vns: Vec<Option<VnRouting>>,
    subnets: Vec<Subnet>,
    subnet_capacity: usize,
}

/// The routes of one domain as a burst reads them.
#[derive(Clone, Copy)]
pub struct InDomain<'a> {
    view: View<'a>,
    domain: DomainIdx,
    v4: Mixed,
    v6: Mixed,
    lengths: &'a Domain,
}

impl InDomain<'_> {
    /// Hashes an IPv4 address once for [`InDomain::prefetch`] and [`InDomain::find_v4`].
    #[inline(always)]
    pub fn home_v4(&self, ip: u32) -> Home {
        self.view.home(Addr::v4(ip), self.v4)
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn home_v6(&self, ip: u128) -> Home {
        self.view.home(Addr::v6(ip), self.v6)
    }

    /// Asks the cache for the host route of an address.
    #[inline(always)]
    pub fn prefetch(&self, home: Home) {
        self.view.prefetch(home);
    }

    /// Where packets for an IPv4 address go that no prefix is needed for, or one that is no martian.
    #[inline(always)]
    pub fn find_v4(&self, home: Home, ip: u32) -> Option<Found> {
        match self.view.get_at(home, Addr::v4(ip), self.v4) {
            None => self.by_prefix_v4(ip),
            found => found,
        }
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn find_v6(&self, home: Home, ip: u128) -> Option<Found> {
        match self.view.get_at(home, Addr::v6(ip), self.v6) {
            None => self.by_prefix_v6(ip),
            found => found,
        }
    }

    #[inline(never)]
    fn by_prefix_v4(&self, ip: u32) -> Option<Found> {
        if route::is_martian_v4(ip.into()) {
            return None;
        }
        self.longest(&self.lengths.v4, |len| {
            (
                Addr::v4(ip & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)),
                Scope::v4(self.domain, len),
            )
        })
    }

    #[inline(never)]
    fn by_prefix_v6(&self, ip: u128) -> Option<Found> {
        if route::is_martian_v6(ip.into()) {
            return None;
        }
        self.longest(&self.lengths.v6, |len| {
            (
                Addr::v6(ip & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)),
                Scope::v6(self.domain, len),
            )
        })
    }

    #[inline(always)]
    fn longest(&self, lengths: &Lengths, of: impl Fn(u8) -> (Addr, Scope)) -> Option<Found> {
        for &len in lengths {
            if len == NO_LENGTH {
                return None;
            }
            let (addr, scope) = of(len);
            let scope = self.view.mixed(scope);
            let Some(home) = self.view.home_of_prefix(addr, scope) else { continue };
            let found = self.view.get_at(home, addr, scope);
            if found.is_some() {
                return found;
            }
        }
        None
    }
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
    /// prefixes too here: who routes looks at [`route::is_martian`].
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
        Some(self.table.get(place).found().next_hop(self.followers.vm(number)))
    }

    /// The routes of a domain as a burst reads them.
    #[inline]
    pub fn in_domain(&self, domain: DomainIdx) -> InDomain<'_> {
        let view = self.table.view();
        let lengths = self.domains.get(usize::from(domain.0)).unwrap_or(&VACANT);
        let v4 = view.mixed(Scope::v4(domain, 32));
        InDomain { view, domain, v4, v6: view.mixed(Scope::v6(domain, 128)), lengths }
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
        *self.domains.get_mut(usize::from(domain.0)).ok_or(OutOfRange)? = Domain { v4, v6 };
        Ok(())
    }

    pub(crate) fn remove_domain(&mut self, domain: DomainIdx) {
        if let Some(d) = self.domains.get_mut(usize::from(domain.0)) {
            *d = VACANT;
        }
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
        if self.table.get(place).found().is_vm() {
            self.followers.remove(number);
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
