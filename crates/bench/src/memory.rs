//! Hugepages for three contenders at once.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const NODES: &str = "/proc/sys/vm/nr_hugepages";

fn meminfo(name: &str) -> Result<usize> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("/proc/meminfo tells no {name}"))
}

/// Sees to it that `mb` MiB of hugepages are free, setting more aside where there is memory for them.
/// They stay until somebody gives them back or the machine restarts.
///
/// # Errors
/// Where the machine has not enough memory.
pub fn reserve(mb: usize) -> Result<()> {
    let page_kb = meminfo("Hugepagesize")?;
    // Rounding to pages leaves a few unused in each segment.
    let wanted = (mb << 10).div_ceil(page_kb) + 32;
    let missing = wanted.saturating_sub(meminfo("HugePages_Free")?);
    if missing == 0 {
        return Ok(());
    }
    let available = meminfo("MemAvailable")?;
    if missing * page_kb > available / 10 * 9 {
        bail!(
            "this takes {missing} more hugepages of {page_kb} kB, and {} MB of memory are available: leave \
             out the rows with the most destinations or flows (--case), or end other programs",
            available >> 10
        );
    }
    let total = meminfo("HugePages_Total")? + missing;
    fs::write(NODES, total.to_string()).with_context(|| format!("writing {NODES}: not root?"))?;
    let free = meminfo("HugePages_Free")?;
    if free < wanted {
        bail!(
            "the kernel found {free} free hugepages of {wanted}, its memory is in pieces: `echo 1 > \
             /proc/sys/vm/compact_memory` may help, setting them aside at the boot does"
        );
    }
    if !Path::new("/dev/hugepages").is_dir() {
        bail!("/dev/hugepages is not there: mount -t hugetlbfs nodev /dev/hugepages");
    }
    Ok(())
}
