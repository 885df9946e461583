//! Who a certificate names: one URI among its subject alternative names, and addresses beside it.
//!
//! | Who | URI | Addresses |
//! |---|---|---|
//! | a switch | `godwit://nve/NAME` | its locators; none: any |
//! | an operator | `godwit://operator/NAME?role=read`, `operate` or `admin` | ignored |

use std::net::IpAddr;

use godwit_model::{BadName, Identity, NveId, Role, check_name};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const SCHEME: &str = "godwit://";
const NVE: &str = "nve/";
const OPERATOR: &str = "operator/";
const ROLE: &str = "?role=";

/// A certificate that names nobody who may speak to an NVA.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NamelessError {
    /// It cannot be read.
    #[error("the certificate is no X.509: {0}")]
    Unreadable(String),
    /// No URI of ours.
    #[error("the certificate names no NVE and no operator: it has no URI such as godwit://nve/NAME")]
    NoName,
    /// More than one.
    #[error("the certificate names several: {0}")]
    Several(String),
    /// A URI of ours that says something else.
    #[error("the certificate's URI {0:?} names no NVE and no operator")]
    Unknown(String),
    /// A name with other characters than names have.
    #[error("the certificate's URI: {0}")]
    BadName(#[from] BadName),
    /// No role that there is.
    #[error("the certificate's URI {0:?} has no role: end it with ?role=read, operate or admin")]
    NoRole(String),
}

/// Who the certificate names.
///
/// # Errors
/// Where it names nobody, or several.
pub fn identity(certificate: &[u8]) -> Result<Identity, NamelessError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|e| NamelessError::Unreadable(e.to_string()))?;
    let names = parsed.subject_alternative_name().map_err(|e| NamelessError::Unreadable(e.to_string()))?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<&str> = names.iter().filter_map(our_uri).collect();
    match uris.as_slice() {
        [] => Err(NamelessError::NoName),
        [uri] => named(uri, names.iter().filter_map(address).collect()),
        several => Err(NamelessError::Several(several.join(", "))),
    }
}

fn our_uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
        _ => None,
    }
}

fn address(name: &GeneralName<'_>) -> Option<IpAddr> {
    let GeneralName::IPAddress(bytes) = name else { return None };
    let v4 = <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from))
}

fn named(uri: &str, locators: Vec<IpAddr>) -> Result<Identity, NamelessError> {
    let rest = uri.strip_prefix(SCHEME).unwrap_or_default();
    if let Some(name) = rest.strip_prefix(NVE) {
        return Ok(Identity::Nve { id: NveId::new(name)?, locators });
    }
    let Some(rest) = rest.strip_prefix(OPERATOR) else { return Err(NamelessError::Unknown(uri.into())) };
    let (name, role) = rest.split_once(ROLE).ok_or_else(|| NamelessError::NoRole(uri.into()))?;
    let role = Role::of(role).ok_or_else(|| NamelessError::NoRole(uri.into()))?;
    check_name("operator", name)?;
    Ok(Identity::Operator { name: name.into(), role })
}

/// The URI that names this identity in a certificate; none where there is nothing to name.
pub fn uri(identity: &Identity) -> Option<String> {
    match identity {
        Identity::Unproven => None,
        Identity::Nve { id, .. } => Some(format!("{SCHEME}{NVE}{id}")),
        Identity::Operator { name, role } => Some(format!("{SCHEME}{OPERATOR}{name}{ROLE}{role}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r68_what_a_uri_names_is_read_back() {
        let operator = |role| Identity::Operator { name: "ann".into(), role };
        let locators = vec!["10.0.0.1".parse().unwrap()];
        let nve = Identity::Nve { id: NveId::new("nve-a").unwrap(), locators: locators.clone() };
        assert_eq!(named(&uri(&nve).unwrap(), locators), Ok(nve));
        for role in Role::ALL {
            assert_eq!(named(&uri(&operator(role)).unwrap(), vec![]), Ok(operator(role)));
        }
        assert_eq!(uri(&Identity::Unproven), None);
    }

    #[test]
    fn r68_a_uri_that_names_nobody_is_refused() {
        let refused = |uri| named(uri, vec![]).unwrap_err();
        assert!(matches!(refused("godwit://nva/nva"), NamelessError::Unknown(_)));
        assert!(matches!(refused("godwit://nve/"), NamelessError::BadName(_)));
        assert!(matches!(refused("godwit://nve/a/b"), NamelessError::BadName(_)));
        assert!(matches!(refused("godwit://operator/ann"), NamelessError::NoRole(_)));
        assert!(matches!(refused("godwit://operator/ann?role=root"), NamelessError::NoRole(_)));
        assert!(matches!(refused("godwit://operator/ann?role=read&role=admin"), NamelessError::NoRole(_)));
        assert!(matches!(refused("godwit://operator/?role=read"), NamelessError::BadName(_)));
        assert!(matches!(identity(b"no certificate"), Err(NamelessError::Unreadable(_))));
    }
}
