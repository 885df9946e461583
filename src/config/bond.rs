//! What an uplink may be besides a device of its own: a bond, and a VLAN (R95).

use std::fmt;

use godwit_wire::VlanId;
use serde::{Deserialize, Deserializer};

/// Key `bond` of `[[uplink]]`: several devices as one, by DPDK's `net_bonding`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BondConfig {
    /// How the members share the work.
    pub mode: BondMode,
    /// PCI addresses or vdev arguments of the members.
    pub members: Vec<String>,
}

impl fmt::Display for BondConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bond {} of {}", self.mode, self.members.join(" and "))
    }
}

/// How a bond's members share the work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BondMode {
    /// One carries everything; the next takes over when its link is lost.
    ActiveBackup,
    /// All that the partner has agreed to by LACP (IEEE 802.1AX) carry flows, by their addresses and ports.
    Lacp,
}

impl From<BondMode> for godwit_dpdk::BondMode {
    fn from(mode: BondMode) -> godwit_dpdk::BondMode {
        match mode {
            BondMode::ActiveBackup => godwit_dpdk::BondMode::ActiveBackup,
            BondMode::Lacp => godwit_dpdk::BondMode::Lacp,
        }
    }
}

impl fmt::Display for BondMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BondMode::ActiveBackup => "active-backup",
            BondMode::Lacp => "lacp",
        })
    }
}

/// Reads a VLAN's number.
pub fn vlan<'de, D: Deserializer<'de>>(d: D) -> Result<Option<VlanId>, D::Error> {
    let n = i64::deserialize(d)?;
    let id = u16::try_from(n).ok().and_then(VlanId::new);
    let refusal =
        || format!("{n} is no VLAN; a VLAN is a number from 1 to {}, or leave vlan out", VlanId::MAX);
    id.map(Some).ok_or_else(|| serde::de::Error::custom(refusal()))
}
