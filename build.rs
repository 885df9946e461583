//! The version that `--version` prints: the package's, the source's revision and DPDK's.
//!
//! Nothing is to be said to the linker here: `dpdk-sys` links the shared libraries, and device drivers
//! are plugins that EAL loads at run time.
#![forbid(unsafe_code)]

use std::process::Command;

fn main() {
    let dpdk = std::env::var("DEP_DPDK_VERSION").unwrap_or_else(|_| "of unknown version".into());
    let revision = git_revision().map_or_else(String::new, |r| format!(" ({r})"));
    let package = env!("CARGO_PKG_VERSION");
    println!("cargo:rustc-env=GODWIT_VERSION={package}{revision}, DPDK {dpdk}");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=.git/HEAD");
}

/// The revision of the sources, where they are a git checkout.
fn git_revision() -> Option<String> {
    let out = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    (out.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
