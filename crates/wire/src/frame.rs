//! A tenant's frame, read once: where its headers lie and what they say, each checked one time.
//!
//! [`Frame`] borrows the bytes and keeps offsets. Its readers ([`crate::guard`], [`crate::policy`], [`crate::flow`],
//! [`crate::offload`], address resolution) ask it instead of walking the headers themselves. A layer that cannot be
//! read is a state of its own, since its readers differ in what they make of it.
//!
//! The fast path reads the usual frames at fixed places ([`crate::tenant::quick_look`]); a property holds both equal.

use crate::addr::Mac;
use crate::arp::Arp;
use crate::bytes::{mac_at, u16_at, u32_at, v4_at, v6_at};
use crate::ecn::Ecn;
use crate::error::WireError;
use crate::ethernet::{self, EtherType, Ethernet};
use crate::ipv4::{self, Ipv4};
use crate::ipv6::{self, Ipv6};
use crate::ndp::{self, Ndp};
use crate::proto;
use crate::tenant::Source;

/// Where a frame's headers lie. Offsets count from the frame's first byte.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    /// What follows header and tags.
    payload: &'a [u8],
    /// The end of the IP packet.
    end: u32,
    /// Where the upper layer begins.
    at: u32,
    ethertype: EtherType,
    /// The offset of a fragment, which is a multiple of 8, or [`WHOLE`].
    fragment: u16,
    /// Extension headers of IPv6.
    extensions: u16,
    proto: u8,
    only_options: bool,
    whole: bool,
    layer: Layer,
}

/// Instead of a fragment's offset: the packet is none.
const WHOLE: u16 = u16::MAX;

/// [`Network`] without what belongs to it: plain fields are written faster than nested ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layer {
    Unknown,
    NotIp,
    V4,
    V6,
    /// An extension header is cut off.
    Chain,
    Malformed(WireError),
}

/// The network layer of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// The frame ends inside a tag: what it carries is unknown.
    Unknown,
    /// The EtherType is not one of IP.
    NotIp,
    /// An IPv4 header.
    V4(Ip),
    /// An IPv6 header.
    V6(Ip),
    /// The EtherType is one of IP, and the header contradicts it, itself or the frame's length.
    Malformed(WireError),
}

/// A checked IP header. Its packet fits the frame; of a frame in pieces it may go beyond the first one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    /// The end of the packet; what comes after it is padding.
    pub end: usize,
    /// What comes after the header, its options and extension headers; an error where an extension header is cut off.
    pub upper: Result<Upper, WireError>,
}

/// The upper layer of an IP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upper {
    /// Its protocol, see [`crate::proto`]. Of IPv6 fragments what the fragment header names.
    pub proto: u8,
    /// Where it begins.
    pub at: usize,
    /// Its offset in the datagram, in bytes, where the packet is a fragment; 0 in the first one.
    pub fragment: Option<u16>,
    /// IPv6 extension headers before it.
    pub(crate) extensions: u16,
    /// All of these are hop-by-hop or destination options.
    pub(crate) only_options: bool,
}

impl Upper {
    /// A fragment other than the first: it begins with neither ports nor a type.
    #[inline]
    pub const fn is_later(&self) -> bool {
        matches!(self.fragment, Some(1..))
    }
}

impl<'a> Frame<'a> {
    /// Reads a frame that lies in one piece.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below the 14 bytes of an Ethernet header.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Result<Frame<'a>, WireError> {
        Frame::read_first(bytes, bytes.len())
    }

    /// Reads a frame of `len` bytes from its first piece. A packet that goes beyond the piece has an address of its
    /// sender, and an upper layer for [`crate::offload`]; nothing else is read from it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below the 14 bytes of an Ethernet header.
    #[inline]
    pub fn read_first(first: &'a [u8], len: usize) -> Result<Frame<'a>, WireError> {
        let head = first.first_chunk::<{ ethernet::HEADER_LEN }>().ok_or(WireError::Truncated)?;
        let ethertype = EtherType(u16_at(head, 12));
        let mut frame = Frame {
            bytes: first,
            payload: &first[ethernet::HEADER_LEN..],
            end: 0,
            at: 0,
            ethertype,
            fragment: WHOLE,
            extensions: 0,
            proto: 0,
            only_options: true,
            whole: first.len() >= len,
            layer: Layer::NotIp,
        };
        match ethertype {
            EtherType::IPV4 => frame.read_v4(len),
            EtherType::IPV6 => frame.read_v6(len),
            EtherType::VLAN | EtherType::QINQ => frame.read_tagged(len),
            _ => {}
        }
        Ok(frame)
    }

    #[inline(never)]
    fn read_tagged(&mut self, len: usize) {
        let Ok(eth) = Ethernet::new_checked(self.bytes) else {
            self.layer = Layer::Unknown;
            return;
        };
        (self.ethertype, self.payload) = (eth.ethertype(), &self.bytes[eth.l3_offset()..]);
        match self.ethertype {
            EtherType::IPV4 => self.read_v4(len),
            EtherType::IPV6 => self.read_v6(len),
            _ => {}
        }
    }

    /// Reads the IPv4 packet that the payload begins with, in a frame of `len` bytes.
    #[inline]
    fn read_v4(&mut self, len: usize) {
        let (header_len, total_len) = match ipv4::check(self.payload) {
            Ok(lengths) => lengths,
            Err(why) => return self.layer = Layer::Malformed(why),
        };
        let end = self.l3() + total_len;
        if end > len {
            return self.layer = Layer::Malformed(WireError::BadLength);
        }
        (self.end, self.at) = (end as u32, (self.l3() + header_len) as u32);
        self.proto = self.payload[ipv4::PROTO];
        self.fragment = ipv4::fragment(self.payload).unwrap_or(WHOLE);
        self.layer = Layer::V4;
    }

    /// The same of IPv6.
    #[inline]
    fn read_v6(&mut self, len: usize) {
        let total_len = match ipv6::check(self.payload) {
            Ok(total_len) => total_len,
            Err(why) => return self.layer = Layer::Malformed(why),
        };
        let end = self.l3() + total_len;
        if end > len {
            return self.layer = Layer::Malformed(WireError::BadLength);
        }
        self.end = end as u32;
        self.layer = Layer::V6;
        self.proto = self.payload[ipv6::NEXT];
        self.at = (self.l3() + ipv6::HEADER_LEN) as u32;
        // Nearly every packet has no extension header; the walk stays out of line.
        if ipv6::is_extension(self.proto) {
            self.walk(total_len);
        }
    }

    #[inline(never)]
    fn walk(&mut self, total_len: usize) {
        let Ok(chain) = ipv6::chain(&self.payload[..total_len.min(self.payload.len())]) else {
            self.layer = Layer::Chain;
            return;
        };
        self.proto = chain.upper.proto;
        self.at = (self.l3() + chain.upper.offset) as u32;
        self.fragment = chain.upper.fragment.map_or(WHOLE, |f| f.offset);
        (self.extensions, self.only_options) = (chain.headers, chain.only_options);
    }

    /// The frame; of one in pieces the first.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The frame lies in one piece.
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Destination.
    #[inline]
    pub fn dst(&self) -> Mac {
        mac_at(self.bytes, 0)
    }

    /// Source.
    #[inline]
    pub fn src(&self) -> Mac {
        mac_at(self.bytes, 6)
    }

    /// The type field right after the addresses: a tag's identifier where the frame is tagged.
    #[inline]
    pub fn outer_type(&self) -> EtherType {
        EtherType(u16_at(self.bytes, 12))
    }

    /// The type behind the first tag, if the frame has one in full.
    pub fn type_behind_tag(&self) -> Option<EtherType> {
        let tag = self.bytes.get(ethernet::HEADER_LEN..ethernet::HEADER_LEN + ethernet::TAG_LEN)?;
        self.outer_type().is_tag().then(|| EtherType(u16_at(tag, 2)))
    }

    /// The type behind up to [`ethernet::MAX_TAGS`] tags; a tag's where there are more, or where one is cut off.
    #[inline]
    pub fn ethertype(&self) -> EtherType {
        self.ethertype
    }

    /// Where the network layer begins: 14, 18 or 22.
    #[inline]
    pub fn l3(&self) -> usize {
        self.bytes.len() - self.payload.len()
    }

    /// What follows header and tags, Ethernet padding included.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The network layer.
    #[inline]
    pub fn network(&self) -> Network {
        let ip = |upper| Ip { end: self.end as usize, upper };
        match self.layer {
            Layer::Unknown => Network::Unknown,
            Layer::NotIp => Network::NotIp,
            Layer::V4 => Network::V4(ip(Ok(self.upper_layer()))),
            Layer::V6 => Network::V6(ip(Ok(self.upper_layer()))),
            Layer::Chain => Network::V6(ip(Err(WireError::Truncated))),
            Layer::Malformed(why) => Network::Malformed(why),
        }
    }

    #[inline]
    fn upper_layer(&self) -> Upper {
        Upper {
            proto: self.proto,
            at: self.at as usize,
            fragment: Some(self.fragment).filter(|at| *at != WHOLE),
            extensions: self.extensions,
            only_options: self.only_options,
        }
    }

    /// The IPv4 packet, if all of it is there.
    #[inline]
    pub fn ipv4(&self) -> Option<Ipv4<&'a [u8]>> {
        (self.layer == Layer::V4 && self.holds_packet()).then(|| Ipv4::checked(self.payload))
    }

    /// The IPv6 packet, if all of it is there.
    #[inline]
    pub fn ipv6(&self) -> Option<Ipv6<&'a [u8]>> {
        (self.is_v6() && self.holds_packet()).then(|| Ipv6::checked(self.payload))
    }

    /// It is an IPv6 packet.
    #[inline]
    pub fn is_v6(&self) -> bool {
        matches!(self.layer, Layer::V6 | Layer::Chain)
    }

    #[inline]
    fn holds_packet(&self) -> bool {
        self.end as usize <= self.bytes.len()
    }

    /// The upper layer and its bytes, of an IP packet that is all there and whose headers lead to one.
    #[inline]
    pub fn upper(&self) -> Option<(Upper, &'a [u8])> {
        if !matches!(self.layer, Layer::V4 | Layer::V6) {
            return None;
        }
        // Nothing where the packet goes beyond a first piece.
        Some((self.upper_layer(), self.bytes.get(self.at as usize..self.end as usize)?))
    }

    /// The first four bytes of a protocol with ports: source, then destination. None of fragments, since all
    /// fragments of a datagram take one path.
    #[inline]
    pub fn ports(&self) -> Option<u32> {
        let (upper, message) = self.upper()?;
        let has = proto::has_ports(upper.proto) && upper.fragment.is_none() && message.len() >= 4;
        has.then(|| u32_at(message, 0))
    }

    /// The codepoint of the IP header; `None` where there is none to read it from.
    #[inline]
    pub fn ecn(&self) -> Option<Ecn> {
        match self.layer {
            Layer::V4 => self.ipv4().map(|ip| ip.ecn()),
            _ => self.ipv6().map(|ip| ip.ecn()),
        }
    }

    /// The IP address that the frame says to come from.
    #[inline]
    pub fn source(&self) -> Source {
        if !self.whole {
            return self.source_of_piece();
        }
        match self.layer {
            Layer::Unknown | Layer::NotIp => Source::NotIp,
            Layer::V4 => Source::V4(v4_at(self.payload, ipv4::SRC).to_bits()),
            Layer::V6 | Layer::Chain => Source::V6(v6_at(self.payload, ipv6::SRC).to_bits()),
            Layer::Malformed(_) => Source::Malformed,
        }
    }

    /// The same from the fixed header alone: once the frame lies in one piece, it is read again, and its lengths count.
    fn source_of_piece(&self) -> Source {
        let packet = self.payload;
        match (self.ethertype, packet.first().map(|b| b >> 4)) {
            (EtherType::IPV4, Some(4)) if packet.len() >= ipv4::HEADER_LEN => {
                Source::V4(v4_at(packet, ipv4::SRC).to_bits())
            }
            (EtherType::IPV6, Some(6)) if packet.len() >= ipv6::HEADER_LEN => {
                Source::V6(v6_at(packet, ipv6::SRC).to_bits())
            }
            (EtherType::IPV4 | EtherType::IPV6, _) => Source::Malformed,
            _ => Source::NotIp,
        }
    }

    /// The ARP or RARP packet; `None` of other EtherTypes.
    ///
    /// # Errors
    /// As [`Arp::new_checked`].
    #[inline]
    pub fn arp(&self) -> Option<Result<Arp<&'a [u8]>, WireError>> {
        match self.ethertype {
            EtherType::ARP | EtherType::RARP => Some(Arp::new_checked(self.payload)),
            _ => None,
        }
    }

    /// The type of a neighbor discovery message, valid or not, as far as its frame is no later fragment.
    #[inline]
    pub fn nd_kind(&self) -> Option<u8> {
        if !self.is_v6() {
            return None;
        }
        let (upper, message) = self.upper()?;
        let &kind = message.first()?;
        let begins = upper.proto == proto::ICMPV6 && !upper.is_later();
        (begins && matches!(kind, ndp::ROUTER_SOLICIT..=ndp::REDIRECT)).then_some(kind)
    }

    /// The neighbor discovery message, checked as by [`ndp::parse`]. Sums the message up: a caller asks once.
    ///
    /// # Errors
    /// As [`ndp::parse`]; [`WireError::NotThis`] where the frame is not IPv6, [`WireError::Truncated`] where the
    /// packet goes beyond a first piece.
    pub fn ndp(&self) -> Result<Ndp, WireError> {
        let upper = match self.network() {
            Network::V6(ip) => ip.upper?,
            Network::Malformed(why) if self.ethertype == EtherType::IPV6 => return Err(why),
            _ => return Err(WireError::NotThis),
        };
        let ip = self.ipv6().ok_or(WireError::Truncated)?;
        ndp::read(&ip, upper.proto, upper.at - self.l3(), upper.fragment)
    }

    /// It resolves addresses: ARP, RARP or neighbor discovery, valid or not, behind tags or not.
    #[inline]
    pub fn resolves(&self) -> bool {
        matches!(self.ethertype, EtherType::ARP | EtherType::RARP) || self.nd_kind().is_some()
    }
}
