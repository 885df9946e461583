//! Names and keys: NVEs, VMs, moves.

use core::fmt;

use godwit_wire::{Mac, Vni};

/// The name of a Network Virtualization Edge, as the operator chose it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NveId(String);

/// A name that cannot be used; says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} name {name:?} is not valid: use 1 to 63 of the characters A-Z a-z 0-9 . _ - and begin with a \
     letter or digit"
)]
pub struct BadName {
    /// What was to be named: NVE, VN, VM or port.
    pub what: &'static str,
    /// The name as given.
    pub name: String,
}

/// Checks a name of an NVE, VN, VM or port.
///
/// # Errors
/// Where it is empty, longer than 63 bytes, or has other characters than `A-Za-z0-9._-`.
pub fn check_name(what: &'static str, name: &str) -> Result<(), BadName> {
    let ok = (1..=63).contains(&name.len())
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if ok { Ok(()) } else { Err(BadName { what, name: name.into() }) }
}

impl NveId {
    /// # Errors
    /// See [`check_name`].
    pub fn new(name: impl Into<String>) -> Result<NveId, BadName> {
        let name = name.into();
        check_name("NVE", &name)?;
        Ok(NveId(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What identifies a VM's interface (TSI) in the data plane: its VN and its MAC address (R13, R33).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VmKey {
    /// The virtual network.
    pub vni: Vni,
    /// The interface's address, unique within the VN.
    pub mac: Mac,
}

impl fmt::Display for VmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vni, self.mac)
    }
}

/// Identifies a planned move; chosen by the manager, so that a repeated order is the same move (R57).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MoveId(pub String);

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key of 256 bits that no log shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
