//! The way of VMs' frames from a worker to control: what the gateway answers, and what says who listens to a group.

use crossbeam::queue::ArrayQueue;
use godwit_pipeline::MAX_PUNT;
use godwit_tables::update::PortIdx;

/// Frames that wait for control at most. A guest cannot do more than fill the queue: what finds no room is counted,
/// and hosts ask again.
pub const PUNTS: usize = 256;

/// A VM's frame for control.
pub struct Punt {
    port: PortIdx,
    len: u16,
    bytes: [u8; MAX_PUNT],
}

impl Punt {
    /// The port that it came in on.
    pub fn port(&self) -> PortIdx {
        self.port
    }

    /// The frame, from its destination address on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A bounded lock-free queue of [`PUNTS`] frames, from one worker to control. Its memory is there from the start.
pub struct Punts(ArrayQueue<Punt>);

impl Default for Punts {
    fn default() -> Punts {
        Punts(ArrayQueue::new(PUNTS))
    }
}

impl Punts {
    /// Copies a frame into the queue; false where there is no room, or the frame is longer than [`MAX_PUNT`].
    #[cold]
    pub(crate) fn put(&self, port: PortIdx, frame: &[u8]) -> bool {
        let mut bytes = [0; MAX_PUNT];
        let Some(room) = bytes.get_mut(..frame.len()) else { return false };
        room.copy_from_slice(frame);
        self.0.push(Punt { port, len: frame.len() as u16, bytes }).is_ok()
    }

    /// The oldest frame.
    pub fn take(&self) -> Option<Punt> {
        self.0.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punted_frames_reach_control_in_order_and_unchanged_until_there_is_no_room() {
        let punts = Punts::default();
        let frame = |n: usize| vec![n as u8; 14 + 5 * n];
        for n in 0..PUNTS {
            assert!(punts.put(PortIdx(n as u16), &frame(n)));
        }
        assert!(!punts.put(PortIdx(1), &frame(1)), "full");
        for n in 0..PUNTS {
            let punt = punts.take().expect("it was put");
            assert_eq!((punt.port(), punt.bytes()), (PortIdx(n as u16), &frame(n)[..]));
        }
        assert!(punts.take().is_none());
        assert!(punts.put(PortIdx(2), &frame(2)), "there is room again");
    }

    #[test]
    fn a_punted_frame_has_one_packet_of_1500_bytes_with_two_tags_at_most() {
        let punts = Punts::default();
        assert!(punts.put(PortIdx(1), &[7; 14 + 2 * 4 + 1500]));
        assert!(!punts.put(PortIdx(1), &[7; MAX_PUNT + 1]));
        assert_eq!(punts.take().map(|p| p.bytes().len()), Some(MAX_PUNT));
        assert!(punts.take().is_none());
    }
}
