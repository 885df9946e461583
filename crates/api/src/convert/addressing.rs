//! Virtual, learned and nested addresses of a record (R92 to R94).

use godwit_model::{Allowed, BoundIp, LEARNED_MAX, Learning, LearningOf, MAX_BOUND, MAX_MACS, MAX_PREFIXES};
use godwit_wire::{Mac, Prefix};

use super::{ConvertError, Problem, ip, ip_bytes, mac};
use crate::v1;

impl From<LearningOf> for v1::Learning {
    fn from(m: LearningOf) -> v1::Learning {
        let raw = |l: Option<Learning>| l.map(|l| l.room().into());
        v1::Learning { v4: raw(m.v4), v6: raw(m.v6) }
    }
}

impl TryFrom<v1::Learning> for LearningOf {
    type Error = ConvertError;

    fn try_from(p: v1::Learning) -> Result<LearningOf, ConvertError> {
        Ok(LearningOf { v4: learning("v4", p.v4)?, v6: learning("v6", p.v6)? })
    }
}

/// What one family is to have from now on: `None`: it stays, `Some(None)`: it is not said any more.
///
/// # Errors
/// Where it is more than [`LEARNED_MAX`].
pub fn learning_word(
    field: &str,
    word: Option<v1::LearningWord>,
) -> Result<Option<Option<Learning>>, ConvertError> {
    word.map(|w| learning(field, w.room)).transpose()
}

fn learning(field: &str, raw: Option<u32>) -> Result<Option<Learning>, ConvertError> {
    let too_large = |n: u32| ConvertError::new(field, Problem::TooLarge(n.into(), LEARNED_MAX.into()));
    raw.map(|n| match u8::try_from(n) {
        Ok(0) => Ok(Learning::Recorded),
        Ok(n) if n <= LEARNED_MAX => Ok(Learning::Learned(n)),
        _ => Err(too_large(n)),
    })
    .transpose()
}

impl From<Allowed> for v1::Allowed {
    fn from(m: Allowed) -> v1::Allowed {
        v1::Allowed {
            learning: Some(m.learning.into()),
            virtual_ips: m.virtual_ips.iter().map(Prefix::to_string).collect(),
            virtual_macs: m.virtual_macs.iter().map(|m| m.to_u64()).collect(),
            routes: m.routes.iter().map(Prefix::to_string).collect(),
            nested: m.nested.iter().map(|m| m.to_u64()).collect(),
        }
    }
}

impl TryFrom<v1::Allowed> for Allowed {
    type Error = ConvertError;

    fn try_from(p: v1::Allowed) -> Result<Allowed, ConvertError> {
        Ok(Allowed {
            learning: super::maybe("learning", p.learning)?.unwrap_or_default(),
            virtual_ips: prefixes("virtual_ips", &p.virtual_ips)?,
            virtual_macs: macs("virtual_macs", &p.virtual_macs)?,
            routes: prefixes("routes", &p.routes)?,
            nested: macs("nested", &p.nested)?,
        })
    }
}

/// Prefixes, sorted, each once.
///
/// # Errors
/// Where one is none, or there are more than [`MAX_PREFIXES`].
pub fn prefixes(field: &str, raw: &[String]) -> Result<Vec<Prefix>, ConvertError> {
    bounded(field, raw.len(), MAX_PREFIXES)?;
    let read =
        |text: &String| text.parse().map_err(|_| ConvertError::new(field, Problem::Prefix(text.clone())));
    let mut all = raw.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// MACs, sorted, each once.
///
/// # Errors
/// Where one is none, or there are more than [`MAX_MACS`].
pub fn macs(field: &str, raw: &[u64]) -> Result<Vec<Mac>, ConvertError> {
    bounded(field, raw.len(), MAX_MACS)?;
    let mut all = raw.iter().map(|m| mac(field, *m)).collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn bounded(field: &str, got: usize, max: usize) -> Result<(), ConvertError> {
    if got <= max { Ok(()) } else { Err(ConvertError::new(field, Problem::TooLarge(got as u64, max as u64))) }
}

impl From<BoundIp> for v1::BoundIp {
    fn from(m: BoundIp) -> v1::BoundIp {
        v1::BoundIp { ip: ip_bytes(m.ip), mac: m.mac.to_u64(), is_virtual: m.is_virtual }
    }
}

impl TryFrom<v1::BoundIp> for BoundIp {
    type Error = ConvertError;

    fn try_from(p: v1::BoundIp) -> Result<BoundIp, ConvertError> {
        Ok(BoundIp { ip: ip("ip", &p.ip)?, mac: mac("mac", p.mac)?, is_virtual: p.is_virtual })
    }
}

/// A record's bound addresses are bounded by the directory; a longer list is refused before it is read.
pub(super) fn bound_ips(raw: Vec<v1::BoundIp>) -> Result<Vec<BoundIp>, ConvertError> {
    bounded("bound_ips", raw.len(), MAX_BOUND)?;
    super::each("bound_ips", raw)
}
