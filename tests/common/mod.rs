//! What the tests of whole processes share: finding the programs, running them, reading their JSON.

pub mod net;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The program `name`, from `GODWIT_BIN_DIR` or else built beside the switch under test.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER
        .get_or_init(|| match std::env::var_os("GODWIT_BIN_DIR") {
            Some(dir) => dir.into(),
            None => build_beside(),
        })
        .join(name)
}

/// Builds the other programs in the profile of this test, where nobody has built them yet.
fn build_beside() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_godwit"));
    let folder = own.parent().expect("a program lies in a folder").to_path_buf();
    let packages =
        ["godwit", "godwit-nva", "godwit-ctl", "godwit-lab", "godwit-bench"].map(|p| ["-p", p]).concat();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.arg("build").args(&packages).current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let target = folder.parent().expect("a profile's folder lies in the target folder");
    assert!(cargo.env("CARGO_TARGET_DIR", target).status().expect("cargo runs").success());
    folder
}

/// The machine, for one test after the other: nextest sees to that by itself, `cargo test` starts threads.
pub fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hugepages that were set aside before a benchmark wants more.
pub struct Hugepages(Option<String>);

impl Hugepages {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";

    /// Those that there are now; they are restored when this is dropped.
    pub fn remember() -> Hugepages {
        Hugepages(std::fs::read_to_string(Self::FILE).ok())
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(Self::FILE, before);
        }
    }
}

/// Runs a lab scenario and returns what it printed and, where it writes one, its JSON report.
pub fn lab(args: &[&str]) -> (Output, serde_json::Value) {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json = folder.path().join("report.json");
    let mut lab = Command::new(program("godwit-lab"));
    lab.args(args);
    // The scenarios whose reports tests read.
    let reports = ["hot-move", "guest-memory", "routed", "multicast", "libvirt", "drain", "guests"];
    if args.first().is_some_and(|scenario| reports.contains(scenario)) {
        lab.arg("--json").arg(&json);
    }
    let output = lab.output().expect("the lab runs");
    let report = std::fs::read(&json).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    (output, report)
}
