//! Frames that wait for their port to open (R15, R45).

use crate::common::*;
use godwit_tables::update::*;
use godwit_tables::{DropReason, Tables};

fn associated(t: &mut Tables, port: PortIdx) {
    assert_eq!(t.apply(access(port, VN, mac(port.0.into()), Admission::Associated), NOW), None);
}

#[test]
fn r45_they_go_in_their_order_once_the_port_is_open() {
    let mut t = tables();
    associated(&mut t, P1);
    associated(&mut t, P2);
    for n in 0..3 {
        assert_eq!(t.await_opening(P1, &[n; 20], NOW), Ok(()));
        assert_eq!(t.await_opening(P2, &[10 + n; 20], NOW), Ok(()));
    }
    assert!(t.has_arrivals_at(P1) && t.has_arrivals_at(P2));
    assert_eq!((t.waiting(), t.sort_arrivals(NOW)), (6, None));
    assert_eq!(t.apply(access(P2, VN, mac(2), Admission::Activated), NOW), None);
    assert_eq!(t.sort_arrivals(NOW), Some(P2));
    let (mut bytes, mut got) = (Vec::new(), Vec::new());
    while let Some(about) = t.take_arrival(P2, &mut bytes) {
        assert_eq!((about.ingress, about.arrived), (P2, NOW));
        got.push(bytes[0]);
    }
    assert_eq!(got, [10, 11, 12]);
    assert!(!t.has_arrivals_at(P2) && t.has_arrivals_at(P1));
    assert_eq!(t.waiting(), 3);
}

#[test]
fn r15_they_are_dropped_where_the_port_does_not_open() {
    let mut t = tables();
    associated(&mut t, P1);
    associated(&mut t, P2);
    assert_eq!(t.await_opening(P1, &[1; 20], NOW), Ok(()));
    assert_eq!(t.await_opening(P1, &[1; 20], NOW + ms(400)), Ok(()));
    assert_eq!(t.await_opening(P2, &[2; 20], NOW + ms(400)), Ok(()));
    assert_eq!(t.sort_arrivals(NOW + ms(499)), None);
    assert_eq!(t.waiting(), 3);
    t.sort_arrivals(NOW + ms(500));
    assert_eq!((t.waiting(), drops(&t, DropReason::PortClosed)), (2, 1), "half a second");
    assert_eq!(t.apply(access(P2, VN, mac(2), Admission::Closed), NOW), None);
    t.sort_arrivals(NOW + ms(500));
    assert_eq!((t.waiting(), drops(&t, DropReason::PortClosed)), (1, 2), "at once");
}

#[test]
fn r45_so_many_of_a_port_and_no_more_than_memory_takes() {
    let mut t = tables_of(&godwit_tables::TablesConfig { hold_bytes: 4 << 20, ..config() });
    associated(&mut t, P1);
    let taken = (0..3000).take_while(|_| t.await_opening(P1, &[1; 20], NOW).is_ok()).count();
    assert_eq!((taken, t.room_for_arrival(P1, 20)), (400, Err(DropReason::PortClosed)));
    let mut t = tables_of(&godwit_tables::TablesConfig { hold_bytes: 2000, ..config() });
    associated(&mut t, P1);
    let taken = (0..300).take_while(|_| t.await_opening(P1, &[1; 20], NOW).is_ok()).count();
    assert!((1..8).contains(&taken), "{taken}");
    assert_eq!(t.await_opening(P1, &[1; 20], NOW), Err(DropReason::HoldMemory));
    assert_eq!(t.waiting(), taken as u64);
}

#[test]
fn r45_all_ports_together_leave_half_of_the_memory_to_others() {
    let bytes = 256 << 10;
    let mut t = tables_of(&godwit_tables::TablesConfig { hold_bytes: bytes, ..config() });
    for port in [P1, P2] {
        associated(&mut t, port);
        while t.await_opening(port, &[1; 1400], NOW).is_ok() {}
    }
    let taken = t.counters.worker.hold_bytes as usize;
    assert!(taken <= bytes / 2 && taken > bytes / 2 - 3000, "{taken}");
    assert_eq!(t.room_for_arrival(P2, 1400), Err(DropReason::HoldMemory));
}
