//! The frames of the lab's VMs that are taps, written out by hand: a mistake of the switch's own builders must not hide
//! here.

use std::net::Ipv4Addr;

use godwit_wire::Mac;

use crate::agent::announce::ethernet;
use crate::lab::vm::VmSpec;

pub const IPV4: u16 = 0x0800;
pub const ARP: u16 = 0x0806;
/// The beginning of each payload.
const MAGIC: &[u8; 8] = b"GWDRAIN1";
/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;
/// A probe's payload: [`MAGIC`], sender, receiver, number, and what makes it longer.
const PAYLOAD: usize = 100;
/// A probe's length.
pub const PROBE: usize = HEADERS + PAYLOAD;

/// The address of VM `n`.
pub fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 201, (n / 200) as u8, (n % 200 + 1) as u8)
}

/// Sender, receiver and number of a probe; `None`: it is none.
pub fn numbers(frame: &[u8]) -> Option<(usize, usize, u64)> {
    let (_, rest) = frame.get(HEADERS..)?.split_first_chunk::<8>().filter(|(m, _)| *m == MAGIC)?;
    let ([from1, from0, to1, to0, number @ ..], _) = rest.split_first_chunk::<12>()?;
    let number = number.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    Some((u16::from_be_bytes([*from1, *from0]).into(), u16::from_be_bytes([*to1, *to0]).into(), number))
}

/// A probe of VM `n` for its peer.
pub fn probe(frame: &mut Vec<u8>, (n, peer): (usize, usize), (from, to): (&VmSpec, &VmSpec), number: u64) {
    frame.clear();
    frame.extend(to.mac.0);
    frame.extend(from.mac.0);
    frame.extend(IPV4.to_be_bytes());
    let length = (20 + 8 + PAYLOAD) as u16;
    let ip_start = frame.len();
    frame.extend([0x45, 0]);
    frame.extend(length.to_be_bytes());
    // No fragments; 64 hops; UDP; the checksum follows.
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(address(n).octets());
    frame.extend(address(peer).octets());
    let words = frame[ip_start..].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[ip_start + 10..ip_start + 12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame.extend(4000u16.to_be_bytes());
    frame.extend(4000u16.to_be_bytes());
    frame.extend(((8 + PAYLOAD) as u16).to_be_bytes());
    // IPv4 lets UDP go without a checksum.
    frame.extend([0, 0]);
    frame.extend(MAGIC);
    frame.extend((n as u16).to_be_bytes());
    frame.extend((peer as u16).to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.resize(HEADERS + PAYLOAD, 0);
}

/// ARP of a VM.
pub fn arp_frame(
    operation: u16,
    sender: Mac,
    sender_ip: Ipv4Addr,
    target: [u8; 6],
    target_ip: Ipv4Addr,
    to: [u8; 6],
) -> Vec<u8> {
    let mut f = ethernet(to, sender.0, ARP);
    f.extend([0, 1, 8, 0, 6, 4]);
    f.extend(operation.to_be_bytes());
    f.extend(sender.0);
    f.extend(sender_ip.octets());
    f.extend(target);
    f.extend(target_ip.octets());
    f.resize(60, 0);
    f
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::vm::Network;

    #[test]
    fn r85_a_probe_is_an_ipv4_packet_with_its_numbers() {
        let vm = |n: u8| VmSpec {
            name: format!("v{n}"),
            mac: Mac([2, 0, 0, 0, 0, n]),
            ips: vec![address(n.into()).into()],
            vn: Network::default(),
        };
        let mut frame = Vec::new();
        probe(&mut frame, (4, 5), (&vm(4), &vm(5)), 0x0102);
        assert_eq!(frame.len(), PROBE);
        let words = frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "RFC 1071");
        assert_eq!(numbers(&frame), Some((4, 5, 0x0102)));
        assert_eq!(numbers(&frame[..60]), None);
    }
}
