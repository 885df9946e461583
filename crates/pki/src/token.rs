//! Tokens for operators without certificates.

use std::path::Path;

use godwit_api::tls::{TlsError, TokenLine, private_file, tokens};
use godwit_model::Role;

use crate::PkiError;
use crate::files::{Access, write};

/// A new token: 256 random bits as text.
///
/// # Errors
/// Where the kernel gives no random bytes.
pub fn new_token() -> Result<String, PkiError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Writes the hash of an operator's token into a file, in the place of one that the operator had.
///
/// # Errors
/// Where the file is damaged or cannot be written.
pub fn add_token(file: &Path, name: &str, role: Role, token: &str) -> Result<(), PkiError> {
    let mut text = String::from("# NAME ROLE HASH; made by godwitctl pki token\n");
    if file.exists() {
        let bytes = private_file("token file", file)?;
        let bad = |what: String| TlsError::new("token file", file, what, "mend the line or remove it");
        let old = String::from_utf8(bytes).map_err(|_| bad("is no text".into()))?;
        tokens::parse(&old).map_err(|e| bad(e.to_string()))?;
        let others = old.lines().filter(|l| l.split_whitespace().next() != Some(name));
        text = others.map(|l| format!("{l}\n")).collect();
    }
    text += &TokenLine::new(name, role, token).text();
    write(file, &(text + "\n"), Access::Private)
}
