//! Parts of a source file: its tests, and what clap makes help of.

use std::ops::RangeInclusive;

use super::Source;

/// Lines, from 1.
pub type Lines = RangeInclusive<usize>;

/// Attributes that make a function a test.
const TEST_ATTRIBUTES: [&str; 2] = ["#[test]", "#[tokio::test"];

/// Derives by which clap shows documentation to an operator.
const HELP_DERIVES: [&str; 4] = ["Parser", "Args", "Subcommand", "ValueEnum"];

/// A test function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// The line of its name.
    pub line: usize,
    /// Lines that document it, and its attributes.
    pub head: Lines,
}

/// The tests of a source file.
pub fn tests(source: &Source) -> Vec<Test> {
    let mut all = Vec::new();
    for (at, line) in source.code.iter().enumerate() {
        if !TEST_ATTRIBUTES.iter().any(|attribute| line.trim_start().starts_with(attribute)) {
            continue;
        }
        if let Some((line, name)) = next_function(source, at) {
            all.push(Test { name, line, head: head(source, at + 1)..=line });
        }
    }
    all
}

/// The name of the first function from a line on (from 0), and its line (from 1).
fn next_function(source: &Source, from: usize) -> Option<(usize, String)> {
    let lines = source.code.iter().enumerate().skip(from);
    lines.filter_map(|(at, line)| Some((at + 1, function_name(line)?))).next()
}

fn function_name(line: &str) -> Option<String> {
    let at = line.find("fn ").filter(|at| line[..*at].ends_with(' ') || *at == 0)?;
    let name: String = line[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first line of the attributes and comments that stand directly above a line.
fn head(source: &Source, line: usize) -> usize {
    let documented = |line: &usize| source.pieces.iter().any(|p| p.line == *line);
    let attribute = |line: &usize| source.code[line - 1].trim_start().starts_with("#[");
    let blank = |line: &usize| source.code[line - 1].trim().is_empty();
    let above = (1..line).rev().take_while(|at| attribute(at) || (blank(at) && documented(at)));
    above.last().unwrap_or(line)
}

/// Lines that are compiled for tests only.
pub fn test_only(source: &Source) -> Vec<Lines> {
    let marked =
        (0..source.code.len()).filter(|at| source.code[*at].trim_start().starts_with("#[cfg(test)]"));
    marked.map(|at| at + 1..=item_end(source, at)).collect()
}

/// Names of the modules in other files that are compiled for tests only.
pub fn test_modules(source: &Source) -> Vec<String> {
    let items =
        test_only(source).into_iter().map(|lines| source.code[lines.start() - 1..*lines.end()].join(" "));
    items
        .filter_map(|item| {
            let name = item.strip_suffix(';')?.rsplit_once("mod ")?.1.trim().to_owned();
            Some(name)
        })
        .collect()
}

/// Lines that clap shows as help: items with its derives, and the documentation above them.
pub fn help(source: &Source) -> Vec<Lines> {
    let derives = |line: &str| {
        let Some((_, names)) = line.split_once("#[derive(") else { return false };
        names.split([',', ')', ' ', ':']).any(|name| HELP_DERIVES.contains(&name))
    };
    let marked = (0..source.code.len()).filter(|at| derives(&source.code[*at]));
    marked.map(|at| head(source, at + 1)..=item_end(source, at)).collect()
}

/// Names of macros that take documentation as a literal, to show it to an operator.
pub fn help_macros(source: &Source) -> Vec<String> {
    let mut names = Vec::new();
    for (at, line) in source.code.iter().enumerate() {
        let Some((_, name)) = line.split_once("macro_rules! ") else { continue };
        let body = &source.code[at..item_end(source, at)];
        if body.iter().any(|line| line.contains("#[doc = $") && line.contains(":literal]")) {
            names.push(name.trim_end_matches(['{', ' ']).to_owned());
        }
    }
    names
}

/// Lines of the invocations of macros.
pub fn invocations(source: &Source, macros: &[String]) -> Vec<Lines> {
    let invoked = |line: &str| macros.iter().any(|name| line.contains(&format!("{name}! {{")));
    let marked = (0..source.code.len()).filter(|at| invoked(&source.code[*at]));
    marked.map(|at| at + 1..=item_end(source, at)).collect()
}

/// The last line (from 1) of the item whose attribute stands at a line (from 0).
fn item_end(source: &Source, from: usize) -> usize {
    let mut depth = 0;
    for (at, line) in source.code.iter().enumerate().skip(from) {
        let code = if line.trim_start().starts_with("#[") { "" } else { line.as_str() };
        for c in code.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => return at + 1,
                '}' => depth -= 1,
                ';' if depth == 0 => return at + 1,
                _ => {}
            }
        }
    }
    source.code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_have_a_name_and_a_head() {
        let text = "/// Says R2.\n#[test]\n#[ignore]\nfn a_b() {}\n\nfn other() {}\n#[tokio::test(x)]\nasync fn c() {}";
        let found = tests(&Source::parse(text));
        assert_eq!(found[0], Test { name: String::from("a_b"), line: 4, head: 1..=4 });
        assert_eq!((found[1].name.as_str(), found[1].line), ("c", 8));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_is_compiled_for_tests_ends_with_its_item() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { x() }\n}\nfn c() {}\n#[cfg(test)]\nmod d;";
        let source = Source::parse(text);
        assert_eq!(test_only(&source), [2..=5, 7..=8]);
        assert_eq!(test_modules(&source), ["d"]);
    }

    #[test]
    fn help_is_what_stands_at_and_in_items_of_clap() {
        let text =
            "/// A.\n#[derive(Clone, Args)]\n#[command(x)]\nstruct A {\n    /// B.\n    b: u8,\n}\nstruct C;";
        assert_eq!(help(&Source::parse(text)), [1..=7]);
        assert!(help(&Source::parse("#[derive(Clone, Debug)]\nstruct A;")).is_empty());
    }

    #[test]
    fn macros_that_take_documentation_are_known_with_their_invocations() {
        let text =
            "macro_rules! a {\n    ($(#[doc = $h:literal])+) => {};\n}\nmacro_rules! b {\n    () => {};\n}\n";
        let source = Source::parse(&format!("{text}a! {{\n    /// X.\n}}\nb! {{}}\n"));
        let names = help_macros(&source);
        assert_eq!(names, ["a"]);
        assert_eq!(invocations(&source, &names), [7..=9]);
    }
}
