//! Numbers that the tree uses: in comments and literals of the code, in documents and in scripts.

use super::definitions::Definitions;
use super::{Number, find};
use crate::finding::Finding;
use crate::rust::Source;
use crate::tree::{File, Tree};

/// Uses of numbers that nothing defines.
pub fn undefined(tree: &Tree, definitions: &Definitions) -> Vec<Finding> {
    // This tool's own tests make numbers up.
    let ours = tree.files.iter().filter(|file| !file.path.starts_with("xtask/"));
    ours.flat_map(|file| {
        let unknown = used(file).into_iter().filter(|(_, number)| !definitions.has(*number));
        unknown
            .map(|(line, number)| {
                let what = format!("{number} is not defined");
                Finding::at(&file.path, line, what, "define it in docs/requirements/ or name another one")
            })
            .collect::<Vec<_>>()
    })
    .collect()
}

/// Numbers with their lines. Names in Rust code, such as a constant `R4`, are none.
fn used(file: &File) -> Vec<(usize, Number)> {
    if file.ending() != "rs" {
        return numbered(1, &file.text);
    }
    Source::parse(&file.text).pieces.iter().flat_map(|piece| numbered(piece.line, &piece.text)).collect()
}

/// Numbers in a text that begins at a line.
fn numbered(first: usize, text: &str) -> Vec<(usize, Number)> {
    let lines = text.lines().enumerate();
    lines.flat_map(|(at, line)| find(line).into_iter().map(move |number| (first + at, number))).collect()
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn names_in_code_are_no_uses() {
        let text = "const R4: u8 = 0; // R5\nf(\"a\nR6\");";
        let file = File { path: String::from("src/a.rs"), text: String::from(text) };
        let found: Vec<(usize, String)> =
            used(&file).iter().map(|(line, n)| (*line, n.to_string())).collect();
        assert_eq!(found, [(1, String::from("R5")), (3, String::from("R6"))]);
    }
}
