//! A receive end for benchmarks that costs a switch next to nothing and takes no room in its caches.
//!
//! DPDK's `net_pcap` keeps each frame of the capture that it plays in a packet buffer of its own, 2 KiB apart from the
//! next: with a hundred thousand frames its copying waits for memory, whoever polls it, and a comparison of switches
//! becomes one of how they wait. A card does nothing of that kind: it writes into the few buffers that the switch
//! just gave back. So does this. `net_null` hands out fresh buffers, which are mostly those that were freed last, and
//! a receive callback of DPDK's copies frames into them that lie one after the other in 64-byte lines.
//!
//! It is a shared library that is loaded before a DPDK program's own (`LD_PRELOAD`), so that any of them has this
//! end without knowing of it; without the variables of [`settings`] it does nothing. It works where the program is
//! linked with DPDK's shared libraries.
//!
//! | File | Does |
//! |---|---|
//! | `capture` | a capture, laid out |
//! | `queue` | frames into buffers |
//! | `settings` | what the environment asks for |
//! | `preload` | the functions of DPDK that are stepped in front of |

pub mod capture;
pub mod preload;
pub mod queue;
pub mod settings;
