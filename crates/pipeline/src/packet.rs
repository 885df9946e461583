//! Packet buffers; see `godwit-packet`.

pub use godwit_packet::{Asks, Packet, PacketSource, ReceiveOffloads, ReceiveOffloads as Takes, Unfinished};
