//! IPv6 neighbour discovery (RFC 4861): solicitations and advertisements in full, router
//! messages and redirects by type.

use crate::addr::Mac;
use crate::bytes::{array, mac_at, put, v6_at};
use crate::error::WireError;
use crate::ethernet::{self, EtherType};
use crate::icmpv6::{self, Icmpv6};
use crate::ipv6::{self, Ipv6, Ipv6Repr};
use crate::proto;
use core::net::Ipv6Addr;

mod field {
    /// Flags of an advertisement, in the word after the checksum.
    pub const FLAGS: usize = 4;
    pub const TARGET: usize = 8;
    pub const OPTIONS: usize = 24;
}

mod option {
    pub const SOURCE_MAC: u8 = 1;
    pub const TARGET_MAC: u8 = 2;
    pub const NONCE: u8 = 14;
}

/// Router solicitation.
pub const ROUTER_SOLICIT: u8 = 133;
/// Router advertisement.
pub const ROUTER_ADVERT: u8 = 134;
/// Neighbour solicitation.
pub const NEIGHBOR_SOLICIT: u8 = 135;
/// Neighbour advertisement.
pub const NEIGHBOR_ADVERT: u8 = 136;
/// Redirect.
pub const REDIRECT: u8 = 137;

/// Options that are walked in one message before giving up.
pub const MAX_OPTIONS: usize = 16;

const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// A valid neighbour discovery message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ndp {
    /// Neighbour solicitation.
    Solicit(Solicit),
    /// Neighbour advertisement.
    Advert(Advert),
    /// Router solicitation, contents not looked at.
    RouterSolicit,
    /// Router advertisement, contents not looked at (R66: only from marked ports).
    RouterAdvert,
    /// Redirect, contents not looked at (R66).
    Redirect,
}

/// A neighbour solicitation (RFC 4861 section 4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Solicit {
    /// IP source; `::` in duplicate address detection.
    pub src: Ipv6Addr,
    /// IP destination: solicited-node multicast, or the target itself in unreachability detection.
    pub dst: Ipv6Addr,
    /// The address that is asked for; never multicast or `::`.
    pub target: Ipv6Addr,
    /// Source link-layer address option.
    pub slla: Option<Mac>,
    /// Six-byte nonce option, with which a host knows its own looped-back probe (RFC 7527).
    pub nonce: Option<[u8; 6]>,
    /// There are options besides these, SEND's for instance: the owner must see them (R29).
    pub other_options: bool,
}

impl Solicit {
    /// Duplicate address detection (RFC 4862 section 5.4, R30): from `::`. Never creates a binding.
    #[inline]
    pub fn is_dad(&self) -> bool {
        self.src.is_unspecified()
    }

    /// Asked of one neighbour, not of a group: unreachability detection, which goes to the owner
    /// (R29).
    #[inline]
    pub fn is_unicast(&self) -> bool {
        !self.dst.is_multicast()
    }
}

/// A neighbour advertisement (RFC 4861 section 4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advert {
    /// IP source.
    pub src: Ipv6Addr,
    /// IP destination.
    pub dst: Ipv6Addr,
    /// The address that is advertised; never multicast or `::`.
    pub target: Ipv6Addr,
    /// R flag: the sender is a router.
    pub router: bool,
    /// S flag: an answer to a solicitation.
    pub solicited: bool,
    /// O flag: replaces what the neighbours hold.
    pub overrides: bool,
    /// Target link-layer address option.
    pub tlla: Option<Mac>,
    /// There are options besides that.
    pub other_options: bool,
}

impl Advert {
    /// An announcement that starts a claim (R25): S = 0, with target link-layer address, sent to
    /// all nodes (RFC 4861) or to a solicited-node group (the draft). Hop limit and checksum were
    /// checked by [`parse`].
    #[inline]
    pub fn is_unsolicited_announce(&self) -> bool {
        let group = self.dst == ipv6::ALL_NODES || ipv6::is_solicited_node(self.dst);
        !self.solicited && self.tlla.is_some() && group
    }
}

/// Parses the neighbour discovery message in an IPv6 packet, with the validity checks of RFC 4861
/// sections 6.1, 7.1 and 8.1 that matter to a switch: hop limit 255, checksum, code 0, option
/// lengths; for NS and NA also the target, source and destination rules.
///
/// # Errors
/// [`WireError::NotThis`] for packets that are no neighbour discovery; [`WireError::Fragment`] for
/// the first fragment of one that is, which RFC 6980 forbids; otherwise the first check that failed.
pub fn parse(packet: &[u8]) -> Result<Ndp, WireError> {
    let ip = Ipv6::new_checked(packet)?;
    let upper = ip.upper()?;
    read(&ip, upper.proto, upper.offset, upper.fragment.map(|f| f.offset))
}

/// The same where the extension headers have been walked: what they lead to, where it begins in the packet, and its
/// offset in the datagram if the packet is a fragment.
pub(crate) fn read(
    ip: &Ipv6<&[u8]>,
    upper: u8,
    offset: usize,
    fragment: Option<u16>,
) -> Result<Ndp, WireError> {
    // What later fragments begin with is anything but a type.
    if upper != proto::ICMPV6 || fragment.is_some_and(|at| at != 0) {
        return Err(WireError::NotThis);
    }
    let message = &ip.payload()[offset - ipv6::HEADER_LEN..];
    let icmp = Icmpv6::new_checked(message)?;
    if !matches!(icmp.kind(), ROUTER_SOLICIT..=REDIRECT) {
        return Err(WireError::NotThis);
    }
    if fragment.is_some() {
        return Err(WireError::Fragment);
    }
    if ip.hop_limit() != 255 {
        return Err(WireError::BadHopLimit);
    }
    if !icmp.verify_checksum(ip.src(), ip.dst()) {
        return Err(WireError::BadChecksum);
    }
    if icmp.code() != 0 || ip.src().is_multicast() {
        return Err(WireError::BadField);
    }
    match icmp.kind() {
        ROUTER_SOLICIT => Ok(Ndp::RouterSolicit),
        ROUTER_ADVERT => Ok(Ndp::RouterAdvert),
        REDIRECT => Ok(Ndp::Redirect),
        NEIGHBOR_SOLICIT => parse_solicit(ip, message).map(Ndp::Solicit),
        _ => parse_advert(ip, message).map(Ndp::Advert),
    }
}

fn parse_target(message: &[u8]) -> Result<Ipv6Addr, WireError> {
    if message.len() < field::OPTIONS {
        return Err(WireError::Truncated);
    }
    let target = v6_at(message, field::TARGET);
    if target.is_multicast() || target.is_unspecified() {
        return Err(WireError::BadField);
    }
    Ok(target)
}

fn parse_solicit(ip: &Ipv6<&[u8]>, message: &[u8]) -> Result<Solicit, WireError> {
    let target = parse_target(message)?;
    let options = Options::parse(&message[field::OPTIONS..], option::SOURCE_MAC)?;
    let (src, dst) = (ip.src(), ip.dst());
    // RFC 4861 section 7.1.1: a solicitation from `::` goes to the target's group and names no MAC.
    if src.is_unspecified() && (!ipv6::is_solicited_node(dst) || options.mac.is_some()) {
        return Err(WireError::BadField);
    }
    Ok(Solicit { src, dst, target, slla: options.mac, nonce: options.nonce, other_options: options.other })
}

fn parse_advert(ip: &Ipv6<&[u8]>, message: &[u8]) -> Result<Advert, WireError> {
    let target = parse_target(message)?;
    let options = Options::parse(&message[field::OPTIONS..], option::TARGET_MAC)?;
    let flags = message[field::FLAGS];
    let (src, dst) = (ip.src(), ip.dst());
    let solicited = flags & FLAG_SOLICITED != 0;
    // RFC 4861 section 7.1.2: an answer is never sent to a group.
    if src.is_unspecified() || (solicited && dst.is_multicast()) {
        return Err(WireError::BadField);
    }
    Ok(Advert {
        src,
        dst,
        target,
        router: flags & FLAG_ROUTER != 0,
        solicited,
        overrides: flags & FLAG_OVERRIDE != 0,
        tlla: options.mac,
        other_options: options.other || options.nonce.is_some(),
    })
}

#[derive(Default)]
struct Options {
    mac: Option<Mac>,
    nonce: Option<[u8; 6]>,
    other: bool,
}

impl Options {
    /// Walks options of eight-byte units, looking for a link-layer address of type `mac_type`.
    /// The first of a kind counts; a second one makes `other` true.
    fn parse(mut b: &[u8], mac_type: u8) -> Result<Options, WireError> {
        let mut found = Options::default();
        for _ in 0..MAX_OPTIONS {
            if b.is_empty() {
                return Ok(found);
            }
            if b.len() < 8 {
                return Err(WireError::Truncated);
            }
            let (kind, len) = (b[0], usize::from(b[1]) * 8);
            if len == 0 {
                return Err(WireError::BadLength);
            }
            if b.len() < len {
                return Err(WireError::Truncated);
            }
            match kind {
                // An Ethernet address with its option header is exactly one unit (RFC 2464).
                k if k == mac_type && len != 8 => return Err(WireError::BadLength),
                k if k == mac_type && found.mac.is_none() => found.mac = Some(mac_at(b, 2)),
                option::NONCE if len == 8 && found.nonce.is_none() => {
                    found.nonce = Some(array(b, 2));
                }
                _ => found.other = true,
            }
            b = &b[len..];
        }
        if b.is_empty() { Ok(found) } else { Err(WireError::TooDeep) }
    }
}

/// Bytes of the longest frame that [`SolicitFrame`] and [`AdvertFrame`] write.
pub const MAX_FRAME_LEN: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + field::OPTIONS + 16;

/// A neighbour solicitation that is to be sent as a whole Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SolicitFrame {
    /// Ethernet source.
    pub eth_src: Mac,
    /// Ethernet destination.
    pub eth_dst: Mac,
    /// IP source.
    pub src: Ipv6Addr,
    /// IP destination.
    pub dst: Ipv6Addr,
    /// The address that is asked for.
    pub target: Ipv6Addr,
    /// Source link-layer address option; must be absent with source `::`.
    pub slla: Option<Mac>,
    /// Six-byte nonce option (RFC 7527).
    pub nonce: Option<[u8; 6]>,
}

impl SolicitFrame {
    /// Resolves `target` by multicast to its solicited-node group.
    pub const fn resolve(mac: Mac, src: Ipv6Addr, target: Ipv6Addr) -> SolicitFrame {
        SolicitFrame {
            eth_src: mac,
            eth_dst: ipv6::solicited_node_mac(target),
            src,
            dst: ipv6::solicited_node(target),
            target,
            slla: Some(mac),
            nonce: None,
        }
    }

    /// Asks the neighbour at `target_mac` whether it is still there (R32).
    pub const fn probe(mac: Mac, src: Ipv6Addr, target_mac: Mac, target: Ipv6Addr) -> SolicitFrame {
        SolicitFrame {
            eth_src: mac,
            eth_dst: target_mac,
            src,
            dst: target,
            target,
            slla: Some(mac),
            nonce: None,
        }
    }

    /// Writes the frame with hop limit 255 and a valid checksum; returns its length, at most
    /// [`MAX_FRAME_LEN`].
    ///
    /// # Errors
    /// [`WireError::NoSpace`].
    pub fn emit_frame(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let message = Message {
            eth_src: self.eth_src,
            eth_dst: self.eth_dst,
            src: self.src,
            dst: self.dst,
            kind: NEIGHBOR_SOLICIT,
            flags: 0,
            target: self.target,
            mac: self.slla.map(|m| (option::SOURCE_MAC, m)),
            nonce: self.nonce,
        };
        message.emit(buf)
    }
}

/// A neighbour advertisement that is to be sent as a whole Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdvertFrame {
    /// Ethernet source.
    pub eth_src: Mac,
    /// Ethernet destination.
    pub eth_dst: Mac,
    /// IP source.
    pub src: Ipv6Addr,
    /// IP destination.
    pub dst: Ipv6Addr,
    /// The address that is advertised.
    pub target: Ipv6Addr,
    /// R flag.
    pub router: bool,
    /// S flag; must be false to a multicast destination.
    pub solicited: bool,
    /// O flag.
    pub overrides: bool,
    /// Target link-layer address option.
    pub tlla: Option<Mac>,
}

impl AdvertFrame {
    /// The proxied answer to `asked`, which came from MAC `asker`: the target is at `owner` (R29:
    /// from the target, S = 1, O = 1). Duplicate address detection is answered to all nodes with
    /// S = 0 (R30).
    pub fn reply_to(asked: &Solicit, asker: Mac, owner: Mac, router: bool) -> AdvertFrame {
        let dad = asked.is_dad();
        AdvertFrame {
            eth_src: owner,
            eth_dst: if dad { ipv6::ALL_NODES_MAC } else { asker },
            src: asked.target,
            dst: if dad { ipv6::ALL_NODES } else { asked.src },
            target: asked.target,
            router,
            solicited: !dad,
            overrides: true,
            tlla: Some(owner),
        }
    }

    /// Announces to all nodes that `target` is at `mac` (RFC 4861 section 7.2.6).
    pub const fn unsolicited(mac: Mac, target: Ipv6Addr, router: bool) -> AdvertFrame {
        AdvertFrame {
            eth_src: mac,
            eth_dst: ipv6::ALL_NODES_MAC,
            src: target,
            dst: ipv6::ALL_NODES,
            target,
            router,
            solicited: false,
            overrides: true,
            tlla: Some(mac),
        }
    }

    /// Writes the frame with hop limit 255 and a valid checksum; returns its length, at most
    /// [`MAX_FRAME_LEN`].
    ///
    /// # Errors
    /// [`WireError::NoSpace`].
    pub fn emit_frame(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let message = Message {
            eth_src: self.eth_src,
            eth_dst: self.eth_dst,
            src: self.src,
            dst: self.dst,
            kind: NEIGHBOR_ADVERT,
            flags: flag(self.router, FLAG_ROUTER)
                | flag(self.solicited, FLAG_SOLICITED)
                | flag(self.overrides, FLAG_OVERRIDE),
            target: self.target,
            mac: self.tlla.map(|m| (option::TARGET_MAC, m)),
            nonce: None,
        };
        message.emit(buf)
    }
}

/// What solicitation and advertisement have in common on the wire.
struct Message {
    eth_src: Mac,
    eth_dst: Mac,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    mac: Option<(u8, Mac)>,
    nonce: Option<[u8; 6]>,
}

impl Message {
    fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let options = usize::from(self.mac.is_some()) + usize::from(self.nonce.is_some());
        let payload_len = field::OPTIONS + 8 * options;
        let at = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
        let buf = buf.get_mut(..at + payload_len).ok_or(WireError::NoSpace)?;
        ethernet::emit(buf, self.eth_dst, self.eth_src, EtherType::IPV6)?;
        let ip = Ipv6Repr {
            src: self.src,
            dst: self.dst,
            next_header: proto::ICMPV6,
            hop_limit: 255,
            traffic_class: 0,
            flow_label: 0,
            payload_len,
        };
        ip.emit(&mut buf[ethernet::HEADER_LEN..])?;
        let message = &mut buf[at..];
        message.fill(0);
        message[0] = self.kind;
        message[field::FLAGS] = self.flags;
        put(message, field::TARGET, self.target.octets());
        let mut opt = field::OPTIONS;
        let mac = self.mac.map(|(kind, mac)| (kind, mac.0));
        for (kind, value) in [mac, self.nonce.map(|n| (option::NONCE, n))].into_iter().flatten() {
            message[opt] = kind;
            message[opt + 1] = 1;
            put(message, opt + 2, value);
            opt += 8;
        }
        icmpv6::fill_checksum(message, self.src, self.dst);
        Ok(at + payload_len)
    }
}
