//! The frames by which a guest tells its network that it is here: gratuitous ARP, unsolicited
//! neighbor advertisement, and the RARP that a hypervisor sends on its behalf.
//!
//! Written out by hand, not with the switch's own builders: a mistake there must not hide here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use godwit_wire::Mac;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};

use super::proto::Announcement;
use crate::netns;

const BROADCAST: [u8; 6] = [0xff; 6];

/// Sends the announcements out of the guest's interface.
///
/// # Errors
/// Where the interface is missing or the frames cannot be sent.
pub fn send(what: &Announcement) -> Result<()> {
    let mac: Mac = what.mac.parse().map_err(|e| anyhow::anyhow!("{}: {e}", what.mac))?;
    let mac = mac.0;
    let link = netns::link(&what.interface)?;
    let fd =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).context("raw socket")?;
    for frame in frames(mac, &what.ips, what.rarp) {
        sendto(fd.as_raw_fd(), &frame, &link, MsgFlags::empty())
            .with_context(|| format!("announcing on {}", what.interface))?;
    }
    Ok(())
}

/// All frames for these addresses.
fn frames(mac: [u8; 6], ips: &[IpAddr], rarp: bool) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = ips
        .iter()
        .map(|ip| match ip {
            IpAddr::V4(ip) => gratuitous_arp(mac, *ip),
            IpAddr::V6(ip) => neighbor_advertisement(mac, *ip),
        })
        .collect();
    if rarp {
        out.push(arp_frame(0x8035, 3, mac, Ipv4Addr::UNSPECIFIED, mac, Ipv4Addr::UNSPECIFIED));
    }
    out
}

/// RFC 5227's ARP announcement: a request whose sender and target addresses are the same.
fn gratuitous_arp(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    arp_frame(0x0806, 1, mac, ip, [0; 6], ip)
}

fn arp_frame(
    ethertype: u16,
    operation: u16,
    sender: [u8; 6],
    sender_ip: Ipv4Addr,
    target: [u8; 6],
    target_ip: Ipv4Addr,
) -> Vec<u8> {
    let mut f = ethernet(BROADCAST, sender, ethertype);
    // Ethernet, IPv4, with their address lengths.
    f.extend([0, 1, 8, 0, 6, 4]);
    f.extend(operation.to_be_bytes());
    f.extend(sender);
    f.extend(sender_ip.octets());
    f.extend(target);
    f.extend(target_ip.octets());
    f.resize(60, 0);
    f
}

/// RFC 4861 section 7.2.6: to all nodes, Override set, with the target's link-layer address.
fn neighbor_advertisement(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    let all_nodes: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(ip.octets());
    // Option 2, one unit of eight bytes: target link-layer address.
    icmp.extend([2, 1]);
    icmp.extend(mac);
    let sum = icmpv6_checksum(ip, all_nodes, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut f = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd);
    f.extend([0x60, 0, 0, 0]);
    f.extend((icmp.len() as u16).to_be_bytes());
    f.extend([58, 255]);
    f.extend(ip.octets());
    f.extend(all_nodes.octets());
    f.extend(icmp);
    f
}

/// The beginning of a frame.
pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut f = Vec::with_capacity(96);
    f.extend(to);
    f.extend(from);
    f.extend(ethertype.to_be_bytes());
    f
}

/// RFC 4443 section 2.3, over the pseudo-header and a message of even length.
pub(crate) fn icmpv6_checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let pseudo_tail = [message.len() as u32, 58].map(u32::to_be_bytes);
    let bytes = from.octets().into_iter().chain(to.octets()).chain(pseudo_tail.into_iter().flatten());
    let all: Vec<u8> = bytes.chain(message.iter().copied()).collect();
    let mut sum: u32 = all.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(p[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn arp_announcement() {
        let f = gratuitous_arp(MAC, Ipv4Addr::new(203, 0, 113, 5));
        assert_eq!(f.len(), 60);
        assert_eq!(f[..6], BROADCAST);
        assert_eq!(f[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(f[28..32], f[38..42]);
    }

    #[test]
    fn advertisement_has_a_checksum_that_sums_to_zero() {
        let ip: Ipv6Addr = "2001:db8:64::5".parse().unwrap();
        let f = neighbor_advertisement(MAC, ip);
        assert_eq!(f.len(), 14 + 40 + 32);
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        assert_eq!(icmpv6_checksum(ip, all_nodes, &f[54..]), 0);
    }

    #[test]
    fn one_frame_an_address_and_one_for_rarp() {
        let ips = ["203.0.113.5".parse().unwrap(), "2001:db8::5".parse().unwrap()];
        let all = frames(MAC, &ips, true);
        assert_eq!(all.len(), 3);
        assert_eq!(all[2][12..14], [0x80, 0x35]);
    }
}
