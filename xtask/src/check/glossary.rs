//! The glossary, `docs/GLOSSARY.md`, defines the terms of the documents, says which abbreviations every reader
//! knows, and which words are not used.
//!
//! Its sections: `## Terms`, a table whose first column has a term, or several divided by commas; `## Taken as
//! known`, a paragraph of abbreviations divided by commas; `## Words that are not used`, a table of the word and
//! of what is written instead.

use std::collections::BTreeSet;

use crate::finding::Finding;
use crate::markdown::{self, Kind, Line};
use crate::problem::Problem;
use crate::tree::{File, Tree};

/// Where the glossary is.
const GLOSSARY: &str = "docs/GLOSSARY.md";

/// What the glossary says.
struct Glossary {
    /// Terms that it defines, and abbreviations that it takes as known.
    known: BTreeSet<String>,
    /// Words that are not used, and what is written instead.
    refused: Vec<(String, String)>,
}

/// Finds abbreviations that the glossary does not have, and words that it refuses.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, Problem> {
    let Some(glossary) = tree.file(GLOSSARY) else {
        return Ok(vec![Finding::at(
            GLOSSARY,
            0,
            "is not there",
            "write it: xtask's module glossary says how",
        )]);
    };
    let glossary = Glossary::read(&glossary.text);
    let documents = tree.ending("md").filter(|file| is_document(&file.path) && file.path != GLOSSARY);
    Ok(documents.flat_map(|file| glossary.findings(file)).collect())
}

/// Documents that are held to the glossary.
fn is_document(path: &str) -> bool {
    !path.contains('/') || path.starts_with("docs/")
}

impl Glossary {
    fn read(text: &str) -> Self {
        let mut all = Self { known: BTreeSet::new(), refused: Vec::new() };
        let mut section = "";
        for line in markdown::lines(text) {
            if let Some(title) = line.text.strip_prefix("## ") {
                section = title;
            } else {
                all.add(section, &line);
            }
        }
        all
    }

    /// Takes up one line of a section.
    fn add(&mut self, section: &str, line: &Line<'_>) {
        let is_row = line.kind == Kind::Table;
        match section {
            "Terms" if is_row => self.know(markdown::cells(line.text)[0]),
            "Taken as known" => self.know(line.text.trim_end_matches('.')),
            "Words that are not used" if is_row => {
                if let [word, instead] = markdown::cells(line.text)[..] {
                    self.refused.push((word.to_lowercase(), instead.to_owned()));
                }
            }
            _ => {}
        }
    }

    fn know(&mut self, terms: &str) {
        self.known
            .extend(terms.split(',').map(|term| term.trim().to_owned()).filter(|term| !term.is_empty()));
    }

    /// What a document says that it should not.
    fn findings(&self, file: &File) -> Vec<Finding> {
        let lines = markdown::lines(&file.text);
        lines
            .iter()
            .filter(|line| line.kind != Kind::Code)
            .flat_map(|line| self.of_line(file, line))
            .collect()
    }

    fn of_line(&self, file: &File, line: &Line<'_>) -> Vec<Finding> {
        let text = without_files(&markdown::without_code(&markdown::without_links(line.text)));
        let mut findings = Vec::new();
        for word in abbreviations(&text).into_iter().filter(|word| !self.known.contains(*word)) {
            let what = format!("{word} is not in the glossary");
            findings.push(Finding::at(&file.path, line.number, what, format!("define it in {GLOSSARY}")));
        }
        let words = format!(" {} ", words(&text.to_lowercase()).join(" "));
        for (word, instead) in self.refused.iter().filter(|(word, _)| words.contains(&format!(" {word} "))) {
            let what = format!("`{word}` is not a term of ours");
            findings.push(Finding::at(&file.path, line.number, what, format!("write: {instead}")));
        }
        findings
    }
}

/// A line without the names of documents.
fn without_files(line: &str) -> String {
    line.split(' ').filter(|word| !word.contains(".md")).collect::<Vec<_>>().join(" ")
}

/// Words of letters and digits.
fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect()
}

/// Words of capitals and digits with two capitals or more; a plural's `s` is left out.
fn abbreviations(text: &str) -> BTreeSet<&str> {
    let singular = words(text).into_iter().map(|word| word.strip_suffix('s').unwrap_or(word));
    singular
        .filter(|word| {
            let sound = word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
            sound && word.chars().filter(char::is_ascii_uppercase).count() >= 2
        })
        .collect()
}

#[cfg(test)]
mod unit {
    use super::*;

    const TEXT: &str = "## Terms\n\n| Term | Meaning |\n|---|---|\n| NVE, edge | ends tunnels |\n\n\
        ## Taken as known\n\nIP, CPU.\n\n\
        ## Words that are not used\n\n| Word | Write |\n|---|---|\n| long way | cold path |\n";

    fn found(text: &str) -> Vec<String> {
        let found = check(&Tree::of(&[(GLOSSARY, TEXT), ("docs/A.md", text)])).expect("the check is made");
        found.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn known_abbreviations_and_code_are_let_be() {
        assert_eq!(
            found(
                "NVEs have an IP and a CPU; `XYZ`, R46, [a](B/CDE.md), docs/FGH.md, Linux.\n```\nABC\n```\n"
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn unknown_abbreviations_are_named() {
        let found = found("one\nan ABC here");
        assert_eq!(found, ["docs/A.md:2: ABC is not in the glossary; define it in docs/GLOSSARY.md"]);
    }

    #[test]
    fn refused_words_are_named_with_what_to_write() {
        assert_eq!(found("It goes the long way.").len(), 1);
        assert!(found("It goes the long way.")[0].ends_with("write: cold path"));
        assert!(found("It goes a long wayside.").is_empty());
    }
}
