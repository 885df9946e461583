//! The devices that an uplink is made of, and what cannot be true of them.

use std::collections::BTreeMap;

use super::UplinkConfig;

/// Most members of a bond; LACP's partners take eight that are in use at a time (IEEE 802.1AX).
const MAX_MEMBERS: usize = 8;

/// A device's name: what comes before its arguments.
pub fn device(devargs: &str) -> &str {
    devargs.split(',').next().unwrap_or_default().trim()
}

/// The devices that an uplink is made of, with the key that names each.
pub fn devices(u: &UplinkConfig, i: usize) -> Vec<(&str, String)> {
    let members = u.bond.iter().flat_map(|b| &b.members).enumerate();
    let members = members.map(|(n, m)| (m.as_str(), format!("uplink[{i}].bond.members[{n}]")));
    match u.bond {
        None => vec![(u.devargs.as_str(), format!("uplink[{i}].devargs"))],
        Some(_) => members.collect(),
    }
}

/// Where an uplink is, for the operator.
pub fn place(u: &UplinkConfig) -> String {
    let device = match &u.bond {
        None => u.devargs.clone(),
        Some(bond) => bond.to_string(),
    };
    u.vlan.map_or(device.clone(), |vlan| format!("{device}, VLAN {vlan}"))
}

/// What cannot be true of an uplink's bond: the key behind the uplink's, what, and the remedy.
pub fn mistake(u: &UplinkConfig) -> Option<(&'static str, String, &'static str)> {
    let bond = u.bond.as_ref()?;
    if !u.devargs.is_empty() {
        let what = format!("the uplink has a device of its own, {}, and a bond", u.devargs);
        return Some(("devargs", what, "keep one of devargs and bond"));
    }
    let key = "bond.members";
    match bond.members.len() {
        0 => Some((key, "a bond without members".into(), "name its devices, two as a rule")),
        n if n > MAX_MEMBERS => Some((key, format!("{n} members"), "use at most 8")),
        _ => twice(&bond.members),
    }
}

fn twice(members: &[String]) -> Option<(&'static str, String, &'static str)> {
    let mut seen = BTreeMap::new();
    members.iter().enumerate().find_map(|(n, m)| {
        let before = seen.insert(device(m), n)?;
        let what = format!("{} is member {before} and member {n}", device(m));
        Some(("bond.members", what, "name each device once"))
    })
}
