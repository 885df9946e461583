//! Whether files have changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What the file system says of some files: another value once one of them was written or replaced.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Stamp(Vec<Option<[i64; 5]>>);

impl Stamp {
    /// Of these files as they are now; one that cannot be looked at has no value.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Stamp {
        let stamp = |path: &Path| {
            let m = fs::metadata(path).ok()?;
            let (device, inode, size) =
                (m.dev().cast_signed(), m.ino().cast_signed(), m.size().cast_signed());
            Some([device, inode, size, m.mtime(), m.mtime_nsec()])
        };
        Stamp(paths.into_iter().map(stamp).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_or_gone_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&file, "one").unwrap();
        let first = Stamp::of([file.as_path()]);
        assert_eq!(first, Stamp::of([file.as_path()]));
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &file).unwrap();
        let second = Stamp::of([file.as_path()]);
        assert_ne!(first, second);
        fs::remove_file(&file).unwrap();
        assert_ne!(second, Stamp::of([file.as_path()]));
    }
}
