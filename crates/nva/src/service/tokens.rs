//! Operators that prove themselves with a token, from a file that is read again when it changes.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use godwit_api::tls::{Stamp, TlsError, TokenLine, private_file, tokens};
use godwit_model::Identity;

/// The tokens that are taken.
pub(super) struct Tokens {
    path: PathBuf,
    now: RwLock<Current>,
}

struct Current {
    lines: Vec<TokenLine>,
    stamp: Stamp,
    /// Why the file as it is now is not in use.
    error: Option<TlsError>,
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it cannot be read, others may read it, or a line is wrong.
    pub fn read(path: PathBuf) -> Result<Tokens, TlsError> {
        let now = RwLock::new(read(&path)?);
        Ok(Tokens { path, now })
    }

    /// The operator that has this token.
    pub fn operator(&self, token: &str) -> Option<Identity> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        let line = tokens::find(&now.lines, token)?;
        Some(Identity::Operator { name: line.name.clone(), role: line.role })
    }

    /// Reads the file again if it has changed.
    pub fn refresh(&self) {
        let earlier = {
            let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
            if now.stamp == Stamp::of([self.path.as_path()]) && now.error.is_none() {
                return;
            }
            now.error.clone()
        };
        let read = read(&self.path);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(new) => {
                tracing::info!("token file {} is read again", self.path.display());
                *now = new;
            }
            Err(e) => {
                if earlier.as_ref() != Some(&e) {
                    tracing::warn!("{e}; the tokens that were read before stay in use");
                }
                now.error = Some(e);
            }
        }
    }
}

fn read(path: &Path) -> Result<Current, TlsError> {
    let stamp = Stamp::of([path]);
    let bytes = private_file("token file", path)?;
    let bad = |what: String| {
        TlsError::new("token file", path, what, "write NAME ROLE HASH, as godwitctl pki token does")
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("is no text".into()))?;
    let lines = tokens::parse(text).map_err(|e| bad(e.to_string()))?;
    Ok(Current { lines, stamp, error: None })
}
