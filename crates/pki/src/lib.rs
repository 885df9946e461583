//! A small certificate authority for a first installation (R68): a folder with the authority's key, the certificates
//! that it issued, and the list of those that it revoked.
//!
//! | File | Content |
//! |---|---|
//! | `authority.pem`, `authority-key.pem` | the authority; its key leaves the folder for nowhere |
//! | `index.json` | what was issued and revoked |
//! | `revoked.pem` | the revocation list, for `godwit-nva --revoked` |
//! | `nva/`, `nve/NAME/`, `operator/NAME/` | `certificate.pem`, `key.pem`, `authority.pem`, ready to be copied |
//!
//! One process at a time works in a folder; others wait.
#![forbid(unsafe_code)]

mod error;
mod files;
mod index;
mod issue;
mod subject;
mod token;

pub use error::PkiError;
pub use index::{Issued, State};
pub use subject::{Subject, SubjectName};
pub use token::{add_token, new_token};

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use files::{Access, read, write};
use index::Index;
use issue::Signer;

const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority-key.pem";
const INDEX: &str = "index.json";
const REVOKED: &str = "revoked.pem";
const LOCK: &str = ".lock";
/// Names of the files of one whom a certificate was issued to.
pub const CERTIFICATE: &str = "certificate.pem";
/// See [`CERTIFICATE`].
pub const KEY: &str = "key.pem";

/// Days that a certificate is good for, where nothing else is said.
pub const DAYS: u32 = 365;

/// An authority that is open for work.
pub struct Pki {
    dir: PathBuf,
    index: Index,
    signer: Signer,
    authority: String,
    _lock: File,
}

impl Pki {
    /// Makes an authority in a folder that has none.
    ///
    /// # Errors
    /// Where the folder has one, or cannot be written.
    pub fn init(dir: &Path) -> Result<Pki, PkiError> {
        files::make_dir(dir, Access::Private)?;
        let lock = lock(dir)?;
        if dir.join(AUTHORITY).exists() || dir.join(INDEX).exists() {
            return Err(PkiError::Exists { dir: dir.into() });
        }
        let (signer, authority, key) = Signer::new()?;
        let index = Index::default();
        write(&dir.join(AUTHORITY_KEY), &key, Access::Private)?;
        index.save(&dir.join(INDEX))?;
        write(&dir.join(AUTHORITY), &authority, Access::Public)?;
        let mut pki = Pki { dir: dir.into(), index, signer, authority, _lock: lock };
        pki.write_list()?;
        Ok(pki)
    }

    /// Opens the authority of a folder.
    ///
    /// # Errors
    /// Where there is none, or a file of it is damaged.
    pub fn open(dir: &Path) -> Result<Pki, PkiError> {
        if !dir.join(AUTHORITY).exists() {
            return Err(PkiError::None { dir: dir.into() });
        }
        let lock = lock(dir)?;
        let authority = read(&dir.join(AUTHORITY))?;
        let signer = Signer::open(&authority, &read(&dir.join(AUTHORITY_KEY))?)?;
        let index = Index::load(&dir.join(INDEX))?;
        Ok(Pki { dir: dir.into(), index, signer, authority, _lock: lock })
    }

    /// Issues a first certificate, and returns the folder that it and its key are in.
    ///
    /// # Errors
    /// Where the subject has one that is good, or the folder cannot be written.
    pub fn issue(&mut self, subject: Subject, days: u32) -> Result<PathBuf, PkiError> {
        let name = subject.name();
        if self.index.good(&name, issue::now_s()).is_some() {
            return Err(PkiError::Issued { name });
        }
        self.sign(subject, days)
    }

    /// Issues the certificate of an NVA with other addresses than before; the one before stays good.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn replace(&mut self, subject: Subject, days: u32) -> Result<PathBuf, PkiError> {
        self.sign(subject, days)
    }

    /// Issues a certificate, with a new key, for one who has or had one; that stays good until it expires.
    ///
    /// # Errors
    /// Where there was none or it was revoked, or the folder cannot be written.
    pub fn renew(&mut self, name: &SubjectName, days: u32) -> Result<PathBuf, PkiError> {
        let last = self.index.last(name).ok_or_else(|| PkiError::Unknown { name: name.clone() })?;
        if last.revoked_s.is_some() {
            return Err(PkiError::Revoked { name: name.clone() });
        }
        let subject = last.subject.clone();
        self.sign(subject, days)
    }

    /// Revokes all certificates of one, and writes the revocation list; returns how many they were.
    ///
    /// # Errors
    /// Where there are none that are good, or the folder cannot be written.
    pub fn revoke(&mut self, name: &SubjectName) -> Result<usize, PkiError> {
        let count = self.index.revoke(name, issue::now_s());
        if count == 0 {
            return Err(PkiError::Unknown { name: name.clone() });
        }
        self.write_list()?;
        Ok(count)
    }

    /// All that was issued, in order.
    pub fn issued(&self) -> &[Issued] {
        &self.index.issued
    }

    /// The revocation list's file.
    pub fn revoked_file(&self) -> PathBuf {
        self.dir.join(REVOKED)
    }

    /// The folder of one whom certificates are issued to.
    pub fn folder(&self, name: &SubjectName) -> PathBuf {
        match name {
            SubjectName::Nva => self.dir.join("nva"),
            SubjectName::Nve(n) => self.dir.join("nve").join(n.as_str()),
            SubjectName::Operator(n) => self.dir.join("operator").join(n),
        }
    }

    fn sign(&mut self, subject: Subject, days: u32) -> Result<PathBuf, PkiError> {
        let name = subject.name();
        let folder = self.folder(&name);
        files::make_dir(&folder, Access::Private)?;
        let made = self.signer.sign(&subject, days)?;
        // First the index: what is not in it could not be revoked.
        self.index.issued.push(Issued {
            subject,
            serial: made.serial,
            until_s: made.until_s,
            revoked_s: None,
        });
        self.index.save(&self.dir.join(INDEX))?;
        write(&folder.join(AUTHORITY), &self.authority, Access::Public)?;
        write(&folder.join(KEY), &made.key, Access::Private)?;
        write(&folder.join(CERTIFICATE), &made.certificate, Access::Public)?;
        if name == SubjectName::Nva {
            let list = read(&self.revoked_file())?;
            write(&folder.join(REVOKED), &list, Access::Public)?;
        }
        Ok(folder)
    }

    fn write_list(&mut self) -> Result<(), PkiError> {
        self.index.list_number += 1;
        self.index.save(&self.dir.join(INDEX))?;
        let list = self.signer.revocation_list(&self.index)?;
        write(&self.revoked_file(), &list, Access::Public)?;
        let of_nva = self.folder(&SubjectName::Nva);
        if of_nva.is_dir() {
            write(&of_nva.join(REVOKED), &list, Access::Public)?;
        }
        Ok(())
    }
}

fn lock(dir: &Path) -> Result<File, PkiError> {
    let path = dir.join(LOCK);
    let options = fs::OpenOptions::new().create(true).append(true).open(&path);
    let file = options.map_err(|e| PkiError::file(&path, &e))?;
    file.lock().map_err(|e| PkiError::file(&path, &e))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
