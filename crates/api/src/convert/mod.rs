//! Protobuf to model and back.
//!
//! Towards protobuf conversions cannot fail and are `From`. From protobuf they are `TryFrom` with a
//! [`ConvertError`] that names the field; they never panic, whatever the peer sent.

mod addressing;
mod counters;
mod record;
mod routing;
mod session;
mod vn;

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_model::{BadName, BadPolicy, BadRule, MoveId, NveId, check_name};
use godwit_wire::{Mac, Vni};

pub use addressing::{learning_word, macs, prefixes};
pub use record::{
    bind_refusal, claim_cause, deny_reason, drain_phase, modes, move_mode, move_phase, move_step_kind,
    multicast, on_cold, unplanned, while_paused,
};
pub use routing::{prefix, underlay_group};
pub use session::{SessionDown, SessionUp};

/// A message that the protocol does not allow: which field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConvertError {
    /// Path of the field from the message on, as in `claim.key.mac`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A part or a oneof that must be there is not.
    Missing,
    /// More than 24 bits.
    VniTooLarge(u32),
    /// More than 48 bits.
    MacTooLarge(u64),
    /// An address of so many bytes; the second number says which length was expected, 0 for 4 or 16.
    IpLength(usize, usize),
    /// A key of so many bytes instead of 32.
    KeyLength(usize),
    /// An enumerator of a newer protocol, or none.
    UnknownEnumerator(i32),
    /// A name that cannot be used.
    Name(BadName),
    /// A move's name that is empty, longer than 128 bytes or not printable.
    MoveId,
    /// Neither an IPv4 nor an IPv6 locator.
    NoLocator,
    /// Active without a location, or Detached with one.
    StateAndLocation,
    /// A number above the largest one allowed.
    TooLarge(u64, u64),
    /// A protocol version other than ours.
    Protocol(u32),
    /// A text that is no prefix.
    Prefix(String),
    /// A rule of a policy that cannot be read.
    Rule(BadRule),
    /// A policy that cannot be used.
    Policy(BadPolicy),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Missing => f.write_str("is not set"),
            Problem::VniTooLarge(v) => write!(f, "{v} does not fit in 24 bits"),
            Problem::MacTooLarge(v) => write!(f, "{v:#x} does not fit in 48 bits"),
            Problem::IpLength(got, 0) => write!(f, "{got} bytes are no IP address, send 4 or 16"),
            Problem::IpLength(got, want) => write!(f, "{got} bytes where {want} are an address"),
            Problem::KeyLength(n) => write!(f, "{n} bytes are no key, send 32"),
            Problem::UnknownEnumerator(v) => write!(f, "enumerator {v} is not known"),
            Problem::Name(e) => fmt::Display::fmt(e, f),
            Problem::MoveId => f.write_str("a move's name has 1 to 128 printable ASCII characters"),
            Problem::NoLocator => f.write_str("neither an IPv4 nor an IPv6 locator is set"),
            Problem::StateAndLocation => f.write_str("an active VM has a location and a detached one none"),
            Problem::TooLarge(got, max) => write!(f, "{got} is more than {max}"),
            Problem::Prefix(text) => write!(f, "{text:?} is no prefix: write ADDRESS or ADDRESS/LENGTH"),
            Problem::Rule(e) => fmt::Display::fmt(e, f),
            Problem::Policy(e) => fmt::Display::fmt(e, f),
            Problem::Protocol(v) => {
                write!(f, "protocol {v} is not spoken here, only {}: update the older side", crate::PROTOCOL)
            }
        }
    }
}

impl ConvertError {
    pub(crate) fn new(field: &str, problem: Problem) -> ConvertError {
        ConvertError { field: field.into(), problem }
    }

    /// The same error seen from the message that holds `outer`.
    pub(crate) fn within(mut self, outer: &str) -> ConvertError {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// Converts a part that must be there, and names it in errors.
pub(crate) fn part<P, M>(field: &'static str, p: Option<P>) -> Result<M, ConvertError>
where
    M: TryFrom<P, Error = ConvertError>,
{
    let p = p.ok_or_else(|| ConvertError::new(field, Problem::Missing))?;
    M::try_from(p).map_err(|e| e.within(field))
}

/// Converts a part that may be missing.
pub(crate) fn maybe<P, M>(field: &'static str, p: Option<P>) -> Result<Option<M>, ConvertError>
where
    M: TryFrom<P, Error = ConvertError>,
{
    p.map(M::try_from).transpose().map_err(|e| e.within(field))
}

/// Converts every element of a repeated part.
pub(crate) fn each<P, M>(field: &'static str, ps: Vec<P>) -> Result<Vec<M>, ConvertError>
where
    M: TryFrom<P, Error = ConvertError>,
{
    ps.into_iter().map(M::try_from).collect::<Result<_, _>>().map_err(|e| e.within(field))
}

/// A VN identifier.
///
/// # Errors
/// Where it has more than 24 bits.
pub fn vni(field: &str, v: u32) -> Result<Vni, ConvertError> {
    Vni::new(v).ok_or_else(|| ConvertError::new(field, Problem::VniTooLarge(v)))
}

/// A MAC address.
///
/// # Errors
/// Where it has more than 48 bits.
pub fn mac(field: &str, v: u64) -> Result<Mac, ConvertError> {
    if v >> 48 != 0 {
        return Err(ConvertError::new(field, Problem::MacTooLarge(v)));
    }
    Ok(Mac::from_u64(v))
}

/// An IPv4 address of 4 bytes.
///
/// # Errors
/// Where it has another length.
pub fn ipv4(field: &str, b: &[u8]) -> Result<Ipv4Addr, ConvertError> {
    let b: [u8; 4] = b.try_into().map_err(|_| ConvertError::new(field, Problem::IpLength(b.len(), 4)))?;
    Ok(b.into())
}

/// An IPv6 address of 16 bytes.
///
/// # Errors
/// Where it has another length.
pub fn ipv6(field: &str, b: &[u8]) -> Result<Ipv6Addr, ConvertError> {
    let b: [u8; 16] = b.try_into().map_err(|_| ConvertError::new(field, Problem::IpLength(b.len(), 16)))?;
    Ok(b.into())
}

/// An address of either family; its length tells which.
///
/// # Errors
/// Where it has neither 4 nor 16 bytes.
pub fn ip(field: &str, b: &[u8]) -> Result<IpAddr, ConvertError> {
    match b.len() {
        4 => ipv4(field, b).map(IpAddr::V4),
        16 => ipv6(field, b).map(IpAddr::V6),
        n => Err(ConvertError::new(field, Problem::IpLength(n, 0))),
    }
}

/// An address as the bytes that [`ip`] reads.
pub fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(a) => a.octets().into(),
        IpAddr::V6(a) => a.octets().into(),
    }
}

/// An NVE's name.
///
/// # Errors
/// Where it cannot be used, see [`check_name`].
pub fn nve_id(field: &str, name: String) -> Result<NveId, ConvertError> {
    NveId::new(name).map_err(|e| ConvertError::new(field, Problem::Name(e)))
}

/// A name of a VN, VM or port.
///
/// # Errors
/// Where it cannot be used, see [`check_name`].
pub fn name(field: &str, what: &'static str, name: String) -> Result<String, ConvertError> {
    check_name(what, &name).map_err(|e| ConvertError::new(field, Problem::Name(e)))?;
    Ok(name)
}

/// A move's name: its manager's own, so it may have more characters than ours.
///
/// # Errors
/// Where it is empty, longer than 128 bytes or not printable ASCII.
pub fn move_id(field: &str, id: String) -> Result<MoveId, ConvertError> {
    let ok = (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    if ok { Ok(MoveId(id)) } else { Err(ConvertError::new(field, Problem::MoveId)) }
}

/// Sorted and without doubles, as records hold addresses.
pub(crate) fn addresses<A: Ord>(
    field: &'static str,
    list: &[Vec<u8>],
    one: impl Fn(&str, &[u8]) -> Result<A, ConvertError>,
) -> Result<Vec<A>, ConvertError> {
    let mut out = list.iter().map(|b| one(field, b)).collect::<Result<Vec<A>, _>>()?;
    out.sort_unstable();
    out.dedup();
    Ok(out)
}
