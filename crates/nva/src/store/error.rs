//! Why the store could not be opened or written, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use redb::{DatabaseError, StorageError};

/// A store that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory cannot be made or read.
    #[error("cannot use the data directory {dir}: {why}; make it and give it to the user of godwit-nva, or \
        choose another with --data", dir = dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// Another process has the file open.
    #[error("{file} is in use: another godwit-nva runs with this data directory; stop it, or choose another \
        with --data", file = file.display())]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be opened.
    #[error("cannot open {file}: {why}; check owner and mode of the file and its directory", file = file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The file's content makes no sense.
    #[error("{file} is damaged ({why}); restore it from a backup, or move it away to begin with an empty \
        directory", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// A newer version wrote the file.
    #[error("{file} has format {format}, this godwit-nva reads up to {known}; run the newer version",
        file = file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        format: u64,
        /// The newest one that is understood.
        known: u64,
    },
    /// The disk refuses.
    #[error("cannot write {file}: {why}; check the disk's space and health, then start godwit-nva again",
        file = file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the store said.
        why: String,
    },
    /// There is no thread for the store.
    #[error("cannot start the thread of the store: {0}; check the limit of processes")]
    Thread(io::Error),
    /// The store's thread is gone.
    #[error("the thread that writes {file} has died; please report this with the log", file = file.display())]
    Died {
        /// The file.
        file: PathBuf,
    },
}

impl StoreError {
    pub(super) fn open(file: &Path, e: DatabaseError) -> StoreError {
        let file = file.to_path_buf();
        match e {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                StoreError::InUse { file }
            }
            DatabaseError::Storage(StorageError::Io(e)) if !is_content(&e) => {
                StoreError::Open { file, why: e }
            }
            e => StoreError::Damaged { file, why: e.to_string() },
        }
    }
}

/// The system could read the file, but what it read is no database.
fn is_content(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
