//! Final-link arguments for DPDK, and the version that `--version` prints.

use std::process::Command;

fn main() {
    // Device drivers are plugins that EAL loads at run time; the switch links the libraries only,
    // and finds them where the DPDK it was built with lies.
    if let Ok(dir) = std::env::var("DEP_DPDK_LIBDIR") {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{dir}");
    }
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
