//! What the gateway says to VMs by control: router advertisements and DHCP (R58), read by tshark, which nobody here
//! wrote.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_control::{Input, Level};
use godwit_model::message::{Change, NvaToNve};
use godwit_model::{Advertise, Dhcp, GATEWAY_MAC, Subnet, VnRouting};
use godwit_tables::update::PortIdx;
use godwit_testkit::clients::{Dhcp4, Dhcp6, router_solicit};
use godwit_testkit::tshark::{Which, read};

use crate::lab::domains::{part, vn};
use crate::lab::said::{A, B};
use crate::lab::{Lab, mac, vm, vm_ip};

const GATEWAY: &str = "02:67:77:00:00:01";
const GATEWAY_LL: &str = "fe80::67:77ff:fe00:1";

fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

fn advertise(managed: bool) -> Advertise {
    Advertise { managed, other: true, lifetime_s: 1800 }
}

/// A subnet of each family, with all that a gateway has to give.
fn subnets() -> Vec<Subnet> {
    let subnet = |gateway: IpAddr, len, advertise, dns: IpAddr| Subnet {
        prefix: godwit_wire::Prefix::of(gateway, len),
        gateway,
        advertise,
        dhcp: Some(Dhcp { lease_s: 3600, dns: vec![dns] }),
    };
    let (v4, dns) = (IpAddr::from([10, 0, 0, 254]), IpAddr::from([10, 0, 0, 53]));
    vec![subnet(v4, 24, None, dns), subnet(v6(0xfe).into(), 64, Some(advertise(false)), v6(0x53).into())]
}

fn set(lab: &mut Lab, routing: VnRouting) {
    lab.nva.routing.insert(vn(0), routing);
    let said = lab.nva.say_settings();
    lab.deliver(said);
}

/// Two NVEs; VMs have an address of each family.
fn lab() -> Lab {
    let mut lab = Lab::new(2);
    lab.join(&[0]);
    lab.nva.routing.insert(vn(0), VnRouting { subnets: subnets(), ..part(0) });
    lab
}

fn run(lab: &mut Lab, i: usize, n: u8) {
    lab.nva.define(vm(n), vm_ip(n));
    lab.nva.records.get_mut(&vm(n)).unwrap().ipv6.push(v6(n.into()));
    arrive(lab, i, n);
}

fn arrive(lab: &mut Lab, i: usize, n: u8) {
    let port = PortIdx(n.into());
    lab.add_port(i, port, n);
    lab.settle();
    lab.announce(i, port, n);
    lab.settle();
    lab.hosts[i].frames.clear();
}

/// What port `n` of an NVE is sent.
fn heard(lab: &mut Lab, i: usize, n: u8) -> Vec<Vec<u8>> {
    let port = PortIdx(n.into());
    lab.hosts[i].frames.drain(..).filter(|(p, _)| *p == port).map(|(_, f)| f).collect()
}

fn ask(lab: &mut Lab, i: usize, n: u8, frame: Vec<u8>) -> Vec<Vec<u8>> {
    lab.hosts[i].frames.clear();
    lab.input(i, Input::Punted { port: PortIdx(n.into()), frame });
    assert!(lab.hosts[i].frames.iter().all(|(p, _)| *p == PortIdx(n.into())), "nobody else hears the answer");
    heard(lab, i, n)
}

/// Versions of tshark differ in how they say yes and no, and write some numbers.
fn fields(frames: &[Vec<u8>], fields: &str) -> Vec<String> {
    let lines = read(frames, Which::All, fields).into_iter();
    let plain = |l: String| l.replace("True", "1").replace("False", "0").replace("0x0000", "0000");
    lines.map(|l| plain(l).trim_end().to_owned()).collect()
}

const RA: &str = "eth.src eth.dst ipv6.src ipv6.dst ipv6.hlim icmpv6.type icmpv6.checksum.status \
                  icmpv6.nd.ra.flag.m icmpv6.nd.ra.flag.o icmpv6.nd.ra.router_lifetime icmpv6.opt.mtu \
                  icmpv6.opt.src_linkaddr icmpv6.opt.prefix icmpv6.opt.prefix.length icmpv6.opt.prefix.flag.l \
                  icmpv6.opt.prefix.flag.a icmpv6.opt.prefix.valid_lifetime icmpv6.opt.rdnss";

#[test]
fn r58_a_host_that_solicits_a_router_is_told_of_the_gateway_at_every_nve() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    run(&mut lab, B, 2);
    for (i, n) in [(A, 1), (B, 2)] {
        let solicit = router_solicit(mac(n), mac(n).link_local());
        let told = ask(&mut lab, i, n, solicit);
        let expected = format!(
            "{GATEWAY} {} {GATEWAY_LL} {} 255 134 1 0 1 1800 1500 {GATEWAY} 2001:db8:: 64 1 1 2592000 2001:db8::53",
            mac(n),
            mac(n).link_local()
        );
        assert_eq!(fields(&told, RA), [expected]);
    }
    // One without an address: to all hosts, behind its port alone, as soon as the time between two allows.
    let told = ask(&mut lab, A, 1, router_solicit(mac(1), Ipv6Addr::UNSPECIFIED));
    assert_eq!(fields(&told, "eth.dst ipv6.dst"), ["33:33:00:00:00:01 ff02::1"]);
    let mut told = ask(&mut lab, A, 1, router_solicit(mac(1), Ipv6Addr::UNSPECIFIED));
    lab.pass(2_900);
    assert!(told.is_empty() && heard(&mut lab, A, 1).is_empty());
    lab.pass(200);
    told = heard(&mut lab, A, 1);
    assert_eq!(fields(&told, "eth.dst ipv6.dst"), ["33:33:00:00:00:01 ff02::1"]);
}

#[test]
fn r58_a_routed_only_vn_has_no_prefix_on_the_link_and_a_managed_one_none_to_form_addresses_from() {
    let mut lab = lab();
    let mut all = subnets();
    all[1].advertise = Some(advertise(true));
    lab.nva.routing.insert(vn(0), VnRouting { routed_only: true, subnets: all, ..part(0) });
    run(&mut lab, A, 1);
    let told = ask(&mut lab, A, 1, router_solicit(mac(1), mac(1).link_local()));
    let names = "icmpv6.nd.ra.flag.m icmpv6.nd.ra.flag.o icmpv6.opt.prefix icmpv6.opt.prefix.flag.l \
                 icmpv6.opt.prefix.flag.a";
    assert_eq!(fields(&told, names), ["1 1 2001:db8:: 0 0"]);
}

#[test]
fn r58_router_advertisements_come_by_themselves_in_quick_succession_and_then_now_and_then() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    let mut times = Vec::new();
    let start = lab.now;
    for _ in 0..4_000 {
        lab.pass(1_000);
        let told = heard(&mut lab, A, 1);
        let advertised = told.iter().filter(|f| f[12..14] == [0x86, 0xdd]).count();
        times.extend((0..advertised).map(|_| lab.now.since(start).as_ms() / 1000));
    }
    let gaps: Vec<u64> = times.windows(2).map(|w| w[1] - w[0]).collect();
    assert!((8..=16).contains(&times[0]), "not right after the VM came: {times:?}");
    assert!(gaps[..2].iter().all(|s| (8..=17).contains(s)), "{gaps:?}");
    assert!(gaps[2..].iter().all(|s| (199..=601).contains(s)), "{gaps:?}");
    let distinct: std::collections::BTreeSet<&u64> = gaps[2..].iter().collect();
    assert!(distinct.len() > 3, "at random times: {gaps:?}");
}

#[test]
fn r58_what_is_no_longer_advertised_is_withdrawn_three_times() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    lab.pass(60_000);
    heard(&mut lab, A, 1);
    let mut all = subnets();
    all[1].advertise = None;
    set(&mut lab, VnRouting { subnets: all, ..part(0) });
    lab.pass(1_000_000);
    let names = "ipv6.dst icmpv6.nd.ra.router_lifetime icmpv6.opt.prefix icmpv6.opt.prefix.valid_lifetime";
    let told: Vec<Vec<u8>> =
        heard(&mut lab, A, 1).into_iter().filter(|f| f[12..14] == [0x86, 0xdd]).collect();
    assert_eq!(fields(&told, names), ["ff02::1 0 2001:db8:: 0"; 3]);
    let solicit = router_solicit(mac(1), mac(1).link_local());
    assert!(ask(&mut lab, A, 1, solicit).is_empty(), "none in a VN that advertises nothing");
}

#[test]
fn r58_a_prefix_that_goes_is_taken_back_while_others_stay() {
    let mut lab = lab();
    let mut all = subnets();
    let other: IpAddr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into();
    let prefix = godwit_wire::Prefix::of(other, 64);
    all.push(Subnet { prefix, gateway: other, advertise: Some(advertise(false)), dhcp: None });
    lab.nva.routing.insert(vn(0), VnRouting { subnets: all, ..part(0) });
    run(&mut lab, A, 1);
    lab.pass(60_000);
    heard(&mut lab, A, 1);
    set(&mut lab, VnRouting { subnets: subnets(), ..part(0) });
    lab.pass(50_000);
    let names = "icmpv6.nd.ra.router_lifetime icmpv6.opt.prefix icmpv6.opt.prefix.valid_lifetime";
    let told: Vec<Vec<u8>> =
        heard(&mut lab, A, 1).into_iter().filter(|f| f[12..14] == [0x86, 0xdd]).collect();
    let lines = fields(&told, names);
    assert_eq!(lines, ["1800 2001:db8::,2001:db8:1:: 2592000,0"; 3]);
}

#[test]
fn r58_solicitations_are_answered_at_a_bounded_rate() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    let solicit = router_solicit(mac(1), mac(1).link_local());
    let answers: usize = (0..100).map(|_| ask(&mut lab, A, 1, solicit.clone()).len()).sum();
    assert_eq!(answers, 4);
    assert_eq!((lab.hosts[A].nve.counts().ra_limited, lab.hosts[A].nve.counts().ra_sent), (96, 4));
}

const DHCP: &str = "eth.src eth.dst ip.src ip.dst udp.srcport udp.dstport udp.checksum.status dhcp.type dhcp.id \
                    dhcp.option.dhcp dhcp.ip.client dhcp.ip.your dhcp.option.dhcp_server_id \
                    dhcp.option.subnet_mask dhcp.option.router dhcp.option.interface_mtu \
                    dhcp.option.broadcast_address dhcp.option.domain_name_server \
                    dhcp.option.ip_address_lease_time dhcp.option.renewal_time_value \
                    dhcp.option.rebinding_time_value";

const SERVER: [u8; 4] = [10, 0, 0, 254];
const SETTINGS: &str = "10.0.0.254 255.255.255.0 10.0.0.254 1500 10.0.0.255 10.0.0.53 3600 1800 3150";

#[test]
fn r58_a_vm_gets_its_recorded_address_by_dhcp() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    let head = format!("{GATEWAY} {} 10.0.0.254 10.0.0.1 67 68 1 2 0x12345678", mac(1));
    // Another address than the one wanted.
    let offer = ask(&mut lab, A, 1, Dhcp4::new(mac(1), 1).option(50, &[10, 0, 0, 77]).frame());
    assert_eq!(fields(&offer, DHCP), [format!("{head} 2 0.0.0.0 10.0.0.1 {SETTINGS}")]);
    let request = Dhcp4::new(mac(1), 3).option(54, &SERVER).option(50, &[10, 0, 0, 1]);
    let ack = ask(&mut lab, A, 1, request.frame());
    assert_eq!(fields(&ack, DHCP), [format!("{head} 5 0.0.0.0 10.0.0.1 {SETTINGS}")]);
    // One that cannot receive before it is configured.
    let ack = ask(&mut lab, A, 1, Dhcp4 { broadcast: true, ..request }.frame());
    assert_eq!(fields(&ack, "eth.dst ip.dst dhcp.option.dhcp"), ["ff:ff:ff:ff:ff:ff 255.255.255.255 5"]);
    assert_eq!(lab.hosts[A].nve.counts().dhcp_answered, 3);
}

#[test]
fn r58_a_vm_that_moved_renews_at_its_new_nve_what_it_got_at_the_old_one() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    let renew = Dhcp4 { ciaddr: [10, 0, 0, 1].into(), dst: SERVER.into(), ..Dhcp4::new(mac(1), 3) }.frame();
    let before = ask(&mut lab, A, 1, renew.clone());
    lab.order_move("m", 1, A, B);
    lab.settle();
    arrive(&mut lab, B, 1);
    let after = ask(&mut lab, B, 1, renew);
    assert_eq!(after, before, "byte by byte");
    let names = "eth.dst ip.dst dhcp.option.dhcp dhcp.ip.client dhcp.ip.your";
    assert_eq!(fields(&after, names), ["02:00:00:00:00:01 10.0.0.1 5 10.0.0.1 10.0.0.1"]);
}

#[test]
fn r58_who_asks_for_what_is_not_its_own_is_refused() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    let nak = "ff:ff:ff:ff:ff:ff 255.255.255.255 6 0.0.0.0 10.0.0.254";
    let names = "eth.dst ip.dst dhcp.option.dhcp dhcp.ip.your dhcp.option.dhcp_server_id";
    let none = Ipv4Addr::UNSPECIFIED;
    for (ciaddr, requested) in [(none, Some([10, 0, 0, 2])), (Ipv4Addr::new(10, 0, 0, 2), None)] {
        let plain = Dhcp4 { ciaddr, ..Dhcp4::new(mac(1), 3) };
        let frame = requested.map_or(plain.clone(), |ip| plain.option(50, &ip)).frame();
        assert_eq!(fields(&ask(&mut lab, A, 1, frame), names), [nak]);
    }
    // Another server was chosen; a relay; another client's message; a malformed option; no message of a client.
    let other = Dhcp4::new(mac(1), 3).option(54, &[10, 0, 0, 9]).option(50, &[10, 0, 0, 1]);
    let relayed = Dhcp4 { giaddr: SERVER.into(), ..Dhcp4::new(mac(1), 1) };
    let mut foreign = Dhcp4::new(mac(2), 1).frame();
    foreign[6..12].copy_from_slice(&mac(1).0);
    let bad = Dhcp4::new(mac(1), 1).option(50, &[10, 0, 0]);
    let frames = [other.frame(), relayed.frame(), foreign, bad.frame(), Dhcp4::new(mac(1), 2).frame()];
    for frame in frames {
        assert!(ask(&mut lab, A, 1, frame).is_empty());
    }
    assert_eq!(lab.hosts[A].nve.counts().dhcp_refused, 5);
    // The frame of somebody else, and one that asks for nothing.
    assert!(ask(&mut lab, A, 1, Dhcp4::new(mac(9), 1).frame()).is_empty());
    assert!(ask(&mut lab, A, 1, vec![0; 60]).is_empty());
    assert_eq!(lab.hosts[A].nve.counts().gateway_ignored, 2);
}

#[test]
fn r58_a_vm_without_a_recorded_address_gets_no_answer() {
    let mut lab = lab();
    lab.nva.define(vm(1), [192, 0, 2, 1].into());
    arrive(&mut lab, A, 1);
    for _ in 0..5 {
        assert!(ask(&mut lab, A, 1, Dhcp4::new(mac(1), 1).frame()).is_empty(), "an address of no subnet");
        assert!(ask(&mut lab, A, 1, Dhcp6::new(mac(1), 1).addresses(1, &[]).frame()).is_empty());
    }
    assert_eq!(lab.hosts[A].nve.counts().dhcp_unrecorded, 10);
    let notes = lab.hosts[A].notes.iter().filter(|n| n.level == Level::Warn && n.text.contains("DHCP"));
    assert_eq!(notes.count(), 4, "told of now and then");
}

#[test]
fn r58_dhcp_clients_are_bounded_a_port_and_what_they_give_up_is_counted() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    let release = Dhcp4 { ciaddr: [10, 0, 0, 1].into(), ..Dhcp4::new(mac(1), 7) }.frame();
    assert!(ask(&mut lab, A, 1, release).is_empty());
    let alarms = lab.hosts[A].alarms();
    assert!(ask(&mut lab, A, 1, Dhcp4::new(mac(1), 4).option(50, &[10, 0, 0, 1]).frame()).is_empty());
    assert_eq!(lab.hosts[A].alarms(), alarms + 1);
    let told = lab.hosts[A].notes.last().map(|n| n.text.clone()).unwrap_or_default();
    assert!(told.contains("10.0.0.1"), "{told}");
    let discover = Dhcp4::new(mac(1), 1).frame();
    let answers: usize = (0..100).map(|_| ask(&mut lab, A, 1, discover.clone()).len()).sum();
    let counts = lab.hosts[A].nve.counts();
    assert_eq!((counts.dhcp_released, counts.dhcp_declined), (1, 1));
    assert_eq!((answers, counts.dhcp_answered, counts.dhcp_limited), (18, 18, 82));
}

#[test]
fn r58_settings_alone_are_had_by_a_client_that_has_its_address() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    let inform = Dhcp4 { ciaddr: [10, 0, 0, 1].into(), ..Dhcp4::new(mac(1), 8) }.frame();
    let ack = ask(&mut lab, A, 1, inform);
    let names = "ip.dst dhcp.option.dhcp dhcp.ip.your dhcp.option.router dhcp.option.ip_address_lease_time";
    assert_eq!(fields(&ack, names), ["10.0.0.1 5 0.0.0.0 10.0.0.254"]);
    let ack = ask(&mut lab, A, 1, Dhcp6::new(mac(1), 11).frame());
    assert_eq!(fields(&ack, "dhcpv6.msgtype dhcpv6.dns_server dhcpv6.iaaddr.ip"), ["7 2001:db8::53"]);
}

const DHCP6: &str = "eth.src eth.dst ipv6.src ipv6.dst udp.srcport udp.dstport udp.checksum.status dhcpv6.msgtype \
                     dhcpv6.xid dhcpv6.duidll.link_layer_addr dhcpv6.iaid dhcpv6.iaid.t1 dhcpv6.iaid.t2 \
                     dhcpv6.iaaddr.ip dhcpv6.iaaddr.pref_lifetime dhcpv6.iaaddr.valid_lifetime dhcpv6.dns_server";

/// The gateway's identifier.
fn server() -> Vec<u8> {
    [&[0, 3, 0, 1][..], &GATEWAY_MAC.0].concat()
}

fn association() -> Dhcp6 {
    Dhcp6::new(mac(1), 1).addresses(0x1234, &[])
}

#[test]
fn r58_a_vm_gets_its_recorded_address_by_dhcp_for_ipv6() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    let ll = mac(1).link_local();
    let line = |kind: u8| {
        format!(
            "{GATEWAY} {m} {GATEWAY_LL} {ll} 547 546 1 {kind} 0x010203 {m},{GATEWAY} 00001234 1800 2880 \
             2001:db8::1 3600 3600 2001:db8::53",
            m = mac(1)
        )
    };
    let advertised = ask(&mut lab, A, 1, association().frame());
    assert_eq!(fields(&advertised, DHCP6), [line(2)]);
    let rapid = ask(&mut lab, A, 1, association().option(14, &[]).frame());
    assert_eq!(fields(&rapid, DHCP6), [line(7)]);
    // Request and Renew, with the server's identifier, and Rebind without.
    for (kind, named) in [(3, true), (5, true), (6, false)] {
        let plain = Dhcp6::new(mac(1), kind).addresses(0x1234, &[v6(1)]);
        let frame = if named { plain.option(2, &server()) } else { plain }.frame();
        assert_eq!(fields(&ask(&mut lab, A, 1, frame), DHCP6), [line(7)]);
    }
}

#[test]
fn r58_what_dhcp_for_ipv6_does_not_give_it_says_by_a_status() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    let names = "dhcpv6.msgtype dhcpv6.iaid dhcpv6.iaaddr.ip dhcpv6.iaaddr.valid_lifetime dhcpv6.status_code";
    let mut status = |message: Dhcp6| fields(&ask(&mut lab, A, 1, message.frame()), names);
    // A second association, a prefix, and a temporary address.
    let more = association().addresses(0x2000, &[]).option(25, &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    let more = more.option(4, &[0, 0, 0, 8]);
    assert_eq!(status(more), ["2 00001234,00002000,00000009 2001:db8::1 3600 2,2,6"]);
    let to_server = |kind: u8| Dhcp6::new(mac(1), kind).option(2, &server());
    let elsewhere = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);
    assert_eq!(status(to_server(3).addresses(1, &[elsewhere])), ["7 00000001   4"]);
    // An address that is no longer its own ends.
    assert_eq!(status(to_server(5).addresses(1, &[v6(7)])), ["7 00000001 2001:db8::1,2001:db8::7 3600,0"]);
    assert_eq!(status(Dhcp6::new(mac(1), 4).addresses(1, &[v6(1)])), ["7    0"]);
    assert_eq!(status(Dhcp6::new(mac(1), 4).addresses(1, &[elsewhere])), ["7    4"]);
    assert_eq!(status(to_server(8).addresses(1, &[v6(1)])), ["7    0"]);
    assert_eq!(status(to_server(8).addresses(1, &[v6(7)])).len(), 1);
    // For another server, without an identifier, and by unicast.
    assert!(status(Dhcp6::new(mac(1), 3).option(2, &[0, 3, 0, 1, 9]).addresses(1, &[])).is_empty());
    assert!(status(Dhcp6 { options: vec![], ..association() }).is_empty());
    assert!(status(Dhcp6 { dst: GATEWAY_MAC.link_local(), ..association() }).is_empty());
    assert_eq!(lab.hosts[A].nve.counts().dhcp_refused, 3);
    assert_eq!(lab.hosts[A].nve.counts().dhcp_released, 2);
}

/// A container or a nested VM behind a VM's port has a MAC of its own, and none of the VM's addresses.
#[test]
fn r58_r94_a_nested_mac_gets_none_of_its_vms_addresses_by_dhcp() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    let nested = mac(9);
    lab.nva.records.get_mut(&vm(1)).unwrap().allowed.nested = vec![nested];
    let record = lab.nva.records[&vm(1)].clone();
    let said = lab.nva.news(vn(0), &Change::Vm(record), None);
    lab.deliver(said);
    for kind in [1, 3, 5, 6] {
        let message = Dhcp6::new(nested, kind).addresses(1, &[v6(1)]);
        let message = if matches!(kind, 3 | 5) { message.option(2, &server()) } else { message };
        let told = ask(&mut lab, A, 1, message.frame());
        let lines = fields(&told, "dhcpv6.msgtype dhcpv6.iaaddr.ip dhcpv6.iaaddr.valid_lifetime");
        assert!(lines.iter().all(|l| !l.contains("2001:db8::1") || l.ends_with(" 0")), "{kind}: {lines:?}");
    }
    for kind in [1, 3] {
        let message = Dhcp4::new(nested, kind).option(50, &[10, 0, 0, 1]);
        assert!(ask(&mut lab, A, 1, message.frame()).is_empty());
    }
    assert_eq!(lab.hosts[A].nve.counts().gateway_ignored, 0, "it is the VM's MAC all the same");
    // The VM's own interface, behind the same port.
    let own = ask(&mut lab, A, 1, association().option(14, &[]).frame());
    assert_eq!(fields(&own, "dhcpv6.msgtype dhcpv6.iaaddr.ip"), ["7 2001:db8::1"]);
}

#[test]
fn r58_a_client_renews_an_address_that_was_taken_from_its_record_and_is_told() {
    let mut lab = lab();
    run(&mut lab, A, 1);
    lab.nva.records.get_mut(&vm(1)).unwrap().ipv6.clear();
    let record = lab.nva.records[&vm(1)].clone();
    let said = lab.nva.news(vn(0), &Change::Vm(record), None);
    lab.deliver(said);
    let renew = Dhcp6::new(mac(1), 5).option(2, &server()).addresses(1, &[v6(1)]).frame();
    let names = "dhcpv6.msgtype dhcpv6.iaid dhcpv6.iaaddr.ip dhcpv6.status_code";
    assert_eq!(fields(&ask(&mut lab, A, 1, renew), names), ["7 00000001  3"]);
}

#[test]
fn r58_without_a_gateway_nobody_is_answered() {
    let mut lab = Lab::new(1);
    run(&mut lab, A, 1);
    for frame in [Dhcp4::new(mac(1), 1).frame(), router_solicit(mac(1), mac(1).link_local())] {
        assert!(ask(&mut lab, A, 1, frame).is_empty());
    }
    lab.input(A, Input::Nva(NvaToNve::DomainGone { id: crate::lab::domains::DOMAIN }));
    lab.pass(100_000);
    assert!(heard(&mut lab, A, 1).iter().all(|f| f[6..12] != GATEWAY_MAC.0));
    lab.input(A, Input::Punted { port: PortIdx(77), frame: Dhcp4::new(mac(1), 1).frame() });
    assert!(lab.hosts[A].frames.is_empty(), "there is no such port");
}
