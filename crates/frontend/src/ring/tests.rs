//! The driver's side against a device that is as simple as the specification allows.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::memory::guest;

/// The device's side: takes chains and gives them back, in any order.
struct Device {
    place: Place,
    packed: bool,
    index: u16,
    wrap: bool,
    used: u16,
    used_wrap: bool,
}

/// A chain as the device sees it.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    id: u16,
    count: u16,
    pieces: Vec<Piece>,
}

impl Device {
    fn new(place: Place, packed: bool) -> Device {
        Device { place, packed, index: 0, wrap: true, used: 0, used_wrap: true }
    }

    fn descriptor(&self, memory: &Memory, index: u16) -> (Piece, u16, u16) {
        let mut d = [0; DESCRIPTOR];
        memory.read(self.place.desc + usize::from(index) * DESCRIPTOR, &mut d).unwrap();
        let word = |at: usize| u16::from_le_bytes([d[at], d[at + 1]]);
        let (a, b) = (word(12), word(14));
        let flags = if self.packed { b } else { a };
        let piece = Piece {
            addr: u64::from_le_bytes(d[..8].try_into().unwrap()),
            len: u32::from_le_bytes(d[8..12].try_into().unwrap()),
            writable: flags & WRITE != 0,
        };
        (piece, flags, if self.packed { a } else { b })
    }

    fn take(&mut self, memory: &Memory) -> Option<Taken> {
        if !self.packed {
            if memory.load16(self.place.driver + 2).unwrap() == self.index {
                return None;
            }
            let slot = usize::from(self.index % self.place.size);
            let id = memory.load16(self.place.driver + 4 + 2 * slot).unwrap();
            self.index = self.index.wrapping_add(1);
            let (mut pieces, mut at) = (Vec::new(), id);
            loop {
                let (piece, flags, next) = self.descriptor(memory, at);
                pieces.push(piece);
                if flags & NEXT == 0 {
                    return Some(Taken { id, count: 1, pieces });
                }
                at = next;
            }
        }
        let flags = memory.load16(self.place.desc + usize::from(self.index) * DESCRIPTOR + 14).unwrap();
        if (flags & 0x80 != 0) != self.wrap || (flags & 0x8000 != 0) == self.wrap {
            return None;
        }
        let mut pieces = Vec::new();
        loop {
            let (piece, flags, id) = self.descriptor(memory, self.index);
            pieces.push(piece);
            self.index += 1;
            if self.index == self.place.size {
                (self.index, self.wrap) = (0, !self.wrap);
            }
            if flags & NEXT == 0 {
                return Some(Taken { id, count: pieces.len() as u16, pieces });
            }
        }
    }

    fn give(&mut self, memory: &Memory, taken: &Taken, len: u32) {
        if !self.packed {
            let slot = usize::from(self.used % self.place.size);
            let entry = [u32::from(taken.id).to_le_bytes(), len.to_le_bytes()].concat();
            memory.write(self.place.device + 4 + 8 * slot, &entry).unwrap();
            self.used = self.used.wrapping_add(1);
            return memory.store16(self.place.device + 2, self.used).unwrap();
        }
        let at = self.place.desc + usize::from(self.used) * DESCRIPTOR;
        memory.write(at + 8, &len.to_le_bytes()).unwrap();
        memory.write(at + 12, &taken.id.to_le_bytes()).unwrap();
        memory.store16(at + 14, if self.used_wrap { 0x8080 } else { 0 }).unwrap();
        self.used += taken.count;
        if self.used >= self.place.size {
            (self.used, self.used_wrap) = (self.used - self.place.size, !self.used_wrap);
        }
    }
}

proptest! {
    /// Chains of any lengths come to the device as they were added, and back in whatever order it uses them.
    #[test]
    fn chains_go_there_and_back(
        packed: bool,
        size in prop::sample::select(vec![4_u16, 8, 16]),
        steps in prop::collection::vec((0_u8..3, 1_usize..5, any::<u32>()), 1..300),
    ) {
        let place = Place::at(0, size);
        let memory = Memory::new(place.end().next_multiple_of(4096)).unwrap();
        let (mut ring, mut device) = (Ring::new(place, packed), Device::new(place, packed));
        let (mut there, mut held) = (VecDeque::new(), Vec::new());
        let (mut back, mut out) = (VecDeque::new(), 0);
        for (step, count, random) in steps {
            match step {
                0 => {
                    let pieces: Vec<Piece> = (0..count).map(|n| Piece {
                        addr: guest(random as usize % 4096 + n), len: random ^ n as u32, writable: n % 2 == 1,
                    }).collect();
                    let fits = ring.free() >= count;
                    let id = ring.add(&memory, &pieces).unwrap();
                    prop_assert_eq!(id.is_some(), fits);
                    if let Some(id) = id {
                        out += count;
                        there.push_back((id, pieces));
                    }
                    ring.publish(&memory).unwrap();
                }
                1 => {
                    let taken = device.take(&memory);
                    prop_assert_eq!(taken.is_some(), !there.is_empty());
                    if let (Some(taken), Some((id, pieces))) = (taken, there.pop_front()) {
                        prop_assert_eq!((taken.id, &taken.pieces), (id, &pieces));
                        held.push(taken);
                    }
                }
                _ if !held.is_empty() => {
                    let taken = held.swap_remove(random as usize % held.len());
                    device.give(&memory, &taken, random);
                    back.push_back(Used { id: taken.id, len: random });
                    out -= taken.pieces.len();
                }
                _ => {}
            }
            if step != 0 {
                while let Some(used) = ring.used(&memory).unwrap() {
                    prop_assert_eq!(Some(used), back.pop_front());
                }
                prop_assert!(back.is_empty());
                prop_assert_eq!(ring.free(), usize::from(size) - out);
            }
        }
    }
}

#[test]
fn a_chain_that_was_not_available_is_refused() {
    for packed in [false, true] {
        let place = Place::at(0, 8);
        let memory = Memory::new(4096).unwrap();
        let mut ring = Ring::new(place, packed);
        ring.add(&memory, &[Piece { addr: guest(0), len: 1, writable: true }]).unwrap().unwrap();
        ring.publish(&memory).unwrap();
        let mut device = Device::new(place, packed);
        let taken = device.take(&memory).unwrap();
        for id in [(taken.id + 1) % 8, 8, 0xffff] {
            let mut ring = Ring::new(place, packed);
            let other = Memory::new(4096).unwrap();
            ring.add(&other, &[taken.pieces[0]]).unwrap().unwrap();
            Device::new(place, packed).give(&other, &Taken { id, count: 1, pieces: vec![] }, 0);
            assert!(matches!(ring.used(&other), Err(Error::Ring(_))), "{packed} {id}");
        }
        device.give(&memory, &taken, 5);
        assert_eq!(ring.used(&memory).unwrap(), Some(Used { id: taken.id, len: 5 }));
        assert_eq!(ring.used(&memory).unwrap(), None);
    }
}

#[test]
fn a_device_says_whether_it_wants_kicks() {
    for (packed, at, none) in [(false, 0, 1), (true, 2, 1)] {
        let place = Place::at(0, 8);
        let memory = Memory::new(4096).unwrap();
        let ring = Ring::new(place, packed);
        assert!(ring.wants_kick(&memory).unwrap());
        memory.store16(place.device + at, none).unwrap();
        assert!(!ring.wants_kick(&memory).unwrap());
        ring.set_calls(&memory, false).unwrap();
        assert_eq!(memory.load16(place.driver + at).unwrap(), none);
        ring.set_calls(&memory, true).unwrap();
        assert_eq!(memory.load16(place.driver + at).unwrap(), 0);
    }
}
