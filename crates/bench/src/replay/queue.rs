//! Frames into buffers.

use std::cell::Cell;
use std::ptr;

use crate::capture::{Capture, LINE, Line};

/// As much of DPDK's `rte_mbuf` as is read or written here; a test compares it with DPDK's headers.
#[repr(C)]
pub struct Buffer {
    addr: *mut u8,
    _iova: u64,
    data_off: u16,
    _refcnt_segs_port: [u16; 3],
    _ol_flags: u64,
    _packet_type: u32,
    pkt_len: u32,
    data_len: u16,
    _vlan_tci: u16,
    _hash: [u32; 2],
    _vlan_tci_outer: u16,
    buf_len: u16,
}

/// A receive queue, and how far it has played its capture. One thread polls it at a time.
pub struct Queue {
    capture: &'static Capture,
    next: Cell<usize>,
}

impl Queue {
    /// From the first frame on.
    pub fn new(capture: &'static Capture) -> Queue {
        Queue { capture, next: Cell::new(0) }
    }

    /// Copies the frames that are next into `buffers`; after the last frame comes the first.
    ///
    /// A frame that is too long for its buffer is cut, to whole lines: whoever set the program up gave it buffers for
    /// the capture's frames, so this only keeps it within its memory.
    ///
    /// # Safety
    /// Each pointer is of a buffer of DPDK's that nobody else uses, and whose room is what it says.
    pub unsafe fn fill(&self, buffers: &[*mut Buffer]) {
        let mut next = self.next.get();
        for &buffer in buffers {
            let frame = self.capture.frames[next];
            next = if next + 1 == self.capture.frames.len() { 0 } else { next + 1 };
            // SAFETY: the caller's promise.
            let buffer = unsafe { &mut *buffer };
            let room = usize::from(buffer.buf_len.saturating_sub(buffer.data_off)) / LINE;
            let lines = self.capture.lines_of(frame);
            let lines = &lines[..lines.len().min(room)];
            // SAFETY: the data begins within the buffer, and there is room for so many lines behind that.
            unsafe { copy(lines, buffer.addr.add(usize::from(buffer.data_off))) };
            let len = usize::from(frame.len).min(lines.len() * LINE) as u16;
            (buffer.data_len, buffer.pkt_len) = (len, len.into());
        }
        self.next.set(next);
    }
}

/// # Safety
/// There is room for the lines behind `to`.
unsafe fn copy(lines: &[Line], to: *mut u8) {
    if let [line] = lines {
        // The usual case, at a length that the compiler knows: a line is moved in one to four instructions.
        // SAFETY: the caller's promise; the two do not overlap, for the capture is the process's own.
        unsafe { ptr::copy_nonoverlapping(line.0.as_ptr(), to, LINE) };
        return;
    }
    // SAFETY: as above.
    unsafe { ptr::copy_nonoverlapping(lines.as_ptr().cast(), to, lines.len() * LINE) };
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::capture::Frame;

    #[test]
    fn buffers_are_as_dpdk_has_them() {
        macro_rules! same {
            ($($ours:ident $theirs:ident),*) => {
                $(
                    let theirs = offset_of!(dpdk_sys::godwit_mbuf, $theirs);
                    assert_eq!(offset_of!(Buffer, $ours), theirs, stringify!($ours));
                )*
            };
        }
        same!(addr buf_addr, data_off data_off, pkt_len pkt_len, data_len data_len, buf_len buf_len);
    }

    fn buffer(memory: &mut [u8], data_off: u16) -> Buffer {
        Buffer {
            addr: memory.as_mut_ptr(),
            _iova: 0,
            data_off,
            _refcnt_segs_port: [1, 1, 0],
            _ol_flags: 0,
            _packet_type: 0,
            pkt_len: 0,
            data_len: 0,
            _vlan_tci: 0,
            _hash: [0; 2],
            _vlan_tci_outer: 0,
            buf_len: memory.len() as u16,
        }
    }

    fn capture() -> &'static Capture {
        let lines = [1, 2, 2, 3].map(|n| Line([n; LINE])).to_vec();
        let frames = [(0, 60), (1, 100), (3, 64)].map(|(first, len)| Frame { first, len }).to_vec();
        Box::leak(Box::new(Capture { lines, frames }))
    }

    #[test]
    fn frames_come_in_order_and_begin_anew() {
        let queue = Queue::new(capture());
        let mut seen = Vec::new();
        for burst in [2, 1, 0, 4] {
            let mut memory = vec![[0_u8; 512]; burst];
            let mut buffers: Vec<Buffer> = memory.iter_mut().map(|m| buffer(m, 128)).collect();
            let pointers: Vec<*mut Buffer> = buffers.iter_mut().map(ptr::from_mut).collect();
            // SAFETY: the buffers and their memory outlive the call, and nobody else has them.
            unsafe { queue.fill(&pointers) };
            for (buffer, memory) in buffers.iter().zip(&memory) {
                let len = usize::from(buffer.data_len);
                assert_eq!(buffer.pkt_len, u32::from(buffer.data_len));
                assert!(memory[..128].iter().all(|b| *b == 0), "the headroom is not touched");
                assert!(memory[128..128 + len].iter().all(|b| *b == memory[128]));
                seen.push((memory[128], len));
            }
        }
        assert_eq!(seen, [(1, 60), (2, 100), (3, 64), (1, 60), (2, 100), (3, 64), (1, 60)]);
    }

    #[test]
    fn nothing_is_written_beyond_a_buffer() {
        let queue = Queue::new(capture());
        let mut memory = [[0_u8; 256]; 2];
        let mut buffers: Vec<Buffer> =
            memory.iter_mut().map(|m| Buffer { buf_len: 128 + 70, ..buffer(m, 128) }).collect();
        let pointers: Vec<*mut Buffer> = buffers.iter_mut().map(ptr::from_mut).collect();
        // SAFETY: as above.
        unsafe { queue.fill(&pointers) };
        assert_eq!(buffers.iter().map(|b| b.data_len).collect::<Vec<_>>(), [60, 64], "one line has room");
        assert!(memory.iter().all(|m| m[192..].iter().all(|b| *b == 0)));
    }
}
