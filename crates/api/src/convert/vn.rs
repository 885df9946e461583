//! Settings of VNs.

use godwit_model::{Unplanned, VnSettings};

use super::{ConvertError, Problem, maybe, unplanned};
use crate::v1;

/// The directory takes none above, in bytes.
const LARGEST_MTU: u64 = 9216;

impl From<VnSettings> for v1::VnSettings {
    fn from(m: VnSettings) -> v1::VnSettings {
        v1::VnSettings {
            mtu: m.mtu.into(),
            transparent_vlan: m.transparent_vlan,
            flood_silent: m.flood_silent,
            rarp: m.rarp,
            learning: Some(m.learning.into()),
            unplanned: v1::Unplanned::from(m.unplanned).into(),
        }
    }
}

impl TryFrom<v1::VnSettings> for VnSettings {
    type Error = ConvertError;

    fn try_from(p: v1::VnSettings) -> Result<VnSettings, ConvertError> {
        let too_large = |_| ConvertError::new("mtu", Problem::TooLarge(p.mtu.into(), LARGEST_MTU));
        Ok(VnSettings {
            mtu: u16::try_from(p.mtu).map_err(too_large)?,
            transparent_vlan: p.transparent_vlan,
            flood_silent: p.flood_silent,
            rarp: p.rarp,
            learning: maybe("learning", p.learning)?.unwrap_or_default(),
            unplanned: match p.unplanned {
                0 => Unplanned::default(),
                known => unplanned("unplanned", known)?,
            },
        })
    }
}
