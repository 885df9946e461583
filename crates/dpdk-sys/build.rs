//! Finds libdpdk, compiles the C shim against it and generates the bindings.
//!
//! Dependents with a build script of their own find DPDK's version in `DEP_DPDK_VERSION`, and where its
//! libraries lie in `DEP_DPDK_LIBDIR`.
#![forbid(unsafe_code)]

use std::{env, path::PathBuf, process::Command};

/// The oldest DPDK whose functions the shim uses.
const OLDEST: &str = "22.11";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for file in ["src/shim.h", "src/shim.c", "src/bond.c", "src/vhost.c", "src/wrapper.h"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let dpdk = find_dpdk();
    let flags = c_flags(&dpdk);
    compile_shim(&flags);
    generate_bindings(&flags);
    println!("cargo::metadata=VERSION={}", dpdk.version);
    if let Some(folder) = dpdk.link_paths.first() {
        println!("cargo::metadata=LIBDIR={}", folder.display());
    }
    println!("cargo::rustc-env=DPDK_VERSION={}", dpdk.version);
}

/// Asks pkg-config for libdpdk and lets it print the link flags.
fn find_dpdk() -> pkg_config::Library {
    pkg_config::Config::new().atleast_version(OLDEST).probe("libdpdk").unwrap_or_else(|error| {
        println!(
            "cargo::error=DPDK {OLDEST} or newer was not found through pkg-config. \
             On Debian or Ubuntu: apt install libdpdk-dev dpdk pkg-config clang libclang-dev. \
             For a DPDK of your own, point PKG_CONFIG_PATH at the folder of its libdpdk.pc."
        );
        eprintln!("{error}");
        std::process::exit(1);
    })
}

/// Every compiler flag DPDK asks for.
///
/// The `pkg-config` crate keeps include paths and macros only. DPDK's headers also need
/// `-include rte_config.h` and an `-march` that has the instructions their inline functions use.
fn c_flags(dpdk: &pkg_config::Library) -> Vec<String> {
    let mut flags: Vec<String> =
        dpdk.include_paths.iter().map(|path| format!("-I{}", path.display())).collect();
    let tool = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let out = Command::new(&tool)
        .args(["--cflags-only-other", "libdpdk"])
        .output()
        .unwrap_or_else(|error| panic!("{tool} answered the probe but cannot be run again: {error}"));
    assert!(out.status.success(), "{tool} --cflags-only-other libdpdk failed: {}", out.status);
    let text = String::from_utf8(out.stdout).expect("pkg-config prints UTF-8");
    flags.extend(text.split_whitespace().map(str::to_owned));
    flags
}

/// Compiles the shim, optimised in every profile: it stands on the packet path.
fn compile_shim(flags: &[String]) {
    let mut build = cc::Build::new();
    build.files(["src/shim.c", "src/bond.c", "src/vhost.c"]).opt_level(3).warnings(true).extra_warnings(true);
    // DPDK's own headers are not clean under -Wextra.
    build.flag("-Wno-unused-parameter").flag("-Wno-missing-field-initializers");
    for flag in flags {
        build.flag(flag);
    }
    build.compile("godwit_dpdk_shim");
}

/// Binds the shim and the few DPDK functions whose signatures are plain C in every release.
fn generate_bindings(flags: &[String]) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    bindgen::Builder::default()
        .header("src/wrapper.h")
        .clang_args(flags)
        .allowlist_function("godwit_.*")
        .allowlist_type("godwit_.*")
        .allowlist_var("GODWIT_.*")
        .allowlist_function("rte_eal_(init|cleanup|get_runtime_dir)")
        .allowlist_function("rte_(strerror|version)")
        .allowlist_function("rte_thread_(register|unregister)")
        .allowlist_function("rte_get_tsc_hz")
        .allowlist_function("rte_pktmbuf_pool_create")
        .allowlist_function("rte_mempool_(free|in_use_count|avail_count)")
        .allowlist_function("rte_dev_probe")
        .allowlist_function("rte_eth_dev_(start|stop|close|is_valid_port|socket_id|set_mtu|get_mtu)")
        .allowlist_function("rte_eth_dev_(set_link_up|set_link_down|adjust_nb_rx_tx_desc)")
        .allowlist_function("rte_eth_promiscuous_(enable|disable)")
        .allowlist_function("rte_eth_allmulticast_(enable|disable)")
        .allowlist_function("rte_eth_stats_reset")
        .opaque_type("rte_mempool")
        .rust_edition(bindgen::RustEdition::Edition2024)
        .use_core()
        .generate_comments(false)
        .derive_default(true)
        .layout_tests(true)
        .generate()
        .expect("bindgen reads DPDK's headers (libclang 14 or newer)")
        .write_to_file(out)
        .expect("OUT_DIR can be written");
}
