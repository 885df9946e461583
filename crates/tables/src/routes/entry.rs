//! A route in four words: two of the address, and two that tell all that a frame needs.

use core::net::IpAddr;
use core::num::NonZeroU64;

use godwit_wire::{Prefix, Vni};

use crate::update::{DomainIdx, Key, NextHop, PortIdx, Target, TunnelIdx, VnIdx};
use crate::vms::Fib;

/// An address of either family; the scope tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Addr {
    pub hi: u64,
    pub lo: u64,
}

impl Addr {
    #[inline(always)]
    pub fn v4(ip: u32) -> Addr {
        Addr { hi: 0, lo: ip.into() }
    }

    #[inline(always)]
    pub fn v6(ip: u128) -> Addr {
        Addr { hi: (ip >> 64) as u64, lo: ip as u64 }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Addr {
        match ip {
            IpAddr::V4(ip) => Addr::v4(ip.to_bits()),
            IpAddr::V6(ip) => Addr::v6(ip.to_bits()),
        }
    }
}

/// Domain, family and length of a route, where they lie in [`Found::meta`]. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scope(pub u64);

/// Lengths of IPv4 prefixes begin after those of IPv6, 1 to 129.
const V4: u64 = 0xc0;

impl Scope {
    /// Bits below it.
    pub const SHIFT: u32 = 40;

    #[inline(always)]
    pub fn v4(domain: DomainIdx, len: u8) -> Scope {
        Scope((u64::from(domain.0) << 8 | (V4 + u64::from(len.min(32)))) << Scope::SHIFT)
    }

    #[inline(always)]
    pub fn v6(domain: DomainIdx, len: u8) -> Scope {
        Scope((u64::from(domain.0) << 8 | (1 + u64::from(len.min(128)))) << Scope::SHIFT)
    }

    pub fn is_host(self) -> bool {
        matches!(self.0 >> Scope::SHIFT & 0xff, 129) || self.0 >> Scope::SHIFT & 0xff == V4 + 32
    }

    pub fn is_v4(self) -> bool {
        self.0 >> Scope::SHIFT & 0xff >= V4
    }

    pub fn domain(self) -> DomainIdx {
        DomainIdx((self.0 >> (Scope::SHIFT + 8)) as u16)
    }

    pub fn of(domain: DomainIdx, prefix: Prefix) -> Scope {
        match prefix.is_ipv4() {
            true => Scope::v4(domain, prefix.prefix_len()),
            false => Scope::v6(domain, prefix.prefix_len()),
        }
    }
}

/// No entry.
const NONE: u64 = 0;
/// To a VM at another NVE: VNI and tunnel.
const REMOTE: u64 = 1;
/// To a VM at a port here: VN and port.
const LOCAL: u64 = 2;
/// To a VM of which there is more to know.
const VM: u64 = 3;
const SUBNET: u64 = 4;
const SUBNET_ASKED: u64 = 5;
const GATEWAY: u64 = 6;

/// In `meta`: the kind in these eight bits,
const KIND: u32 = 32;
/// VNI or VN in the 24 from here on. Eight are left.
const NET: u32 = 8;
/// In `value`: the MAC from here on, tunnel or port below.
const MAC: u32 = 16;

/// What a lookup finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Scope, kind, VNI or VN. Not 0, so that a lookup's answer is two registers, found or not.
    pub(super) meta: NonZeroU64,
    /// MAC, tunnel or port.
    pub(super) value: u64,
}

impl Found {
    fn new(scope: Scope, kind: u64, net: u32, mac: u64, index: u32) -> Found {
        let meta = scope.0 | kind << KIND | u64::from(net) << NET;
        let meta = NonZeroU64::new(meta).unwrap_or(NonZeroU64::MIN);
        Found { meta, value: mac << MAC | u64::from(index & 0xffff) }
    }

    /// Of a route to `to`, of which the forwarding table says `fib` where it is a VM.
    pub(super) fn of(scope: Scope, to: NextHop, fib: Option<Fib>) -> Found {
        match to {
            NextHop::Vm(key) => Found::of_vm(scope, key, fib),
            NextHop::Subnet { vn, ask } => {
                Found::new(scope, if ask { SUBNET_ASKED } else { SUBNET }, vn.0.into(), 0, 0)
            }
            NextHop::Gateway(vn) => Found::new(scope, GATEWAY, vn.0.into(), 0, 0),
        }
    }

    fn of_vm(scope: Scope, key: Key, fib: Option<Fib>) -> Found {
        let mac = key.mac().to_u64();
        match fib {
            Some(Fib::Remote(to)) if to.tunnel.0 <= u16::MAX.into() => {
                Found::new(scope, REMOTE, to.vni.get(), mac, to.tunnel.0)
            }
            Some(Fib::Local(port)) => Found::new(scope, LOCAL, key.vn().0.into(), mac, port.0.into()),
            _ => Found::new(scope, VM, 0, mac, 0),
        }
    }

    #[inline(always)]
    fn kind(self) -> u64 {
        self.meta.get() >> KIND & 0xff
    }

    #[inline(always)]
    fn net(self) -> u32 {
        (self.meta.get() >> NET) as u32
    }

    /// The VM's NVE, where it is at another one and nothing else is to be known of it.
    #[inline(always)]
    pub fn remote(self) -> Option<Target> {
        let target = || Target {
            tunnel: TunnelIdx((self.value & 0xffff) as u32),
            vni: Vni::from_low24(self.net() & 0x00ff_ffff),
        };
        (self.kind() == REMOTE).then(target)
    }

    /// The VM's VN and port, where it is here and nothing else is to be known of it.
    #[inline(always)]
    pub fn local(self) -> Option<(VnIdx, PortIdx)> {
        (self.kind() == LOCAL).then(|| (self.vn(), PortIdx(self.value as u16)))
    }

    fn vn(self) -> VnIdx {
        VnIdx(self.net() as u16)
    }

    /// The VM's MAC, as [`godwit_wire::Mac::to_u64`] gives it.
    #[inline(always)]
    pub fn mac(self) -> u64 {
        self.value >> MAC
    }

    /// Where it leads; a VM by its key, which is kept elsewhere.
    pub(super) fn next_hop(self, vm: Key) -> NextHop {
        match self.kind() {
            SUBNET => NextHop::Subnet { vn: self.vn(), ask: false },
            SUBNET_ASKED => NextHop::Subnet { vn: self.vn(), ask: true },
            GATEWAY => NextHop::Gateway(self.vn()),
            NONE | REMOTE | LOCAL | VM => NextHop::Vm(vm),
            _ => unreachable!("a kind of its own making"),
        }
    }

    pub(super) fn is_vm(self) -> bool {
        matches!(self.kind(), REMOTE | LOCAL | VM)
    }
}

/// A slot's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Words(pub [u64; 4]);

impl Words {
    pub const EMPTY: Words = Words([0; 4]);

    pub fn new(addr: Addr, found: Found) -> Words {
        Words([addr.hi, addr.lo, found.meta.get(), found.value])
    }

    #[inline(always)]
    pub fn addr(&self) -> Addr {
        Addr { hi: self.0[0], lo: self.0[1] }
    }

    /// What it says; `None` where it is empty.
    #[inline(always)]
    pub fn found(&self) -> Option<Found> {
        Some(Found { meta: NonZeroU64::new(self.0[2])?, value: self.0[3] })
    }

    #[inline(always)]
    pub fn scope(&self) -> Scope {
        Scope(self.0[2] >> Scope::SHIFT << Scope::SHIFT)
    }

    /// The entry of a key.
    #[inline(always)]
    pub fn is(&self, addr: Addr, scope: Scope) -> bool {
        (self.0[0] ^ addr.hi) | (self.0[1] ^ addr.lo) | (self.0[2] ^ scope.0) >> Scope::SHIFT == 0
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0[2] == 0
    }
}
