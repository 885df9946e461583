//! Routes of routing domains (R58): host routes and prefixes of all domains in one table, and what a VN has of routing.
//!
//! A lookup looks for the host route; where there is none, it tries the domain's prefix lengths, longest first. A
//! domain costs its entry here and its routes; no VN has a table of its own.

use core::net::IpAddr;

use godwit_wire::Prefix;
use hashbrown::HashMap;

use crate::update::{DomainIdx, Lengths, NO_LENGTH, NextHop, VnIdx, VnRouting};
use crate::{OutOfRange, TablesConfig};

/// A subnet of a VN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Subnet {
    vn: VnIdx,
    prefix: Prefix,
    gateway: IpAddr,
}

/// A routing domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Domain {
    v4: Lengths,
    v6: Lengths,
}

/// All routes.
pub struct Routes {
    domains: HashMap<DomainIdx, Domain>,
    routes: HashMap<(DomainIdx, Prefix), NextHop>,
    vns: HashMap<VnIdx, VnRouting>,
    subnets: Vec<Subnet>,
    capacity: usize,
    domain_capacity: usize,
    subnet_capacity: usize,
}

impl Routes {
    pub(crate) fn new(config: &TablesConfig) -> Routes {
        Routes {
            domains: HashMap::with_capacity(2 * config.domain_capacity),
            routes: HashMap::with_capacity(2 * config.route_capacity),
            vns: HashMap::with_capacity(2 * config.vn_capacity),
            subnets: Vec::with_capacity(config.subnet_capacity),
            capacity: config.route_capacity,
            domain_capacity: config.domain_capacity,
            subnet_capacity: config.subnet_capacity,
        }
    }

    /// Routes of all domains.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Where packets of the domain for `dst` go: by the host route, else by the longest prefix.
    pub fn get(&self, domain: DomainIdx, dst: IpAddr) -> Option<NextHop> {
        if let Some(to) = self.routes.get(&(domain, Prefix::host(dst))) {
            return Some(*to);
        }
        let d = self.domains.get(&domain)?;
        let lengths = if dst.is_ipv4() { &d.v4 } else { &d.v6 };
        let known = lengths.iter().take_while(|len| **len != NO_LENGTH);
        known.filter_map(|len| self.routes.get(&(domain, Prefix::of(dst, *len)))).next().copied()
    }

    /// The VN's part in a routing domain.
    pub fn of_vn(&self, vn: VnIdx) -> Option<VnRouting> {
        self.vns.get(&vn).copied()
    }

    /// The gateway's address in the VN towards `ip`: that of its subnet, else the first of the family.
    pub fn gateway(&self, vn: VnIdx, ip: IpAddr) -> Option<IpAddr> {
        let mut of_family =
            self.subnets.iter().filter(|s| s.vn == vn && s.gateway.is_ipv4() == ip.is_ipv4()).peekable();
        let first = of_family.peek().map(|s| s.gateway);
        of_family.find(|s| s.prefix.contains(ip)).map(|s| s.gateway).or(first)
    }

    pub(crate) fn set_domain(
        &mut self,
        domain: DomainIdx,
        v4: Lengths,
        v6: Lengths,
    ) -> Result<(), OutOfRange> {
        if self.domains.len() >= self.domain_capacity && !self.domains.contains_key(&domain) {
            return Err(OutOfRange);
        }
        self.domains.insert(domain, Domain { v4, v6 });
        Ok(())
    }

    pub(crate) fn remove_domain(&mut self, domain: DomainIdx) {
        self.domains.remove(&domain);
    }

    pub(crate) fn set_vn(&mut self, vn: VnIdx, routing: Option<VnRouting>) {
        match routing {
            Some(routing) => drop(self.vns.insert(vn, routing)),
            None => drop(self.vns.remove(&vn)),
        }
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
        self.subnets.push(Subnet { vn, prefix, gateway });
        Ok(())
    }

    pub(crate) fn remove_subnet(&mut self, vn: VnIdx, prefix: Prefix) {
        self.subnets.retain(|s| (s.vn, s.prefix) != (vn, prefix));
    }

    pub(crate) fn set(&mut self, domain: DomainIdx, prefix: Prefix, to: NextHop) -> Result<(), OutOfRange> {
        if self.routes.len() >= self.capacity && !self.routes.contains_key(&(domain, prefix)) {
            return Err(OutOfRange);
        }
        self.routes.insert((domain, prefix), to);
        Ok(())
    }

    pub(crate) fn remove(&mut self, domain: DomainIdx, prefix: Prefix) {
        self.routes.remove(&(domain, prefix));
    }

    /// A VN is forgotten.
    pub(crate) fn remove_vn(&mut self, vn: VnIdx) {
        self.vns.remove(&vn);
        self.subnets.retain(|s| s.vn != vn);
    }
}
