//! What a front end has said over its connection, as far as the rings' safety hangs on it.
//!
//! librte_vhost believes a front end in places: it takes another number of descriptors for a ring that is in use
//! without looking whether its memory has as many, keeps addresses of memory that it could not map anew, and uses a
//! ring whose bookkeeping it has freed or made for the other ring layout. Front ends that keep to the protocol never
//! ask for that. So a ring is used only when all that it needs was said in order, and not changed while it is used.

use std::ops::Range;

/// Requests of the vhost-user protocol.
mod request {
    pub const SET_FEATURES: u32 = 2;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const IOTLB_MSG: u32 = 22;
    pub const POSTCOPY_ADVISE: u32 = 28;
    pub const POSTCOPY_END: u32 = 30;
}

/// `VIRTIO_F_RING_PACKED`.
const PACKED: u64 = dpdk_sys::GODWIT_VHOST_RING_PACKED;

/// `VIRTIO_F_IOMMU_PLATFORM`, and `VHOST_USER_PROTOCOL_F_PAGEFAULT`.
const IOMMU: u64 = 1 << 33;
const PAGEFAULT: u64 = 1 << 8;

/// A number of descriptors that the library refuses.
const REFUSED: u32 = u32::MAX;

/// What to do before the library carries a message out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Before {
    /// Nothing.
    Pass,
    /// Keep workers out of all rings: their memory may go.
    TakeAway,
    /// Have the library carry out another message of the kind, with this content.
    Instead(u64),
    /// Have it set the position of this ring to what it is.
    KeepPosition(u16),
    /// Hang up: it asks for what was not agreed on, which the library would do all the same.
    Refuse,
}

/// What to look at after a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// Nothing.
    Nothing,
    /// The rings.
    Rings,
    /// The guest's memory, and the rings.
    Memory,
    /// The log of a migration.
    Log,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Screen {
    /// The guest's memory is mapped.
    memory: bool,
    /// The rings are packed ones.
    packed: bool,
    /// The guest is behind an IOMMU, and its memory may be missing: both as agreed.
    iommu: bool,
    postcopy: bool,
    rings: Vec<Said>,
}

/// Of one ring.
#[derive(Clone, Copy, Default, Debug)]
struct Said {
    /// Its number of descriptors, since its layout was agreed on.
    sized: bool,
    /// It has been put into use.
    ready: bool,
}

/// The ring's number, from a message's content; a value follows it.
fn ring_of(word: u64) -> usize {
    word as u32 as usize
}

impl Screen {
    /// A connection on which nothing was said, to a port with so many rings.
    pub(super) fn new(rings: usize) -> Screen {
        let rings = vec![Said::default(); rings];
        Screen { memory: false, packed: false, iommu: false, postcopy: false, rings }
    }

    /// A message has come; `in_use` are the rings that workers may be in.
    pub(super) fn before(&mut self, request: u32, word: u64, in_use: impl Fn(usize) -> bool) -> Before {
        let ring = ring_of(word);
        match request {
            request::SET_MEM_TABLE => {
                self.memory = false;
                return Before::TakeAway;
            }
            // With a ring in use the library refuses every change but that of logging.
            request::SET_FEATURES if !self.all().any(&in_use) => {
                self.iommu = word & IOMMU != 0;
                let packed = word & PACKED != 0;
                if packed != self.packed {
                    self.packed = packed;
                    self.rings.iter_mut().for_each(|r| r.sized = false);
                }
            }
            request::RESET_OWNER => {
                self.memory = false;
                self.rings.fill(Said::default());
            }
            request::SET_VRING_NUM if in_use(ring) => {
                return Before::Instead(u64::from(REFUSED) << 32 | ring as u64);
            }
            request::SET_VRING_NUM => self.set_sized(ring, false),
            // Of a ring that is not in use, one beyond its end is found when the ring is opened.
            request::SET_VRING_BASE if in_use(ring) => return Before::KeepPosition(ring as u16),
            request::GET_VRING_BASE => self.set_sized(ring, false),
            request::SET_PROTOCOL_FEATURES => self.postcopy = word & PAGEFAULT != 0,
            request::IOTLB_MSG if !self.iommu => return Before::Refuse,
            request::POSTCOPY_ADVISE..=request::POSTCOPY_END if !self.postcopy => return Before::Refuse,
            _ => {}
        }
        Before::Pass
    }

    /// The library has carried the message out, and without a failure.
    pub(super) fn after(&mut self, request: u32, word: u64) -> After {
        match request {
            request::SET_MEM_TABLE => {
                self.memory = true;
                After::Memory
            }
            request::SET_VRING_NUM => {
                self.set_sized(ring_of(word), true);
                After::Rings
            }
            request::SET_LOG_BASE => After::Log,
            _ => After::Nothing,
        }
    }

    fn set_sized(&mut self, ring: usize, sized: bool) {
        if let Some(said) = self.rings.get_mut(ring) {
            said.sized = sized;
        }
    }

    /// A ring was put into use, or out of it. `false` for a ring that the port does not have.
    pub(super) fn ring_changed(&mut self, ring: u16, ready: bool) -> bool {
        self.rings.get_mut(usize::from(ring)).is_some_and(|said| {
            said.ready = ready;
            true
        })
    }

    /// The guest has put the ring into use.
    pub(super) fn is_ready(&self, ring: usize) -> bool {
        self.rings.get(ring).is_some_and(|said| said.ready)
    }

    /// All was said that the ring needs.
    pub(super) fn is_usable(&self, ring: usize) -> bool {
        self.memory && self.rings.get(ring).is_some_and(|said| said.ready && said.sized)
    }

    fn all(&self) -> Range<usize> {
        0..self.rings.len()
    }
}

#[cfg(test)]
mod tests {
    use super::request::*;
    use super::*;

    fn word(ring: u32, value: u32) -> u64 {
        u64::from(value) << 32 | u64::from(ring)
    }

    const NONE: fn(usize) -> bool = |_| false;
    const ALL: fn(usize) -> bool = |_| true;

    /// A connection with one pair of rings in use.
    fn in_use() -> Screen {
        let mut s = Screen::new(2);
        assert_eq!(s.before(SET_MEM_TABLE, 1, NONE), Before::TakeAway);
        assert_eq!(s.after(SET_MEM_TABLE, 1), After::Memory);
        for ring in 0..2 {
            assert_eq!(s.before(SET_VRING_NUM, word(ring, 256), NONE), Before::Pass);
            assert_eq!(s.after(SET_VRING_NUM, word(ring, 256)), After::Rings);
            assert_eq!(s.before(SET_VRING_BASE, word(ring, 0), NONE), Before::Pass);
            assert!(!s.is_usable(ring as usize));
            assert!(s.ring_changed(ring as u16, true));
            assert!(s.is_usable(ring as usize) && s.is_ready(ring as usize));
        }
        s
    }

    #[test]
    fn r11_a_ring_is_usable_when_all_was_said_and_not_before() {
        let mut s = in_use();
        assert!(!s.ring_changed(2, true) && !s.is_usable(2) && !s.is_ready(2), "the port has no such ring");
        // Memory that could not be mapped: the library says nothing after it.
        assert_eq!(s.before(SET_MEM_TABLE, 1, ALL), Before::TakeAway);
        assert!(!s.is_usable(0) && s.is_ready(0));
        s.after(SET_MEM_TABLE, 1);
        assert!(s.is_usable(0));
        // The guest stops a ring, and starts it again without its size.
        assert_eq!(s.before(GET_VRING_BASE, word(1, 0), ALL), Before::Pass);
        s.ring_changed(1, false);
        s.ring_changed(1, true);
        assert!(!s.is_usable(1) && s.is_usable(0));
        s.before(RESET_OWNER, 0, NONE);
        s.after(SET_MEM_TABLE, 1);
        assert!(!s.is_usable(0) && !s.is_ready(0));
    }

    #[test]
    fn r11_a_ring_in_use_changes_neither_size_nor_position() {
        let mut s = in_use();
        assert_eq!(s.before(SET_VRING_NUM, word(1, 32_768), ALL), Before::Instead(word(1, REFUSED)));
        assert_eq!(s.before(SET_VRING_BASE, word(1, 40_000), ALL), Before::KeepPosition(1));
        assert!(s.is_usable(1));
        // One that is not in use does, also where there is no such ring.
        assert_eq!(s.before(SET_VRING_NUM, word(1, 512), NONE), Before::Pass);
        assert!(!s.is_usable(1));
        s.after(SET_VRING_NUM, word(1, 512));
        assert!(s.is_usable(1));
        assert_eq!(s.before(SET_VRING_NUM, word(u32::MAX, 512), NONE), Before::Pass);
        s.after(SET_VRING_NUM, word(u32::MAX, 512));
    }

    #[test]
    fn r11_what_was_not_agreed_on_is_refused() {
        let mut s = in_use();
        assert_eq!(s.before(IOTLB_MSG, 0, ALL), Before::Refuse);
        for request in POSTCOPY_ADVISE..=POSTCOPY_END {
            assert_eq!(s.before(request, 0, ALL), Before::Refuse);
        }
        s.before(SET_PROTOCOL_FEATURES, PAGEFAULT, ALL);
        assert_eq!(s.before(POSTCOPY_ADVISE, 0, ALL), Before::Pass);
        s.before(SET_FEATURES, IOMMU, ALL);
        assert_eq!(s.before(IOTLB_MSG, 0, ALL), Before::Refuse, "features do not change with rings in use");
        s.before(SET_FEATURES, IOMMU, NONE);
        assert_eq!(s.before(IOTLB_MSG, 0, ALL), Before::Pass);
    }

    #[test]
    fn r11_another_layout_of_rings_wants_their_sizes_anew() {
        let mut s = in_use();
        // Logging is switched on and off while rings are in use.
        assert_eq!(s.before(SET_FEATURES, 1 << 26, ALL), Before::Pass);
        assert!(s.is_usable(0));
        s.before(SET_FEATURES, 1 << 26, NONE);
        assert!(s.is_usable(0));
        s.before(SET_FEATURES, PACKED, NONE);
        assert!(!s.is_usable(0) && !s.is_usable(1));
        s.after(SET_VRING_NUM, word(0, 256));
        assert!(s.is_usable(0));
    }
}
