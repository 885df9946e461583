//! DPDK's `net_bonding`: its name, its modes, and what its members need when it starts.

use std::sync::Arc;

use crate::device::Device;
use crate::error::Result;

/// The driver.
pub(crate) const DRIVER: &str = "net_bonding";

/// How a bond's members share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BondMode {
    /// One carries everything; the next takes over when its link is lost.
    ActiveBackup,
    /// All that the partner has agreed to by LACP (IEEE 802.1AX) carry flows, by their addresses and ports.
    ///
    /// The driver speaks LACP from within the calls that receive and send: each receive queue has to be polled and
    /// each transmit queue served ([`crate::TxQueue::keep_alive`]) every 100 ms at least, traffic or not.
    Lacp,
}

impl BondMode {
    /// As the driver's arguments have it.
    pub(crate) fn arguments(self) -> &'static str {
        match self {
            BondMode::ActiveBackup => "mode=1",
            BondMode::Lacp => "mode=4,xmit_policy=l34",
        }
    }
}

/// Has the members of a bond that was just started ask for LACP's short timeouts.
pub(crate) fn started(bond: &Device, members: &[Arc<Device>], tx_queues: u16) -> Result<()> {
    if !bond.devargs.contains(BondMode::Lacp.arguments()) {
        return Ok(());
    }
    members.iter().try_for_each(|m| {
        // SAFETY: the bond has started its members with as many queues as it has; nobody sends by them yet.
        bond.check("asking for LACP's short timeouts", || unsafe {
            dpdk_sys::godwit_bond_say_short(m.id, tx_queues)
        })
    })
}
