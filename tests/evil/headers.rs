//! Frames whose `virtio_net_hdr` lies: checksums that begin beyond the frame, segments of no or of too much payload,
//! unknown kinds of segmentation, wrong lengths of headers (R8, R11).

use godwit_frontend::{Guest, Header, header};
use godwit_testkit::Rng;
use godwit_testkit::frames;

use super::arena::{Arena, Case, let_it_work, nobody_is_harmed};

/// Frames of a case.
const FRAMES: usize = 400;

const FLAGS: [u8; 5] = [0, header::NEEDS_CSUM, header::DATA_VALID, 4, 0xff];
const KINDS: [u8; 8] =
    [header::GSO_NONE, header::GSO_TCPV4, 2, header::GSO_UDP, header::GSO_TCPV6, 5, 0x81, 0xff];
const SIZES: [u16; 7] = [0, 1, 8, 536, 1448, 9000, 0xffff];
const STARTS: [u16; 9] = [0, 1, 13, 14, 20, 34, 54, 0x7fff, 0xffff];
const OFFSETS: [u16; 6] = [0, 2, 6, 16, 0xfffe, 0xffff];

/// Any header; each field has a value at which something changes.
fn any(rng: &mut Rng, len: usize) -> Header {
    let near = |rng: &mut Rng, values: &[u16]| match rng.below(3) {
        0 => (len as u16).wrapping_sub(rng.below(4) as u16).wrapping_add(1),
        _ => rng.pick(values),
    };
    Header {
        flags: rng.pick(&FLAGS),
        gso_type: rng.pick(&KINDS),
        hdr_len: near(rng, &STARTS),
        gso_size: near(rng, &SIZES),
        csum_start: near(rng, &STARTS),
        csum_offset: near(rng, &OFFSETS),
        num_buffers: rng.below(3) as u16,
    }
}

/// A frame that the hostile guest may send as far as its addresses go, of any length and with any damage.
fn frame(arena: &Arena, rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(8) {
        0 => rng.below(64) as usize,
        1 => 2000 + rng.below(7000) as usize,
        2 => 60_000 + rng.below(5400) as usize,
        _ => rng.below(1473) as usize,
    };
    let (from, to) = (arena.station(2), arena.station(0));
    let payload = vec![0x5a; len];
    let end = |s: &godwit_frontend::Station| (s.mac, s.ip.into(), 9);
    let mut all = match rng.below(3) {
        0 => frames::tcp_frame(end(&from), end(&to), (rng.next() as u32, 0), 0x18, &payload),
        1 => frames::tagged(&arena.frame(&payload), 0x8100, 7),
        _ => arena.frame(&payload),
    };
    match rng.below(4) {
        0 => all.truncate(rng.below(70) as usize),
        1 => {
            // Lengths, protocol, header lengths, data offset.
            let at = rng.pick(&[12, 14, 16, 17, 20, 23, 38, 39, 46]);
            if let Some(byte) = all.get_mut(at) {
                *byte = rng.next() as u8;
            }
        }
        _ => {}
    }
    all
}

/// Sends odd frames until all are taken.
fn odd(arena: &Arena, mut guest: Guest, seed: u64) {
    let mut rng = Rng::new(seed);
    let (before, mut sent) = (arena.received().0, 0);
    for _ in 0..FRAMES {
        let frame = frame(arena, &mut rng);
        let header = any(&mut rng, frame.len());
        for _ in 0..200 {
            match guest.send(0, &header, &frame) {
                Ok(true) => {
                    sent += 1;
                    break;
                }
                Ok(false) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Err(e) => panic!("{e}"),
            }
        }
        guest.receive(0, |_, _| ()).expect("the rings are whole");
    }
    let_it_work();
    guest.reclaim(0).expect("the ring is whole");
    assert_eq!((sent, guest.waiting(0)), (FRAMES as u64, 0), "the switch takes all of them");
    let after = arena.received().0;
    println!("  {sent} sent, {} received", after - before);
}

const CASES: [Case; 4] = [
    ("odd headers in split rings", |a| odd(a, a.split(), 1)),
    ("odd headers in packed rings", |a| odd(a, a.packed(), 2)),
    ("odd headers of a guest without offloads", |a| odd(a, a.plain(), 3)),
    ("odd headers, another time", |a| odd(a, a.split(), 4)),
];

#[test]
fn r8_odd_headers_harm_nobody() {
    nobody_is_harmed(&CASES);
}

/// What the hostile guest's frames become is counted: each is forwarded, or dropped with a reason.
#[test]
fn r8_frames_with_odd_headers_are_counted() {
    let _alone = crate::common::alone();
    let arena = Arena::start();
    let mut guest = arena.split();
    let before = arena.received();
    let beyond = Header { flags: header::NEEDS_CSUM, csum_start: 2000, csum_offset: 16, ..Header::default() };
    let empty = Header { gso_type: header::GSO_TCPV4, gso_size: 0, ..Header::default() };
    let unknown = Header { gso_type: 9, gso_size: 1000, ..Header::default() };
    for header in [beyond, empty, unknown] {
        for _ in 0..10 {
            assert!(guest.send(0, &header, &arena.frame(&[7; 600])).expect("the ring is whole"));
        }
    }
    let_it_work();
    let after = arena.received();
    assert_eq!(after.0 - before.0, 30, "all are received: {:?}", arena.counters());
}
