//! Which memory EAL gets: hugepages, or ordinary pages where there are none.

use std::path::Path;

use crate::error::{Error, Result};

/// Where the kernel lists its hugepage pools, one folder a page size.
const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

/// Whether to use hugepages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Use them where enough are free, else warn and run without.
    #[default]
    Auto,
    /// Fail where too few are free.
    Always,
    /// Use ordinary pages: for tests and small machines, at the price of TLB misses, and without
    /// devices that need physically contiguous memory.
    Never,
}

/// What EAL was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Hugepages, private to the process (`--in-memory`).
    Huge,
    /// Ordinary pages (`--no-huge`).
    Ordinary,
}

/// Decides between the two, and warns where hugepages are wanted and missing.
pub(crate) fn choose(huge: HugePages, wanted_mb: u32) -> Result<Memory> {
    let free_mb = free_hugepage_mb(Path::new(HUGEPAGES));
    if huge == HugePages::Never {
        return Ok(Memory::Ordinary);
    }
    if free_mb >= u64::from(wanted_mb) {
        return Ok(Memory::Huge);
    }
    let pages = u64::from(wanted_mb).div_ceil(2);
    if huge == HugePages::Always {
        return Err(Error::NoHugepages { wanted_mb, free_mb, pages });
    }
    tracing::warn!(
        "{free_mb} MB of hugepages are free and {wanted_mb} MB are wanted: falling back to ordinary \
         pages, which is slower and cannot serve most NICs. To get hugepages: `sysctl \
         vm.nr_hugepages={pages}` (pages of 2 MB), then start again"
    );
    Ok(Memory::Ordinary)
}

/// Free hugepages of all sizes, in MB; 0 where the kernel has none.
fn free_hugepage_mb(folder: &Path) -> u64 {
    let Ok(sizes) = std::fs::read_dir(folder) else { return 0 };
    sizes
        .flatten()
        .filter_map(|size| {
            let name = size.file_name();
            let kb: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let free: u64 =
                std::fs::read_to_string(size.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
            Some(kb * free / 1024)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_pages_of_all_sizes_are_summed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, free) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "1\n"), ("other", "9\n")] {
            std::fs::create_dir(dir.path().join(name)).expect("a folder");
            std::fs::write(dir.path().join(name).join("free_hugepages"), free).expect("a file");
        }
        assert_eq!(free_hugepage_mb(dir.path()), 3 * 2 + 1024);
        assert_eq!(free_hugepage_mb(&dir.path().join("absent")), 0);
    }

    #[test]
    fn never_is_ordinary_and_always_fails_without() {
        assert_eq!(choose(HugePages::Never, 1).expect("ordinary pages"), Memory::Ordinary);
        let error = choose(HugePages::Always, u32::MAX).expect_err("nobody has 4 PB of hugepages");
        assert!(error.to_string().contains("sysctl vm.nr_hugepages="), "{error}");
    }
}
