//! What every command gets: whom to ask, and where and how to print.

use std::io::Write;

use serde::Serialize;

use crate::failure::Failure;
use crate::link::Link;

/// Output of a command: serialised as it is for programs, as text for people.
pub trait Report: Serialize {
    /// The text for people, each line ended.
    fn text(&self) -> String;
}

/// The surroundings of one command.
pub struct Context<'a> {
    /// Whom to ask.
    pub link: Link,
    /// Print JSON.
    pub json: bool,
    /// Results.
    pub out: &'a mut dyn Write,
    /// Warnings.
    pub err: &'a mut dyn Write,
}

impl Context<'_> {
    /// Prints a result: pretty JSON as one document, or text.
    ///
    /// # Errors
    /// Where the output cannot be written.
    pub fn show<R: Report>(&mut self, report: &R) -> Result<(), Failure> {
        if self.json { self.json(report, true) } else { self.print(&report.text()) }
    }

    /// Prints one of several results: one JSON document a line, or text.
    ///
    /// # Errors
    /// Where the output cannot be written.
    pub fn show_one_of_many<R: Report>(&mut self, report: &R) -> Result<(), Failure> {
        if self.json { self.json(report, false) } else { self.print(&report.text()) }
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// Where the output cannot be written.
    pub fn print(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        Ok(())
    }

    fn json<R: Report>(&mut self, report: &R, pretty: bool) -> Result<(), Failure> {
        let made = if pretty { serde_json::to_string_pretty(report) } else { serde_json::to_string(report) };
        let mut text = made.map_err(|e| Failure::refused(format!("cannot write JSON: {e}")))?;
        text.push('\n');
        self.print(&text)
    }
}
