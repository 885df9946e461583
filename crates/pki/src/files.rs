//! Files that are there whole or as they were before.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use crate::PkiError;

/// Who may read a file.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// Its owner.
    Private,
    /// All.
    Public,
}

pub(crate) fn make_dir(dir: &Path, access: Access) -> Result<(), PkiError> {
    let mode = match access {
        Access::Private => 0o700,
        Access::Public => 0o755,
    };
    DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(|e| PkiError::file(dir, &e))
}

pub(crate) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|e| PkiError::file(path, &e))
}

pub(crate) fn write(path: &Path, text: &str, access: Access) -> Result<(), PkiError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mode = match access {
        Access::Private => 0o600,
        Access::Public => 0o644,
    };
    let written = tempfile::NamedTempFile::new_in(dir).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        Ok(file.persist(path)?)
    });
    written.map(drop).map_err(|e| PkiError::file(path, &e))
}
