//! IP protocol and next-header numbers (IANA), as far as this switch looks at them.

/// IPv6 hop-by-hop options header.
pub const HOP_BY_HOP: u8 = 0;
/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// IGMP.
pub const IGMP: u8 = 2;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// DCCP, whose first four bytes are ports.
pub const DCCP: u8 = 33;
/// IPv6 routing header.
pub const ROUTING: u8 = 43;
/// IPv6 fragment header.
pub const FRAGMENT: u8 = 44;
/// Encapsulating security payload: opaque from here on.
pub const ESP: u8 = 50;
/// Authentication header: chained, with a length in units of its own.
pub const AH: u8 = 51;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// No next header.
pub const NO_NEXT: u8 = 59;
/// IPv6 destination options header.
pub const DEST_OPTIONS: u8 = 60;
/// SCTP, whose first four bytes are ports.
pub const SCTP: u8 = 132;
/// Mobility header.
pub const MOBILITY: u8 = 135;
/// UDP-Lite, whose first four bytes are ports.
pub const UDP_LITE: u8 = 136;

/// The transport header begins with a 16-bit source and a 16-bit destination port.
#[inline]
pub const fn has_ports(proto: u8) -> bool {
    matches!(proto, TCP | UDP | SCTP | DCCP | UDP_LITE)
}
