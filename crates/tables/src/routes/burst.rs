//! The routes of a domain as a burst reads them: all lookups' memory accesses overlap.
//!
//! A frame's host route is asked for first ([`InDomain::home_v4`], [`InDomain::prefetch`]). Where prefixes lead to VMs,
//! a pass of its own *aims* at what the frame will need: its host route if that is there, else the longest prefix that
//! there may be, whose bucket is asked for. [`InDomain::find_v4`] reads what was aimed at.

use godwit_wire::route;

use super::entry::{Addr, Found, Scope};
use super::table::{Mixed, View};
use super::{Domain, Routes, ToVms};
use crate::locations::Home;
use crate::update::{DomainIdx, Lengths, MAX_LENGTHS, NO_LENGTH};

/// Which of the routes that an address may have: the host route, or the prefix of one of the domain's lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step(u8);

impl Step {
    /// The host route.
    pub const HOST: Step = Step(0);
    /// There are fewer steps than this.
    pub const END: u8 = 1 + MAX_LENGTHS as u8;

    /// The step with a [`Step::number`].
    #[inline(always)]
    pub const fn of(number: u8) -> Step {
        Step(number)
    }

    /// Its number: those of longer prefixes are less, and that of the host route is 0.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }
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

/// What the hashes of an address's prefixes of all lengths need, worked out once a burst.
#[derive(Clone, Copy)]
pub struct Tries {
    v4: [Try; MAX_LENGTHS],
    v6: [Try; MAX_LENGTHS],
    n: [usize; 2],
}

#[derive(Clone, Copy)]
struct Try {
    mask: Addr,
    of: Mixed,
}

impl Routes {
    /// The routes of a domain as a burst reads them.
    #[inline]
    pub fn in_domain(&self, domain: DomainIdx) -> InDomain<'_> {
        let view = self.table.view();
        let lengths = self.domains.get(usize::from(domain.0)).unwrap_or(&super::VACANT);
        let v4 = view.mixed(Scope::v4(domain, 32));
        InDomain { view, domain, v4, v6: view.mixed(Scope::v6(domain, 128)), lengths }
    }
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

    /// Asks the cache for the route with a home.
    #[inline(always)]
    pub fn prefetch(&self, home: Home) {
        self.view.prefetch(home);
    }

    /// Prefixes of the domain lead to VMs. Where none does, a lookup that finds no host route finds no VM.
    #[inline(always)]
    pub fn has_prefixes(&self) -> bool {
        self.lengths.to_vms.iter().any(|of| of.number > 0)
    }

    /// What [`InDomain::aim_v4`] needs.
    #[inline]
    pub fn tries(&self) -> Tries {
        let none = Try { mask: Addr { hi: 0, lo: 0 }, of: self.v4 };
        let mut tries = Tries { v4: [none; MAX_LENGTHS], v6: [none; MAX_LENGTHS], n: [0; 2] };
        // Whatever is shorter than all that lead to VMs leads to none.
        let known = |lengths: &Lengths, of: ToVms| {
            lengths.iter().take_while(|len| **len != NO_LENGTH && **len >= of.shortest).count()
        };
        let [v4, v6] = self.lengths.to_vms;
        tries.n = [known(&self.lengths.v4, v4), known(&self.lengths.v6, v6)];
        for (t, &len) in tries.v4.iter_mut().zip(&self.lengths.v4).take(tries.n[0]) {
            *t = Try { mask: Addr::v4(mask_v4(len)), of: self.view.mixed(Scope::v4(self.domain, len)) };
        }
        for (t, &len) in tries.v6.iter_mut().zip(&self.lengths.v6).take(tries.n[1]) {
            *t = Try { mask: Addr::v6(mask_v6(len)), of: self.view.mixed(Scope::v6(self.domain, len)) };
        }
        tries
    }

    /// Where to look for an address whose host route has this home, and was asked for: there, or at the longest prefix
    /// that there may be. `None`: it has no route, or is a martian, which no prefix is for.
    #[inline(always)]
    pub fn aim_v4(&self, tries: &Tries, home: Home, ip: u32) -> Option<(Step, Home)> {
        if self.host_v4(home, ip).is_some() {
            return Some((Step::HOST, home));
        }
        let aim = self.first(&tries.v4[..tries.n[0]], |mask| Addr::v4(ip & mask.lo as u32));
        aim.filter(|_| !route::is_martian_v4(ip.into()))
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn aim_v6(&self, tries: &Tries, home: Home, ip: u128) -> Option<(Step, Home)> {
        if self.host_v6(home, ip).is_some() {
            return Some((Step::HOST, home));
        }
        let addr = Addr::v6(ip);
        let masked = |mask: Addr| Addr { hi: addr.hi & mask.hi, lo: addr.lo & mask.lo };
        let aim = self.first(&tries.v6[..tries.n[1]], masked);
        aim.filter(|_| !route::is_martian_v6(ip.into()))
    }

    /// No branch depends on which of the lengths it is.
    #[inline(always)]
    fn first(&self, tries: &[Try], masked: impl Fn(Addr) -> Addr) -> Option<(Step, Home)> {
        let may = tries.iter().rev().fold(0, |may, t| may << 1 | self.view.may_be(masked(t.mask), t.of));
        let at = may.trailing_zeros() as usize;
        let t = tries.get(at)?;
        let home = self.view.home(masked(t.mask), t.of);
        self.view.prefetch(home);
        Some((Step(at as u8 + 1), home))
    }

    /// Where packets for an IPv4 address go by its host route.
    #[inline(always)]
    pub fn host_v4(&self, home: Home, ip: u32) -> Option<Found> {
        self.view.get_at(home, Addr::v4(ip), self.v4.scope)
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn host_v6(&self, home: Home, ip: u128) -> Option<Found> {
        self.view.get_at(home, Addr::v6(ip), self.v6.scope)
    }

    /// Where packets for an IPv4 address go, by the route that was aimed at, or by a shorter prefix where the filter
    /// was wrong.
    #[inline(always)]
    pub fn find_v4(&self, step: Step, home: Home, ip: u32) -> Option<Found> {
        if step == Step::HOST {
            return self.host_v4(home, ip);
        }
        let len = self.lengths.v4[usize::from(step.0 - 1) % MAX_LENGTHS];
        let found = self.view.get_at(home, Addr::v4(ip & mask_v4(len)), Scope::v4(self.domain, len));
        if found.is_some() { found } else { self.shorter_v4(step, ip) }
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn find_v6(&self, step: Step, home: Home, ip: u128) -> Option<Found> {
        if step == Step::HOST {
            return self.host_v6(home, ip);
        }
        let len = self.lengths.v6[usize::from(step.0 - 1) % MAX_LENGTHS];
        let found = self.view.get_at(home, Addr::v6(ip & mask_v6(len)), Scope::v6(self.domain, len));
        if found.is_some() { found } else { self.shorter_v6(step, ip) }
    }

    #[cold]
    #[inline(never)]
    fn shorter_v4(&self, than: Step, ip: u32) -> Option<Found> {
        let of = |len| (Addr::v4(ip & mask_v4(len)), Scope::v4(self.domain, len));
        self.shorter(&self.lengths.v4, than, of)
    }

    #[cold]
    #[inline(never)]
    fn shorter_v6(&self, than: Step, ip: u128) -> Option<Found> {
        let of = |len| (Addr::v6(ip & mask_v6(len)), Scope::v6(self.domain, len));
        self.shorter(&self.lengths.v6, than, of)
    }

    fn shorter(&self, of: &Lengths, than: Step, key: impl Fn(u8) -> (Addr, Scope)) -> Option<Found> {
        let lengths = of.iter().skip(than.0.into()).take_while(|len| **len != NO_LENGTH);
        lengths.filter_map(|&len| self.prefix(key(len))).next()
    }

    fn prefix(&self, (addr, scope): (Addr, Scope)) -> Option<Found> {
        let of = self.view.mixed(scope);
        let may_be = self.view.may_be(addr, of) != 0;
        may_be.then(|| self.view.get_at(self.view.home(addr, of), addr, scope))?
    }
}

/// The bits of an IPv4 address that a prefix of this length has.
#[inline(always)]
fn mask_v4(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
}

#[inline(always)]
fn mask_v6(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
}
