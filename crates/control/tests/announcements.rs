//! Addresses that change their owner, and what VMs say of their own: who is told, and what is claimed.

use crate::lab::said::{A, B, other_record};
use crate::lab::{Lab, PORT, UPLINK, mac, vm, vm_ip};
use godwit_control::{Input, Level};
use godwit_model::Version;
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::PortIdx;
use std::net::Ipv6Addr;

/// Frames of the given EtherType that control sent to VMs' ports.
fn told(lab: &mut Lab, i: usize) -> Vec<(PortIdx, Vec<u8>)> {
    lab.hosts[i].frames.drain(..).filter(|(port, _)| *port != UPLINK).collect()
}

#[test]
fn r24_local_vms_are_told_when_an_address_has_got_another_mac() {
    let mut lab = Lab::new(2);
    for n in [1, 2] {
        lab.run_vm(A, n);
    }
    lab.run_vm(B, 3);
    assert_eq!(told(&mut lab, A), [], "first owners are no news");
    // The directory takes the address of VM 3 away, and gives it to VM 4.
    let version = Version { epoch: 1, seq: 100 };
    let mut without = other_record(&lab, 3, B, version);
    let ip = without.ipv4.pop().unwrap();
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(3), record: Some(without) }));
    assert_eq!(told(&mut lab, A), []);
    let mut other = other_record(&lab, 3, B, Version { epoch: 1, seq: 101 });
    other.key = vm(4);
    let v6: std::net::Ipv6Addr = "2001:db8::3".parse().unwrap();
    other.ipv6.push(v6);
    let news = NvaToNve::Provision { key: vm(4), record: Some(other) };
    lab.input(A, Input::Nva(news.clone()));
    let frames = told(&mut lab, A);
    assert_eq!(frames.iter().map(|(port, _)| port.0).collect::<Vec<_>>(), [1, 2], "each local VM once");
    let arp = godwit_wire::arp::Arp::new_checked(&frames[0].1[14..]).unwrap();
    assert!(arp.is_gratuitous(mac(4)) && arp.spa() == ip);
    assert_eq!(frames[0].1[..6], [0xff; 6]);
    lab.input(A, Input::Nva(news));
    assert_eq!(told(&mut lab, A), [], "said again, nothing new");
    // Its IPv6 address goes to VM 5, a router.
    let mut last = other_record(&lab, 3, B, Version { epoch: 1, seq: 102 });
    (last.key, last.ipv4, last.ipv6, last.router) = (vm(5), vec![], vec![v6], true);
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(5), record: Some(last) }));
    let frames = told(&mut lab, A);
    assert_eq!(frames.len(), 2);
    match godwit_wire::ndp::parse(&frames[1].1[14..]) {
        Ok(godwit_wire::ndp::Ndp::Advert(a)) => {
            assert!(a.is_unsolicited_announce() && a.overrides && a.router);
            assert_eq!((a.target, a.tlla), (v6, Some(mac(5))));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn r25_the_o_flag_of_an_advertisement_is_claimed_and_its_change_too() {
    let mut lab = Lab::new(2);
    let (one, link_local): (Ipv6Addr, Ipv6Addr) =
        ("2001:db8::1".parse().unwrap(), "fe80::1".parse().unwrap());
    lab.nva.define(vm(1), one.into());
    lab.add_port(A, PORT, 1);
    lab.settle();
    let flags = |lab: &Lab| -> Vec<Vec<(Ipv6Addr, bool)>> {
        let heard = |m: &NveToNva| match m {
            NveToNva::Claim { overrides, .. } => {
                Some(overrides.iter().map(|(ip, set)| (*ip, *set)).collect())
            }
            _ => None,
        };
        lab.hosts[A].said.iter().filter_map(heard).collect()
    };
    let advert = |ip: Ipv6Addr, overrides| {
        let kind = AnnounceKind::NeighborAdvertisement { router: false, overrides };
        Event::Announce { port: PORT, kind, mac: mac(1), ip: Some(ip.into()) }
    };
    lab.event(A, advert(one, false));
    lab.settle();
    assert_eq!(flags(&lab), [vec![(one, false)]]);
    lab.nva.records.get_mut(&vm(1)).unwrap().no_override = vec![one];
    let record = lab.nva.records[&vm(1)].clone();
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(1), record: Some(record) }));
    for ip in [one, one, link_local, "2001:db8::9".parse().unwrap()] {
        lab.pass(1_100);
        lab.event(A, advert(ip, ip != one));
        lab.settle();
    }
    assert_eq!(flags(&lab).len(), 1, "known, or of an address that no directory lists, or of another's");
    for _ in 0..5 {
        lab.event(A, advert(one, true));
        lab.settle();
    }
    assert_eq!(flags(&lab)[1..], [vec![(one, true)]], "once a second at most");
}

#[test]
fn r25_the_r_flag_of_an_advertisement_is_claimed_and_its_change_too() {
    let mut lab = Lab::new(2);
    lab.nva.define(vm(1), "2001:db8::1".parse().unwrap());
    let ip = Some("2001:db8::1".parse().unwrap());
    lab.add_port(A, PORT, 1);
    lab.settle();
    let flags = |lab: &Lab| -> Vec<Option<bool>> {
        let flag = |m: &NveToNva| if let NveToNva::Claim { router, .. } = m { Some(*router) } else { None };
        lab.hosts[A].said.iter().filter_map(flag).collect()
    };
    let advert = |router| {
        let kind = AnnounceKind::NeighborAdvertisement { router, overrides: true };
        Event::Announce { port: PORT, kind, mac: mac(1), ip }
    };
    lab.event(A, advert(true));
    lab.settle();
    assert_eq!(flags(&lab), [Some(true)]);
    lab.nva.records.get_mut(&vm(1)).unwrap().router = true;
    let record = lab.nva.records[&vm(1)].clone();
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(1), record: Some(record) }));
    for _ in 0..5 {
        lab.event(A, advert(true));
        lab.settle();
    }
    assert_eq!(flags(&lab).len(), 1, "known");
    for _ in 0..5 {
        lab.event(A, advert(false));
        lab.settle();
    }
    assert_eq!(flags(&lab), [Some(true), Some(false)], "once a second at most");
    // By its link-local address, which no directory lists.
    lab.pass(1_100);
    let kind = AnnounceKind::NeighborAdvertisement { router: false, overrides: true };
    lab.event(A, Event::Announce { port: PORT, kind, mac: mac(1), ip: Some("fe80::1".parse().unwrap()) });
    lab.settle();
    assert_eq!(flags(&lab).last(), Some(&Some(false)));
    assert_eq!(flags(&lab).len(), 3);
}

#[test]
fn r30_who_wants_anothers_address_is_named() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.settle();
    let before = lab.hosts[A].said.len();
    lab.event(A, Event::AddressTaken { port: PORT, ip: vm_ip(2), owner: mac(2) });
    let named = |text: &str| ["vm1-1", "vm2", &vm_ip(2).to_string()].iter().all(|w| text.contains(w));
    let alarms = lab.hosts[A].notes.iter().filter(|n| n.level == Level::Alarm && named(&n.text));
    assert_eq!(alarms.count(), 1);
    assert_eq!(lab.hosts[A].said.len(), before, "nobody claims because of it");
}
