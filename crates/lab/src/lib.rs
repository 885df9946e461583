//! Namespaces, switches, an NVA and VMs on one machine; runs scenarios.
//!
//! [`lab::Lab`] builds the network and takes it down, [`agent`] is the software in its VMs, [`guest`] makes
//! VMs of QEMU, with a kernel of their own, [`mover`] plays the hypervisor of those that are namespaces, [`traffic`]
//! sends and judges, [`watch`] tells when frames arrive, [`scenario`] puts them together. Integration tests and
//! `godwit-bench` use the same parts as the command `godwit-lab`.

#![forbid(unsafe_code)]

pub mod agent;
pub mod capture;
pub mod clock;
pub mod cmd;
pub mod copies;
pub mod gap;
pub mod guest;
pub mod lab;
pub mod mover;
pub mod netns;
pub mod random;
pub mod scenario;
pub mod traffic;
pub mod watch;
