//! Frames that do not fit the way to their VM: the sender is told how much does (R8, R44).

use core::net::IpAddr;

use godwit_tables::DropReason;
use godwit_tables::update::{Key, PortIdx, PortRole, Target, TunnelIdx, VnIdx};
use godwit_tables::vms::Fib;
use godwit_wire::ethernet::{self, Ethernet};
use godwit_wire::frame::Network;
use godwit_wire::{Frame, icmpv4, icmpv6, tenant};

use crate::context::Context;
use crate::packet::{Packet, PacketSource};
use crate::routed::is_routed;
use crate::{DEFAULT_TTL, Output};

/// Every IPv6 link carries packets of this size, and no host takes a smaller one for an answer (RFC 8200
/// section 5).
const IPV6_MIN_MTU: usize = 1280;
/// An answer with as many tags as a frame may have.
const MAX_ANSWER: usize =
    ethernet::HEADER_LEN + ethernet::MAX_TAGS * ethernet::TAG_LEN + icmpv6::MAX_ERROR_LEN;

/// Writes the ICMP error that tells a VM that of `frame`, which it sent, only `inner_max` bytes would have
/// passed; returns its length. `None` where none may be sent: to groups, about errors and later fragments, to
/// who lets his packets be fragmented (which happens to none in an L2 VN), about what is not IP.
///
/// It comes from the address that the frame was sent to, since an L2 VN has no router, and carries the
/// frame's tags.
fn error(frame: &Frame<'_>, inner_max: usize, buf: &mut [u8; MAX_ANSWER]) -> Option<usize> {
    if frame.dst().is_multicast() {
        return None;
    }
    let tags = frame.l3() - ethernet::HEADER_LEN;
    let mtu = inner_max.checked_sub(frame.l3())?;
    let (eth_src, eth_dst, out) = (frame.dst(), frame.src(), &mut buf[tags..]);
    let len = match frame.network() {
        Network::V4(_) => {
            let ip = frame.ipv4()?;
            if !ip.dont_fragment() || !icmpv4::permits_error(&ip) {
                return None;
            }
            let (kind, code) = (icmpv4::UNREACHABLE, icmpv4::CODE_FRAG_NEEDED);
            let (src, dst, rest) = (ip.dst(), ip.src(), mtu as u32);
            let answer = icmpv4::ErrorRepr { eth_src, eth_dst, src, dst, kind, code, rest };
            answer.emit_frame(out, &frame.payload()[..ip.total_len()])
        }
        Network::V6(_) => {
            let ip = frame.ipv6()?;
            if !icmpv6::permits_error(&ip) {
                return None;
            }
            let (kind, code, rest) = (icmpv6::PACKET_TOO_BIG, 0, mtu.max(IPV6_MIN_MTU) as u32);
            let answer =
                icmpv6::ErrorRepr { eth_src, eth_dst, src: ip.dst(), dst: ip.src(), kind, code, rest };
            answer.emit_frame(out, &frame.payload()[..ip.total_len()])
        }
        _ => return None,
    };
    // Its addresses before its tags; EtherType and the rest stand behind them already.
    buf.copy_within(tags..tags + 12, 0);
    buf[12..12 + tags].copy_from_slice(&frame.bytes()[12..12 + tags]);
    Some(tags + len.ok()?)
}

/// How a frame that cannot go on came here.
#[derive(Clone, Copy)]
pub(crate) struct Came {
    /// The port that is charged for the answer: of the VM that sent it, or the uplink.
    pub by: PortIdx,
    /// Its VN.
    pub vn: VnIdx,
    /// The NVE that sent it here, if one did.
    pub sender: Option<IpAddr>,
}

/// Where an answer goes.
pub(crate) enum Back {
    /// To a VM here.
    Port(PortIdx),
    /// To another NVE.
    Tunnel(Target),
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Drops a frame that is larger than `to` carries, and tells its sender, if that is a VM here that has not
    /// been told too often of late.
    #[cold]
    #[inline(never)]
    pub fn too_big(&mut self, packet: P, to: TunnelIdx) {
        self.tell_too_big_here(packet.data(), to);
        self.drop(packet, DropReason::TooBig);
    }

    /// Tells the VM of this port, if it has one, that `bytes`, which it sent, are more than `to` carries.
    pub fn tell_too_big_here(&mut self, bytes: &[u8], to: TunnelIdx) {
        if let Some(PortRole::Access { .. }) = self.tables.ports.role(self.ingress) {
            let by = self.ingress;
            self.tell_too_big(bytes, to, by, |_| Some(Back::Port(by)));
        }
    }

    /// Tells the sender of a frame that was held, or that is in flight, that it is larger than `to` carries: by
    /// the way to where the sender is now, or back to the NVE that sent the frame (R44).
    #[cold]
    #[inline(never)]
    pub fn too_big_on_its_way(&mut self, packet: &P, to: Target, came: Came) {
        let frame = Frame::read(packet.data());
        if frame.is_ok_and(|f| is_routed(&f, came.vn, self.tables)) {
            self.tell_routed_too_big(packet.data(), came.vn, to, came.by);
            return;
        }
        let to = to.tunnel;
        self.tell_too_big(packet.data(), to, came.by, |cx| cx.way_back(packet, came));
    }

    /// The frame's own VM may be anywhere by now, and other VMs may have its port.
    fn way_back(&self, packet: &P, came: Came) -> Option<Back> {
        let mac = Ethernet::new_checked(packet.data()).ok()?.src();
        match self.tables.vms.get(Key::new(came.vn, mac)) {
            Some(Fib::Local(port)) if self.tables.ports.leads_to(port, came.vn) => Some(Back::Port(port)),
            Some(Fib::Remote(to) | Fib::Ageing(to)) => Some(Back::Tunnel(to)),
            _ => {
                let tunnel = self.tables.tunnels.towards(came.sender?)?;
                Some(Back::Tunnel(Target { tunnel, vni: self.tables.vns.get(came.vn)?.vni }))
            }
        }
    }

    fn tell_too_big(
        &mut self,
        bytes: &[u8],
        to: TunnelIdx,
        by: PortIdx,
        back: impl Fn(&Self) -> Option<Back>,
    ) -> Option<()> {
        let frame = Frame::read(bytes).ok()?;
        let look = tenant::Look::of(&frame, &self.tables.hash_key);
        let (tunnel, _) = self.tables.tunnels.ready_for_frame::<true>(to, look.is_v4(), look.hash)?;
        let mut buf = [0; MAX_ANSWER];
        let len = error(&frame, tunnel.inner_max.into(), &mut buf)?;
        let back = back(self)?;
        self.send_back(&buf[..len], &back, by)
    }

    /// Sends an answer about a packet that was too big, if `by` has not been charged for too many of late.
    pub fn send_back(&mut self, bytes: &[u8], back: &Back, by: PortIdx) -> Option<()> {
        if !self.tables.ports.may_send_error(by, self.now) {
            return None;
        }
        let mut answer = self.src.alloc()?;
        if !answer.set(bytes) {
            self.out.discard(answer);
            return None;
        }
        match *back {
            Back::Port(port) => self.send(port, answer),
            Back::Tunnel(to) => {
                if let Err((answer, _)) = self.tunnel(answer, to.tunnel, to.vni, (DEFAULT_TTL, None)) {
                    self.out.discard(answer);
                    return None;
                }
            }
        }
        self.tables.counters.worker.told_too_big += 1;
        self.tables.counters.worker.copies += 1;
        Some(())
    }
}
