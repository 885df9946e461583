//! The gateway of a VN in a routing domain, the same at every NVE (R58): which frames are its own, what control
//! answers, and what it tells VMs of packets that it does not send on.

use core::net::IpAddr;

use godwit_tables::event::Event;
use godwit_tables::neighbors::Neighbor;
use godwit_tables::update::{NextHop, PortIdx, PortRole, VnIdx, VnRouting};
use godwit_tables::{DropReason, Tables};
use godwit_wire::forward::upper_field;
use godwit_wire::ndp::Ndp;
use godwit_wire::{EtherType, Frame, Instant, arp, ethernet, forward, icmpv4, icmpv6, proto};

use crate::context::Context;
use crate::disposition::Disposition;
use crate::packet::{Packet, PacketSource};
use crate::port::Port;
use crate::proxy::{self, Message};
use crate::{DEFAULT_TTL, Output};

/// Bytes of the longest error.
pub(crate) const MAX_ERROR: usize = ethernet::HEADER_LEN + icmpv6::MAX_ERROR_LEN;

/// What the gateway tells the sender of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The TTL or hop limit is used up.
    TimeExceeded,
    /// There is no route.
    NoRoute,
    /// The subnet is there, and nobody in it has the address.
    Host,
    /// The gateway has no such UDP port.
    Port,
    /// The gateway does not speak the protocol.
    Protocol,
    /// The packet is larger than this many bytes, and must not be cut.
    TooBig(u32),
}

impl Problem {
    /// Type, code and the word after the checksum, of IPv4.
    const fn v4(self) -> (u8, u8, u32) {
        match self {
            Problem::TimeExceeded => (icmpv4::TIME_EXCEEDED, 0, 0),
            Problem::NoRoute => (icmpv4::UNREACHABLE, icmpv4::CODE_NET, 0),
            Problem::Host => (icmpv4::UNREACHABLE, icmpv4::CODE_HOST, 0),
            Problem::Port => (icmpv4::UNREACHABLE, icmpv4::CODE_PORT, 0),
            Problem::Protocol => (icmpv4::UNREACHABLE, icmpv4::CODE_PROTOCOL, 0),
            Problem::TooBig(mtu) => (icmpv4::UNREACHABLE, icmpv4::CODE_FRAG_NEEDED, mtu),
        }
    }

    /// The same of IPv6, about `packet`.
    fn v6(self, packet: &[u8]) -> (u8, u8, u32) {
        /// Every IPv6 link carries packets of this size (RFC 8200 section 5).
        const LEAST: u32 = 1280;
        match self {
            Problem::TimeExceeded => (icmpv6::TIME_EXCEEDED, 0, 0),
            Problem::NoRoute => (icmpv6::UNREACHABLE, icmpv6::CODE_NO_ROUTE, 0),
            Problem::Host => (icmpv6::UNREACHABLE, icmpv6::CODE_ADDRESS, 0),
            Problem::Port => (icmpv6::UNREACHABLE, icmpv6::CODE_PORT, 0),
            Problem::Protocol => {
                let field = upper_field(packet).unwrap_or_default();
                (icmpv6::PARAMETER_PROBLEM, icmpv6::CODE_NEXT_HEADER, field)
            }
            Problem::TooBig(mtu) => (icmpv6::PACKET_TOO_BIG, 0, if mtu < LEAST { LEAST } else { mtu }),
        }
    }
}

/// Who speaks as the gateway, and to whom.
#[derive(Clone, Copy)]
pub(crate) struct Letter {
    /// The gateway's address.
    pub from: IpAddr,
    /// Ethernet source and destination.
    pub macs: (godwit_wire::Mac, godwit_wire::Mac),
}

/// Writes the error about `frame`, an untagged packet; returns its length. `None` where none may be sent: about
/// errors, groups and later fragments (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
pub(crate) fn error(
    frame: &Frame<'_>,
    letter: &Letter,
    problem: Problem,
    buf: &mut [u8; MAX_ERROR],
) -> Option<usize> {
    let (eth_src, eth_dst) = letter.macs;
    match letter.from {
        IpAddr::V4(src) => {
            let ip = frame.ipv4().filter(icmpv4::permits_error)?;
            let (kind, code, rest) = problem.v4();
            let answer = icmpv4::ErrorRepr { eth_src, eth_dst, src, dst: ip.src(), kind, code, rest };
            answer.emit_frame(buf, &frame.payload()[..ip.total_len()]).ok()
        }
        IpAddr::V6(src) => {
            let ip = frame.ipv6().filter(icmpv6::permits_error)?;
            let packet = &frame.payload()[..ip.total_len()];
            let (kind, code, rest) = problem.v6(packet);
            let answer = icmpv6::ErrorRepr { eth_src, eth_dst, src, dst: ip.src(), kind, code, rest };
            answer.emit_frame(buf, packet).ok()
        }
    }
}

/// An error may be about the packet (R8).
pub(crate) fn permits_error(frame: &Frame<'_>) -> bool {
    match frame.is_v6() {
        false => frame.ipv4().is_some_and(|ip| icmpv4::permits_error(&ip)),
        true => frame.ipv6().is_some_and(|ip| icmpv6::permits_error(&ip)),
    }
}

/// The address in whose name the sender of `frame`, a VM of the VN, is told of a problem: of what is for the gateway,
/// the address that was asked; else the gateway's in the sender's subnet.
pub(crate) fn speaks_as(
    frame: &Frame<'_>,
    vn: VnIdx,
    routing: &VnRouting,
    problem: Problem,
    tables: &Tables,
) -> Option<IpAddr> {
    let header = forward::read(frame).ok()?;
    match problem {
        Problem::Port | Problem::Protocol if is_gateway(header.dst, routing, tables) => Some(header.dst),
        _ => tables.routes.gateway(vn, header.src),
    }
}

/// The address is one of the gateway's, in whichever VN of the domain.
pub(crate) fn is_gateway(ip: IpAddr, routing: &VnRouting, tables: &Tables) -> bool {
    ip == routing.mac.link_local()
        || matches!(tables.routes.get(routing.domain, ip), Some(NextHop::Gateway(_)))
}

/// What becomes of a checked frame of a VN with routing that would have been carried to a VM or to everybody in the VN.
pub(crate) fn inspect(
    disposition: Disposition,
    message: &Message<'_>,
    port: &Port,
    routing: &VnRouting,
    tables: &Tables,
    now: Instant,
) -> Disposition {
    match disposition {
        Disposition::Unicast(to) if routing.routed_only || to == routing.mac => {
            to_gateway(message, port, routing, tables, now)
        }
        Disposition::Flood => to_group(message, port, routing),
        other => other,
    }
}

fn to_gateway(
    message: &Message<'_>,
    port: &Port,
    routing: &VnRouting,
    tables: &Tables,
    now: Instant,
) -> Disposition {
    let frame = message.frame;
    if port.tagged {
        return Disposition::Drop(DropReason::NotRoutable);
    }
    if let Some(Ok(arp)) = frame.arp() {
        return match arp.op() {
            arp::OP_REQUEST => asked(arp.tpa().into(), arp.spa().into(), port, routing, tables, now),
            _ => Disposition::Nothing,
        };
    }
    if frame.nd_kind().is_some() {
        return match message.nd() {
            Ok(Ndp::Solicit(s)) => asked(s.target.into(), s.src.into(), port, routing, tables, now),
            Ok(Ndp::RouterSolicit) if routing.advertise => Disposition::Punt,
            Ok(_) => Disposition::Nothing,
            Err(_) => Disposition::Drop(DropReason::NdMalformed),
        };
    }
    let served = || {
        let dst = frame.ipv4().map(|ip| ip.dst().into()).or_else(|| frame.ipv6().map(|ip| ip.dst().into()));
        dst.is_some_and(|dst| is_gateway(dst, routing, tables))
    };
    match is_for_dhcp(frame, routing) && served() {
        true => Disposition::Punt,
        false => Disposition::Route,
    }
}

/// A request to the gateway alone: to see whether it is there still (R28, R29).
fn asked(
    target: IpAddr,
    ip: IpAddr,
    port: &Port,
    routing: &VnRouting,
    tables: &Tables,
    now: Instant,
) -> Disposition {
    let its = |n| matches!(n, Neighbor::Known { mac, .. } if mac == routing.mac);
    if !routing.routed_only && !tables.neighbors.get(port.vn, target, now).is_some_and(its) {
        return Disposition::Drop(DropReason::UnknownTarget);
    }
    proxy::resolve(&proxy::ask_of(port, target, ip, tables, now), tables, now)
}

fn to_group(message: &Message<'_>, port: &Port, routing: &VnRouting) -> Disposition {
    let frame = message.frame;
    let solicits = || routing.advertise && matches!(message.nd(), Ok(Ndp::RouterSolicit));
    if !port.tagged && (is_for_dhcp(frame, routing) || frame.nd_kind().is_some() && solicits()) {
        return Disposition::Punt;
    }
    match routing.routed_only {
        true => Disposition::Drop(DropReason::NotBridged),
        false => Disposition::Flood,
    }
}

/// A message of a DHCP client, in a VN whose addresses control tells by DHCP.
fn is_for_dhcp(frame: &Frame<'_>, routing: &VnRouting) -> bool {
    const V4: u32 = 68 << 16 | 67;
    const V6: u32 = 546 << 16 | 547;
    let ports = match frame.ethertype() {
        EtherType::IPV4 if routing.dhcp_v4 => V4,
        EtherType::IPV6 if routing.dhcp_v6 => V6,
        _ => return false,
    };
    frame.ports() == Some(ports) && frame.upper().is_some_and(|(upper, _)| upper.proto == proto::UDP)
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Hands a VM's frame to control, which answers it (R58).
    #[cold]
    pub fn punt(&mut self, packet: P) {
        if !packet.is_plain() {
            return self.parts(packet, |cx, part| cx.punt(part));
        }
        if !self.tables.ports.may_punt(self.ingress, self.now) {
            return self.drop(packet, DropReason::PuntLimit);
        }
        self.tables.ports.punted(self.ingress, self.now);
        if !self.out.punt(self.ingress, packet.data()) {
            return self.drop(packet, DropReason::PuntFull);
        }
        self.tables.counters.worker.punted += 1;
        self.consume(packet);
    }

    /// Answers an echo request to the gateway that was found good.
    pub fn answer_echo(&mut self, mut packet: P) {
        let frame = packet.data_mut();
        let len = icmpv4::echo_reply_in_place(frame, DEFAULT_TTL)
            .or_else(|_| icmpv6::echo_reply_in_place(frame, DEFAULT_TTL));
        match len {
            Ok(len) => {
                packet.truncate(len);
                self.tables.counters.worker.answered_echo += 1;
                self.send(self.ingress, packet);
            }
            Err(_) => self.drop(packet, DropReason::GatewayRefused),
        }
    }

    /// Tells the VM at `port` of a problem with a packet that it sent, at most so often (R8). `None`: it is not told.
    #[cold]
    pub fn tell_problem(
        &mut self,
        bytes: &[u8],
        port: PortIdx,
        routing: &VnRouting,
        problem: Problem,
    ) -> Option<()> {
        let Some(&PortRole::Access { vn, .. }) = self.tables.ports.role(port) else { return None };
        if !self.tables.ports.has_error_left(port, self.now) {
            return None;
        }
        let frame = Frame::read(bytes).ok()?;
        let from = speaks_as(&frame, vn, routing, problem, self.tables)?;
        let letter = Letter { from, macs: (routing.mac, frame.src()) };
        let mut buf = [0; MAX_ERROR];
        let len = error(&frame, &letter, problem, &mut buf)?;
        if !self.tables.ports.may_send_error(port, self.now) {
            return None;
        }
        let mut answer = self.src.alloc()?;
        if !answer.set(&buf[..len]) {
            self.out.discard(answer);
            return None;
        }
        self.tables.counters.worker.icmp_errors += 1;
        self.tables.counters.worker.copies += 1;
        self.send(port, answer);
        Some(())
    }

    /// Asks the directory for the owner of an address that packets wait for.
    pub fn ask_for_route(&mut self, vn: VnIdx, ip: IpAddr) {
        self.event(Event::MissIp { vn, ip, port: self.ingress });
    }
}
