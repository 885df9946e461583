//! The underlay's own traffic on an uplink: the switch answers ARP, ND and echo for its locators,
//! learns its neighbors, and hands the rest to the host through the exception port.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_tables::event::Event;
use godwit_tables::groups::routers_of;
use godwit_tables::update::{PortIdx, PortRole};
use godwit_tables::{DropReason, Tables};
use godwit_wire::arp::{Arp, ArpRepr};
use godwit_wire::ethernet::Membership;
use godwit_wire::membership::{self, Message, Query};
use godwit_wire::ndp::{self, AdvertFrame, Ndp};
use godwit_wire::quote::parse_too_big;
use godwit_wire::{EtherType, Frame, Ipv4, Ipv6, Mac, VlanId, ethernet, icmpv4, icmpv6, peer};

use crate::classify::Addresses;
use crate::context::Context;
use crate::decap::Own;
use crate::packet::{Packet, PacketSource};
use crate::{DEFAULT_TTL, Output};

/// An uplink's addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uplink {
    pub port: PortIdx,
    pub mac: Mac,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    link_v4: Option<Ipv4Addr>,
    link_v6: Option<Ipv6Addr>,
    link_local: Option<Ipv6Addr>,
    exception: Option<PortIdx>,
    vlan: Option<VlanId>,
}

impl Uplink {
    /// From a port's role; an uplink without addresses where it is another one.
    #[inline]
    pub fn of(port: PortIdx, role: &Option<PortRole>) -> Uplink {
        match *role {
            Some(PortRole::Uplink { mac, v4, v6, link_v4, link_v6, v6_link_local, exception, vlan }) => {
                Uplink { port, mac, v4, v6, link_v4, link_v6, link_local: v6_link_local, exception, vlan }
            }
            _ => Uplink {
                port,
                mac: Mac::ZERO,
                v4: None,
                v6: None,
                link_v4: None,
                link_v6: None,
                link_local: None,
                exception: None,
                vlan: None,
            },
        }
    }

    /// The VLAN that it is in.
    #[inline]
    pub fn vlan(&self) -> Option<VlanId> {
        self.vlan
    }

    /// A frame that came in has a tag that goes before it is looked at: that of the uplink's VLAN, or, where that is
    /// in none, a priority tag, which means as much as none. What belongs elsewhere is none of the uplink's, as it
    /// would be none of a kernel's interface for the VLAN (R95).
    ///
    /// # Errors
    /// [`DropReason::OtherVlan`].
    pub fn untags(&self, frame: &[u8]) -> Result<bool, DropReason> {
        match (self.vlan, ethernet::membership(frame)) {
            (None, Membership::Priority) => Ok(true),
            (None, _) => Ok(false),
            (Some(own), Membership::Vlan(id)) if own.get() == id => Ok(true),
            (Some(_), _) => Err(DropReason::OtherVlan),
        }
    }

    /// The addresses to which VXLAN comes.
    #[inline]
    pub fn own(&self, vxlan_port: u16) -> Own {
        Own::new(self.mac, self.v4, self.v6, vxlan_port).in_vlan(self.vlan)
    }

    /// Another NVE may send VXLAN to this address.
    #[inline(always)]
    pub fn is_locator(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) => self.v4 == Some(a),
            IpAddr::V6(a) => self.v6 == Some(a),
        }
    }

    /// Where the host's frames go.
    pub fn exception(&self) -> Option<PortIdx> {
        self.exception
    }

    /// The switch answers for this address.
    fn answers_for(&self, a: Ipv6Addr) -> bool {
        [self.v6, self.link_v6, self.link_local].contains(&Some(a))
    }

    fn answers_for_v4(&self, a: Ipv4Addr) -> bool {
        [self.v4, self.link_v4].contains(&Some(a))
    }
}

/// What becomes of a frame that is not VXLAN to us.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fate {
    /// Answered with this ARP reply.
    Arp(ArpRepr),
    /// Answered with this advertisement.
    Nd(AdvertFrame),
    /// An echo request to an own IPv4 address: answered in place, if it is valid.
    Echo4,
    /// The same for IPv6.
    Echo6,
    /// Control's: it looks like a datagram of another NVE to a locator of ours (R47).
    Peer,
    /// The host's; `news`: it told of a neighbor, so the switch has used it even if no host is there.
    Host {
        /// A neighbor's answer or announcement.
        news: bool,
    },
}

/// A neighbor that a frame told of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct News {
    ip: IpAddr,
    mac: Mac,
    solicited: bool,
}

/// Looks at the underlay's own frame. No side effects.
pub(crate) fn inspect(frame: &[u8], uplink: &Uplink) -> (Fate, Option<News>) {
    let nothing = (Fate::Host { news: false }, None);
    let Some(a) = Addresses::of(frame) else { return nothing };
    let packet = &frame[ethernet::HEADER_LEN..];
    match a.ethertype {
        EtherType::ARP => inspect_arp(packet, a, uplink).unwrap_or(nothing),
        EtherType::IPV4 | EtherType::IPV6 if a.dst_mac() == uplink.mac && is_peer(frame, uplink) => {
            (Fate::Peer, None)
        }
        EtherType::IPV4 if a.dst_mac() == uplink.mac => match Ipv4::new_checked(packet) {
            Ok(ip) if uplink.answers_for_v4(ip.dst()) && is_echo4(&ip) => (Fate::Echo4, None),
            _ => nothing,
        },
        EtherType::IPV6 => inspect_v6(packet, a, uplink).unwrap_or(nothing),
        _ => nothing,
    }
}

fn is_peer(frame: &[u8], uplink: &Uplink) -> bool {
    peer::parse(frame).is_ok_and(|r| uplink.is_locator(r.dst))
}

fn is_echo4(ip: &Ipv4<&[u8]>) -> bool {
    ip.proto() == godwit_wire::proto::ICMP
        && !ip.is_fragment()
        && ip.payload().first() == Some(&icmpv4::ECHO_REQUEST)
}

fn is_echo6(ip: &Ipv6<&[u8]>) -> bool {
    ip.next_header() == godwit_wire::proto::ICMPV6 && ip.payload().first() == Some(&icmpv6::ECHO_REQUEST)
}

fn inspect_arp(packet: &[u8], a: Addresses, uplink: &Uplink) -> Option<(Fate, Option<News>)> {
    let arp = Arp::new_checked(packet).ok()?;
    let own = uplink.answers_for_v4(arp.spa());
    let usable = arp.sha().is_unicast() && arp.sha() == a.src_mac() && !arp.spa().is_multicast();
    let told = usable && !own && !arp.spa().is_unspecified() && (arp.is_request() || arp.is_reply());
    let to_us = uplink.answers_for_v4(arp.tpa());
    let news = told.then(|| News {
        ip: arp.spa().into(),
        mac: arp.sha(),
        solicited: arp.is_reply() && to_us && a.dst_mac() == uplink.mac,
    });
    if arp.is_request() && to_us && usable && !own {
        return Some((Fate::Arp(ArpRepr::reply_to(&arp.repr(), uplink.mac)), news));
    }
    Some((Fate::Host { news: arp.is_reply() && news.is_some() }, news))
}

fn inspect_v6(packet: &[u8], a: Addresses, uplink: &Uplink) -> Option<(Fate, Option<News>)> {
    match ndp::parse(packet) {
        Ok(Ndp::Solicit(s)) => {
            let asker = s.slla.unwrap_or(a.src_mac());
            let known = !s.is_dad() && asker.is_unicast() && !uplink.answers_for(s.src);
            let news = known.then_some(News { ip: s.src.into(), mac: asker, solicited: false });
            if uplink.answers_for(s.target) {
                return Some((Fate::Nd(AdvertFrame::reply_to(&s, a.src_mac(), uplink.mac, false)), news));
            }
            Some((Fate::Host { news: false }, news))
        }
        Ok(Ndp::Advert(adv)) => {
            let mac = adv.tlla.unwrap_or(a.src_mac());
            let known = mac.is_unicast() && !uplink.answers_for(adv.target);
            let news = known.then_some(News { ip: adv.target.into(), mac, solicited: adv.solicited });
            Some((Fate::Host { news: news.is_some() }, news))
        }
        _ if a.dst_mac() == uplink.mac => {
            let ip = Ipv6::new_checked(packet).ok()?;
            (uplink.answers_for(ip.dst()) && is_echo6(&ip)).then_some((Fate::Echo6, None))
        }
        _ => None,
    }
}

/// A router's query for members of multicast groups.
pub(crate) fn group_query(frame: &[u8]) -> Option<Query> {
    let frame = Frame::read(frame).ok().filter(|f| !f.dst().is_unicast())?;
    match membership::read(&frame) {
        Some(Ok(Message::Query(query))) => Some(query),
        _ => None,
    }
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Does with the underlay's own frame what is to be done.
    pub fn underlay(&mut self, mut packet: P, uplink: &Uplink) {
        let (fate, news) = inspect(packet.data(), uplink);
        if let Some(n) = news
            && self.tables.may_report_neighbor(n.ip, n.mac, n.solicited, self.now)
        {
            let (ip, mac, solicited) = (n.ip, n.mac, n.solicited);
            self.event(Event::Neighbor { uplink: uplink.port, ip, mac, solicited });
        }
        let worker = &mut self.tables.counters.worker;
        let answered = match fate {
            Fate::Arp(reply) => {
                worker.answered_arp += 1;
                reply.emit_frame(packet.data_mut(), reply.tha, reply.sha).is_ok()
            }
            Fate::Nd(advert) => {
                worker.answered_nd += 1;
                let mut buf = [0; ndp::MAX_FRAME_LEN];
                advert.emit_frame(&mut buf).is_ok_and(|n| packet.set(&buf[..n]))
            }
            Fate::Echo4 | Fate::Echo6 => {
                let done = match fate {
                    Fate::Echo4 => icmpv4::echo_reply_in_place(packet.data_mut(), DEFAULT_TTL),
                    _ => icmpv6::echo_reply_in_place(packet.data_mut(), DEFAULT_TTL),
                };
                let Ok(len) = done else { return self.hand_to_host(packet, uplink, false) };
                worker.answered_echo += 1;
                packet.truncate(len);
                true
            }
            Fate::Peer => return self.peer(packet),
            Fate::Host { news } => {
                let used = news
                    | self.path_too_big(packet.data(), uplink)
                    | self.group_query(packet.data(), uplink.port);
                return self.hand_to_host(packet, uplink, used);
            }
        };
        match answered {
            true => self.send_in_vlan(uplink.port, packet, uplink.vlan),
            false => self.drop(packet, DropReason::NoBuffer),
        }
    }

    /// Sends a frame by an uplink, with the tag of its VLAN.
    fn send_in_vlan(&mut self, uplink: PortIdx, mut packet: P, vlan: Option<VlanId>) {
        if put_in_vlan(&mut packet, vlan) {
            self.send(uplink, packet);
        } else {
            self.drop(packet, DropReason::NoHeadroom);
        }
    }

    /// Passes on what a router says of packets that were too big for the underlay, if it quotes one that can
    /// be ours (R9). Whether it goes to an NVE that we know, control finds out. True where it was such a report.
    fn path_too_big(&mut self, frame: &[u8], uplink: &Uplink) -> bool {
        let Ok(told) = parse_too_big(frame, self.tables.vxlan_port) else { return false };
        let ours = uplink.is_locator(told.local)
            && told.vni.is_some_and(|vni| self.tables.vns.by_vni(vni).is_some());
        if !ours {
            self.tables.counters.worker.path_too_big_unmatched += 1;
            return true;
        }
        self.tables.counters.worker.path_too_big += 1;
        if self.tables.may_report_path(told.remote, self.now) {
            self.event(Event::PathTooBig { local: told.local, remote: told.remote, mtu: told.mtu });
        }
        true
    }

    /// Tells control of a router's query for members of multicast groups, which it may be one of (R60). True where it
    /// is one.
    fn group_query(&mut self, frame: &[u8], uplink: PortIdx) -> bool {
        let Some(query) = group_query(frame) else { return false };
        if self.tables.may_report_query(self.now) {
            let group = query.group.unwrap_or(routers_of(query.src));
            self.event(Event::GroupQuery { uplink, group, max_response: query.max_response });
        }
        true
    }

    /// Hands a datagram of another NVE to control, which alone can open it (R47).
    fn peer(&mut self, packet: P) {
        let Ok(r) = peer::parse(packet.data()) else { return self.drop(packet, DropReason::Truncated) };
        let event = Event::Peer { src: r.src, dst: r.dst, datagram: *r.datagram };
        if !self.tables.may_report_peer(self.now) {
            return self.drop(packet, DropReason::PeerLimit);
        }
        self.tables.counters.worker.peer_datagrams += 1;
        self.event(event);
        self.consume(packet);
    }

    /// What the switch has no use for is the host's, if there is one.
    fn hand_to_host(&mut self, packet: P, uplink: &Uplink, used: bool) {
        match uplink.exception {
            Some(port) if is_exception(self.tables, port) => self.send(port, packet),
            Some(_) => self.drop(packet, DropReason::PortGone),
            None if used => self.consume(packet),
            None => self.drop(packet, DropReason::NoExceptionPort),
        }
    }
}

/// The port is a host's.
pub(crate) fn is_exception(tables: &Tables, port: PortIdx) -> bool {
    matches!(tables.ports.role(port), Some(PortRole::Exception { .. }))
}

/// An echo request to us is fit to be answered. Answers a copy to find out: for the trace only.
pub(crate) fn is_valid_echo(frame: &[u8]) -> bool {
    let mut copy = [0; 2048];
    let Some(room) = copy.get_mut(..frame.len()) else { return true };
    room.copy_from_slice(frame);
    icmpv4::echo_reply_in_place(room, DEFAULT_TTL).is_ok()
        || icmpv6::echo_reply_in_place(room, DEFAULT_TTL).is_ok()
}

/// Puts the tag of an uplink's VLAN, if it is in one, into a frame that has none (R95). False, and no change, where
/// the headroom is too small.
pub(crate) fn put_in_vlan<P: Packet>(packet: &mut P, vlan: Option<VlanId>) -> bool {
    let Some(vlan) = vlan else { return true };
    packet.prepend(ethernet::TAG_LEN).is_some_and(|frame| {
        let tagged = ethernet::push_tag(frame, vlan.get()).is_ok();
        debug_assert!(tagged, "an Ethernet frame");
        tagged
    })
}

/// The host's frames leave through the uplink as they are, in its VLAN.
pub(crate) fn from_exception<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    burst: &mut Vec<P>,
    n: usize,
    uplink: PortIdx,
) {
    let Some(&PortRole::Uplink { vlan, .. }) = cx.tables.ports.role(uplink) else {
        return cx.refuse(burst, n, DropReason::PortGone);
    };
    for packet in burst.drain(..n) {
        cx.tables.counters.received(cx.ingress, 1, packet.len() as u64);
        if vlan.is_some() && packet.data().len() < ethernet::HEADER_LEN {
            cx.drop(packet, DropReason::Truncated);
        } else {
            cx.send_in_vlan(uplink, packet, vlan);
        }
    }
}
