//! Packets that wait for a route, over time and over changes of ports (R35, R58).

use std::net::IpAddr;

use crate::common::routing::*;
use crate::common::*;
use godwit_pipeline::mem::MemPool;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_tables::{DropReason, TablesConfig};
use godwit_wire::{Mac, Rate};

fn sent(mac: Mac, to: IpAddr, n: u8) -> Vec<u8> {
    packet((mac, GW), (near(to.is_ipv6(), 1), to), 64, &[n; 40])
}

fn pulled(config: &TablesConfig) -> Lab {
    let mut lab = Lab::with(config);
    lab.join(false);
    lab.pull();
    lab
}

#[test]
fn r35_an_address_is_asked_for_again_while_packets_still_come() {
    for six in [false, true] {
        let mut lab = pulled(&config());
        let to = far(six, 50);
        let asked = [Event::MissIp { vn: OTHER_VN, ip: to, port: P1 }];
        // Newer packets keep the address waiting, while the oldest ones go.
        let mut questions = Vec::new();
        for at in 0..40u64 {
            lab.one(P1, &sent(M1, to, 0));
            lab.settle();
            let events = lab.take_events();
            assert!(events.is_empty() || events == asked, "{events:?}");
            questions.extend((!events.is_empty()).then_some(at * 40));
            lab.wait(ms(40));
        }
        assert_eq!(questions, [0, 520, 1040, 1560], "once in the time that a packet waits at most");
        lab.own_route(to, Key::new(OTHER_VN, M1));
        lab.settle();
        assert!(!lab.to(P3).is_empty(), "a late answer is as good");
        assert_eq!(lab.tables.waiting(), 0);
    }
}

#[test]
fn r35_a_port_without_questions_left_does_not_ask_for_an_address_again() {
    let mut lab = pulled(&TablesConfig { question_rate: Rate::per_second(1, 1), ..config() });
    let (one, other) = (far(false, 50), far(false, 51));
    lab.one(P1, &sent(M1, one, 0));
    assert_eq!(lab.take_events().len(), 1);
    lab.wait(ms(400));
    lab.one(P1, &sent(M1, one, 1));
    lab.wait(ms(200));
    lab.one(P1, &sent(M1, one, 2));
    assert_eq!(lab.take_events(), [], "the packet waits, and nobody is asked");
    assert_eq!(lab.tables.waiting(), 2, "the first one has waited long enough");
    lab.one(P1, &sent(M1, other, 3));
    assert_eq!(lab.drops(DropReason::MissLimit), 1);
    lab.wait(ms(500));
    lab.one(P1, &sent(M1, one, 4));
    assert_eq!(lab.take_events(), [Event::MissIp { vn: OTHER_VN, ip: one, port: P1 }]);
}

/// What a port with the number of one that is gone sends and hears is not the old one's.
#[test]
fn r35_r58_a_port_whose_number_is_used_again_has_nothing_of_the_packets_that_waited() {
    type Reuse = fn(&mut Lab);
    let reuses: [Reuse; 3] = [
        |lab| lab.access(P1, VN, STRANGER, Admission::Activated),
        // Another domain may have the same addresses.
        |lab| {
            lab.part_of(VN, VnRouting::new(DomainIdx(5), GW, false));
            lab.access(P1, VN, M1, Admission::Activated);
        },
        |lab| lab.access(P1, OTHER_VN, R4, Admission::Activated),
    ];
    for six in [false, true] {
        for (n, reuse) in reuses.into_iter().enumerate() {
            for found in [true, false] {
                let mut lab = pulled(&config());
                let to = far(six, 50);
                lab.one(P1, &sent(M1, to, 7));
                assert_eq!(lab.tables.waiting(), 1);
                // As control does it: the VM first, then its port.
                lab.vm(M1, VmState::Remote { to: through(T4) });
                lab.apply(Update::PortRemove { port: P1 });
                reuse(&mut lab);
                match found {
                    true => lab.own_route(to, Key::new(OTHER_VN, M1)),
                    false => {
                        let until = lab.now + ms(1000);
                        lab.apply(Update::NeighborAbsent { vn: OTHER_VN, ip: to, until });
                    }
                }
                lab.settle();
                let sent: Vec<_> = lab.out.sent.iter().map(|(port, p)| (port, p.bytes())).collect();
                assert_eq!(sent, [], "neither the packet nor an error about it: {n} {six} {found}");
                assert_eq!((lab.drops(DropReason::HoldAborted), lab.tables.waiting()), (1, 0));
            }
        }
    }
}

#[test]
fn r35_a_port_that_comes_back_as_its_vms_own_sends_what_waited() {
    let mut lab = pulled(&config());
    let to = far(false, 50);
    lab.one(P1, &sent(M1, to, 7));
    lab.apply(Update::PortRemove { port: P1 });
    lab.access(P1, VN, M1, Admission::Activated);
    lab.own_route(to, Key::new(OTHER_VN, M1));
    lab.settle();
    assert_eq!(lab.only().0, P3);
}

/// Packets for this many addresses, which all get their route at once.
fn many_waiting(addresses: u8, each: u8) -> (Lab, Vec<IpAddr>) {
    let mut lab = pulled(&config());
    let all: Vec<IpAddr> = (0..addresses).map(|n| far(false, 50 + n)).collect();
    for &to in &all {
        let burst: Vec<Vec<u8>> = (0..each).map(|n| sent(M1, to, n)).collect();
        lab.input(P1, &burst);
    }
    assert_eq!(lab.tables.waiting(), u64::from(addresses) * u64::from(each));
    for &to in &all {
        lab.own_route(to, Key::new(OTHER_VN, M1));
    }
    (lab, all)
}

/// The last bytes of the frames for this address at P3, in their order.
fn arrived(lab: &Lab, to: IpAddr) -> Vec<u8> {
    let IpAddr::V4(to) = to else { unreachable!() };
    let frames = lab.to(P3).into_iter().filter(|f| f[30..34] == to.octets());
    frames.map(|f| f[f.len() - 1]).collect()
}

#[test]
fn r35_packets_that_waited_for_routes_go_some_at_a_time_and_newer_ones_after_them() {
    let (mut lab, all) = many_waiting(16, 14);
    let mut turns = 0;
    while lab.tables.waiting() > 0 {
        let before = lab.out.sent.len();
        lab.tick();
        assert!(lab.out.sent.len() - before <= 64);
        // To the last of all addresses, and to the first.
        let newer = [sent(M1, all[15], 100 + turns), sent(M1, all[0], 100 + turns)];
        if turns < 2 {
            lab.input(P1, &newer);
        }
        turns += 1;
    }
    assert!(turns > 1, "in one turn");
    for (n, &to) in all.iter().enumerate() {
        let newer = if n == 0 || n == 15 { vec![100, 101] } else { vec![] };
        assert_eq!(arrived(&lab, to), [(0..14).collect(), newer].concat(), "to {to}");
    }
    assert_eq!(lab.tables.counters.total().dropped(), 0);
}

#[test]
fn r35_without_a_buffer_what_waits_stays_and_newer_packets_wait_behind_it() {
    let (mut lab, all) = many_waiting(2, 3);
    let endless = std::mem::replace(&mut lab.pool, MemPool::of(0));
    lab.forget_buffers(endless.taken());
    lab.tick();
    lab.input(P1, &[sent(M1, all[1], 3), sent(M1, far(false, 1), 9)]);
    assert_eq!(lab.tables.waiting(), 7);
    assert_eq!(arrived(&lab, far(false, 1)), [9], "nobody waits for this address");
    lab.pool = MemPool::endless();
    lab.one(P1, &sent(M1, all[1], 4));
    lab.settle();
    assert_eq!(arrived(&lab, all[0]), [0, 1, 2]);
    assert_eq!(arrived(&lab, all[1]), [0, 1, 2, 3, 4]);
    assert_eq!(lab.tables.counters.total().dropped(), 0);
}
