//! Settings of a virtual network.
//!
//! They travel whole: from the operator to the directory and its file, from there with each snapshot to the NVEs. A new
//! setting is a field here, its form on the wire, an option of the operator's, and its use.

use crate::{LearningOf, ModeSet, Multicast, OnCold, UnderlayGroup, Unplanned, VnRouting};

/// What an operator sets for a VN. The default is that of a VN of which nobody said anything.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct VnSettings {
    /// Tenant MTU in bytes; 0 for each NVE's own (R8).
    pub mtu: u16,
    /// Inner VLAN tags pass (R10).
    pub transparent_vlan: bool,
    /// Requests for addresses that the directory does not have are flooded (R31).
    pub flood_silent: bool,
    /// VMs that ask for their own IPv4 address by RARP are answered (R27).
    pub rarp: bool,
    /// Source of the addresses that are bound to its VMs, where a VM's definition names none (R93).
    pub learning: LearningOf,
    /// Treatment of claims without a move for VMs of other NVEs (R21). The directory's own: no NVE acts on it.
    pub unplanned: Unplanned,
    /// Its routing domain and its subnets; `None`: it is bridged only (R58).
    pub routing: Option<VnRouting>,
    /// What becomes of multicast (R61).
    pub multicast: Multicast,
    /// Groups of the underlay that carry what is for everybody (R60).
    pub underlay_group: UnderlayGroup,
    /// Moves that its VMs take (R56). The directory's own: no NVE acts on it.
    pub modes: ModeSet,
    /// What becomes of connections with a VM that is detached (R53).
    pub on_cold: OnCold,
}

impl VnSettings {
    /// NVEs act alike under both.
    #[must_use]
    pub fn same_for_nves(&self, other: &VnSettings) -> bool {
        VnSettings { unplanned: other.unplanned, modes: other.modes, ..self.clone() } == *other
    }
}

/// How an NVE learns the records of a VN, in the words of RFC 8171.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum DirectoryMode {
    /// The NVA sends all of them, and every change (R37).
    #[default]
    Push,
    /// The NVE asks for those that it needs, and forgets those that it no longer uses (R34, R40).
    Pull,
}

impl DirectoryMode {
    /// `push` or `pull`.
    pub fn as_text(self) -> &'static str {
        match self {
            DirectoryMode::Push => "push",
            DirectoryMode::Pull => "pull",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nves_need_not_hear_of_unplanned_moves_and_of_all_else_they_do() {
        let before = VnSettings::default();
        assert!(before.same_for_nves(&VnSettings { unplanned: Unplanned::Deny, ..before.clone() }));
        assert!(!before.same_for_nves(&VnSettings { rarp: true, ..before.clone() }));
    }
}
