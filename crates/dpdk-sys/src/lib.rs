//! Raw bindings to libdpdk.
//!
//! `shim.h` is the surface: ordinary functions for DPDK's static inline ones, and flat structures in
//! place of those that change from one DPDK release to the next. Beside it stand a few `rte_*`
//! functions whose signatures are plain C. `godwit-dpdk` is the safe layer over this crate; nothing
//! else should name it.
#![no_std]

/// DPDK's version at compile time, such as `22.11.11`.
pub const VERSION: &str = env!("DPDK_VERSION");

mod bindings {
    #![allow(
        missing_docs,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        unsafe_op_in_unsafe_fn,
        clippy::all,
        clippy::undocumented_unsafe_blocks
    )]
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}
pub use bindings::*;
