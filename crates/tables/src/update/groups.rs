//! Multicast in updates (R60, R61).

use super::{PortIdx, TunnelIdx};

/// What becomes of multicast in a VN (R61).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Multicast {
    /// It is copied to everybody.
    #[default]
    Flood,
    /// It is copied to the members of its group and to multicast routers; link-local groups to everybody. Control is
    /// told of IGMP and MLD.
    Snoop,
    /// It is dropped, but for link-local groups.
    Off,
}

/// Who gets what is sent to a multicast group (R61).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Member {
    /// A VM's port here.
    Port(PortIdx),
    /// Another NVE with members.
    Tunnel(TunnelIdx),
}
