//! Guests on vhost-user sockets: ports over librte_vhost itself, as many as the switch has room for.
//!
//! A guest's end (a *front end*: QEMU) shares its memory and its rings over the socket. librte_vhost has one thread
//! for all sockets, which answers front ends and tells of their guests; [`events`] brings what it tells to the
//! [`guest::Guest`] of the socket, and that opens and closes the [`ring::Ring`]s. Workers own [`queue::VhostRx`] and
//! [`queue::VhostTx`], and enter a ring only while it is open. The library's thread closes rings, and waits for who is
//! in one, before it frees what they lie in. A closed ring gives nothing and takes nothing.
//!
//! The library's own statistics are off, as they read each frame; its region for frames in flight serves block
//! devices only, and is not offered.

mod args;
mod barrier;
mod events;
mod guest;
mod mapped;
mod port;
mod queue;
mod ring;
mod screen;
mod socket;

pub(crate) use args::are_ours;
pub use args::{MAX_SOCKET_PATH, MAX_VHOST_QUEUES};
pub use events::MAX_LISTENING_GUESTS;
pub(crate) use port::{DRIVER, VhostPort};
pub(crate) use queue::{VhostRx, VhostTx};
pub use socket::{SocketError, VhostSocket, canonical_socket};
