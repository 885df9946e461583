//! Virtual networks: a dense array by the numbers that control gives out, and the lists for replication.

use godwit_wire::{Instant, Span, Vni};

use core::net::IpAddr;

use crate::locations::Locations;
use crate::senders::Senders;
use crate::update::{Multicast, TunnelIdx, VnIdx};
use crate::{OutOfRange, TablesConfig};

/// A virtual network.
#[derive(Clone, Copy, Debug)]
pub struct Vn {
    /// Identifier on the wire.
    pub vni: Vni,
    /// Tenant MTU, in bytes (R8).
    pub mtu: u16,
    /// Inner VLAN tags pass (R10).
    pub transparent_vlan: bool,
    /// A tunnel was refused a place in the replication list (R60).
    pub replicas_missing: bool,
    /// What becomes of multicast (R61).
    pub multicast: Multicast,
    /// What is for more NVEs than there may be copies goes by this tunnel, to a group of the underlay (R60).
    pub underlay_group: Option<TunnelIdx>,
    /// Requests for unknown addresses are flooded, at least so far apart (R31).
    pub flood_gap: Option<Span>,
    /// No such request is flooded before then.
    flood_next: Instant,
    /// VXLAN is accepted from the VN's senders only (R69).
    senders_known: bool,
    present: bool,
    replicas: u16,
    /// Entries of the location table.
    pub(crate) vms: u32,
    /// Entries of the neighbor table.
    pub(crate) neighbors: u32,
}

const VACANT_VN: Vn = Vn {
    vni: Vni::from_low24(0),
    mtu: 0,
    transparent_vlan: false,
    replicas_missing: false,
    multicast: Multicast::Flood,
    underlay_group: None,
    flood_gap: None,
    flood_next: Instant(0),
    senders_known: false,
    present: false,
    replicas: 0,
    vms: 0,
    neighbors: 0,
};

/// All virtual networks.
pub struct Vns {
    vns: Vec<Vn>,
    /// VNI to number. The same kind of table as the locations': prefetchable, never resized.
    by_vni: Locations,
    /// Whom VXLAN is accepted from (R69).
    senders: Senders,
    /// Replication lists, `limit` places for each VN.
    replicas: Vec<u32>,
    limit: usize,
    /// Rises with each change of what VNIs lead to.
    generation: u64,
}

/// A VNI's key in the table: not 0.
#[inline(always)]
fn vni_key(vni: Vni) -> u64 {
    1 << 32 | u64::from(vni.get())
}

impl Vns {
    pub(crate) fn new(config: &TablesConfig) -> Vns {
        let limit = config.replica_limit.min(1024);
        Vns {
            vns: vec![VACANT_VN; config.vn_capacity],
            by_vni: Locations::new(config.vn_capacity, config.table_seed),
            senders: Senders::new(config),
            replicas: vec![0; config.vn_capacity * limit],
            limit,
            generation: 0,
        }
    }

    /// A configured VN.
    #[inline]
    pub fn get(&self, vn: VnIdx) -> Option<&Vn> {
        self.vns.get(usize::from(vn.0)).filter(|v| v.present)
    }

    /// A VN's place, configured or not.
    pub(crate) fn slot(&mut self, vn: VnIdx) -> Option<&mut Vn> {
        self.vns.get_mut(usize::from(vn.0))
    }

    /// Changes with everything that [`Vns::by_vni`] and a VN's settings depend on: until then, what was found
    /// may be kept.
    #[inline(always)]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The VN with an identifier.
    #[inline]
    pub fn by_vni(&self, vni: Vni) -> Option<VnIdx> {
        self.by_vni.get(vni_key(vni)).map(|v| VnIdx((v.get() - 1) as u16))
    }

    pub(crate) fn set(
        &mut self,
        vn: VnIdx,
        vni: Vni,
        mtu: u16,
        transparent_vlan: bool,
    ) -> Result<(), OutOfRange> {
        self.generation += 1;
        let at = usize::from(vn.0);
        let old = *self.vns.get(at).ok_or(OutOfRange)?;
        if old.present && old.vni != vni {
            self.forget_vni(vn, old.vni);
        }
        let value = core::num::NonZeroU64::MIN.saturating_add(vn.0.into());
        // There are at most as many identifiers as numbers, so this is never full.
        self.by_vni.insert(vni_key(vni), value).map_err(|_| OutOfRange)?;
        self.vns[at] = Vn { vni, mtu, transparent_vlan, present: true, ..old };
        Ok(())
    }

    /// Forgets a VN and its replication list. What other tables hold of it is the caller's.
    pub(crate) fn remove(&mut self, vn: VnIdx) {
        self.generation += 1;
        let Some(old) = self.get(vn).copied() else { return };
        self.forget_vni(vn, old.vni);
        let v = &mut self.vns[usize::from(vn.0)];
        *v = Vn { vms: v.vms, neighbors: v.neighbors, ..VACANT_VN };
    }

    /// Removes the way from an identifier to `vn`, unless another VN has taken it over.
    fn forget_vni(&mut self, vn: VnIdx, vni: Vni) {
        if self.by_vni(vni) == Some(vn) {
            self.by_vni.remove(vni_key(vni));
        }
    }

    /// VXLAN of the VN is accepted from this outer source (R69).
    #[inline]
    pub fn accepts(&self, vn: VnIdx, from: IpAddr) -> bool {
        !self.get(vn).is_some_and(|v| v.senders_known) || self.senders.has(vn, from)
    }

    /// VXLAN is accepted from the VN's senders only (R69).
    #[inline]
    pub fn are_senders_known(&self, vn: VnIdx) -> bool {
        self.get(vn).is_some_and(|v| v.senders_known)
    }

    /// A frame of a sender that is not accepted was dropped; how many of it control is to be told of now.
    pub fn refused(&mut self, vni: Vni, from: IpAddr, now: Instant) -> Option<u64> {
        self.senders.refused(vni, from, now)
    }

    pub(crate) fn add_sender(&mut self, vn: VnIdx, ip: IpAddr) -> Result<(), OutOfRange> {
        self.generation += 1;
        let done = self.senders.add(vn, ip);
        if done.is_err()
            && let Some(v) = self.slot(vn)
        {
            // Rather a stranger's frames than a member's lost.
            v.senders_known = false;
        }
        done
    }

    pub(crate) fn remove_sender(&mut self, vn: VnIdx, ip: IpAddr) {
        self.generation += 1;
        self.senders.remove(vn, ip);
    }

    pub(crate) fn set_senders_known(&mut self, vn: VnIdx, known: bool) {
        self.generation += 1;
        if let Some(v) = self.slot(vn) {
            v.senders_known = known;
        }
    }

    /// One more request for an address that nobody has may be flooded now; this counts as one (R31).
    pub fn may_flood_silent(&mut self, vn: VnIdx, now: Instant) -> bool {
        let Some(v) = self.vns.get_mut(usize::from(vn.0)).filter(|v| v.present) else { return false };
        let Some(gap) = v.flood_gap.filter(|_| now >= v.flood_next) else { return false };
        v.flood_next = now + gap;
        true
    }

    /// The tunnels that a VN's broadcast is copied to.
    pub fn replicas(&self, vn: VnIdx) -> impl Iterator<Item = TunnelIdx> {
        let count = self.get(vn).map_or(0, |v| usize::from(v.replicas));
        let from = if count == 0 { 0 } else { usize::from(vn.0) * self.limit };
        self.replicas[from..from + count].iter().map(|&t| TunnelIdx(t))
    }

    /// Copies of a frame to other NVEs at most (R60).
    pub fn copy_limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn add_replica(&mut self, vn: VnIdx, tunnel: TunnelIdx) -> Result<(), OutOfRange> {
        let count = usize::from(self.get(vn).ok_or(OutOfRange)?.replicas);
        if self.replicas(vn).any(|t| t == tunnel) {
            return Ok(());
        }
        let v = &mut self.vns[usize::from(vn.0)];
        if count == self.limit {
            v.replicas_missing = true;
            return Err(OutOfRange);
        }
        v.replicas += 1;
        self.replicas[usize::from(vn.0) * self.limit + count] = tunnel.0;
        Ok(())
    }

    pub(crate) fn remove_replica(&mut self, vn: VnIdx, tunnel: TunnelIdx) {
        let Some(at) = self.replicas(vn).position(|t| t == tunnel) else { return };
        let from = usize::from(vn.0) * self.limit;
        let v = &mut self.vns[usize::from(vn.0)];
        v.replicas -= 1;
        // There is room again; whether control still misses one is its to say.
        v.replicas_missing = false;
        let last = from + usize::from(v.replicas);
        self.replicas.swap(from + at, last);
    }
}
