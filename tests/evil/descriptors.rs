//! Rings that no driver writes: chains that loop, lie outside of the memory or are longer than any frame, tables in
//! tables, indices that jump (R11).

use godwit_frontend::guest::Settings;
use godwit_frontend::memory::{self, GUEST};
use godwit_frontend::ring::{self, DESCRIPTOR, INDIRECT, NEXT, Piece, Ring, Split, WRITE};
use godwit_frontend::{Guest, Memory, features};
use godwit_testkit::Rng;

use super::arena::{Arena, Case, let_it_work, nobody_is_harmed};

/// Receive ring and transmit ring of a guest.
const RX: usize = 0;
const TX: usize = 1;

/// A descriptor of a split ring: address, length, flags, next.
type Descriptor = (u64, u32, u16, u16);

fn split_ring(guest: &mut Guest, index: usize) -> (&mut Split, &Memory) {
    match guest.ring(index) {
        (Ring::Split(ring), memory) => (ring, memory),
        _ => panic!("the ring is split"),
    }
}

/// Writes descriptors from the first one on, makes `head` available, and lets the switch see it.
fn offer(guest: &mut Guest, index: usize, descriptors: &[Descriptor], head: u16) {
    let (ring, memory) = split_ring(guest, index);
    for (at, descriptor) in (0..).zip(descriptors) {
        ring.write_descriptor(memory, at, *descriptor).expect("it is in the ring");
    }
    ring.offer(memory, head).expect("it is in the ring");
    ring.jump(memory, ring.available()).expect("it is in the ring");
    guest.kick(index).expect("it is in the ring");
    let_it_work();
}

/// A chain in the transmit ring.
fn chain(arena: &Arena, make: impl FnOnce(u64) -> Vec<Descriptor>) {
    let mut guest = arena.split();
    let start = memory::guest(guest.buffers(TX));
    offer(&mut guest, TX, &make(start), 0);
    // The ring stands still, or goes on; either way it is read again and again.
    let_it_work();
}

/// A table in the first buffer of the transmit ring, and a descriptor of this length and flags that points to it.
fn table(arena: &Arena, len: u32, flags: u16, entries: impl FnOnce(u64) -> Vec<Descriptor>) {
    let mut guest = arena.split();
    let at = guest.buffers(TX);
    for (n, (addr, len, flags, next)) in entries(memory::guest(at)).into_iter().enumerate() {
        let bytes = ring::descriptor(addr, len, (flags, next));
        guest.memory().write(at + n * DESCRIPTOR, &bytes).expect("it is in the memory");
    }
    offer(&mut guest, TX, &[(memory::guest(at), len, INDIRECT | flags, 1), (memory::guest(at), 64, 0, 0)], 0);
}

/// The receive ring is empty but for what `make` puts into it; the ordinary guests send meanwhile.
fn receive(arena: &Arena, make: impl FnOnce(u64) -> Vec<Descriptor>) {
    let mut guest = arena.split();
    let start = memory::guest(guest.buffers(RX));
    let descriptors = make(start);
    let (ring, memory) = split_ring(&mut guest, RX);
    // All that is available already, and all that comes, is this chain.
    for at in 0..256 {
        let descriptor = descriptors.get(usize::from(at)).copied().unwrap_or(descriptors[0]);
        ring.write_descriptor(memory, at, descriptor).expect("it is in the ring");
    }
    for _ in 0..256 {
        ring.offer(memory, 0).expect("it is in the ring");
    }
    ring.jump(memory, ring.available()).expect("it is in the ring");
    std::thread::sleep(std::time::Duration::from_millis(200));
}

fn jump(arena: &Arena, by: u16) {
    let mut guest = arena.split();
    for index in [TX, RX] {
        let (ring, memory) = split_ring(&mut guest, index);
        ring.jump(memory, ring.available().wrapping_add(by)).expect("it is in the ring");
        guest.kick(index).expect("it is in the ring");
        let_it_work();
    }
}

/// Garbage in all of both rings, again and again, while the switch reads them.
fn garbage(arena: &Arena, guest: Guest, seed: u64) {
    let mut guest = guest;
    let mut rng = Rng::new(seed);
    let len = guest.memory().len();
    for _ in 0..200 {
        for index in [TX, RX] {
            let place = guest.ring(index).0.place();
            let mut bytes = vec![0; place.end() - place.desc];
            bytes.iter_mut().for_each(|b| *b = rng.next() as u8);
            // Half of the addresses are in the memory, or the switch never gets far.
            for d in bytes[..usize::from(place.size) * DESCRIPTOR].chunks_exact_mut(DESCRIPTOR).step_by(2) {
                d[..8].copy_from_slice(&(GUEST + rng.below(len as u64)).to_le_bytes());
                d[10..12].fill(0);
            }
            guest.memory().write(place.desc, &bytes).expect("it is in the memory");
            guest.kick(index).expect("it is in the ring");
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    drop(guest);
    let _ = arena;
}

fn packed(arena: &Arena, id: u16, len: u32, addr: u64, flags: u16) {
    let mut guest = arena.packed();
    for index in [TX, RX] {
        let (Ring::Packed(ring), memory) = guest.ring(index) else { panic!("the ring is packed") };
        let size = ring::Packed::next(ring);
        for n in 0..256 {
            let at = (size.0 + n) % 256;
            ring.write_descriptor(memory, at, (addr, len, id, size.1 | flags)).expect("it is in the ring");
        }
        guest.kick(index).expect("it is in the ring");
        let_it_work();
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
}

const SPLIT: [Case; 30] = [
    ("a descriptor that is its own next", |a| chain(a, |at| vec![(at, 64, NEXT, 0)])),
    ("two that are each other's next", |a| chain(a, |at| vec![(at, 64, NEXT, 1), (at, 64, NEXT, 0)])),
    ("a loop of empty ones", |a| chain(a, |at| vec![(at, 0, NEXT, 1), (at, 0, NEXT, 0)])),
    ("a next beyond the ring", |a| chain(a, |at| vec![(at, 64, NEXT, 256)])),
    ("a next far beyond the ring", |a| chain(a, |at| vec![(at, 64, NEXT, 0xffff)])),
    ("a head beyond the ring", |a| {
        let mut guest = a.split();
        let at = memory::guest(guest.buffers(TX));
        offer(&mut guest, TX, &[(at, 64, 0, 0)], 256);
        offer(&mut guest, TX, &[(at, 64, 0, 0)], 0xffff);
    }),
    ("an empty chain", |a| chain(a, |at| vec![(at, 0, 0, 0)])),
    ("a chain that ends in its header", |a| chain(a, |at| vec![(at, 11, 0, 0)])),
    ("a chain that is its header alone", |a| chain(a, |at| vec![(at, 12, 0, 0)])),
    ("a header in twelve pieces", |a| {
        chain(a, |at| (0..16).map(|n| (at + u64::from(n), 1, if n < 15 { NEXT } else { 0 }, n + 1)).collect())
    }),
    ("an address of nobody", |a| chain(a, |_| vec![(0x10, 64, 0, 0)])),
    ("an address that wraps", |a| chain(a, |_| vec![(u64::MAX - 8, 64, 0, 0)])),
    ("a buffer that reaches beyond the memory", |a| chain(a, |_| vec![(GUEST + (1 << 20), u32::MAX, 0, 0)])),
    ("the front end's address instead of the guest's", |a| chain(a, |_| vec![(memory::USER, 64, 0, 0)])),
    ("64 KiB in one buffer", |a| chain(a, |at| vec![(at, 65_535 + 12, 0, 0)])),
    ("more than 64 KiB", |a| chain(a, |at| vec![(at, 200_000, 0, 0)])),
    ("as many buffers as there are", |a| {
        chain(a, |at| (0..256).map(|n| (at, 300, if n < 255 { NEXT } else { 0 }, n + 1)).collect())
    }),
    ("buffers to be written in the ring of what is sent", |a| chain(a, |at| vec![(at, 64, WRITE, 0)])),
    ("a table of nothing", |a| table(a, 0, 0, |_| vec![])),
    ("a table that is no row of descriptors", |a| table(a, 33, 0, |at| vec![(at, 64, 0, 0); 3])),
    ("a table larger than the ring", |a| table(a, 257 * 16, 0, |at| vec![(at, 64, NEXT, 1); 3])),
    ("a table of 4 GiB", |a| table(a, u32::MAX, 0, |at| vec![(at, 64, 0, 0)])),
    ("a table in a table", |a| table(a, 32, 0, |at| vec![(at, 32, INDIRECT, 0), (at, 64, 0, 0)])),
    ("a table that loops", |a| table(a, 32, 0, |at| vec![(at, 64, NEXT, 1), (at, 64, NEXT, 0)])),
    ("a table that leaves itself", |a| table(a, 32, 0, |at| vec![(at, 64, NEXT, 2)])),
    ("a table and a next", |a| table(a, 16, NEXT, |at| vec![(at, 64, 0, 0)])),
    ("an index that jumps ahead by a ring and one", |a| jump(a, 257)),
    ("an index that jumps far ahead", |a| jump(a, 0x7fff)),
    ("an index that jumps back", |a| jump(a, 0u16.wrapping_sub(3))),
    ("an index that jumps ahead by all but one", |a| jump(a, 0xffff)),
];

const RECEIVE: [Case; 7] = [
    ("no room for a header", |a| receive(a, |at| vec![(at, 11, WRITE, 0)])),
    ("room for a header alone", |a| receive(a, |at| vec![(at, 12, WRITE, 0)])),
    ("room for nothing", |a| receive(a, |at| vec![(at, 0, WRITE, 0)])),
    ("a loop", |a| receive(a, |at| vec![(at, 64, WRITE | NEXT, 0)])),
    ("a buffer of nobody", |a| receive(a, |_| vec![(0x10, 2048, WRITE, 0)])),
    ("a buffer that reaches beyond the memory", |a| {
        receive(a, |_| vec![(GUEST + (1 << 20), u32::MAX, WRITE, 0)])
    }),
    ("buffers to be read", |a| receive(a, |at| vec![(at, 2048, 0, 0)])),
];

const PACKED: [Case; 7] = [
    ("an id beyond the ring", |a| packed(a, 0xffff, 64, GUEST + 0x10_0000, 0)),
    ("one chain without end", |a| packed(a, 0, 64, GUEST + 0x10_0000, NEXT)),
    ("empty descriptors", |a| packed(a, 0, 0, GUEST + 0x10_0000, 0)),
    ("empty descriptors without end", |a| packed(a, 0, 0, GUEST + 0x10_0000, NEXT)),
    ("addresses of nobody", |a| packed(a, 0, 64, 0x10, 0)),
    ("buffers of 4 GiB", |a| packed(a, 0, u32::MAX, GUEST, 0)),
    ("tables of 4 GiB", |a| packed(a, 0, u32::MAX, GUEST, INDIRECT)),
];

const GARBAGE: [Case; 3] = [
    ("garbage in split rings", |a| garbage(a, a.split(), 11)),
    ("garbage in packed rings", |a| garbage(a, a.packed(), 12)),
    ("garbage in the rings of a plain guest", |a| garbage(a, a.plain(), 13)),
];

#[test]
fn r11_chains_and_tables_of_any_shape_harm_nobody() {
    nobody_is_harmed(&SPLIT);
}

#[test]
fn r11_receive_rings_of_any_shape_harm_nobody() {
    nobody_is_harmed(&RECEIVE);
}

#[test]
fn r11_packed_rings_of_any_shape_harm_nobody() {
    nobody_is_harmed(&PACKED);
}

#[test]
fn r11_garbage_in_rings_harms_nobody() {
    nobody_is_harmed(&GARBAGE);
}

/// A guest that takes nothing: what is for it waits for a while or is dropped with a reason, and nobody else waits.
#[test]
fn r11_who_takes_nothing_holds_up_nobody() {
    let _alone = crate::common::alone();
    let mut arena = Arena::start();
    let settings = Settings { size: 8, features: features::PLAIN, ..Settings::default() };
    let guest = arena.evil(&settings);
    // Longer than it takes to fill its ring and all that waits for it.
    std::thread::sleep(std::time::Duration::from_secs(3));
    drop(guest);
    arena.check("a guest that takes nothing").expect("nobody is harmed");
    // One that has just come is held for; what it does not take after that is dropped.
    let counted = |c: &serde_json::Value| c["port"] == "g2" && c["drop"] == true || c["name"] == "held";
    assert!(arena.counters().iter().any(counted), "what it did not take is counted: {:?}", arena.counters());
}

/// A chain of pieces that end in the midst of headers is one frame like any other.
#[test]
fn r11_a_frame_in_many_pieces_arrives() {
    let _alone = crate::common::alone();
    let arena = Arena::start();
    let mut guest = arena.split();
    let frame = arena.frame(&[0x11; 200]);
    let mut all = vec![0; guest.header_len()];
    all.extend(&frame);
    let at = guest.buffers(TX);
    guest.memory().write(at, &all).expect("it is in the memory");
    let cuts = [0, 5, 12, 13, 26, 40, 47, 100, all.len()];
    let piece =
        |w: &[usize]| Piece { addr: memory::guest(at + w[0]), len: (w[1] - w[0]) as u32, writable: false };
    let pieces: Vec<Piece> = cuts.windows(2).map(piece).collect();
    let before = arena.received();
    let (ring, memory) = guest.ring(TX);
    ring.add(memory, &pieces).expect("it is in the ring").expect("there is room");
    ring.publish(memory).expect("it is in the ring");
    guest.kick(TX).expect("it is in the ring");
    let_it_work();
    let after = arena.received();
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 0), "received and not dropped");
}
