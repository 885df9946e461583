//! Messages of vhost-user that no correct front end sends: out of order, with lies, half of one, none (R11, R18).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use godwit_frontend::memory::{GUEST, USER};
use godwit_frontend::raw::{Message, NO_FD, Region, request};
use godwit_frontend::ring::Place;
use godwit_frontend::{Guest, Memory, Raw, features};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::arena::{Arena, Case, let_it_work, nobody_is_harmed};

const SIZE: u16 = 64;
/// Both rings of a guest made by hand, and some room behind them.
const MEMORY: usize = 1 << 20;

fn raw(arena: &Arena) -> Raw {
    let raw = Raw::connect(&arena.socket()).expect("the port listens");
    raw.set_patience(Duration::from_secs(2)).expect("a time that is not zero");
    raw
}

fn file(len: u64) -> OwnedFd {
    let fd = memfd_create("godwit-evil", MFdFlags::MFD_CLOEXEC).expect("a file");
    let file = File::from(fd);
    file.set_len(len).expect("there is room");
    file.into()
}

fn event() -> OwnedFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("an event").into()
}

fn whole(len: u64) -> Region {
    Region { guest: GUEST, len, user: USER, offset: 0 }
}

/// Sends messages, whatever becomes of them; a connection that is closed ends it.
fn say(raw: &Raw, messages: &[(Message, &[&OwnedFd])]) {
    for (message, fds) in messages {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        if raw.send(message, &fds).is_err() {
            return;
        }
        // Where there is an answer, it is read, so that the next one has room.
        if message.flags & 8 != 0 {
            let _ = raw.answer();
        }
    }
    let_it_work();
}

/// Places of two rings.
fn places() -> [Place; 2] {
    let first = Place::at(0, SIZE);
    [first, Place::at(first.end().next_multiple_of(4096), SIZE)]
}

/// All messages with which a front end starts two rings, with their descriptors by number: memory, kick, call.
fn setup(places: [Place; 2]) -> Vec<(Message, Vec<usize>)> {
    let mut all = vec![
        (Message::new(request::SET_OWNER), vec![]),
        (Message::words(request::SET_FEATURES, &[features::PLAIN]), vec![]),
        (Message::memory(1, &[whole(MEMORY as u64)]), vec![0]),
    ];
    for (index, place) in (0..).zip(places) {
        all.push((Message::state(request::SET_VRING_NUM, index, SIZE.into()), vec![]));
        all.push((Message::state(request::SET_VRING_BASE, index, 0), vec![]));
        all.push((Message::placed(index, place), vec![]));
        all.push((Message::words(request::SET_VRING_KICK, &[index.into()]), vec![1]));
        all.push((Message::words(request::SET_VRING_CALL, &[index.into()]), vec![2]));
        all.push((Message::state(request::SET_VRING_ENABLE, index, 1), vec![]));
    }
    all
}

/// The same with some messages changed or left out, by their place in the row; then the rings have something in them.
fn start(arena: &Arena, change: impl Fn(usize, Message) -> Option<Message>) {
    start_at(arena, places(), change, &[]);
}

/// The same with rings elsewhere, and messages behind it.
fn start_at(
    arena: &Arena,
    places: [Place; 2],
    change: impl Fn(usize, Message) -> Option<Message>,
    more: &[Message],
) {
    let memory = Memory::new(MEMORY).expect("memory");
    let files = [memory.file().as_fd().try_clone_to_owned().expect("a descriptor"), event(), event()];
    let raw = raw(arena);
    for place in places {
        memory.store16(place.driver + 2, 40).expect("it is in the memory");
    }
    for (n, (message, fds)) in setup(places).into_iter().enumerate() {
        let fds: Vec<&OwnedFd> = fds.into_iter().map(|fd| &files[fd]).collect();
        if let Some(message) = change(n, message) {
            say(&raw, &[(message, &fds)]);
        }
    }
    for message in more {
        say(&raw, &[(message.clone(), &[])]);
    }
    std::thread::sleep(Duration::from_millis(200));
}

/// Messages to the back end of a guest whose rings run, with answers wanted and without.
fn running(arena: &Arena, messages: &dyn Fn(&Guest) -> Vec<Message>, fds: &[&OwnedFd]) {
    for acknowledged in [false, true] {
        let mut guest = arena.split();
        let raw = guest.raw().expect("a descriptor");
        for message in messages(&guest) {
            let message = if acknowledged { message.acknowledged() } else { message };
            say(&raw, &[(message, fds)]);
        }
        // The rings are used on, whatever they are now.
        for _ in 0..20 {
            let _ = guest.send(0, &Default::default(), &arena.frame(b"on and on"));
            let_it_work();
        }
    }
}

/// The row of messages up to the `n`-th, and half of that one.
fn broken_off(arena: &Arena, n: usize) {
    let memory = file(MEMORY as u64);
    let files = [memory, event(), event()];
    let raw = raw(arena);
    let all = setup(places());
    for (at, (message, fds)) in all.iter().enumerate().take(n + 1) {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| files[*fd].as_fd()).collect();
        let bytes = message.bytes();
        let part = if at == n { bytes.len().div_ceil(2) } else { bytes.len() };
        if raw.send_bytes(&bytes[..part], &fds).is_err() {
            return;
        }
    }
}

const ORDER: [Case; 13] = [
    ("rings before memory", |a| start(a, |n, m| (n != 2).then_some(m))),
    ("rings without sizes", |a| start(a, |_, m| (m.request != request::SET_VRING_NUM).then_some(m))),
    ("rings without addresses", |a| start(a, |_, m| (m.request != request::SET_VRING_ADDR).then_some(m))),
    ("rings of size 0", |a| sized(a, 0)),
    ("rings of a size that is no power of two", |a| sized(a, 48)),
    ("rings of 32,768", |a| sized(a, 32_768)),
    ("rings of 65,536", |a| sized(a, 65_536)),
    ("rings of 2^32 - 1", |a| sized(a, u32::MAX)),
    ("rings at the end of the memory", |a| {
        let last = USER + MEMORY as u64;
        placed(a, [last - 64 * 16, last - 516, last - 130]);
        placed(a, [last - 16, last - 4, last - 4]);
    }),
    ("rings at the end of the memory that become larger", |a| {
        let len = Place::at(0, SIZE).end().next_multiple_of(16);
        let last = [Place::at(MEMORY - 2 * len, SIZE), Place::at(MEMORY - len, SIZE)];
        let more = [0, 1].map(|n| Message::state(request::SET_VRING_NUM, n, 32_768));
        start_at(a, last, |_, m| Some(m), &more);
        start_at(a, last, |_, m| Some(m), &more.map(Message::acknowledged));
    }),
    ("rings of nobody", |a| placed(a, [0x10, 0x20, 0x30])),
    ("rings at addresses that wrap", |a| placed(a, [u64::MAX - 7, u64::MAX - 7, u64::MAX - 7])),
    ("a ring of index 255, and beyond", |a| {
        let call = event();
        for index in [4, 7, 127, 255] {
            let raw = raw(a);
            say(&raw, &[(Message::words(request::SET_VRING_CALL, &[index]), &[&call])]);
            say(&raw, &[(Message::state(request::SET_VRING_ENABLE, index as u32, 1), &[])]);
        }
        for index in [256, 65_535, u32::MAX] {
            say(&raw(a), &[(Message::state(request::SET_VRING_NUM, index, 64), &[])]);
            say(&raw(a), &[(Message::state(request::GET_VRING_BASE, index, 0), &[])]);
        }
    }),
];

fn sized(arena: &Arena, size: u32) {
    for acknowledged in [false, true] {
        start(arena, |_, m| {
            Some(match m.request {
                request::SET_VRING_NUM => {
                    let index = u32::from(m.payload[0]);
                    let message = Message::state(request::SET_VRING_NUM, index, size);
                    if acknowledged { message.acknowledged() } else { message }
                }
                _ => m,
            })
        });
    }
}

fn placed(arena: &Arena, addresses: [u64; 3]) {
    for acknowledged in [false, true] {
        start(arena, |_, m| {
            Some(match m.request {
                request::SET_VRING_ADDR => {
                    let message = Message::addresses(m.payload[0].into(), 0, addresses, 0);
                    if acknowledged { message.acknowledged() } else { message }
                }
                _ => m,
            })
        });
    }
}

fn table(arena: &Arena, count: u32, regions: &[Region], fds: &[&OwnedFd]) {
    for acknowledged in [false, true] {
        let message = Message::memory(count, regions);
        let message = if acknowledged { message.acknowledged() } else { message };
        say(&raw(arena), &[(Message::new(request::SET_OWNER), &[]), (message.clone(), fds)]);
        // And of a guest whose rings run.
        let mut guest = arena.split();
        say(&guest.raw().expect("a descriptor"), &[(message, fds)]);
        for _ in 0..10 {
            let _ = guest.send(0, &Default::default(), &arena.frame(b"on and on"));
            let_it_work();
        }
    }
}

const TABLES: [Case; 10] = [
    ("memory of no region", |a| table(a, 0, &[], &[])),
    ("memory of more regions than there are", |a| table(a, 3, &[whole(4096)], &[&file(4096)])),
    ("memory of 2^32 - 1 regions", |a| table(a, u32::MAX, &[whole(4096); 8], &[&file(4096)])),
    ("regions that overlap", |a| {
        let one = file(1 << 20);
        let next = Region { guest: GUEST + 4096, user: USER + 4096, ..whole(1 << 20) };
        table(a, 2, &[whole(1 << 20), next], &[&one, &one]);
    }),
    ("a region of nothing", |a| table(a, 1, &[whole(0)], &[&file(4096)])),
    ("a region larger than all memory", |a| table(a, 1, &[whole(u64::MAX)], &[&file(4096)])),
    ("a region whose offset wraps", |a| {
        table(a, 1, &[Region { offset: u64::MAX - 4095, ..whole(8192) }], &[&file(4096)]);
    }),
    ("a region that is no file", |a| table(a, 1, &[whole(1 << 20)], &[&event()])),
    ("a second region that is no file", |a| {
        let second = Region { guest: GUEST << 1, user: USER + (1 << 40), ..whole(1 << 20) };
        table(a, 2, &[whole(1 << 20), second], &[&file(1 << 20), &event()]);
    }),
    ("another memory under traffic", |a| table(a, 1, &[whole(1 << 21)], &[&file(1 << 21)])),
];

const SHORT: [Case; 3] = [
    ("a file shorter than its region", |a| {
        start(a, |_, m| {
            let claims = m.request == request::SET_MEM_TABLE;
            Some(if claims { Message::memory(1, &[whole(1 << 24)]) } else { m })
        });
        table(a, 1, &[whole(1 << 20)], &[&file(4096)]);
        table(a, 1, &[whole(1 << 20)], &[&file(0)]);
    }),
    ("a file that becomes shorter under traffic", |a| {
        let guest = a.split();
        guest.memory().file().set_len(4096).expect("it can be cut");
        std::thread::sleep(Duration::from_millis(300));
    }),
    ("a file that becomes empty under traffic", |a| {
        let guest = a.packed();
        guest.memory().file().set_len(0).expect("it can be cut");
        std::thread::sleep(Duration::from_millis(300));
    }),
];

const RUNNING: [Case; 14] = [
    ("a larger ring while it runs", |a| {
        running(
            a,
            &|_| vec![0, 1].into_iter().map(|i| Message::state(request::SET_VRING_NUM, i, 32_768)).collect(),
            &[],
        );
    }),
    ("a smaller ring while it runs", |a| {
        running(a, &|_| vec![Message::state(request::SET_VRING_NUM, 1, 2)], &[]);
    }),
    ("a ring of size 0 while it runs", |a| {
        running(a, &|_| vec![Message::state(request::SET_VRING_NUM, 1, 0)], &[]);
    }),
    ("another base while it runs", |a| {
        running(a, &|_| vec![Message::state(request::SET_VRING_BASE, 1, 0xffff)], &[]);
    }),
    ("another base of a packed ring while it runs", |a| {
        let guest = a.packed();
        for index in [0, 1] {
            say(
                &guest.raw().expect("a descriptor"),
                &[(Message::state(request::SET_VRING_BASE, index, 0x7fff), &[])],
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }),
    ("other addresses while it runs", |a| {
        running(a, &|_| vec![Message::addresses(1, 0, [USER + 8, USER + 24, USER + 2], 0)], &[]);
    }),
    ("other features while it runs", |a| {
        running(
            a,
            &|g| vec![Message::words(request::SET_FEATURES, &[g.agreed() ^ features::RING_PACKED])],
            &[],
        );
        running(
            a,
            &|g| vec![Message::words(request::SET_FEATURES, &[g.agreed() & !features::MRG_RXBUF])],
            &[],
        );
    }),
    ("features that were not offered", |a| {
        running(a, &|_| vec![Message::words(request::SET_FEATURES, &[u64::MAX])], &[]);
        running(a, &|_| vec![Message::words(request::SET_PROTOCOL_FEATURES, &[u64::MAX])], &[]);
    }),
    ("the base of a ring that runs", |a| {
        let guest = a.split();
        let raw = guest.raw().expect("a descriptor");
        for index in [1, 0, 1, 0] {
            let _ = raw.ask(&Message::state(request::GET_VRING_BASE, index, 0), &[]);
        }
    }),
    ("a reset of the owner", |a| running(a, &|_| vec![Message::new(request::RESET_OWNER)], &[])),
    ("events that go and come", |a| {
        let none = |r: u32| Message::words(r, &[NO_FD | 1]);
        running(a, &|_| vec![none(request::SET_VRING_KICK), none(request::SET_VRING_CALL)], &[]);
    }),
    ("an event that has no room, so that who signals it waits", |a| {
        let full = EventFd::from_flags(EfdFlags::empty()).expect("an event");
        full.write(u64::MAX - 1).expect("it is empty");
        let full = OwnedFd::from(full);
        running(a, &|_| [0, 1].map(|n| Message::words(request::SET_VRING_CALL, &[n])).to_vec(), &[&full]);
    }),
    ("rings that are switched off and on at speed", |a| {
        let on = |n: u32| Message::state(request::SET_VRING_ENABLE, n & 1, n >> 1 & 1);
        running(a, &|_| (0..400).map(on).collect(), &[]);
    }),
    ("rarp, mtu and status of any kind", |a| {
        let others = [request::SEND_RARP, request::NET_SET_MTU, request::SET_STATUS, request::GET_STATUS];
        running(
            a,
            &|_| others.iter().flat_map(|r| [0, 1, u64::MAX].map(|w| Message::words(*r, &[w]))).collect(),
            &[],
        );
    }),
];

const FEATURES: [Case; 6] = [
    ("a log of nothing", |a| logged(a, [0, 0])),
    ("a log that is shorter than it claims", |a| logged(a, [1 << 20, 0])),
    ("a log at an offset", |a| logged(a, [4096, 4096])),
    ("in-flight regions that nobody offered", |a| {
        let short = file(64);
        for words in [[4096, 0, 256 << 16 | 128], [64, 0, 1024 << 16 | 2], [0, 0, 0]] {
            running(a, &|_| vec![Message::words(request::SET_INFLIGHT_FD, &words)], &[&short]);
        }
        running(a, &|_| vec![Message::words(request::GET_INFLIGHT_FD, &[0, 0, 2048 << 16 | 1024])], &[]);
    }),
    ("post-copy that nobody offered", |a| {
        let raw = raw(a);
        for _ in 0..32 {
            say(&raw, &[(Message::new(request::POSTCOPY_ADVISE).acknowledged(), &[])]);
        }
        say(&raw, &[(Message::new(request::POSTCOPY_LISTEN), &[])]);
        say(&raw, &[(Message::memory(1, &[whole(4096)]), &[&file(4096)])]);
        std::thread::sleep(Duration::from_millis(300));
        let guest = a.split();
        say(
            &guest.raw().expect("a descriptor"),
            &[(Message::new(request::POSTCOPY_LISTEN).acknowledged(), &[])],
        );
        say(
            &guest.raw().expect("a descriptor"),
            &[(Message::memory(1, &[whole(1 << 20)]), &[&file(1 << 20)])],
        );
        std::thread::sleep(Duration::from_millis(300));
    }),
    ("addresses of an IOMMU that nobody offered", |a| {
        let update = [0x1000, 0x1000, USER, 0x0203];
        running(a, &|_| vec![Message::words(request::IOTLB_MSG, &update); 40], &[]);
    }),
];

fn logged(arena: &Arena, [size, offset]: [u64; 2]) {
    let log = file(64);
    let on = |g: &Guest| {
        vec![
            Message::words(request::SET_LOG_BASE, &[size, offset]),
            Message::words(request::SET_FEATURES, &[g.agreed() | features::LOG_ALL]),
        ]
    };
    running(arena, &on, &[&log]);
}

const LINE: [Case; 7] = [
    ("a message that never comes", |a| {
        // DPDK's vhost library has one thread for all of them, which waits for the rest; others come when it is over.
        let held: Vec<Raw> = (0..3).map(|_| raw(a)).collect();
        for raw in &held {
            let message = Message::words(request::SET_FEATURES, &[0]);
            raw.send_bytes(&message.bytes()[..12], &[]).expect("the port listens");
        }
        drop(held);
        a.takes_a_newcomer();
    }),
    ("answers that nobody reads", |a| {
        let raw = raw(a);
        let ask = Message::new(request::GET_FEATURES).bytes().repeat(1000);
        for _ in 0..40 {
            if raw.send_bytes(&ask, &[]).is_err() {
                break;
            }
        }
        drop(raw);
        a.takes_a_newcomer();
    }),
    ("messages that nobody knows", |a| {
        for number in [0, 23, 26, 33, 38, 41, 999, u32::MAX] {
            say(&raw(a), &[(Message::words(number, &[0]), &[])]);
            say(&raw(a), &[(Message::words(number, &[0]).acknowledged(), &[&file(1)])]);
        }
    }),
    ("lengths that lie", |a| {
        for (number, size) in [(2, 0), (5, 4), (5, 4096), (8, 4), (9, 8), (11, u32::MAX), (21, 1 << 20)] {
            let message = Message { size: Some(size), ..Message::words(number, &[7; 9]) };
            say(&raw(a), &[(message, &[])]);
        }
    }),
    ("descriptors where none belong", |a| {
        let some = file(4096);
        for number in 0..request::NONE {
            say(&raw(a), &[(Message::words(number, &[1, 2]), &[&some, &some, &some])]);
            say(&raw(a), &[(Message::words(number, &[1, 2]).acknowledged(), &[])]);
        }
    }),
    ("connections that end in the midst of each message", |a| {
        for n in 0..setup(places()).len() {
            broken_off(a, n);
        }
    }),
    ("guests that come and go at speed", |a| {
        for n in 0..200 {
            match n % 4 {
                0 => drop(Raw::connect(&a.socket())),
                1 => drop(a.split()),
                2 => broken_off(a, setup(places()).len() - 1),
                _ => {
                    let raw = raw(a);
                    let _ = raw.send(&Message::new(request::GET_FEATURES), &[]);
                }
            }
        }
    }),
];

const MANY: [Case; 1] = [("a thousand connections to one port", |a| {
    let held: Vec<_> = (0..1000).map_while(|_| Raw::connect(&a.socket()).ok()).collect();
    std::thread::sleep(Duration::from_secs(1));
    a.takes_a_newcomer();
    drop(held);
})];

#[test]
fn r18_messages_out_of_order_harm_nobody() {
    nobody_is_harmed(&ORDER);
}

#[test]
fn r18_memory_of_any_shape_harms_nobody() {
    nobody_is_harmed(&TABLES);
}

#[test]
fn r18_memory_that_is_gone_harms_nobody() {
    nobody_is_harmed(&SHORT);
}

#[test]
fn r18_changes_while_rings_run_harm_nobody() {
    nobody_is_harmed(&RUNNING);
}

#[test]
fn r18_features_that_nobody_offered_harm_nobody() {
    nobody_is_harmed(&FEATURES);
}

#[test]
fn r18_whatever_comes_over_the_socket_harms_nobody() {
    nobody_is_harmed(&LINE);
}

#[test]
fn r18_connections_without_number_harm_nobody() {
    nobody_is_harmed(&MANY);
}
