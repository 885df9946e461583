//! Putting on the outer header (R1–R6, R8).

use godwit_tables::tunnels::Tunnel;
use godwit_tables::update::{Target, TunnelIdx};
use godwit_tables::{DropReason, Tables};
use godwit_wire::outer::{
    OuterHeader, Patch, TAGGED_V4_LEN, TAGGED_V6_LEN, V4_LEN, V6_LEN, copy_dscp, fill_udp_checksum,
    leave_udp_checksum,
};
use godwit_wire::tenant::{self, Look};
use godwit_wire::{Class, Dscp, Family, Vni, ipv6, udp};

use crate::context::Context;
use crate::packet::{Packet, PacketSource, Unfinished};
use crate::{DEFAULT_TTL, Output};

/// Puts the outer header of a tunnel before an inner frame; returns by how much it grew. `VARIED`: the header may have
/// an 802.1Q tag, which nobody needs to look for where no uplink is in a VLAN (R95).
///
/// # Errors
/// [`DropReason::TooBig`] (R8) or [`DropReason::NoHeadroom`]; the packet is unchanged then.
#[inline(always)]
pub(crate) fn encapsulate<const VARIED: bool, P: Packet>(
    packet: &mut P,
    tunnel: &Tunnel,
    header: &OuterHeader,
    patch: Patch,
) -> Result<usize, DropReason> {
    let inner_len = packet.len();
    if inner_len > usize::from(tunnel.inner_max) {
        return Err(DropReason::TooBig);
    }
    if VARIED && header.is_tagged() {
        return put_tagged(packet, header, inner_len, patch);
    }
    // Two copies of constant length instead of one of variable length.
    if header.is_plain_v4() {
        let room = packet.prepend_chunk();
        header.write_v4(room.ok_or(DropReason::NoHeadroom)?, inner_len, patch);
        Ok(V4_LEN)
    } else {
        let room = packet.prepend_chunk();
        header.write_v6(room.ok_or(DropReason::NoHeadroom)?, inner_len, patch);
        Ok(V6_LEN)
    }
}

#[inline(always)]
fn put_tagged<P: Packet>(
    packet: &mut P,
    header: &OuterHeader,
    inner_len: usize,
    patch: Patch,
) -> Result<usize, DropReason> {
    match header.family() {
        Family::V4 => {
            let room = packet.prepend_chunk();
            header.write_tagged_v4(room.ok_or(DropReason::NoHeadroom)?, inner_len, patch);
            Ok(TAGGED_V4_LEN)
        }
        Family::V6 => {
            let room = packet.prepend_chunk();
            header.write_tagged_v6(room.ok_or(DropReason::NoHeadroom)?, inner_len, patch);
            Ok(TAGGED_V6_LEN)
        }
    }
}

/// Whether the configuration wants more of an outer header than [`encapsulate`] writes.
#[inline(always)]
pub(crate) fn is_unfinished(tables: &Tables) -> bool {
    tables.udp_checksum | tables.copy_dscp
}

/// Finishes the outer headers of frames that were just encapsulated: the inner DSCP (R6), unless they are `marked`
/// with another (R23), and UDP checksums (R5), each filled in, or left to the uplink's device where that is known to
/// do it. Returns how many were left.
#[cold]
#[inline(never)]
pub(crate) fn finish<'a, P: Packet + 'a>(
    packets: impl Iterator<Item = (&'a mut P, bool)>,
    marked: bool,
    tables: &Tables,
) -> u64 {
    let (mut left, vxlan_port) = (0, tables.vxlan_port);
    for (packet, leave) in packets {
        if tables.copy_dscp && !marked {
            copy_dscp(packet.data_mut());
        }
        if !tables.udp_checksum {
            continue;
        }
        if leave {
            left += u64::from(leave_checksum(packet, vxlan_port));
        } else {
            let filled = fill_udp_checksum(packet.data_mut(), vxlan_port);
            debug_assert!(filled.is_ok(), "a header of our own parses");
        }
    }
    left
}

fn leave_checksum<P: Packet>(packet: &mut P, vxlan_port: u16) -> bool {
    let Ok((l2_len, l3_len)) = leave_udp_checksum(packet.data_mut(), vxlan_port) else { return false };
    packet.hand_on(Unfinished {
        l2_len,
        l3_len,
        l4_len: udp::HEADER_LEN,
        six: l3_len == ipv6::HEADER_LEN,
        tcp: false,
        segment: 0,
    });
    true
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Encapsulates with this outer TTL and, where it is marked, this DSCP (R23), and sends; or says why not and gives
    /// the packet back. For the cold paths.
    pub fn tunnel(
        &mut self,
        packet: P,
        tunnel: TunnelIdx,
        vni: Vni,
        marks: (u8, Option<Dscp>),
    ) -> Result<(), (P, DropReason)> {
        let look = tenant::look(packet.data(), &self.tables.hash_key);
        self.tunnel_flow(packet, Target { tunnel, vni }, look, marks)
    }

    /// The same for a frame that was looked at.
    #[inline(never)]
    pub fn tunnel_flow(
        &mut self,
        mut packet: P,
        to: Target,
        look: Look,
        (ttl, dscp): (u8, Option<Dscp>),
    ) -> Result<(), (P, DropReason)> {
        let ready = self.tables.tunnels.ready_for_frame::<true>(to.tunnel, look.is_v4(), look.hash);
        let Some((tunnel, header)) = ready else { return Err((packet, DropReason::NoTunnel)) };
        let uplink = tunnel.uplink;
        let patch = Patch { vni: to.vni, hash: look.hash, class: Class::new(dscp, look.ecn) };
        if let Err(reason) = encapsulate::<true, _>(&mut packet, tunnel, header, patch) {
            return Err((packet, reason));
        }
        if ttl != header.ttl() {
            header.set_ttl(packet.data_mut(), ttl);
        }
        if is_unfinished(self.tables) {
            let leave = self.out.receive_offloads(uplink).checksum;
            let left = finish(core::iter::once((&mut packet, leave)), dscp.is_some(), self.tables);
            self.tables.counters.worker.checksums_left += left;
        }
        self.send(uplink, packet);
        Ok(())
    }

    /// Encapsulates and sends a frame of the burst for the first time; counts it either way.
    pub fn tunnel_first(&mut self, packet: P, to: Target, look: Look) {
        let mark = self.tables.ports.dscp(self.ingress);
        match self.tunnel_flow(packet, to, look, (DEFAULT_TTL, mark)) {
            Ok(()) => self.tables.counters.worker.encapsulated += 1,
            Err((packet, reason)) => self.drop(packet, reason),
        }
    }
}
