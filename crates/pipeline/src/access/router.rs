//! The fast path of routed frames (R58): packets that need nothing but the route to their destination.
//!
//! What it does not take is unchanged and the gateway's, on the cold path: packets whose TTL ends here, martians,
//! destinations without a route or whose VM has more to know of than where it is.

use godwit_tables::Tables;
use godwit_tables::routes::{Found, InDomain};
use godwit_tables::update::{DomainIdx, Key, VnRouting};
use godwit_wire::outer::Patch;
use godwit_wire::route::{self, Addresses, Onward};
use godwit_wire::{Mac, tenant};

use super::{AccessSlot, ROUTED_FRAME};
use crate::encap::encapsulate;
use crate::packet::Packet;
use crate::port::Port;
use crate::run::COLD;

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
const NOBODY: VnRouting = VnRouting { domain: DomainIdx(0), mac: Mac::ZERO, routed_only: false };

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

    /// Frames to a single MAC `dst` are routed.
    #[inline(always)]
    pub fn takes(&self, dst: u64) -> bool {
        dst == self.mac || self.only
    }

    /// Pass one, for a frame that [`Router::takes`] and whose sender is good. `USUAL`: its source is the usual one.
    #[inline(always)]
    pub fn look<const USUAL: bool>(
        &self,
        slot: &mut AccessSlot,
        frame: &[u8],
        dst: u64,
        tenant: tenant::Look,
    ) {
        let known = dst == self.mac || !is_nobodys(dst);
        let sure = USUAL && if tenant.is_v4() { self.sure.0 } else { self.sure.1 };
        let (key, home) = match route::onward(frame, tenant.source, sure) {
            Some(Onward::V4(ip)) if known => (Key(ip.into()), self.routes.home_v4(ip)),
            Some(Onward::V6(ip)) if known => (Key(0), self.routes.home_v6(ip)),
            _ => {
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
        slot.exit = ROUTED_FRAME;
    }

    #[inline(always)]
    fn find<P: Packet>(&self, slot: &AccessSlot, packet: &P) -> Option<Found> {
        if slot.v4 {
            self.routes.find_v4(slot.home, slot.key.0 as u32)
        } else {
            self.routes.find_v6(slot.home, route::v6_destination(packet.data())?)
        }
    }

    /// Pass two: gives the frame an exit, if there is one. Returns how many were encapsulated.
    #[inline(always)]
    pub fn apply<const VARIED: bool, P: Packet>(
        &self,
        slot: &mut AccessSlot,
        packet: &mut P,
        tables: &Tables,
        port: &Port,
    ) -> u64 {
        let Some(found) = self.find(slot, packet) else { return 0 };
        if let Some(to) = found.remote() {
            let ready = tables.tunnels.ready_for_frame::<VARIED>(to.tunnel, slot.v4, slot.hash);
            let Some((tunnel, header)) = ready else { return 0 };
            let patch = Patch { vni: to.vni, hash: slot.hash, class: slot.class };
            let Ok(grown) = encapsulate::<VARIED, _>(packet, tunnel, header, patch) else { return 0 };
            if let Some(inner) = packet.data_mut().get_mut(grown..) {
                self.source.forward(inner, found.mac(), slot.v4);
            }
            slot.len += grown as u32;
            slot.exit = tunnel.uplink;
            return 1;
        }
        if let Some((vn, to)) = found.local()
            && to != port.port
            && tables.ports.serves(to, vn)
        {
            self.source.forward(packet.data_mut(), found.mac(), slot.v4);
            slot.exit = to;
        }
        0
    }
}

/// The switch itself, or nobody: no frame to them is carried, whatever the VN.
#[inline(always)]
fn is_nobodys(dst: u64) -> bool {
    dst == Mac::PROBER.to_u64() || dst == Mac::ZERO.to_u64()
}
