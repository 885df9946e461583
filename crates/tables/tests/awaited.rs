//! Packets that wait for a route (R35, R58).

use crate::common::*;
use godwit_tables::awaited::Place;
use godwit_tables::holds::{About, CHUNK, SLOT, SharedChunks};
use godwit_tables::update::*;
use godwit_tables::vms::Fib;
use godwit_tables::{DropReason, Tables, TablesConfig};

/// Its own part of the memory is taken.
fn fill(t: &mut Tables) {
    let hold = HoldLimits { packets: u32::MAX, age: ms(1000) };
    assert_eq!(t.apply(Update::VmSet { key: key(9), state: VmState::Paused { hold } }, NOW), None);
    let Some(Fib::Special(at)) = t.vms.get(key(9)) else { panic!("a special entry") };
    for _ in 0..CHUNK / SLOT {
        assert_eq!(t.hold(at, &[1; 20], About::local(NOW, P2, None)), Ok(()));
    }
}

#[test]
fn r35_a_packet_that_finds_no_memory_is_not_counted_as_asked_for() {
    // Two workers want the last of what they share.
    let shared = SharedChunks::of(CHUNK);
    let config = TablesConfig { hold_bytes: CHUNK, hold_shared: shared, ..config() };
    let mut workers = [tables_of(&config), tables_of(&config)];
    workers.iter_mut().for_each(fill);
    let place = Place { domain: DomainIdx(1), vn: VN, ip: v4(77) };
    let one = |t: &mut Tables| {
        let (asked, mut bytes) = (t.counters.worker.misses, Vec::new());
        let about = About::local(NOW, P1, None);
        match t.await_route(&place, &[2; 1000], about) {
            Ok(query) => {
                assert!(query && t.counters.worker.misses == asked + 1);
                assert_eq!(t.take_awaited(0, &mut bytes), Some(about));
            }
            Err(why) => assert_eq!((why, t.counters.worker.misses), (DropReason::HoldMemory, asked)),
        }
        assert_eq!(t.awaited_for(place.domain, place.ip), None, "nothing stays behind without its packet");
    };
    std::thread::scope(|s| {
        for t in &mut workers {
            s.spawn(|| (0..20_000).for_each(|_| one(t)));
        }
    });
}
