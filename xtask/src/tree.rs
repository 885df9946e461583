//! The text files of the tree.

use std::fs;
use std::path::Path;

use crate::problem::Problem;

/// Folders that hold nothing of ours: version control, builds, the fuzzer's corpora.
const SKIPPED: [&str; 5] = [".git", "target", "corpus", "artifacts", "proptest-regressions"];

/// Endings of the files that the checks read. Scripts have none.
const ENDINGS: [&str; 7] = ["rs", "md", "toml", "proto", "sh", "lua", "c"];

/// One text file.
pub struct File {
    /// Path within the tree, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl File {
    /// The ending of the file's name, empty for scripts without one.
    pub fn ending(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or("", |(_, ending)| ending)
    }

    /// A shell script with or without an ending.
    pub fn is_shell(&self) -> bool {
        self.ending() == "sh" || self.text.starts_with("#!")
    }

    /// The name of the folder that the file lies in, empty at the root.
    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// All text files, by path.
pub struct Tree {
    /// The files, in the order of their paths.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads the tree at `root`.
    ///
    /// # Errors
    ///
    /// What could not be read, and why.
    pub fn read(root: &Path) -> Result<Self, Problem> {
        let mut files = Vec::new();
        add(root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// The file at a path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Files with an ending.
    pub fn ending<'a>(&'a self, ending: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.ending() == ending)
    }

    /// A tree of files made by a test.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File { path: (*path).into(), text: (*text).into() };
        Self { files: files.iter().map(file).collect() }
    }
}

/// Adds the text files of `folder`, whose path within the tree is `at`.
fn add(folder: &Path, at: &str, files: &mut Vec<File>) -> Result<(), Problem> {
    let failed = |error: std::io::Error| Problem(format!("{}: cannot be read: {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            add(&entry.path(), &path, files)?;
        } else if kind.is_file() && is_read(&path) {
            // What is no UTF-8 is no text of ours.
            if let Ok(text) = fs::read_to_string(entry.path()) {
                files.push(File { path, text });
            }
        }
    }
    Ok(())
}

/// Whether the checks read a file: by its ending, or as a script by its folder.
fn is_read(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    match name.rsplit_once('.') {
        Some((_, ending)) => ENDINGS.contains(&ending),
        None => path.starts_with("scripts/") || path.starts_with(".ci/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_by_folder_and_others_by_ending() {
        assert!(is_read("scripts/test") && is_read("scripts/pktgen/run") && is_read(".ci/run"));
        assert!(is_read("src/main.rs") && is_read("docs/A.md"));
        assert!(!is_read("LICENSE") && !is_read("Cargo.lock") && !is_read("tests/a.snap"));
    }

    #[test]
    fn this_file_is_in_the_tree_and_builds_are_not() {
        let tree =
            Tree::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))).expect("the tree is there");
        assert!(tree.file("xtask/src/tree.rs").is_some());
        assert!(tree.files.iter().all(|file| !file.path.starts_with("target/")));
    }
}
