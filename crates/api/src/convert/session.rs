//! Messages of the NVE-NVA session.

mod down;
mod up;

use std::net::IpAddr;

pub use down::SessionDown;
pub use up::SessionUp;

use super::{ConvertError, Problem, ip};

fn protocol(v: u32) -> Result<(), ConvertError> {
    if v == crate::PROTOCOL { Ok(()) } else { Err(ConvertError::new("protocol", Problem::Protocol(v))) }
}

/// Empty where there is none.
fn maybe_ip(field: &str, raw: &[u8]) -> Result<Option<IpAddr>, ConvertError> {
    if raw.is_empty() { Ok(None) } else { ip(field, raw).map(Some) }
}
