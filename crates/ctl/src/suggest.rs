//! Turns "no such name" into the name that was probably meant.

use crate::failure::{Failure, Kind};
use crate::nva::Nva;

/// A kind of thing that the NVA knows by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named {
    /// A virtual network.
    Vn,
    /// A VM.
    Vm,
    /// An NVE.
    Nve,
    /// A planned move.
    Move,
    /// A policy.
    Policy,
    /// A routing domain.
    Domain,
}

impl Named {
    /// What people call it.
    pub fn noun(self) -> &'static str {
        match self {
            Named::Vn => "VN",
            Named::Vm => "VM",
            Named::Nve => "NVE",
            Named::Move => "move",
            Named::Policy => "policy",
            Named::Domain => "routing domain",
        }
    }

    fn lister(self) -> &'static str {
        match self {
            Named::Vn => "godwitctl vn list",
            Named::Vm => "godwitctl vm list",
            Named::Nve => "godwitctl nve list",
            Named::Move => "godwitctl move list",
            Named::Policy => "godwitctl policy list",
            Named::Domain => "godwitctl domain list",
        }
    }

    /// Those that may have been meant by `name`: of VMs, of which there may be very many, only such as are like it.
    async fn names(self, nva: &Nva, name: &str) -> Result<Vec<String>, Failure> {
        Ok(match self {
            Named::Vn => nva.vns().await?.into_iter().map(|v| v.name).collect(),
            Named::Vm => nva.similar_vms(name).await?,
            Named::Nve => nva.nves().await?.into_iter().map(|v| v.name).collect(),
            Named::Policy => nva.policies().await?.into_iter().map(|p| p.name).collect(),
            Named::Domain => nva.domains().await?.into_iter().map(|d| d.name).collect(),
            Named::Move => nva.moves("", false).await?.into_iter().map(|v| v.id).collect(),
        })
    }
}

/// The known name that looks most like `name`, if one looks like it at all.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).clamp(1, 3);
    let lower = name.to_ascii_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_ascii_lowercase()), k))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, k)| k)
}

/// "no X named Y", with the nearest of `known`, or else the command that lists them.
pub fn unknown(noun: &str, name: &str, known: &[String], lister: &str) -> Failure {
    let failure = Failure::not_found(format!("no {noun} named {name:?}"));
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => failure.remedy(format!("did you mean {near:?}?")),
        None => failure.remedy(format!("`{lister}` shows what there is")),
    }
}

/// Where `failure` says that something is unknown: which of the names used, and what was meant.
pub async fn explain(nva: &Nva, failure: Failure, used: &[(Named, &str)]) -> Failure {
    if failure.kind != Kind::NotFound {
        return failure;
    }
    for (kind, name) in used {
        let Ok(known) = kind.names(nva, name).await else { break };
        if !known.iter().any(|k| k == name) {
            return unknown(kind.noun(), name, &known, kind.lister());
        }
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let known = ["web1", "web2", "database"];
        assert_eq!(nearest("wbe1", known), Some("web1"));
        assert_eq!(nearest("WEB2", known), Some("web2"));
        assert_eq!(nearest("databse", known), Some("database"));
        assert_eq!(nearest("mail", known), None);
    }
}
