//! Raw vhost-user front ends: the guest's side of a vhost-user port without a hypervisor.
//!
//! [`Guest`] negotiates features, shares memory and moves frames by split or packed rings; [`Crowd`] drives hundreds of
//! guests from one thread, which sleeps until a switch has sent something. [`Raw`] sends what no correct front end
//! sends: messages of any content, in any order. [`script`] makes hostile guests of bytes, for fuzzing, and [`Watch`]
//! is a pair of ordinary guests that notice what becomes of a switch meanwhile.
//!
//! Memory is accessed by rust-vmm's `vm-memory`. The messages are the crate's own, not those of rust-vmm's `vhost`:
//! that waits for an answer without end, and a back end that hangs is what tests are after. The crate links no DPDK.

#![forbid(unsafe_code)]

pub mod crowd;
pub mod features;
pub mod fuzzing;
pub mod guest;
pub mod header;
pub mod memory;
pub mod raw;
pub mod ring;
pub mod script;
pub mod watch;

pub use crowd::Crowd;
pub use guest::{Guest, Settings};
pub use header::Header;
pub use memory::Memory;
pub use raw::{Message, Raw};
pub use watch::{Seen, Station, Watch};

/// Why a front end cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses a socket, a file or an event.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The back end does not answer a message, or refuses it.
    #[error("message {request} of vhost-user: {why}")]
    Message {
        /// The message's number.
        request: u32,
        /// Why not.
        why: String,
    },
    /// The memory is not as large as that.
    #[error("{len} bytes at {at:#x} are outside of the guest's memory")]
    Outside {
        /// Offset in the memory.
        at: usize,
        /// Length in bytes.
        len: usize,
    },
    /// The guest's memory cannot be made.
    #[error("memory of {len} bytes cannot be mapped: {why}")]
    Map {
        /// Length in bytes.
        len: usize,
        /// Why not.
        why: String,
    },
    /// The back end wrote a ring that no correct one writes.
    #[error("the back end broke a ring: {0}")]
    Ring(String),
    /// The back end does not offer what the guest cannot do without.
    #[error("the back end does not offer features {missing:#x}; it offers {offered:#x}")]
    Features {
        /// Bits that are missing.
        missing: u64,
        /// Bits that the back end offers.
        offered: u64,
    },
}

impl Error {
    pub(crate) fn system(what: &'static str) -> impl Fn(std::io::Error) -> Error {
        move |source| Error::System { what, source }
    }

    pub(crate) fn errno(what: &'static str) -> impl Fn(nix::errno::Errno) -> Error {
        move |e| Error::System { what, source: e.into() }
    }
}
