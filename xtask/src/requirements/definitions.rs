//! The definitions in `docs/requirements/`: a heading `### R46 Title` a requirement, a list item that begins
//! with `**R46a**` a clause, and a line of sources.

use super::{FOLDER, Number};
use crate::finding::Finding;
use crate::markdown;
use crate::tree::{File, Tree};

/// A requirement's heading.
pub struct Definition {
    /// Its number.
    pub number: Number,
    /// Its title.
    pub title: String,
    /// The file and the anchor of the heading, as a link from the page of states has them.
    pub link: String,
    file: String,
    line: usize,
    has_sources: bool,
}

/// All definitions.
pub struct Definitions {
    /// Requirements, by number.
    pub requirements: Vec<Definition>,
    /// Clauses.
    clauses: Vec<Number>,
    /// What is wrong with them.
    pub findings: Vec<Finding>,
}

impl Definitions {
    /// Reads the definitions.
    pub fn read(tree: &Tree) -> Self {
        let mut all = Self { requirements: Vec::new(), clauses: Vec::new(), findings: Vec::new() };
        tree.ending("md").filter(|file| file.path.starts_with(FOLDER)).for_each(|file| all.add(file));
        all.requirements.sort_by_key(|definition| definition.number);
        all.refuse_doubles();
        all.refuse_without_sources();
        all
    }

    /// Whether a number is that of a requirement or of a clause.
    pub fn has(&self, number: Number) -> bool {
        self.find(number).is_some() || self.clauses.contains(&number)
    }

    /// A requirement's definition.
    pub fn find(&self, number: Number) -> Option<&Definition> {
        self.requirements.iter().find(|definition| definition.number == number)
    }

    fn add(&mut self, file: &File) {
        for line in markdown::lines(&file.text) {
            if let Some(definition) = heading(file, line.number, line.text) {
                self.requirements.push(definition);
            } else if let Some(number) = clause(line.text) {
                self.add_clause(number, file, line.number);
            } else if line.text.starts_with("Sources:")
                && let Some(last) = self.requirements.last_mut().filter(|last| last.file == file.path)
            {
                last.has_sources = true;
            }
        }
    }

    /// Adds a clause, which stands below its requirement.
    fn add_clause(&mut self, number: Number, file: &File, line: usize) {
        let above = self.requirements.last().filter(|last| last.file == file.path).map(|last| last.number);
        if above != Some(number.whole()) || self.clauses.contains(&number) {
            let remedy = format!("move it below {} and define it once", number.whole());
            self.findings.push(Finding::at(&file.path, line, format!("{number} is out of place"), remedy));
        }
        self.clauses.push(number);
    }

    fn refuse_doubles(&mut self) {
        for pair in self.requirements.windows(2).filter(|pair| pair[0].number == pair[1].number) {
            let what = format!("{} is defined in {}, too", pair[1].number, pair[0].file);
            self.findings.push(Finding::at(&pair[1].file, pair[1].line, what, "keep one definition"));
        }
    }

    fn refuse_without_sources(&mut self) {
        for definition in self.requirements.iter().filter(|definition| !definition.has_sources) {
            let what = format!("{} has no sources", definition.number);
            let remedy = "end it with a line `Sources: ...`";
            self.findings.push(Finding::at(&definition.file, definition.line, what, remedy));
        }
    }
}

/// Reads a heading such as `### R46 No loops`.
fn heading(file: &File, line: usize, text: &str) -> Option<Definition> {
    let heading = text.strip_prefix("### ")?;
    let (number, title) = heading.split_once(' ')?;
    let number = Number::parse(number).filter(|number| number.clause.is_none())?;
    let link = format!("requirements/{}#{}", file.path.strip_prefix(FOLDER)?, anchor(heading));
    let file = file.path.clone();
    Some(Definition { number, title: title.to_owned(), link, file, line, has_sources: false })
}

/// Reads an item such as `- **R46a** Split horizon: ...`.
fn clause(text: &str) -> Option<Number> {
    let (number, _) = text.trim_start().strip_prefix("- **")?.split_once("**")?;
    Number::parse(number).filter(|number| number.clause.is_some())
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().replace(' ', "-")
}

#[cfg(test)]
mod unit {
    use super::*;

    fn read(text: &str) -> Definitions {
        Definitions::read(&Tree::of(&[("docs/requirements/a.md", text)]))
    }

    #[test]
    fn headings_and_clauses_define() {
        let all = read("### R4 Outer IPv6, and more\nText.\n\n- **R4a** First.\n\nSources: draft\n");
        assert!(all.findings.is_empty());
        assert_eq!(all.requirements[0].link, "requirements/a.md#r4-outer-ipv6-and-more");
        let has = |word| all.has(Number::parse(word).expect("a number"));
        assert!(has("R4") && has("R4a") && !has("R4b") && !has("R5"));
    }

    #[test]
    fn doubles_strays_and_missing_sources_are_found() {
        let all = read("### R4 A\nSources: x\n### R4 B\nSources: y\n### R5 C\n- **R4a** stray\n");
        let texts: Vec<String> = all.findings.iter().map(Finding::to_string).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts.iter().any(|text| text.contains("R4 is defined in")), "{texts:?}");
        assert!(texts.iter().any(|text| text.contains("R4a is out of place")), "{texts:?}");
        assert!(texts.iter().any(|text| text.contains("R5 has no sources")), "{texts:?}");
    }
}
