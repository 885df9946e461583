//! Whom certificates are issued to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use godwit_model::{BadName, NveId, Role, check_name};
use serde::{Deserialize, Serialize};

/// What a certificate says of its owner.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Subject {
    /// The NVA.
    Nva {
        /// Names and addresses by which NVEs and operators reach it.
        addresses: Vec<String>,
    },
    /// A switch.
    Nve {
        /// Its name.
        name: String,
        /// Its locators; none: any.
        locators: Vec<IpAddr>,
    },
    /// An operator.
    Operator {
        /// Its name.
        name: String,
        /// `read`, `operate` or `admin`.
        role: String,
    },
}

/// A subject by its name, as `nva`, `nve/NAME` or `operator/NAME`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SubjectName {
    /// The NVA.
    Nva,
    /// A switch.
    Nve(NveId),
    /// An operator.
    Operator(String),
}

/// What names no subject.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSubject {
    /// Another form.
    #[error("write nva, nve/NAME or operator/NAME")]
    Form,
    /// A name with other characters than names have.
    #[error(transparent)]
    Name(#[from] BadName),
}

impl Subject {
    /// A switch.
    pub fn nve(name: &NveId, locators: Vec<IpAddr>) -> Subject {
        Subject::Nve { name: name.to_string(), locators }
    }

    /// An operator.
    ///
    /// # Errors
    /// Where the name has other characters than names have.
    pub fn operator(name: &str, role: Role) -> Result<Subject, BadName> {
        check_name("operator", name)?;
        Ok(Subject::Operator { name: name.into(), role: role.name().into() })
    }

    /// Its name.
    pub fn name(&self) -> SubjectName {
        match self {
            Subject::Nva { .. } => SubjectName::Nva,
            // Checked when it was made or read.
            Subject::Nve { name, .. } => NveId::new(name).map_or(SubjectName::Nva, SubjectName::Nve),
            Subject::Operator { name, .. } => SubjectName::Operator(name.clone()),
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        match self {
            Subject::Nva { .. } => true,
            Subject::Nve { name, .. } => check_name("NVE", name).is_ok(),
            Subject::Operator { name, role } => {
                check_name("operator", name).is_ok() && Role::of(role).is_some()
            }
        }
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubjectName::Nva => f.write_str("nva"),
            SubjectName::Nve(id) => write!(f, "nve/{id}"),
            SubjectName::Operator(name) => write!(f, "operator/{name}"),
        }
    }
}

impl FromStr for SubjectName {
    type Err = BadSubject;

    fn from_str(text: &str) -> Result<SubjectName, BadSubject> {
        match text.split_once('/') {
            None if text == "nva" => Ok(SubjectName::Nva),
            Some(("nve", name)) => Ok(SubjectName::Nve(NveId::new(name)?)),
            Some(("operator", name)) => {
                check_name("operator", name)?;
                Ok(SubjectName::Operator(name.into()))
            }
            _ => Err(BadSubject::Form),
        }
    }
}
