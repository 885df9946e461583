//! Safe layer over libdpdk: EAL, memory pools, buffers, ports.
//!
//! [`Eal::init`] starts DPDK once a process. [`Mempool`] holds the buffers, [`Mbuf`] owns one of them,
//! [`Port`] is a device, and the [`RxQueue`]s and [`TxQueue`]s that a started port hands out are owned
//! one by one, so that a worker thread polls without a lock.
//!
//! What this crate promises to safe code: a buffer has one owner and goes back to its pool when that
//! owner drops it; a queue is polled by one thread at a time; a port does not stop, close or vanish
//! while one of its queue handles exists. What it cannot promise: DPDK and its drivers are C code and
//! trusted as such, and frames that a driver lends from memory of its own (zero-copy memif or AF_XDP)
//! must be dropped before their port is closed.

mod args;
mod bond;
mod bond_driver;
mod config;
mod device;
mod eal;
mod eal_config;
mod error;
mod ethport;
mod ethqueue;
mod lease;
mod limits;
mod link;
mod log;
mod mbuf;
mod memory;
mod mempool;
mod packet;
mod port;
mod query;
mod queue;
mod thread;
mod time;
mod vhost;

pub use bond::Leg;
pub use bond_driver::BondMode;
pub use config::{ConfigReport, DevInfo, PortConfig};
pub use device::max_devices;
pub use eal::{Eal, version};
pub use eal_config::{EalConfig, HugePages, LogLevel, Pci};
pub use error::{Errno, Error, Result};
pub use limits::raise_file_limit;
pub use link::{Link, LinkEvent};
pub use mbuf::{Mbuf, TX_IP_CKSUM, TX_IPV4, TX_IPV6, TX_UDP_CKSUM};
pub use mempool::{HEADROOM, Mempool};
pub use packet::Pool;
pub use port::{NO_PORT_ID, Port};
pub use query::Stats;
pub use queue::{RxQueue, TxQueue};
pub use thread::{ThreadRegistration, on_core_ns, preemptions};
pub use time::{tsc, tsc_hz};
pub use vhost::{
    MAX_LISTENING_GUESTS, MAX_SOCKET_PATH, MAX_VHOST_QUEUES, SocketError, VhostSocket, canonical_socket,
};
