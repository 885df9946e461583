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
    #[error("{file} is damaged ({why}); keep it, and restore a backup: without the file the directory knows no VN, \
        no VM and no NVE", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The file is there and has nothing in it.
    #[error("{file} is empty: it was cut off, or a first start did not end; restore a copy of it, and remove it only \
        if no godwit-nva has run with this data directory yet", file = file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// There is no space left.
    #[error("cannot write {file}: the disk is full ({why}); nothing is lost, free space and start godwit-nva again",
        file = file.display())]
    Full {
        /// The file.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The system does not permit it.
    #[error("cannot write {file}: {why}; check owner and mode of the file, and whether its disk is mounted read-only",
        file = file.display())]
    Permission {
        /// The file.
        file: PathBuf,
        /// What the system said.
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
            DatabaseError::Storage(StorageError::Io(e)) if is_full(&e) => {
                StoreError::Full { file, why: e.to_string() }
            }
            DatabaseError::Storage(StorageError::Io(e)) if !is_content(&e) => {
                StoreError::Open { file, why: e }
            }
            e => StoreError::Damaged { file, why: e.to_string() },
        }
    }
}

impl StoreError {
    /// Reading or writing the open file failed.
    pub(super) fn at_work(file: &Path, e: redb::Error) -> StoreError {
        let (file, why) = (file.to_path_buf(), e.to_string());
        match e {
            redb::Error::Io(e) if is_full(&e) => StoreError::Full { file, why },
            redb::Error::Io(e) if is_forbidden(&e) => StoreError::Permission { file, why },
            redb::Error::Io(e) if is_content(&e) => StoreError::Damaged { file, why },
            redb::Error::Corrupted(_) => StoreError::Damaged { file, why },
            _ => StoreError::Write { file, why },
        }
    }

    /// There is no space left; it may be there again.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, StoreError::Full { .. })
    }
}

fn is_full(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn is_forbidden(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The system could read the file, but what it read is no database.
fn is_content(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
