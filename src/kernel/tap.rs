//! Taps by the files that lead to them: the kernel says of each of these which interface that is, in whatever network
//! namespace it is by now, or none once the interface was deleted.

use std::path::Path;

/// A file of the process, given by its folder in `/proc`, that leads to the tap of that name.
pub fn tap_file(process: &Path, name: &str) -> Option<u32> {
    let files = std::fs::read_dir(process.join("fdinfo")).ok()?;
    let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // The lowest: the driver keeps it until the device is closed.
    numbers.filter(|file| interface(process, *file).as_deref() == Some(name)).min()
}

/// The file leads to a tap.
pub fn is_tap_file(process: &Path, file: u32) -> bool {
    interface(process, file).is_some_and(|name| !name.is_empty())
}

/// The name of the interface that a file leads to: empty where it was deleted, `None` for files of another kind.
fn interface(process: &Path, file: u32) -> Option<String> {
    let text = std::fs::read_to_string(process.join("fdinfo").join(file.to_string())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("iff:")).map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r18_a_tap_is_known_by_its_file_wherever_it_is() {
        let process = tempfile::tempdir().unwrap();
        let put = |file: u32, line: &str| {
            let text = format!("pos:\t0\nflags:\t0104002\nmnt_id:\t15\n{line}");
            std::fs::write(process.path().join("fdinfo").join(file.to_string()), text).unwrap();
        };
        std::fs::create_dir(process.path().join("fdinfo")).unwrap();
        put(3, "");
        put(12, "iff:\ttap1\n");
        put(7, "iff:\ttap1\n");
        put(9, "iff:\ttap10\n");
        assert_eq!(tap_file(process.path(), "tap1"), Some(7));
        assert_eq!(tap_file(process.path(), "tap2"), None);
        assert!(is_tap_file(process.path(), 7) && !is_tap_file(process.path(), 3));
        put(7, "iff:\teth0\n");
        assert!(is_tap_file(process.path(), 7), "given to a guest's namespace and renamed");
        put(7, "iff:\t\n");
        assert!(!is_tap_file(process.path(), 7), "deleted");
        assert!(!is_tap_file(process.path(), 99));
    }
}
