//! Disks that are full, and files that are damaged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::StorageBackend;
use ::redb::backends::FileBackend;

use super::super::redb::builder;
use super::*;

/// A file on a disk that may be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn has_space(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.has_space()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.has_space()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A store on a disk that is full while `full` says so.
fn on_disk(dir: &Path, full: &Arc<AtomicBool>) -> RedbStore {
    let full = full.clone();
    let how = move |path: &Path| {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = FileBackend::new(file.map_err(::redb::StorageError::Io)?)?;
        builder(path).create_with_backend(Disk { file, full: full.clone() })
    };
    RedbStore::serve(dir, Box::new(how)).unwrap()
}

#[test]
fn d9_a_commit_waits_for_space_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let mut store = on_disk(dir.path(), &full);
    wait(store.load()).unwrap();
    wait(store.commit(vec![Write::PutVm(vm(1, 1))])).unwrap();
    full.store(true, Ordering::SeqCst);
    let pending = store.commit(vec![Write::PutVm(vm(2, 2))]);
    let mut space = store.space();
    wait(Box::pin(async move {
        space.wait_for(|s| *s == Space::Full).await.unwrap();
        Ok(())
    }))
    .unwrap();
    full.store(false, Ordering::SeqCst);
    wait(pending).unwrap();
    drop(store);
    let (_store, state, _) = open(dir.path()).unwrap();
    assert_eq!(state.vms.into_values().collect::<Vec<_>>(), [vm(1, 1), vm(2, 2)]);
}

#[test]
fn d9_a_full_disk_does_not_keep_the_store_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let mut store = on_disk(dir.path(), &full);
    wait(store.load()).unwrap();
    wait(store.commit(vec![Write::PutVm(vm(1, 1))])).unwrap();
    full.store(true, Ordering::SeqCst);
    drop(store.commit(vec![Write::PutVm(vm(2, 2))]));
    drop(store);
    full.store(false, Ordering::SeqCst);
    let (_store, state, _) = open(dir.path()).unwrap();
    assert_eq!(state.vms[&vm(1, 1).key], vm(1, 1), "what was acknowledged is there");
}

#[test]
fn d9_errors_are_told_apart_and_none_advises_to_lose_data() {
    let at_work = |e: io::Error| StoreError::at_work(Path::new("/x/directory.redb"), ::redb::Error::Io(e));
    let full = at_work(io::ErrorKind::StorageFull.into());
    let forbidden = at_work(io::ErrorKind::ReadOnlyFilesystem.into());
    let damaged = at_work(io::ErrorKind::InvalidData.into());
    let other = at_work(io::ErrorKind::TimedOut.into());
    assert!(matches!(full, StoreError::Full { .. }) && full.to_string().contains("nothing is lost"));
    assert!(matches!(forbidden, StoreError::Permission { .. }));
    assert!(matches!(damaged, StoreError::Damaged { .. }));
    assert!(matches!(other, StoreError::Write { .. }));
    for e in [full, forbidden, damaged, other] {
        let text = e.to_string();
        assert!(!text.contains("move it away") && !text.contains("empty directory"), "{text}");
    }
}

#[test]
fn d17_a_file_of_no_length_is_no_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), []).unwrap();
    let refused = RedbStore::open(dir.path()).err().unwrap();
    assert!(matches!(refused, StoreError::Empty { .. }), "{refused}");
    assert!(refused.to_string().contains("restore a copy"), "{refused}");
}

#[test]
fn d17_a_flipped_bit_is_refused_or_leaves_a_state_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut states = vec![];
    let (mut store, state, _) = open(dir.path()).unwrap();
    states.push(state);
    for n in 1..=4 {
        wait(store.commit(vec![Write::PutVm(vm(n, n.into()))])).unwrap();
        let mut next = states.last().unwrap().clone();
        next.apply(&Write::PutVm(vm(n, n.into())));
        states.push(next);
    }
    drop(store);
    let whole = fs::read(dir.path().join(FILE)).unwrap();
    let used = whole.iter().rposition(|b| *b != 0).unwrap();
    for at in (0..used).step_by(used / 61) {
        let elsewhere = tempfile::tempdir().unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(elsewhere.path().join(FILE), bytes).unwrap();
        if let Ok((_, state, _)) = open(elsewhere.path()) {
            let known = states.iter().any(|s| s.vms == state.vms);
            assert!(known, "byte {at}: a state that never was");
        }
    }
}
