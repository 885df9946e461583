//! Who speaks: the identity that a certificate or a token proves (R68).

use core::fmt;
use std::net::IpAddr;

use crate::NveId;

/// What an operator may do; each role includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Look at everything, change nothing.
    Read,
    /// Move, pause and drain VMs, define VMs and addresses, what day-to-day work needs.
    Operate,
    /// Everything: networks, NVEs, policies, devices of switches, what others may do.
    Admin,
}

/// The one who speaks on a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// Nothing was proved: the connection is in clear, which the NVA was told to take. Everything is allowed, and
    /// an NVE is who it says it is.
    Unproven,
    /// A switch.
    Nve {
        /// The name that it proved.
        id: NveId,
        /// The locators that it may use; empty where its certificate lists none.
        locators: Vec<IpAddr>,
    },
    /// An operator or a VM manager.
    Operator {
        /// For the audit log.
        name: String,
        /// What it may do.
        role: Role,
    },
}

impl Role {
    /// All, from the smallest.
    pub const ALL: [Role; 3] = [Role::Read, Role::Operate, Role::Admin];

    /// As operators write it.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
            Role::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn of(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|r| r.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Unproven => f.write_str("unproven"),
            Identity::Nve { id, .. } => write!(f, "NVE {id}"),
            Identity::Operator { name, role } => write!(f, "operator {name} ({role})"),
        }
    }
}
