//! Operators' tokens: a file has a line for each, with the hash of the token instead of the token.
//!
//! A token has 256 random bits, so that a plain hash of it is as good as a slow one.

use godwit_model::{Role, check_name};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq as _;

/// Bytes of a token's hash.
const HASH: usize = 32;
/// Lines that a file may have.
const LINES: usize = 10_000;

/// An operator that has a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenLine {
    /// The operator's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the token.
    pub hash: [u8; HASH],
}

/// A line that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Other than three words.
    #[error("line {0} is not NAME ROLE HASH")]
    Words(usize),
    /// A name with other characters than names have.
    #[error("line {0}: {1}")]
    Name(usize, godwit_model::BadName),
    /// No role that there is.
    #[error("line {0}: {1:?} is no role: use read, operate or admin")]
    Role(usize, String),
    /// Other than 64 hexadecimal digits.
    #[error("line {0}: the hash is not 64 hexadecimal digits")]
    Hash(usize),
    /// Too many lines.
    #[error("has more than {LINES} lines")]
    Long,
}

impl TokenLine {
    /// The line of an operator's new token.
    pub fn new(name: &str, role: Role, token: &str) -> TokenLine {
        TokenLine { name: name.into(), role, hash: hash(token) }
    }

    /// As the file has it, without the line's end.
    pub fn text(&self) -> String {
        let hash: String = self.hash.iter().map(|b| format!("{b:02x}")).collect();
        format!("{} {} {hash}", self.name, self.role)
    }
}

/// Reads a file's lines; empty ones and those that begin with `#` are left out.
///
/// # Errors
/// The first line that is wrong.
pub fn parse(text: &str) -> Result<Vec<TokenLine>, TokenError> {
    let lines =
        text.lines().zip(1..).filter(|(l, _)| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
    let all = lines.map(|(line, number)| read(line, number)).collect::<Result<Vec<_>, _>>()?;
    if all.len() > LINES { Err(TokenError::Long) } else { Ok(all) }
}

fn read(line: &str, number: usize) -> Result<TokenLine, TokenError> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, role, hash] = words[..] else { return Err(TokenError::Words(number)) };
    check_name("operator", name).map_err(|e| TokenError::Name(number, e))?;
    let role = Role::of(role).ok_or_else(|| TokenError::Role(number, role.into()))?;
    let hash = unhex(hash).ok_or(TokenError::Hash(number))?;
    Ok(TokenLine { name: name.into(), role, hash })
}

fn unhex(text: &str) -> Option<[u8; HASH]> {
    let mut bytes = [0; HASH];
    if text.len() != 2 * HASH || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn hash(token: &str) -> [u8; HASH] {
    let mut bytes = [0; HASH];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

/// The line of this token. How long that takes says nothing about the tokens that there are.
pub fn find<'a>(lines: &'a [TokenLine], token: &str) -> Option<&'a TokenLine> {
    let shown = hash(token);
    let same = |line: &&TokenLine| bool::from(line.hash.ct_eq(&shown));
    // All of them are compared.
    lines.iter().filter(same).fold(None, |_, line| Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r68_a_token_is_found_by_its_hash_only() {
        let lines =
            [TokenLine::new("ann", Role::Read, "secret"), TokenLine::new("bob", Role::Admin, "other")];
        let text = format!("# operators\n\n{}\n{}\n", lines[0].text(), lines[1].text());
        assert!(!text.contains("secret"), "{text}");
        let read = parse(&text).unwrap();
        assert_eq!(read, lines);
        assert_eq!(find(&read, "other"), Some(&lines[1]));
        for wrong in ["", "othe", "Other", &lines[1].text()] {
            assert_eq!(find(&read, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn r68_a_line_that_is_wrong_is_named() {
        let hash = "0".repeat(64);
        let wrong = |text: &str| parse(text).unwrap_err().to_string();
        assert!(wrong("ann read").contains("line 1 is not NAME ROLE HASH"));
        assert!(wrong(&format!("\nann root {hash}")).contains("line 2: \"root\" is no role"));
        assert!(wrong(&format!("a/b read {hash}")).contains("operator name"));
        assert!(wrong("ann read zz").contains("64 hexadecimal"));
        assert!(wrong(&format!("ann read {}", "+0".repeat(32))).contains("64 hexadecimal"));
    }
}
