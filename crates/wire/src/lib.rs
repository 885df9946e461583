//! Frame formats and addresses: no I/O, no allocation, no unsafe code.
//!
//! One file a protocol. Each has a `new_checked` (or `parse`) as the single gate that makes later
//! access panic-free; field offsets are private to the file.
//!
//! # The contract
//!
//! * A view (`Ethernet`, `Ipv4`, `Udp`, ...) borrows bytes and reads fields where they lie. Its
//!   `new_checked` looks at every length that a later accessor relies on, so that no accessor can
//!   panic, whatever a guest or the underlay sent. It does not verify checksums, because frames
//!   from a guest may carry partial ones (R11): `verify_checksum` is a call of its own.
//! * An emit function writes a whole header into a slice of the caller and returns how many bytes
//!   it wrote, or [`WireError::NoSpace`].
//! * Integers are in host byte order at this interface and big-endian in the bytes.
//! * An error says why, in a small `Copy` enum, so that it maps to one counted drop reason.
#![forbid(unsafe_code)]
// Truncation is left out: what goes over the packet path is bounded by a frame or a table, and `as` costs nothing.
#![cfg_attr(not(test), warn(clippy::cast_possible_wrap, clippy::cast_sign_loss, clippy::cast_lossless))]
#![cfg_attr(not(test), no_std)]

pub mod addr;
pub mod arp;
mod bytes;
pub mod checksum;
pub mod dscp;
pub mod ecn;
pub mod error;
pub mod ethernet;
pub mod flow;
pub mod forward;
pub mod fragment;
pub mod frame;
pub mod guard;
pub mod icmpv4;
pub mod icmpv6;
pub mod igmp;
pub mod ipv4;
pub mod ipv6;
pub mod membership;
pub mod mld;
pub mod ndp;
pub mod offload;
pub mod outer;
pub mod peer;
pub mod policy;
pub mod prefix;
pub mod proto;
pub mod quote;
pub mod reset;
pub mod route;
pub mod tcp;
pub mod tenant;
pub mod time;
pub mod udp;
pub mod vxlan;

pub use addr::{Mac, ParseAddrError, Vni};
pub use arp::Arp;
pub use dscp::{Class, Dscp};
pub use ecn::Ecn;
pub use error::WireError;
pub use ethernet::{EtherType, Ethernet, VlanId};
pub use flow::{FlowHash, FlowKey, HashKey};
pub use frame::Frame;
pub use icmpv4::Icmpv4;
pub use icmpv6::Icmpv6;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use ndp::Ndp;
pub use outer::{Family, Outer, OuterError, OuterHeader, parse_outer};
pub use prefix::Prefix;
pub use tcp::Tcp;
pub use time::{Bucket, Instant, Rate, Span};
pub use udp::Udp;
pub use vxlan::Vxlan;
