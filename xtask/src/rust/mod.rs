//! Rust source as the checks see it: comments, literals, and the code between them.

pub mod regions;

/// What a piece of source is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A comment that rustdoc does not show.
    Comment,
    /// A documentation comment.
    Doc,
    /// A string literal, without its quotes.
    Literal,
}

/// A comment or a string literal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// What it is.
    pub kind: Kind,
    /// The line it begins at, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// A source file, taken apart.
pub struct Source {
    /// The code alone: comments and literals are blanks here, line by line.
    pub code: Vec<String>,
    /// Comments and literals, in their order.
    pub pieces: Vec<Piece>,
}

impl Source {
    /// Takes a source file apart.
    pub fn parse(text: &str) -> Self {
        let mut scanner = Scanner { text, at: 0, line: 1, code: String::new(), pieces: Vec::new() };
        while scanner.at < text.len() {
            scanner.step();
        }
        Self { code: scanner.code.lines().map(str::to_owned).collect(), pieces: scanner.pieces }
    }
}

/// Goes through a source file once.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    code: String,
    pieces: Vec<Piece>,
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Takes one comment, one literal, or one character of code.
    fn step(&mut self) {
        let rest = self.rest();
        if rest.starts_with("//") {
            let length = rest.find('\n').unwrap_or(rest.len());
            self.take(comment_kind(rest), length, 2, 0);
        } else if rest.starts_with("/*") {
            let length = block_length(rest);
            self.take(comment_kind(rest), length, 2, 2);
        } else if let Some((length, quotes)) = raw_string(rest).filter(|_| !self.within_word()) {
            self.take(Kind::Literal, length, quotes + 1, quotes);
        } else if rest.starts_with('"') {
            let length = string_length(rest);
            self.take(Kind::Literal, length, 1, 1);
        } else if let Some(length) = character_length(rest) {
            self.blank(length);
        } else {
            self.code_character();
        }
    }

    /// Whether the character before is part of a word, which a raw string's `r` is not.
    fn within_word(&self) -> bool {
        let before = self.text[..self.at].chars().next_back();
        before.is_some_and(|c| (c.is_alphanumeric() || c == '_') && c != 'b' && c != 'c')
    }

    /// Takes a piece of `length` bytes whose text has `before` and `after` bytes of marks around it.
    fn take(&mut self, kind: Kind, length: usize, before: usize, after: usize) {
        let whole = &self.text[self.at..self.at + length];
        let end = length.saturating_sub(after).max(before.min(length));
        let text = whole.get(before.min(length)..end).unwrap_or_default().to_owned();
        self.pieces.push(Piece { kind, line: self.line, text });
        self.blank(length);
    }

    /// Leaves out `length` bytes of the code, but for their line ends.
    fn blank(&mut self, length: usize) {
        for c in self.text[self.at..self.at + length].chars() {
            self.code.push(if c == '\n' { '\n' } else { ' ' });
            self.line += usize::from(c == '\n');
        }
        self.at += length;
    }

    fn code_character(&mut self) {
        let Some(c) = self.rest().chars().next() else { return };
        self.code.push(c);
        self.line += usize::from(c == '\n');
        self.at += c.len_utf8();
    }
}

/// Whether a comment is documentation.
fn comment_kind(rest: &str) -> Kind {
    let doc = (rest.starts_with("///") && !rest.starts_with("////"))
        || rest.starts_with("//!")
        || (rest.starts_with("/**") && !rest.starts_with("/**/"))
        || rest.starts_with("/*!");
    if doc { Kind::Doc } else { Kind::Comment }
}

/// The length of a block comment, which may have others within it.
fn block_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of a string literal that begins here with its quote.
fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a raw string literal, and how many bytes its closing mark has.
fn raw_string(rest: &str) -> Option<(usize, usize)> {
    let marks = rest.strip_prefix('r')?;
    let hashes = marks.len() - marks.trim_start_matches('#').len();
    let body = marks[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let open = 1 + close.len();
    let length = body.find(&close).map_or(rest.len(), |end| open + end + close.len());
    Some((length, close.len()))
}

/// The length of a character literal; a lifetime is none.
fn character_length(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    let first = body.chars().next()?;
    if first == '\\' {
        let end = body.char_indices().skip(2).find(|(_, c)| *c == '\'')?.0;
        return Some(1 + end + 1);
    }
    body[first.len_utf8()..].starts_with('\'').then_some(2 + first.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<(Kind, usize, String)> {
        Source::parse(text).pieces.into_iter().map(|p| (p.kind, p.line, p.text)).collect()
    }

    #[test]
    fn comments_and_documentation_are_told_apart() {
        let found = pieces("// a\n/// b\n//// c\n/* d /* e */ */ fn f() {}\n//! g");
        let kinds: Vec<Kind> = found.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [Kind::Comment, Kind::Doc, Kind::Comment, Kind::Comment, Kind::Doc]);
        assert_eq!(found[3].2, " d /* e */ ");
        assert_eq!(found[4].1, 5);
    }

    #[test]
    fn literals_are_found_whatever_they_contain() {
        assert_eq!(pieces(r#"f("a // \" b")"#), [(Kind::Literal, 1, String::from(r#"a // \" b"#))]);
        assert_eq!(pieces("f(r#\"a \" b\"#)"), [(Kind::Literal, 1, String::from("a \" b"))]);
        assert_eq!(pieces("f(b\"x\", br\"y\")").len(), 2);
        assert_eq!(pieces("let r = 1; var\"z\"").len(), 1);
    }

    #[test]
    fn characters_and_lifetimes_begin_no_literal() {
        let source = Source::parse("fn f<'a>(c: &'a str) { c == '\"' || c == '\\'' || c == '}' }");
        assert!(source.pieces.is_empty());
        assert_eq!(source.code[0].matches('}').count(), 1);
    }

    #[test]
    fn code_keeps_its_lines() {
        let source = Source::parse("a\n\"b\nc\"; d // {\ne");
        assert_eq!(source.code, ["a", "  ", "  ; d     ", "e"]);
    }
}
