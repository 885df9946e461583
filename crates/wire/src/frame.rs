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
    whole: bool,
    ethertype: EtherType,
    network: Network,
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
        if first.len() < ethernet::HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let Ok(eth) = Ethernet::new_checked(first) else { return Ok(Frame::cut_tag(first, len)) };
        let (ethertype, l3) = (eth.ethertype(), eth.l3_offset());
        let payload = &first[l3..];
        let network = match ethertype {
            EtherType::IPV4 => read_v4(payload, l3, len),
            EtherType::IPV6 => read_v6(payload, l3, len),
            _ => Network::NotIp,
        };
        Ok(Frame { bytes: first, payload, whole: first.len() >= len, ethertype, network })
    }

    #[cold]
    fn cut_tag(first: &'a [u8], len: usize) -> Frame<'a> {
        Frame {
            bytes: first,
            payload: &first[ethernet::HEADER_LEN..],
            whole: first.len() >= len,
            ethertype: EtherType(u16_at(first, 12)),
            network: Network::Unknown,
        }
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
        self.network
    }

    /// The IPv4 packet, if all of it is there.
    #[inline]
    pub fn ipv4(&self) -> Option<Ipv4<&'a [u8]>> {
        match self.network {
            Network::V4(ip) if self.holds(&ip) => Some(Ipv4::checked(self.payload)),
            _ => None,
        }
    }

    /// The IPv6 packet, if all of it is there.
    #[inline]
    pub fn ipv6(&self) -> Option<Ipv6<&'a [u8]>> {
        match self.network {
            Network::V6(ip) if self.holds(&ip) => Some(Ipv6::checked(self.payload)),
            _ => None,
        }
    }

    /// It is an IPv6 packet.
    #[inline]
    pub fn is_v6(&self) -> bool {
        matches!(self.network, Network::V6(_))
    }

    #[inline]
    fn holds(&self, ip: &Ip) -> bool {
        ip.end <= self.bytes.len()
    }

    /// The upper layer and its bytes, of an IP packet that is all there and whose headers lead to one.
    #[inline]
    pub fn upper(&self) -> Option<(Upper, &'a [u8])> {
        let (Network::V4(ip) | Network::V6(ip)) = self.network else { return None };
        let upper = ip.upper.ok()?;
        // Nothing where the packet goes beyond a first piece.
        Some((upper, self.bytes.get(upper.at..ip.end)?))
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
        match self.network {
            Network::V4(_) => self.ipv4().map(|ip| ip.ecn()),
            Network::V6(_) => self.ipv6().map(|ip| ip.ecn()),
            _ => None,
        }
    }

    /// The IP address that the frame says to come from.
    #[inline]
    pub fn source(&self) -> Source {
        if !self.whole {
            return self.source_of_piece();
        }
        match self.network {
            Network::Unknown | Network::NotIp => Source::NotIp,
            Network::V4(_) => Source::V4(v4_at(self.payload, ipv4::SRC).to_bits()),
            Network::V6(_) => Source::V6(v6_at(self.payload, ipv6::SRC).to_bits()),
            Network::Malformed(_) => Source::Malformed,
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
        let upper = match self.network {
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

/// Reads the IPv4 packet that begins at `l3` in a frame of `len` bytes.
#[inline]
fn read_v4(packet: &[u8], l3: usize, len: usize) -> Network {
    let (header_len, total_len) = match ipv4::check(packet) {
        Ok(lengths) => lengths,
        Err(why) => return Network::Malformed(why),
    };
    let end = l3 + total_len;
    if end > len {
        return Network::Malformed(WireError::BadLength);
    }
    let upper = Upper {
        proto: packet[ipv4::PROTO],
        at: l3 + header_len,
        fragment: ipv4::fragment(packet),
        extensions: 0,
        only_options: true,
    };
    Network::V4(Ip { end, upper: Ok(upper) })
}

/// Reads the IPv6 packet that begins at `l3` in a frame of `len` bytes.
#[inline]
fn read_v6(packet: &[u8], l3: usize, len: usize) -> Network {
    let total_len = match ipv6::check(packet) {
        Ok(total_len) => total_len,
        Err(why) => return Network::Malformed(why),
    };
    let end = l3 + total_len;
    if end > len {
        return Network::Malformed(WireError::BadLength);
    }
    let chain = ipv6::chain(&packet[..total_len.min(packet.len())]);
    let upper = chain.map(|c| Upper {
        proto: c.upper.proto,
        at: l3 + c.upper.offset,
        fragment: c.upper.fragment.map(|f| f.offset),
        extensions: c.headers,
        only_options: c.only_options,
    });
    Network::V6(Ip { end, upper })
}
