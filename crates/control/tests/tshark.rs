//! What control sends to VMs, read by tshark, which nobody here wrote.

use std::net::{IpAddr, Ipv6Addr};
use std::slice::from_ref;

use crate::lab::said::{A, B, other_record};
use crate::lab::{self, Lab, UPLINK, mac, vm};
use godwit_control::Input;
use godwit_model::Version;
use godwit_model::message::NvaToNve;
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::PortIdx;
use godwit_testkit::tshark::{Which, read};

/// VMs have an address of each family.
fn v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into())
}

fn dual_stack(lab: &mut Lab, i: usize, n: u8) {
    lab.nva.define(vm(n), lab::vm_ip(n));
    lab.nva.records.get_mut(&vm(n)).unwrap().ipv6.push(v6(n));
    let port = PortIdx(n.into());
    lab.add_port(i, port, n);
    lab.settle();
    let kind = AnnounceKind::Rarp;
    lab.event(i, Event::Announce { port, kind, mac: mac(n), ip: None });
    lab.settle();
}

/// What VMs were sent since the last time.
fn to_vms(lab: &mut Lab, i: usize) -> Vec<Vec<u8>> {
    lab.hosts[i].frames.drain(..).filter(|(port, _)| *port != UPLINK).map(|(_, f)| f).collect()
}

const ARP: &str = "eth.dst eth.src arp.opcode arp.src.hw_mac arp.src.proto_ipv4 arp.dst.hw_mac \
                   arp.dst.proto_ipv4 arp.isgratuitous arp.isprobe";

/// Versions of tshark differ in how they say yes and no.
fn plain(line: &str) -> String {
    line.replace("True", "1").replace("False", "").trim_end().to_owned()
}

#[test]
fn r24_what_tells_of_another_owner_is_sound() {
    let mut lab = Lab::new(2);
    dual_stack(&mut lab, A, 1);
    dual_stack(&mut lab, B, 3);
    // The directory takes both addresses of VM 3 away, and gives them to VM 4, a router.
    let mut record = other_record(&lab, 3, B, Version { epoch: 1, seq: 100 });
    let (ipv4, ipv6) = (std::mem::take(&mut record.ipv4), std::mem::take(&mut record.ipv6));
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(3), record: Some(record) }));
    to_vms(&mut lab, A);
    let mut record = other_record(&lab, 3, B, Version { epoch: 1, seq: 101 });
    (record.key, record.ipv4, record.ipv6, record.router) = (vm(4), ipv4, ipv6, true);
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(4), record: Some(record) }));
    let told = to_vms(&mut lab, A);
    assert_eq!(told.len(), 2);
    let (owner, all) = ("02:00:00:00:00:04", "ff:ff:ff:ff:ff:ff");
    let lines = read(&told[..1], Which::All, ARP);
    let want = format!("{all} {owner} 1 {owner} 10.0.0.3 00:00:00:00:00:00 10.0.0.3 1");
    assert_eq!(plain(&lines[0]), want);
    let fields = "eth.dst eth.src ipv6.src ipv6.dst ipv6.hlim icmpv6.type icmpv6.checksum.status \
                  icmpv6.nd.na.flag.r icmpv6.nd.na.flag.s icmpv6.nd.na.flag.o icmpv6.nd.na.target_address \
                  icmpv6.opt.type icmpv6.opt.linkaddr";
    let lines = read(&told[1..], Which::All, fields);
    let end = "255 136 1 1 0 1 2001:db8::3 2";
    assert_eq!(lines, [format!("33:33:00:00:00:01 {owner} 2001:db8::3 ff02::1 {end} {owner}")]);
}

/// Questions to a VM of its own addresses, from who has none.
fn assert_questions(frames: &[Vec<u8>], n: u8) {
    let (vm, us, none) = (format!("02:00:00:00:00:{n:02x}"), "02:67:77:74:00:01", "00:00:00:00:00:00");
    let [arp, solicit] = frames else { panic!("{} questions", frames.len()) };
    let lines = read(from_ref(arp), Which::All, ARP);
    let line = plain(&lines[0]);
    assert!(line.starts_with(&format!("{vm} {us} 1 {us} 0.0.0.0 {none} 10.0.0.{n}")), "{line}");
    assert!(line.ends_with(" 1"), "tshark calls it a probe: {line}");
    let fields = "eth.dst eth.src ipv6.src ipv6.dst ipv6.hlim icmpv6.type icmpv6.code icmpv6.checksum.status \
                  icmpv6.nd.ns.target_address icmpv6.opt.type icmpv6.opt.linkaddr";
    let lines = read(from_ref(solicit), Which::All, fields);
    let ours = "fe80::67:77ff:fe74:1";
    let want = format!("{vm} {us} {ours} 2001:db8::{n} 255 135 0 1 2001:db8::{n} 1 {us}");
    assert_eq!(lines, [want]);
}

#[test]
fn r21_questions_to_a_vm_that_another_nve_claims_are_sound() {
    let mut lab = Lab::new(1);
    dual_stack(&mut lab, A, 1);
    to_vms(&mut lab, A);
    lab.input(A, Input::Nva(NvaToNve::Verify { key: vm(1), version: lab.version(1) }));
    assert_questions(&to_vms(&mut lab, A), 1);
}

#[test]
fn r32_questions_to_those_who_stay_are_sound() {
    let mut lab = Lab::with(2, |c| c.scan_rate = 100);
    (1..=2).for_each(|n| dual_stack(&mut lab, A, n));
    lab.pass(10_000);
    lab.add_port(B, PortIdx(1), 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    to_vms(&mut lab, A);
    let ip = Some(IpAddr::from(v6(1)));
    let kind = AnnounceKind::NeighborAdvertisement { router: false, overrides: true };
    lab.event(B, Event::Announce { port: PortIdx(1), kind, mac: mac(1), ip });
    lab.settle();
    lab.pass(100);
    assert_questions(&to_vms(&mut lab, A), 2);
}
