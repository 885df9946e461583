//! Ports in memory: what tests and simulations poll in a NIC's place.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use godwit_pipeline::mem::{MemPacket, MemPool};

use crate::io::{Io, RxQueue, TxQueue};

/// Queues in memory.
#[derive(Debug)]
pub struct MemIo;

impl Io for MemIo {
    type Packet = MemPacket;
    type Rx = MemQueue;
    type Tx = MemQueue;
    type Pool = MemPool;
}

/// A bounded queue of frames that both sides of a test share; a lock is fine here.
#[derive(Clone)]
pub struct MemQueue {
    frames: Arc<Mutex<VecDeque<Vec<u8>>>>,
    capacity: usize,
}

impl MemQueue {
    /// An empty queue for at most `capacity` frames.
    pub fn new(capacity: usize) -> MemQueue {
        MemQueue { frames: Arc::default(), capacity }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.frames.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds a frame; `false` where the queue is full.
    pub fn put(&self, frame: Vec<u8>) -> bool {
        let mut frames = self.lock();
        let room = frames.len() < self.capacity;
        if room {
            frames.push_back(frame);
        }
        room
    }

    /// Takes the oldest frame.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.lock().pop_front()
    }

    /// Frames in it.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl RxQueue<MemPacket> for MemQueue {
    fn rx(&mut self, out: &mut Vec<MemPacket>, max: usize) -> usize {
        let mut frames = self.lock();
        let n = frames.len().min(max).min(out.capacity() - out.len());
        out.extend(frames.drain(..n).map(|f| MemPacket::new(&f)));
        n
    }
}

impl TxQueue<MemPacket> for MemQueue {
    fn tx(&mut self, packets: &mut Vec<MemPacket>) -> usize {
        use godwit_pipeline::packet::Packet;
        let mut frames = self.lock();
        let n = packets.len().min(self.capacity.saturating_sub(frames.len()));
        frames.extend(packets.drain(..n).map(|p| p.data().to_vec()));
        n
    }
}
