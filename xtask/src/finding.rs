//! Something in the tree that is to be mended.

use std::fmt;

/// One place that a check refuses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Path within the tree.
    pub file: String,
    /// Line, from 1; 0: the file as a whole.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// A finding at a line.
    pub fn at(file: &str, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}; {}", self.what, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_place_fault_and_remedy() {
        let finding = Finding::at("src/main.rs", 7, "126 characters", "break the line");
        assert_eq!(finding.to_string(), "src/main.rs:7: 126 characters; break the line");
        let whole = Finding::at("docs/A.md", 0, "no title", "give it one");
        assert_eq!(whole.to_string(), "docs/A.md: no title; give it one");
    }
}
