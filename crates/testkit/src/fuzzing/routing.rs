//! What a router does with a tenant's frame.

use godwit_wire::fragment::Fragments;
use godwit_wire::{Frame, Ipv4, Mac, forward, route};

const ETHERNET: usize = 14;

/// A packet that may be routed is readable after it was, with one hop less; its fragments are packets, and make the
/// payload again.
pub(super) fn frame(bytes: &[u8]) {
    let Ok(read) = Frame::read(bytes) else { return };
    let Ok(header) = forward::read(&read) else { return };
    let mut copy = bytes.to_vec();
    assert!(route::set_addresses(&mut copy, Mac([2; 6]), Mac([4; 6])));
    let left = route::decrement_ttl(&mut copy[ETHERNET..]);
    assert_eq!(left, header.ttl.checked_sub(1).filter(|left| *left > 0));
    let again = Frame::read(&copy).map(|f| forward::read(&f)).expect("a header");
    assert_eq!(again, Ok(forward::Header { ttl: left.unwrap_or(header.ttl), ..header }));
    if let Some(at) = forward::upper_field(&copy[ETHERNET..]) {
        assert!((at as usize) < copy.len());
    }
    for mtu in [68, 70, 576, 1500] {
        fragments(&copy[ETHERNET..], mtu);
    }
}

fn fragments(packet: &[u8], mtu: usize) {
    let Ok(cut) = Fragments::of(packet, mtu) else { return };
    let whole = Ipv4::new_checked(packet).expect("it was cut");
    let mut payload = Vec::new();
    for i in 0..cut.count() {
        let mut part = vec![0; cut.len(i)];
        assert_eq!(cut.emit(i, packet, &mut part), Ok(part.len()));
        let ip = Ipv4::new_checked(part.as_slice()).expect("a packet");
        assert!(part.len() <= mtu && ip.verify_checksum());
        assert_eq!((ip.src(), ip.dst(), ip.ident()), (whole.src(), whole.dst(), whole.ident()));
        payload.extend_from_slice(ip.payload());
    }
    assert_eq!(payload, whole.payload());
}
