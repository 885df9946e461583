//! What was issued, and what of it was revoked.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{Access, read, write};
use crate::{PkiError, Subject, SubjectName};

/// A certificate that was issued.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Issued {
    /// Whom it names.
    pub subject: Subject,
    /// Its number, hexadecimal.
    pub serial: String,
    /// Seconds since 1970 until which it is good.
    pub until_s: i64,
    /// Seconds since 1970 at which it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_s: Option<i64>,
}

/// Whether a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It is.
    Good,
    /// It was until its time was over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl Issued {
    /// Whether it is good at this second since 1970.
    pub fn state(&self, now_s: i64) -> State {
        match self.revoked_s {
            Some(_) => State::Revoked,
            None if self.until_s < now_s => State::Expired,
            None => State::Good,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Number of the revocation list that was written last.
    pub list_number: u64,
    pub issued: Vec<Issued>,
}

impl Index {
    pub fn load(path: &Path) -> Result<Index, PkiError> {
        let bad = |what: String| PkiError::Index { path: path.into(), what };
        let index: Index = serde_json::from_str(&read(path)?).map_err(|e| bad(e.to_string()))?;
        if let Some(wrong) = index.issued.iter().find(|i| !i.subject.is_good()) {
            return Err(bad(format!("certificate {} names nobody", wrong.serial)));
        }
        if let Some(wrong) = index.issued.iter().find(|i| unhex(&i.serial).is_none()) {
            return Err(bad(format!("{:?} is no number of a certificate", wrong.serial)));
        }
        Ok(index)
    }

    pub fn save(&self, path: &Path) -> Result<(), PkiError> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|e| PkiError::Index { path: path.into(), what: e.to_string() })?;
        write(path, &(text + "\n"), Access::Private)
    }

    /// The subject's certificate that is good longest.
    pub fn good(&self, name: &SubjectName, now_s: i64) -> Option<&Issued> {
        let good = self.of(name).filter(|i| i.state(now_s) == State::Good);
        good.max_by_key(|i| i.until_s)
    }

    /// The one that was issued last.
    pub fn last(&self, name: &SubjectName) -> Option<&Issued> {
        self.of(name).fold(None, |_, i| Some(i))
    }

    /// Revokes all that are good; says how many.
    pub fn revoke(&mut self, name: &SubjectName, now_s: i64) -> usize {
        let all = self.issued.iter_mut();
        let mut count = 0;
        for good in all.filter(|i| i.subject.name() == *name && i.state(now_s) == State::Good) {
            good.revoked_s = Some(now_s);
            count += 1;
        }
        count
    }

    fn of<'a, 'b>(&'a self, name: &'b SubjectName) -> impl Iterator<Item = &'a Issued> + use<'a, 'b> {
        self.issued.iter().filter(move |i| i.subject.name() == *name)
    }
}

/// The bytes of a certificate's number.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
