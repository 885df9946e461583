//! Settings of VNs.

use godwit_model::{ModeSet, Multicast, OnCold, Unplanned, VnSettings};

use super::record::{mode_list, mode_set};
use super::{ConvertError, Problem, maybe, multicast, on_cold, underlay_group, unplanned};
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
            routing: m.routing.map(Into::into),
            multicast: v1::Multicast::from(m.multicast).into(),
            underlay_group_v4: m.underlay_group.v4.map(|a| a.octets().into()).unwrap_or_default(),
            underlay_group_v6: m.underlay_group.v6.map(|a| a.octets().into()).unwrap_or_default(),
            modes: if m.modes == ModeSet::ALL { Vec::new() } else { mode_list(m.modes) },
            on_cold: v1::OnCold::from(m.on_cold).into(),
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
            routing: maybe("routing", p.routing)?,
            multicast: match p.multicast {
                0 => Multicast::default(),
                known => multicast("multicast", known)?,
            },
            underlay_group: underlay_group(&p.underlay_group_v4, &p.underlay_group_v6)?,
            modes: mode_set("modes", &p.modes, ModeSet::ALL)?,
            on_cold: match p.on_cold {
                0 => OnCold::default(),
                known => on_cold("on_cold", known)?,
            },
        })
    }
}
