//! Packet buffers; see `godwit-packet`.

pub use godwit_packet::{Asks, Packet, PacketSource, ReceiveOffloads, Unfinished};
