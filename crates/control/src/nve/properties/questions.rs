//! What VMs ask of their gateway.

use std::net::Ipv6Addr;

use godwit_model::GATEWAY_MAC;
use godwit_testkit::clients;

use super::*;

/// A VM's recorded address.
pub(super) fn ipv6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into())
}

/// A frame that asks for something, whole, cut off or with one bit changed.
pub(super) fn frame(n: u8, at: u8, seq: u64) -> Vec<u8> {
    let ips = (Ipv4Addr::new(10, 0, 0, n % 4), ipv6(n));
    let all = clients::seeds(mac(n), GATEWAY_MAC, ips);
    let seq = seq as usize;
    let mut frame = all[(usize::from(at) + 7 * seq) % all.len()].clone();
    let len = frame.len();
    match at {
        1 => frame.truncate(len - 1 - seq),
        2 => frame[len - 1 - seq] ^= 1 << (seq % 8),
        3 => frame[14 + 2 * seq] ^= 0x80,
        _ => {}
    }
    frame
}
