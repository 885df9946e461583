//! VXLAN packets around an inner frame.

use super::{Ck, V4, V6, ethernet, ethertype, udp};
use godwit_wire::{Mac, Vni};
use std::net::IpAddr;

/// The outer part of a VXLAN packet, with knobs.
#[derive(Clone, Debug)]
pub struct Vxlan {
    /// Ethernet source and destination.
    pub eth: (Mac, Mac),
    /// Locators, of one family.
    pub ip: (IpAddr, IpAddr),
    /// UDP source and destination port.
    pub ports: (u16, u16),
    /// The network.
    pub vni: Vni,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// IPv6 flow label.
    pub label: u32,
    /// The flags byte; 0x08.
    pub flags: u8,
    /// The three reserved bytes after the flags, and the one after the VNI.
    pub reserved: [u8; 4],
    /// UDP checksum; `Ck::Raw(0)` is the usual none.
    pub udp_checksum: Ck,
    /// Instead of the right UDP length.
    pub udp_len: Option<u16>,
    /// IPv4 flags and fragment offset; 0x4000 is DF.
    pub frag: u16,
    /// IPv4 header checksum.
    pub ip_checksum: Ck,
    /// Instead of the right IP length: total length (IPv4) or payload length (IPv6).
    pub ip_len: Option<u16>,
    /// IPv4 options; a multiple of 4 bytes.
    pub options: Vec<u8>,
}

impl Vxlan {
    /// An ordinary packet from one locator to another: port 4789, TTL 64, no UDP checksum.
    pub fn new(eth: (Mac, Mac), ip: (IpAddr, IpAddr), vni: Vni) -> Vxlan {
        Vxlan {
            eth,
            ip,
            ports: (49152, 4789),
            vni,
            ttl: 64,
            tos: 0,
            label: 0,
            flags: 8,
            reserved: [0; 4],
            udp_checksum: Ck::Raw(0),
            udp_len: None,
            frag: 0x4000,
            ip_checksum: Ck::Good,
            ip_len: None,
            options: Vec::new(),
        }
    }

    /// The packet around `inner`.
    pub fn frame(&self, inner: &[u8]) -> Vec<u8> {
        let [r0, r1, r2, r3] = self.reserved;
        let [_, v0, v1, v2] = self.vni.get().to_be_bytes();
        let mut vx = vec![self.flags, r0, r1, r2, v0, v1, v2, r3];
        vx.extend(inner);
        let (src, dst) = self.ip;
        let mut datagram = udp(src, dst, self.ports, &vx, self.udp_checksum);
        if let Some(len) = self.udp_len {
            datagram[4..6].copy_from_slice(&len.to_be_bytes());
        }
        let packet = match (src, dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                let mut ip = V4::new(s, d, 17);
                (ip.ttl, ip.tos, ip.frag) = (self.ttl, self.tos, self.frag);
                (ip.checksum, ip.total_len) = (self.ip_checksum, self.ip_len);
                ip.options = self.options.clone();
                ip.packet(&datagram)
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                let mut ip = V6::new(s, d, 17);
                (ip.hop_limit, ip.class, ip.label) = (self.ttl, self.tos, self.label);
                ip.payload_len = self.ip_len;
                ip.packet(&datagram)
            }
            _ => panic!("source and destination are of different families"),
        };
        ethernet(self.eth.1, self.eth.0, ethertype(src), &packet)
    }
}
