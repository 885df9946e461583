//! Frames built from a description, for `godwitctl trace`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_wire::arp::ArpRepr;
use godwit_wire::checksum::{fold, pseudo_v4, pseudo_v6, sum, udp_field};
use godwit_wire::ethernet::{self, EtherType};
use godwit_wire::ipv4::{self, Ipv4Repr};
use godwit_wire::ipv6::{self, Ipv6Repr};
use godwit_wire::ndp::{AdvertFrame, SolicitFrame};
use godwit_wire::{Mac, WireError, icmpv4, icmpv6, proto, tcp, udp};

/// Longest frame that an NVE traces, in bytes.
pub const MAX_LEN: usize = 256;

/// EtherType for local experiments (IEEE 802): a frame that is just Ethernet.
const LOCAL_EXPERIMENTAL: EtherType = EtherType(0x88b5);

/// Bytes of an echo request's header.
const ECHO_LEN: usize = 8;

/// Why there is no frame of a description.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadFrame {
    /// Its source is of one IP version and its destination of the other.
    #[error("its IP addresses are of different families")]
    Families,
    /// The payload alone exceeds what is traced.
    #[error("its payload is too long")]
    Payload,
    /// The whole exceeds what is traced.
    #[error("it has {len} bytes, and an NVE traces at most {MAX_LEN}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A header cannot be written.
    #[error(transparent)]
    Header(#[from] WireError),
}

/// What the frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing that anybody knows.
    Bare,
    /// An IP packet.
    Ip {
        /// Source; of the same family as `dst`.
        src: IpAddr,
        /// Destination.
        dst: IpAddr,
        /// What it carries.
        upper: Upper,
        /// Time to live or hop limit.
        ttl: u8,
        /// Bytes of zeros after the innermost header.
        payload: usize,
    },
    /// Who has `target`? With sender 0.0.0.0 it is a probe.
    ArpRequest {
        /// Who asks.
        sender: Ipv4Addr,
        /// Who is asked for.
        target: Ipv4Addr,
    },
    /// This address is mine.
    GratuitousArp(Ipv4Addr),
    /// A hypervisor's announcement.
    Rarp,
    /// Who has `target`? With sender `::` it is duplicate address detection.
    Solicitation {
        /// Who asks.
        sender: Ipv6Addr,
        /// Who is asked for.
        target: Ipv6Addr,
    },
    /// This address is mine.
    Advertisement(Ipv6Addr),
}

/// What an IP packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upper {
    /// A UDP datagram.
    Udp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// A TCP SYN.
    Tcp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// An echo request.
    Echo,
}

/// A frame that is to be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// Destination MAC address.
    pub dst: Mac,
    /// Source MAC address.
    pub src: Mac,
    /// ID of a VLAN tag.
    pub vlan: Option<u16>,
    /// What it carries.
    pub content: Content,
}

impl Content {
    /// The destination MAC address that follows from the content alone.
    pub fn natural_dst(&self) -> Option<Mac> {
        match *self {
            Content::ArpRequest { .. } | Content::GratuitousArp(_) | Content::Rarp => Some(Mac::BROADCAST),
            Content::Solicitation { target, .. } => Some(ipv6::solicited_node_mac(target)),
            Content::Advertisement(_) => Some(ipv6::ALL_NODES_MAC),
            Content::Ip { dst: IpAddr::V4(Ipv4Addr::BROADCAST), .. } => Some(Mac::BROADCAST),
            Content::Ip { dst: IpAddr::V4(ip), .. } if ip.is_multicast() => {
                Some(ethernet::multicast_mac_v4(ip))
            }
            Content::Ip { dst: IpAddr::V6(ip), .. } if ip.is_multicast() => {
                Some(ethernet::multicast_mac_v6(ip))
            }
            Content::Ip { .. } | Content::Bare => None,
        }
    }
}

impl Description {
    /// The frame's bytes, unpadded, with valid checksums.
    ///
    /// # Errors
    /// Where it gets too long or its addresses do not fit together; says so.
    pub fn build(&self) -> Result<Vec<u8>, BadFrame> {
        let mut buf = [0u8; 2 * MAX_LEN];
        let len = self.emit(&mut buf)?;
        let mut frame = buf[..len].to_vec();
        if let Some(id) = self.vlan {
            frame.splice(0..0, [0; ethernet::TAG_LEN]);
            ethernet::push_tag(&mut frame, id)?;
        }
        if frame.len() > MAX_LEN {
            return Err(BadFrame::TooLong { len: frame.len() });
        }
        Ok(frame)
    }

    fn emit(&self, buf: &mut [u8]) -> Result<usize, BadFrame> {
        let arp = |repr: ArpRepr, buf: &mut [u8]| repr.emit_frame(buf, self.dst, self.src);
        let len = match self.content {
            Content::Bare => ethernet::emit(buf, self.dst, self.src, LOCAL_EXPERIMENTAL),
            Content::ArpRequest { sender, target } => arp(ArpRepr::request(self.src, sender, target), buf),
            Content::GratuitousArp(ip) => arp(ArpRepr::gratuitous(self.src, ip), buf),
            Content::Rarp => arp(ArpRepr::rarp_announce(self.src), buf),
            Content::Solicitation { sender, target } => {
                let slla = (!sender.is_unspecified()).then_some(self.src);
                let asks = SolicitFrame::resolve(self.src, sender, target);
                SolicitFrame { eth_dst: self.dst, slla, ..asks }.emit_frame(buf)
            }
            Content::Advertisement(ip) => {
                let says = AdvertFrame::unsolicited(self.src, ip, false);
                AdvertFrame { eth_dst: self.dst, ..says }.emit_frame(buf)
            }
            Content::Ip { src: IpAddr::V4(s), dst: IpAddr::V4(d), upper, ttl, payload } => {
                return self.emit_v4(buf, (s, d), upper, ttl, payload);
            }
            Content::Ip { src: IpAddr::V6(s), dst: IpAddr::V6(d), upper, ttl, payload } => {
                return self.emit_v6(buf, (s, d), upper, ttl, payload);
            }
            Content::Ip { .. } => return Err(BadFrame::Families),
        };
        Ok(len?)
    }

    fn emit_v4(
        &self,
        buf: &mut [u8],
        (src, dst): (Ipv4Addr, Ipv4Addr),
        upper: Upper,
        ttl: u8,
        payload: usize,
    ) -> Result<usize, BadFrame> {
        let l4 = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
        let (number, len) = (upper.number(false), upper.header_len() + payload);
        let pseudo = match upper {
            Upper::Echo => 0,
            _ => pseudo_v4(src, dst, number, len as u16),
        };
        upper.emit(buf.get_mut(l4..l4 + len).ok_or(BadFrame::Payload)?, pseudo, false);
        let at = ethernet::emit(buf, self.dst, self.src, EtherType::IPV4)?;
        let ip = Ipv4Repr {
            src,
            dst,
            proto: number,
            ttl,
            tos: 0,
            ident: 0,
            dont_fragment: true,
            payload_len: len,
        };
        ip.emit(&mut buf[at..])?;
        Ok(l4 + len)
    }

    fn emit_v6(
        &self,
        buf: &mut [u8],
        (src, dst): (Ipv6Addr, Ipv6Addr),
        upper: Upper,
        hop_limit: u8,
        payload: usize,
    ) -> Result<usize, BadFrame> {
        let l4 = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
        let (next_header, len) = (upper.number(true), upper.header_len() + payload);
        let pseudo = pseudo_v6(src, dst, next_header, len as u32);
        upper.emit(buf.get_mut(l4..l4 + len).ok_or(BadFrame::Payload)?, pseudo, true);
        let at = ethernet::emit(buf, self.dst, self.src, EtherType::IPV6)?;
        let ip =
            Ipv6Repr { src, dst, next_header, hop_limit, traffic_class: 0, flow_label: 0, payload_len: len };
        ip.emit(&mut buf[at..])?;
        Ok(l4 + len)
    }
}

impl Upper {
    fn number(self, v6: bool) -> u8 {
        match self {
            Upper::Udp { .. } => proto::UDP,
            Upper::Tcp { .. } => proto::TCP,
            Upper::Echo if v6 => proto::ICMPV6,
            Upper::Echo => proto::ICMP,
        }
    }

    fn header_len(self) -> usize {
        match self {
            Upper::Udp { .. } => udp::HEADER_LEN,
            Upper::Tcp { .. } => tcp::HEADER_LEN,
            Upper::Echo => ECHO_LEN,
        }
    }

    /// Fills `b`, which is zero and has the right length, and sets its checksum.
    fn emit(self, b: &mut [u8], pseudo: u64, v6: bool) {
        let checksum_at = match self {
            Upper::Udp { sport, dport } => {
                let len = b.len() as u16;
                put_u16s(b, &[sport, dport, len]);
                6
            }
            Upper::Tcp { sport, dport } => {
                // Sequence number 1, no acknowledgement, five words of header, SYN, a full window.
                let offset_and_flags = 5 << 12 | u16::from(tcp::SYN);
                put_u16s(b, &[sport, dport, 0, 1, 0, 0, offset_and_flags, 0xffff]);
                16
            }
            Upper::Echo => {
                let kind = if v6 { icmpv6::ECHO_REQUEST } else { icmpv4::ECHO_REQUEST };
                // Identifier and sequence number 1.
                put_u16s(b, &[u16::from(kind) << 8, 0, 1, 1]);
                2
            }
        };
        let computed = !fold(pseudo + sum(b));
        let field = if matches!(self, Upper::Udp { .. }) { udp_field(computed) } else { computed };
        b[checksum_at..checksum_at + 2].copy_from_slice(&field.to_be_bytes());
    }
}

/// Writes words from the beginning of `b` on.
fn put_u16s(b: &mut [u8], words: &[u16]) {
    for (to, word) in b.chunks_exact_mut(2).zip(words) {
        to.copy_from_slice(&word.to_be_bytes());
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.src, self.dst)?;
        if let Some(id) = self.vlan {
            write!(f, ", VLAN {id}")?;
        }
        match self.content {
            Content::Bare => write!(f, ", no known payload"),
            Content::ArpRequest { sender, target } => write!(f, ", ARP: who has {target}? tell {sender}"),
            Content::GratuitousArp(ip) => write!(f, ", gratuitous ARP for {ip}"),
            Content::Rarp => write!(f, ", RARP announcement"),
            Content::Solicitation { sender, target } => {
                write!(f, ", neighbor solicitation: who has {target}? tell {sender}")
            }
            Content::Advertisement(ip) => write!(f, ", neighbor advertisement for {ip}"),
            Content::Ip { src, dst, upper, .. } => match upper {
                Upper::Udp { sport, dport } => write!(f, ", {src} > {dst}, UDP {sport} > {dport}"),
                Upper::Tcp { sport, dport } => write!(f, ", {src} > {dst}, TCP SYN {sport} > {dport}"),
                Upper::Echo => write!(f, ", {src} > {dst}, echo request"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_wire::{Arp, Ethernet, Ipv4, Ipv6, Tcp, Udp};

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn ip(src: &str, dst: &str, upper: Upper, payload: usize) -> Description {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        Description { dst: B, src: A, vlan: None, content: Content::Ip { src, dst, upper, ttl: 9, payload } }
    }

    #[test]
    fn udp_over_ipv4_has_valid_checksums() {
        for payload in 0..100 {
            let frame =
                ip("10.0.0.1", "10.0.0.2", Upper::Udp { sport: 7, dport: 53 }, payload).build().unwrap();
            let eth = Ethernet::new_checked(&frame[..]).unwrap();
            let ip = Ipv4::new_checked(eth.payload()).unwrap();
            let udp = Udp::new_checked(ip.payload()).unwrap();
            assert!(ip.verify_checksum() && udp.verify_v4(ip.src(), ip.dst()));
            assert_eq!((ip.ttl(), udp.dst_port(), udp.payload().len()), (9, 53, payload));
        }
    }

    #[test]
    fn a_syn_over_ipv6_has_valid_checksums() {
        let frame = ip("2001:db8::1", "2001:db8::2", Upper::Tcp { sport: 7, dport: 443 }, 3).build().unwrap();
        let eth = Ethernet::new_checked(&frame[..]).unwrap();
        let ip = Ipv6::new_checked(eth.payload()).unwrap();
        let tcp = Tcp::new_checked(ip.payload()).unwrap();
        assert!(tcp.verify_v6(ip.src(), ip.dst()));
        assert_eq!((tcp.flags(), tcp.header_len(), tcp.payload().len()), (tcp::SYN, 20, 3));
    }

    #[test]
    fn echo_requests_sum_up() {
        let v4 = ip("10.0.0.1", "10.0.0.2", Upper::Echo, 5).build().unwrap();
        assert!(godwit_wire::checksum::is_valid(&v4[34..]));
        let v6 = ip("2001:db8::1", "2001:db8::2", Upper::Echo, 5).build().unwrap();
        let pseudo =
            pseudo_v6("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap(), proto::ICMPV6, 13);
        assert_eq!(fold(pseudo + sum(&v6[54..])), 0xffff);
    }

    #[test]
    fn a_tag_goes_between_addresses_and_type() {
        let content =
            Content::ArpRequest { sender: Ipv4Addr::UNSPECIFIED, target: Ipv4Addr::new(10, 0, 0, 9) };
        let dst = content.natural_dst().unwrap();
        let frame = Description { dst, src: A, vlan: Some(5), content }.build().unwrap();
        let eth = Ethernet::new_checked(&frame[..]).unwrap();
        assert_eq!((eth.dst(), eth.tci(), eth.ethertype()), (Mac::BROADCAST, Some(5), EtherType::ARP));
        assert!(Arp::new_checked(eth.payload()).unwrap().is_probe());
    }

    #[test]
    fn too_long_is_refused() {
        assert!(ip("10.0.0.1", "10.0.0.2", Upper::Echo, 230).build().is_err());
        assert!(ip("10.0.0.1", "10.0.0.2", Upper::Echo, 4000).build().is_err());
        assert!(ip("10.0.0.1", "2001:db8::2", Upper::Echo, 0).build().is_err());
    }
}
