//! Placeholder until the switch links DPDK.
fn main() {}
