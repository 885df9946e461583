//! Space on the disk: how much there is, and some that is kept in reserve.
//!
//! A commit that finds no space must not lose what it brings. The reserve is a file of its own that is given up then,
//! so that the commit goes through; the directory takes no further changes until there is space again.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use tokio::sync::watch;

/// The file that keeps space.
pub const RESERVE: &str = "directory.reserve";
/// Its length, in bytes.
const RESERVED: u64 = 16 << 20;
/// Less space than this, in bytes, is an alarm.
const LOW: u64 = 256 << 20;
/// With less than this the directory takes no changes.
const NONE: u64 = 32 << 20;
/// How often it is looked at.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Space for the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// As much as it takes.
    Plenty,
    /// So many bytes are left.
    Low(u64),
    /// So few that only what is under way is written.
    Full,
}

impl Space {
    fn of(free: u64) -> Space {
        match free {
            ..NONE => Space::Full,
            NONE..LOW => Space::Low(free),
            _ => Space::Plenty,
        }
    }
}

/// What watches over the space of one directory.
pub(super) struct Watch {
    dir: PathBuf,
    space: watch::Sender<Space>,
    looked: Option<Instant>,
    has_reserve: bool,
}

impl Watch {
    /// Looks at the space of the data directory, and keeps some of it.
    pub fn new(dir: &Path) -> Watch {
        let mut watch = Watch {
            dir: dir.into(),
            space: watch::channel(Space::Plenty).0,
            looked: None,
            has_reserve: false,
        };
        watch.look();
        watch
    }

    /// One that only stands in the place of such, and keeps nothing.
    pub fn idle(dir: &Path) -> Watch {
        let space = watch::channel(Space::Plenty).0;
        Watch { dir: dir.into(), space, looked: None, has_reserve: false }
    }

    /// Those who want to know.
    pub fn subscribe(&self) -> watch::Receiver<Space> {
        self.space.subscribe()
    }

    /// Looks if it is time to.
    pub fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        self.looked = Some(Instant::now());
        let Some(free) = free(&self.dir) else { return };
        // Where the reserve was given up, it comes back first.
        if !self.has_reserve && free >= RESERVED + 2 * NONE {
            match keep(&self.dir.join(RESERVE)) {
                Ok(()) => self.has_reserve = true,
                Err(e) => tracing::warn!("cannot keep space in reserve in {}: {e}", self.dir.display()),
            }
        }
        self.set(if self.has_reserve { Space::of(free) } else { Space::Full });
    }

    /// A commit found no space: what is kept is given up.
    pub fn ran_out(&mut self) {
        if self.has_reserve || self.dir.join(RESERVE).exists() {
            self.has_reserve = false;
            if let Err(e) = fs::remove_file(self.dir.join(RESERVE)) {
                tracing::warn!("cannot give up the reserve in {}: {e}", self.dir.display());
            }
        }
        self.looked = Some(Instant::now());
        self.set(Space::Full);
    }

    fn set(&self, space: Space) {
        let before = *self.space.borrow();
        if before == space || matches!((before, space), (Space::Low(_), Space::Low(_))) {
            return;
        }
        let dir = self.dir.display();
        match space {
            Space::Plenty => tracing::info!("{dir} has space again"),
            Space::Low(free) => {
                tracing::error!(
                    "ALARM: {dir} has {} MiB left: free space before the directory stands still",
                    free >> 20
                );
            }
            Space::Full => {
                tracing::error!(
                    "ALARM: {dir} is full: the directory answers and takes no changes until it has space"
                );
            }
        }
        self.space.send_replace(space);
    }
}

/// Bytes that are free; `None` where the system does not say.
fn free(dir: &Path) -> Option<u64> {
    let s = statvfs(dir).ok()?;
    Some(s.blocks_available().saturating_mul(s.fragment_size()))
}

/// Makes the file with so many bytes that are really there.
fn keep(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|m| m.len() == RESERVED) {
        return Ok(());
    }
    let write = || {
        let mut file = fs::File::create(path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..RESERVED >> 20 {
            file.write_all(&zeros)?;
        }
        file.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d9_the_reserve_is_kept_and_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(dir.path());
        let told = watch.subscribe();
        let reserve = dir.path().join(RESERVE);
        assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVED);
        watch.ran_out();
        assert!(!reserve.exists(), "its space is free");
        assert_eq!(*told.borrow(), Space::Full);
        watch.looked = None;
        watch.look();
        assert!(reserve.exists() && *told.borrow() != Space::Full, "there is space again");
    }

    #[test]
    fn d9_little_space_is_told_before_there_is_none() {
        assert_eq!(Space::of(LOW), Space::Plenty);
        assert_eq!(Space::of(LOW - 1), Space::Low(LOW - 1));
        assert_eq!(Space::of(NONE), Space::Low(NONE));
        assert_eq!(Space::of(NONE - 1), Space::Full);
    }
}
