//! Why an authority did not do what it was asked for.

use std::io;
use std::path::{Path, PathBuf};

use godwit_api::tls::TlsError;

use crate::SubjectName;

/// Why an authority did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The folder has an authority.
    #[error("{} has an authority already; use it, or choose another folder with --dir", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has none.
    #[error("{} has no authority; make one with `godwitctl pki init`, or give its folder with --dir", dir.display())]
    None {
        /// The folder.
        dir: PathBuf,
    },
    /// The subject has a certificate that is good.
    #[error("{name} has a certificate; use `godwitctl pki renew {name}`, or revoke it first")]
    Issued {
        /// The subject.
        name: SubjectName,
    },
    /// The subject has none.
    #[error("{name} has no certificate that is good; see `godwitctl pki list`")]
    Unknown {
        /// The subject.
        name: SubjectName,
    },
    /// Its certificate was revoked.
    #[error("the certificate of {name} was revoked; issue another one if that was a mistake")]
    Revoked {
        /// The subject.
        name: SubjectName,
    },
    /// A file could not be read or written.
    #[error("{}: {what}; check the folder and who may write there", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
    /// The index is damaged.
    #[error("{}: cannot be read: {what}; bring it back from a backup", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A token file that cannot be used.
    #[error(transparent)]
    Tokens(#[from] TlsError),
    /// What cannot be signed, or a key that cannot be used.
    #[error("cannot sign: {0}; check authority.pem and authority-key.pem, bring them back from a backup")]
    Sign(#[from] rcgen::Error),
    /// The kernel gives no random bytes.
    #[error("the kernel gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

impl PkiError {
    pub(crate) fn file(path: &Path, e: &io::Error) -> PkiError {
        PkiError::File { path: path.into(), what: e.to_string() }
    }
}
