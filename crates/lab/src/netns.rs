//! Threads in network namespaces, and the interfaces that they find there.

use std::fs::File;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::LinkAddr;

/// Moves the calling thread, and no other, into a network namespace. Its sockets stay there.
///
/// # Errors
/// Where there is no such namespace, or it may not be entered.
pub fn enter(namespace: &str) -> Result<()> {
    let path = format!("/run/netns/{namespace}");
    let file = File::open(&path).with_context(|| format!("opening {path}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {path}"))
}

/// The address by which packet sockets of the thread's namespace name an interface.
///
/// # Errors
/// Where there is no such interface.
pub fn link(interface: &str) -> Result<LinkAddr> {
    getifaddrs()?
        .filter(|i| i.interface_name == interface)
        .find_map(|i| i.address.and_then(|a| a.as_link_addr().copied()))
        .with_context(|| format!("no interface {interface}"))
}
