//! Bonds: several devices as one port, by DPDK's `net_bonding`.

use crate::bond_driver::{BondMode, DRIVER};
use crate::device::Device;
use crate::error::Result;
use crate::ethport::EthPort;
use crate::link;
use crate::log;
use crate::port::{Kind, Port};
use crate::query::{self, Stats};

/// A member of a bond at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The device's name.
    pub name: String,
    /// Its link is up.
    pub up: bool,
    /// The bond's frames go and come by it: it is the active one, or LACP's partner has agreed to it.
    pub carries: bool,
    /// Its own counters; zeros where the driver fails.
    pub stats: Stats,
}

impl Port {
    /// Plugs a bond in, and before it its members, which are its own from then on: they are unplugged with it.
    /// `members` are as for [`Port::probe`], at least one. The bond has the first one's address.
    ///
    /// # Errors
    /// As [`Port::probe`], for each member and for the bond; [`crate::Error::Port`] where a member cannot be part
    /// of it.
    pub fn bond(name: &str, mode: BondMode, members: &[&str]) -> Result<Port> {
        let members = members.iter().map(|m| Device::plug(m)).collect::<Result<Vec<_>>>()?;
        // The driver adds members when it is configured, and wants to be told of some then. What they can do is to
        // be known before, so they are added here, and what it says of their coming twice is of no interest.
        let known: String = members.iter().map(|m| format!(",slave={}", m.name)).collect();
        let bond = Device::plug(&format!("{DRIVER}_{name},{}{known}", mode.arguments()))?;
        let mut control = bond.control();
        for member in members {
            let what = "taking a member into the bond";
            // SAFETY: both ports exist and neither runs; the lock keeps other control calls on the bond away.
            bond.check(what, || unsafe { dpdk_sys::godwit_bond_add(bond.id, member.id) })?;
            control.members.push(member);
        }
        if mode == BondMode::Lacp {
            // SAFETY: the bond exists and does not run; the lock keeps other control calls on it away.
            bond.check("setting LACP's timeouts", || unsafe {
                dpdk_sys::godwit_bond_short_timeouts(bond.id)
            })?;
        }
        bond.read_addresses(&mut control)?;
        drop(control);
        Ok(Port(Kind::Eth(EthPort(bond))))
    }

    /// It is a bond.
    pub fn is_bond(&self) -> bool {
        self.driver_name() == DRIVER
    }

    /// The bond's members as they are now, in their order; empty for other ports.
    pub fn legs(&self) -> Vec<Leg> {
        let Kind::Eth(EthPort(bond)) = &self.0 else { return Vec::new() };
        let control = bond.control();
        control.members.iter().map(|member| leg(bond, member)).collect()
    }

    /// The drivers that move the port's frames: its own, or those of a bond's members.
    pub fn has_driver(&self, name: &str) -> bool {
        let Kind::Eth(EthPort(device)) = &self.0 else { return self.driver_name() == name };
        let control = device.control();
        device.driver == name || control.members.iter().any(|m| m.driver == name)
    }
}

/// A member of a bond whose lock is held.
fn leg(bond: &Device, member: &Device) -> Leg {
    let up = link::read(member.id).unwrap_or_default().up;
    // SAFETY: both ports exist: the bond's members are plugged in as long as it is.
    let (carries, _) = log::capture(|| unsafe { dpdk_sys::godwit_bond_carries(bond.id, member.id) });
    let stats = query::stats_of(member).unwrap_or_default();
    Leg { name: member.name.clone(), up, carries: up && carries == 1, stats }
}
