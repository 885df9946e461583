//! The fast path of routed frames (R58): packets that need nothing but the route to their destination.
//!
//! What it does not take is unchanged and the gateway's, on the cold path: packets whose TTL ends here, martians,
//! destinations without a route or whose VM has more to know of than where it is.

use godwit_tables::Tables;
use godwit_tables::routes::{Found, InDomain, Step};
use godwit_tables::update::{DomainIdx, Key, VnRouting};
use godwit_wire::outer::Patch;
use godwit_wire::route::{self, Addresses, Onward};
use godwit_wire::{Mac, tenant};

use super::{AccessSlot, routed_frame, step_of};
use crate::encap::encapsulate;
use crate::packet::Packet;
use crate::port::Port;
use crate::run::{COLD, Exit};

/// The gateway of a VN as a burst sees it.
#[derive(Clone, Copy)]
pub(super) struct Router<'a> {
    routes: InDomain<'a>,
    /// Its MAC, as it is compared and as it is written.
    mac: u64,
    source: Addresses,
    /// Frames to every MAC are routed.
    only: bool,
    /// The usual IPv4 source of the port's frames is one address, and no martian; likewise IPv6.
    sure: (bool, bool),
}

/// The gateway of a VN that has none.
const NOBODY: VnRouting = VnRouting {
    domain: DomainIdx(0),
    mac: Mac::ZERO,
    routed_only: false,
    dhcp_v4: false,
    dhcp_v6: false,
    advertise: false,
};

impl<'a> Router<'a> {
    /// That of the port's VN. Without routing it is not to be asked.
    #[inline(always)]
    pub fn of(tables: &'a Tables, port: &Port) -> Router<'a> {
        let routing = tables.routes.of_vn(port.vn).unwrap_or(NOBODY);
        Router {
            routes: tables.routes.in_domain(routing.domain),
            mac: routing.mac.to_u64(),
            source: routing.mac.into(),
            only: routing.routed_only,
            sure: port.usual_can_be_routed(),
        }
    }

    /// Frames to a single MAC `dst` are routed, as nearly all are that guests send to be routed: to the gateway's.
    #[inline(always)]
    pub fn is(&self, dst: u64) -> bool {
        dst == self.mac
    }

    /// Frames to other MACs are not bridged, so that they want a closer look.
    #[inline(always)]
    pub fn is_only(&self) -> bool {
        self.only
    }

    /// Frames to a single MAC `dst` are routed. None to the switch itself or to nobody is carried, whatever the VN.
    pub fn takes(&self, dst: u64) -> bool {
        self.is(dst) || self.only
    }

    /// Those among them that the fast path may take.
    pub fn knows(&self, dst: u64) -> bool {
        self.is(dst) || self.only && dst != Mac::PROBER.to_u64() && dst != Mac::ZERO.to_u64()
    }

    /// Pass one, for a frame that the router [knows](Router::knows) and whose sender is good. `USUAL`: its source is
    /// the usual one.
    #[inline(always)]
    pub fn look<const USUAL: bool>(&self, slot: &mut AccessSlot, frame: &[u8], tenant: tenant::Look) {
        let sure = USUAL && if tenant.is_v4() { self.sure.0 } else { self.sure.1 };
        let (key, home) = match route::onward(frame, tenant.source, sure) {
            Some(Onward::V4(ip)) => (Key(ip.into()), self.routes.home_v4(ip)),
            Some(Onward::V6(ip)) => (Key(0), self.routes.home_v6(ip)),
            None => {
                slot.exit = COLD;
                return;
            }
        };
        self.routes.prefetch(home);
        slot.home = home;
        slot.key = key;
        slot.hash = tenant.hash;
        slot.class = tenant.ecn.into();
        slot.v4 = tenant.is_v4();
        slot.exit = routed_frame(Step::HOST);
    }

    /// Between the passes, where prefixes lead to VMs: whoever has no host route is found a prefix, of which the cache
    /// is asked for. `false`, and nothing is done, where none does.
    #[inline]
    pub fn aim<P: Packet>(&self, slots: &mut [AccessSlot], burst: &[P]) -> bool {
        let has_prefixes = self.routes.has_prefixes();
        if has_prefixes {
            self.aim_at_prefixes(slots, burst);
        }
        has_prefixes
    }

    #[inline(never)]
    fn aim_at_prefixes<P: Packet>(&self, slots: &mut [AccessSlot], burst: &[P]) {
        let tries = self.routes.tries();
        for (slot, packet) in slots.iter_mut().zip(burst) {
            if slot.exit != routed_frame(Step::HOST) {
                continue;
            }
            let aim = if slot.v4 {
                self.routes.aim_v4(&tries, slot.home, slot.key.0 as u32)
            } else {
                route::v6_destination(packet.data()).and_then(|ip| self.routes.aim_v6(&tries, slot.home, ip))
            };
            match aim {
                Some((step, home)) => (slot.exit, slot.home) = (routed_frame(step), home),
                None => slot.exit = COLD,
            }
        }
    }

    /// `AIMED`: [`Router::aim`] has been here.
    #[inline(always)]
    fn find<const AIMED: bool, P: Packet>(&self, slot: &AccessSlot, packet: &P) -> Option<Found> {
        let (routes, step, ip) = (&self.routes, step_of(slot.exit), slot.key.0 as u32);
        match (slot.v4, AIMED) {
            (true, false) => routes.host_v4(slot.home, ip),
            (true, true) => routes.find_v4(step, slot.home, ip),
            (false, false) => routes.host_v6(slot.home, route::v6_destination(packet.data())?),
            (false, true) => routes.find_v6(step, slot.home, route::v6_destination(packet.data())?),
        }
    }

    /// Pass two, for a frame that [`Router::look`] took: where it goes, and one more `encapsulated` if it is.
    #[inline(always)]
    pub fn apply<const VARIED: bool, const AIMED: bool, P: Packet>(
        &self,
        slot: &mut AccessSlot,
        packet: &mut P,
        (tables, port): (&Tables, &Port),
        encapsulated: &mut u64,
    ) -> Exit {
        let Some(found) = self.find::<AIMED, _>(slot, packet) else { return COLD };
        if let Some(to) = found.remote() {
            let ready = tables.tunnels.ready_for_frame::<VARIED>(to.tunnel, slot.v4, slot.hash);
            let Some((tunnel, header)) = ready else { return COLD };
            let patch = Patch { vni: to.vni, hash: slot.hash, class: slot.class };
            let Ok(grown) = encapsulate::<VARIED, _>(packet, tunnel, header, patch) else { return COLD };
            if let Some(inner) = packet.data_mut().get_mut(grown..) {
                self.source.forward(inner, found.mac(), slot.v4);
            }
            slot.len += grown as u32;
            *encapsulated += 1;
            return tunnel.uplink;
        }
        match found.local() {
            Some((vn, to)) if to != port.port && tables.ports.serves(to, vn) => {
                self.source.forward(packet.data_mut(), found.mac(), slot.v4);
                to
            }
            _ => COLD,
        }
    }
}
