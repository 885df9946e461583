//! Taking off the outer header (R1, R5, R6, R10, R12).

use godwit_tables::update::VnIdx;
use godwit_tables::{DropReason, Tables};
use godwit_wire::outer::Outer;
use godwit_wire::{Ecn, Vni, ecn};

use crate::classify::{Addresses, is_group};
use crate::packet::Packet;

/// The VN that was found last: most bursts have one or few.
#[derive(Clone, Copy)]
pub(crate) struct LastVn {
    vni: Vni,
    found: VnIdx,
    transparent: bool,
}

/// Finds the VN of a VXLAN packet and looks at the inner frame; the answer is the VN and the inner
/// destination.
///
/// # Errors
/// Why the packet is dropped.
#[inline(always)]
pub(crate) fn look_inside(
    frame: &[u8],
    outer: &Outer,
    tables: &Tables,
    last: &mut Option<LastVn>,
) -> Result<(VnIdx, u64), DropReason> {
    let vn = match *last {
        Some(l) if l.vni == outer.vni => l,
        _ => *last.insert(find_vn(tables, outer.vni)?),
    };
    let inner = frame.get(outer.inner_offset..outer.inner_end).unwrap_or_default();
    let a = Addresses::of(inner).ok_or(DropReason::InnerTruncated)?;
    if is_group(a.src) {
        return Err(DropReason::InnerMulticastSource);
    }
    if a.ethertype.is_tag() && !vn.transparent {
        return Err(DropReason::InnerVlan);
    }
    // Only an outer congestion mark can be impossible to pass on (RFC 6040 figure 4).
    if outer.ecn == Ecn::Ce && Ecn::of_frame(inner) == Some(Ecn::NotEct) {
        return Err(DropReason::Congestion);
    }
    Ok((vn.found, a.dst))
}

#[inline(never)]
fn find_vn(tables: &Tables, vni: Vni) -> Result<LastVn, DropReason> {
    let found = tables.vns.by_vni(vni).ok_or(DropReason::UnknownVni)?;
    let transparent = tables.vns.get(found).is_some_and(|v| v.transparent_vlan);
    Ok(LastVn { vni, found, transparent })
}

/// Cuts a packet down to its inner frame, outer padding gone too, and passes the outer ECN on.
#[inline(always)]
pub(crate) fn decapsulate<P: Packet>(packet: &mut P, inner_offset: usize, inner_end: usize, outer_ecn: Ecn) {
    packet.truncate(inner_end);
    packet.trim_front(inner_offset);
    if matches!(outer_ecn, Ecn::Ce | Ecn::Ect1) {
        // The look before has dropped what this would refuse.
        let merged = ecn::apply_to_frame(packet.data_mut(), outer_ecn);
        debug_assert!(merged.is_ok());
    }
}
