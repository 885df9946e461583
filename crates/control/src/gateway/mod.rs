//! What the gateway of a VN says to VMs beside forwarding: router advertisements (RFC 4861) and DHCP (RFC 2131,
//! RFC 8415) (R58).
//!
//! Pure functions of the VN's settings, the VM's record and the frame that it sent. Nothing is leased and nothing
//! remembered: a VM's address is the one in its record, so that each NVE gives the same answer, and a VM that moves
//! renews at its new NVE what it got at the old one. Only the times of advertisements are kept, a port.
//!
//! | File | Content |
//! |---|---|
//! | `question` | what a punted frame asks for |
//! | `advertise` | contents of router advertisements |
//! | `schedule` | when they are sent |
//! | `dhcp4`, `dhcp6` | answers to DHCP clients |
//! | `frames` | Ethernet, IP and UDP around these |

mod advertise;
mod dhcp4;
mod dhcp6;
mod frames;
mod question;
mod schedule;

use std::net::IpAddr;

use godwit_model::{Subnet, VmKey};
use godwit_wire::Mac;

pub(crate) use advertise::Advertisement;
pub(crate) use dhcp4::answer as dhcp4;
pub(crate) use dhcp6::answer as dhcp6;
pub(crate) use question::{Asked, Question};
pub(crate) use schedule::Advertiser;

/// A VM that asks by DHCP, and what its VN says.
#[derive(Clone, Debug)]
pub(crate) struct Client<'a> {
    /// The VM.
    pub(crate) key: VmKey,
    /// Its recorded addresses, in order. Those that it has by its own word do not count: they are no promise.
    pub(crate) recorded: Vec<IpAddr>,
    /// Subnets of its VN.
    pub(crate) subnets: &'a [Subnet],
    /// MAC of the gateway.
    pub(crate) gateway: Mac,
    /// Tenant MTU of the VN, in bytes.
    pub(crate) mtu: u16,
}

/// What becomes of a DHCP client's message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The client gets this frame.
    Answer(Vec<u8>),
    /// No answer: the VM has no recorded address in a subnet with DHCP.
    Unrecorded,
    /// No answer: the message is malformed, comes by way of a relay, is for another server, or is no client's.
    Refused,
    /// The client gives its address up, and gets this frame where the protocol has an answer. The record stays.
    Released(Option<Vec<u8>>),
    /// The client says that another host uses the address; otherwise likewise.
    Declined(IpAddr, Option<Vec<u8>>),
}
