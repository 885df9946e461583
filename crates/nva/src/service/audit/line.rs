//! One line of the audit log.

use std::time::{Duration, UNIX_EPOCH};

use godwit_api::v1;
use serde::{Deserialize, Serialize};

use crate::directory::{AuditEntry, Verdict};

/// An entry as it is written. Readers take fields that they do not know for absent.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(default)]
pub(in crate::service) struct Line {
    /// UTC, as in RFC 3339.
    pub at: String,
    pub at_us: u64,
    pub who: String,
    pub from: String,
    pub what: String,
    pub details: String,
    /// `done` or `refused`.
    pub answer: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub unwritten: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Line {
    /// The line, without its end. No content breaks it: JSON escapes line ends.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Entries that could not be written.
    pub fn gap(at_us: u64, lost: u64) -> Line {
        Line {
            at: at(at_us),
            at_us,
            who: "godwit-nva".into(),
            what: "audit gap".into(),
            details: format!("{lost} entries are lost: the disk refused them"),
            answer: "done".into(),
            ..Line::default()
        }
    }
}

fn at(us: u64) -> String {
    humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(us)).to_string()
}

impl From<AuditEntry> for Line {
    fn from(e: AuditEntry) -> Line {
        let AuditEntry { at_us, who, from, what, details, verdict, unwritten } = e;
        let (answer, why) = match verdict {
            Verdict::Done => ("done", String::new()),
            Verdict::Refused(why) => ("refused", why),
        };
        let from = from.map(|a| a.to_string()).unwrap_or_default();
        let (what, answer) = (what.into(), answer.into());
        Line { at: at(at_us), at_us, who, from, what, details, answer, why, unwritten }
    }
}

impl From<Line> for v1::AuditEntry {
    fn from(l: Line) -> v1::AuditEntry {
        let Line { at: _, at_us, who, from, what, details, answer, why, unwritten } = l;
        v1::AuditEntry { at_us, who, from, what, details, refused: answer == "refused", why, unwritten }
    }
}
