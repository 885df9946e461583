//! Packet buffers; see `godwit-packet`.

pub use godwit_packet::{Packet, PacketSource};
