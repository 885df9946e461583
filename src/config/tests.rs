//! Each mistake is refused, and the message names key and remedy.

use std::io::Write;

use clap::Parser;

use super::*;

const GOOD: &str = r#"
[nve]
id = "a"
workers = "0x1"
nva = "http://198.18.255.1:6640"
[[uplink]]
name = "up0"
devargs = "net_af_packet0,iface=up0"
ipv4 = "198.18.0.1/24"
ipv6 = "2001:db8:18::1/64"
[[port]]
name = "v"
devargs = "net_tap1,iface=tv"
vni = 100
mac = "02:00:00:00:00:01"
"#;

fn load_text(text: &str, flags: &[&str]) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let flags = Flags::try_parse_from(["godwit"].iter().chain(flags)).unwrap();
    load(Some(file.path()), &flags, &[0, 1])
}

#[track_caller]
fn refused(text: &str, flags: &[&str], key: &str, remedy: &str) {
    let e = load_text(text, flags).expect_err("refused").to_string();
    assert!(e.contains(key), "{e:?} names {key:?}");
    assert!(e.contains(remedy), "{e:?} says {remedy:?}");
}

#[test]
fn a_good_file_is_taken() {
    let c = load_text(GOOD, &[]).unwrap();
    assert_eq!(c.nve.id, "a");
    assert_eq!(c.ports[0].vni.get(), 100);
    assert_eq!(c.uplinks[0].ipv4.unwrap().prefix_len(), 24);
}

#[test]
fn d2_what_may_be_ordered_is_read_from_the_file() {
    let lets =
        "[nve]\nrelayed_changes = true\ndevargs_allow = [\"net_vhost: iface=/run/vms/, queues\", \"pci\"]\n";
    let c = load_text(&GOOD.replacen("[nve]\n", lets, 1), &[]).unwrap();
    assert!(c.nve.relayed_changes);
    assert_eq!(c.nve.devargs_allow.map(|rules| rules.len()), Some(2));
    let c = load_text(GOOD, &[]).unwrap();
    assert_eq!((c.nve.relayed_changes, c.nve.devargs_allow), (false, None));
    let bad = GOOD.replacen("[nve]\n", "[nve]\ndevargs_allow = [\"net_vhost: iface=/run/../etc/\"]\n", 1);
    refused(&bad, &[], "devargs_allow", "write it from / on");
}

#[test]
fn flags_go_before_the_file() {
    let c = load_text(
        GOOD,
        &[
            "--workers",
            "0-1",
            "--uplink",
            "0000:03:00.0",
            "--port",
            "name=v,vni=7,mac=02:00:00:00:00:09,dev=net_vhost0,iface=/run/x.sock,queues=2",
        ],
    )
    .unwrap();
    assert_eq!(c.nve.workers, "0-1");
    assert_eq!(c.uplinks[0].devargs, "0000:03:00.0");
    assert_eq!(c.ports.len(), 1);
    assert_eq!(c.ports[0].vni.get(), 7);
    assert_eq!(c.ports[0].devargs, "net_vhost0,iface=/run/x.sock,queues=2");
}

#[test]
fn an_uplink_can_be_given_by_flag_alone() {
    let c = load_text(
        "",
        &["--id", "a", "--workers", "1", "--uplink", "name=u,ipv4=198.18.0.1/24,dev=net_null0"],
    );
    assert_eq!(c.unwrap().uplinks[0].name, "u");
}

#[test]
fn a_worker_kept_for_post_copy_ports_is_one_of_several() {
    let with = |workers: &str, more: &str| {
        GOOD.replace("workers = \"0x1\"", &format!("workers = \"{workers}\"\npostcopy_core = 1{more}"))
    };
    let postcopy = |text: String| text.replace("vni = 100", "vni = 100\npostcopy = true");
    let c = load_text(&postcopy(with("0x3", "")), &[]).unwrap();
    assert!(c.ports[0].postcopy && c.nve.postcopy_core == Some(1));
    refused(&with("0x1", ""), &[], "nve.postcopy_core", "name one of them");
    refused(&with("0x2", ""), &[], "nve.postcopy_core", "a second core");
    refused(&postcopy(GOOD.into()), &[], "port[0].postcopy", "set nve.postcopy_core");
    refused(&with("0x3", "\nrxq_affinity = [\"up0:0@1\"]"), &[], "nve.rxq_affinity[0]", "another worker");
}

#[test]
fn unknown_keys_are_refused() {
    refused(&GOOD.replace("workers", "worker"), &[], "worker", "expected one of");
    refused(&GOOD.replace("vni = 100", "vni = 100\nvlan = 7"), &[], "vlan", "expected one of");
}

#[test]
fn absent_cores_are_refused() {
    refused(GOOD, &["--workers", "0xff"], "nve.workers", "absent");
    refused(GOOD, &["--control-core", "7"], "nve.control_core", "name a core that is there");
    refused(&GOOD.replace("\"0x1\"", "\"\""), &[], "nve.workers", "--workers");
}

#[test]
fn r13_pins_that_cannot_be_followed_are_refused() {
    let pinned = |pins: &str| GOOD.replace("workers =", &format!("rxq_affinity = [{pins}]\nworkers ="));
    let c = load_text(&pinned("\"up0:0@0\", \"v:0@0\""), &[]).unwrap();
    assert_eq!(c.nve.rxq_affinity[1], "v:0@0".parse().unwrap());
    let remedy = "mend nve.rxq_affinity or --rxq-affinity";
    refused(&pinned("\"up1:0@0\""), &[], "nve.rxq_affinity[0]: up1:0@0: there is no port", remedy);
    refused(&pinned("\"v:0@0\", \"up0:1@0\""), &[], "nve.rxq_affinity[1]: up0:1@0", "raise its rx_queues");
    refused(&pinned("\"up0:0@1\""), &[], "core 1 has no worker", remedy);
    refused(&pinned("\"up0\""), &[], "rxq_affinity", "PORT:QUEUE@CORE");
    // A flag goes before the file's pin of the same queue.
    let c = load_text(&pinned("\"up0:0@0\", \"v:0@0\""), &["--workers", "0-1", "--rxq-affinity", "up0:0@1"]);
    let pins: Vec<String> = c.unwrap().nve.rxq_affinity.iter().map(|p| p.to_string()).collect();
    assert_eq!(pins, ["v:0@0", "up0:0@1"]);
    assert!(Flags::try_parse_from(["godwit", "--rxq-affinity", "up0:0@1,x"]).is_err());
}

#[test]
fn overlapping_locators_are_refused() {
    let second = "[[uplink]]\nname = \"up1\"\ndevargs = \"net_null1\"\nipv4 = \"198.18.0.77/16\"\n";
    refused(&format!("{GOOD}{second}"), &[], "uplink[1].ipv4", "overlaps that of uplink[0].ipv4");
}

const FABRIC: &str = r#"
[nve]
id = "a"
workers = "0x1"
[underlay]
locator4 = "192.0.2.1"
locator6 = "2001:db8::1"
[[uplink]]
name = "up0"
devargs = "net_af_packet0,iface=up0"
exception = "net_tap0,iface=fab0"
ipv4 = "10.0.1.1/31"
[[uplink]]
name = "up1"
devargs = "net_af_packet1,iface=up1"
[[route]]
to = "0.0.0.0/0"
via = ["10.0.1.0", "fe80::1%up1"]
"#;

#[test]
fn r95_a_loopback_locator_needs_no_addresses_of_uplinks() {
    let c = load_text(FABRIC, &[]).unwrap();
    assert_eq!(c.routes[0].via.len(), 2);
    assert_eq!(kernel_interface(&c.uplinks[0]), Some("fab0"));
    let text = summary(&c);
    for part in ["locator of all uplinks: 192.0.2.1, 2001:db8::1", "no address of its own, tenant MTU 1430"] {
        assert!(text.contains(part), "{text}");
    }
    let by_kernel = FABRIC.replace("locator6", "routes = \"kernel\"\nlocator6");
    assert_eq!(load_text(&by_kernel, &[]).unwrap().underlay.routes, RouteSource::Kernel);
}

#[test]
fn r95_routes_to_nowhere_are_refused() {
    let with = |from: &str, to: &str| FABRIC.replace(from, to);
    refused(
        &with("\"10.0.1.0\", ", "\"10.0.9.0\", "),
        &[],
        "route[0].via[0]: 10.0.9.0 leads nowhere",
        "ADDRESS%UPLINK",
    );
    refused(&with("%up1", "%up7"), &[], "there is no uplink \"up7\"", "name one of up0, up1");
    refused(&with("%up1", ""), &[], "route[0].via[1]: fe80::1 is on every link", "fe80::1%UPLINK");
    refused(&with("\"10.0.1.0\", \"fe80::1%up1\"", ""), &[], "route[0].via", "name a next hop");
    refused(&with("10.0.1.0", "10.0.1.1"), &[], "uplink \"up0\" itself", "name the router");
    refused(&with("10.0.1.0", "ten"), &[], "no next hop", "fe80::1%up0");
    refused(&with("0.0.0.0/0", "10.0.0.1/8"), &[], "route[0].to", "first address");
    refused(&with("0.0.0.0/0", "::/0"), &[], "route[0].via[0]", "name an IPv6 address");
    let twice = format!("{FABRIC}[[route]]\nto = \"0.0.0.0/0\"\nvia = [\"10.0.1.0\"]\n");
    refused(&twice, &[], "route[1].to: 0.0.0.0/0 is that of route[0]", "all its next hops");
    refused(&with("locator4 = \"192.0.2.1\"\n", ""), &[], "route[0].to", "set one, or drop the route");
}

#[test]
fn r95_locators_that_cannot_be_are_refused() {
    let with = |from: &str, to: &str| FABRIC.replace(from, to);
    refused(&with("192.0.2.1", "10.0.1.0"), &[], "underlay.locator4", "outside of all links");
    refused(&with("192.0.2.1", "127.0.0.1"), &[], "underlay.locator4", "address of your own");
    refused(&with("\"2001:db8::1\"", "\"fe80::7\""), &[], "underlay.locator6", "address of your own");
    let kernel = with("[underlay]", "[underlay]\nroutes = \"kernel\"");
    refused(
        &kernel.replace("exception = \"net_tap0,iface=fab0\"\n", ""),
        &[],
        "underlay.routes",
        "net_tapN,iface=NAME",
    );
    refused(&with("[underlay]", "[underlay]\nprobe_ms = 5"), &[], "underlay.probe_ms", "use 100 to 60000");
}

#[test]
fn a_port_twice_is_refused() {
    let again = GOOD.split_once("[[port]]").unwrap().1;
    refused(&format!("{GOOD}[[port]]{again}"), &[], "port[1].name", "name of its own");
    let renamed = again.replace("\"v\"", "\"w\"");
    refused(&format!("{GOOD}[[port]]{renamed}"), &[], "port[1].devargs", "name another");
    let other_device = renamed.replace("net_tap1", "net_tap2");
    refused(&format!("{GOOD}[[port]]{other_device}"), &[], "port[1].mac", "address of its own");
}

#[test]
fn a_static_vm_is_at_a_locator_or_behind_a_port() {
    let vm = "[[vm]]\nvni = 100\nmac = \"02:00:00:00:00:09\"\n";
    let behind = format!("{GOOD}{vm}port = \"v\"\n");
    let config = load_text(&behind, &[]).unwrap();
    assert_eq!(config.vms[0].port.as_deref(), Some("v"));
    refused(&format!("{GOOD}{vm}"), &[], "vm[0]", "a locator or a port");
    refused(&format!("{behind}locator = \"198.18.0.7\"\n"), &[], "vm[0]", "a locator or a port");
    refused(&behind.replace("port = \"v\"", "port = \"w\""), &[], "vm[0].port", "one of the ports");
    refused(&behind.replace("[[vm]]\nvni = 100", "[[vm]]\nvni = 101"), &[], "vm[0].port", "port's VNI");
}

#[test]
fn r56_a_switch_names_the_moves_that_it_takes_part_in() {
    let with = |modes: &str| GOOD.replace("[nve]\n", &format!("[nve]\nmove_modes = {modes}\n"));
    let config = load_text(&with("[\"cold\"]"), &[]).unwrap();
    assert_eq!(config.nve.move_modes, [MoveModeKind::Cold]);
    assert_eq!(load_text(GOOD, &[]).unwrap().nve.move_modes.len(), 3, "all of them by default");
    refused(&with("[]"), &[], "nve.move_modes", "name hot");
}

#[test]
fn r37_a_vn_is_pushed_or_pulled() {
    let vn = "[[vn]]\nvni = 100\n";
    let config = load_text(&format!("{GOOD}{vn}directory = \"pull\"\n[[vn]]\nvni = 101\n"), &[]).unwrap();
    let kinds: Vec<DirectoryKind> = config.vns.iter().map(|v| v.directory).collect();
    assert_eq!(kinds, [DirectoryKind::Pull, DirectoryKind::Push]);
    refused(&format!("{GOOD}{vn}{vn}"), &[], "vn[1].vni", "keep one");
    let alone = GOOD.replace("nva = \"http://198.18.255.1:6640\"\n", "");
    refused(&format!("{alone}{vn}directory = \"pull\"\n"), &[], "vn[0].directory", "set nve.nva");
}

#[test]
fn r43_a_forward_entry_outlives_what_others_believe() {
    refused(
        &GOOD.replace("id = \"a\"", "id = \"a\"\nfwd_timer_s = 5"),
        &[],
        "nve.fwd_timer_s",
        "use 31 to 3600",
    );
}

#[test]
fn r77_the_wait_for_an_end_marker_is_bounded() {
    let with = |ms: &str| GOOD.replace("id = \"a\"", &format!("id = \"a\"\nmarker_wait_ms = {ms}"));
    refused(&with("201"), &[], "nve.marker_wait_ms", "use 0 to 200");
    for ms in ["0", "200"] {
        assert!(load_text(&with(ms), &[]).is_ok(), "{ms} ms");
    }
}

#[test]
fn r47_redirects_come_at_a_sane_rate_and_their_port_is_their_own() {
    let with = |line: &str| GOOD.replace("id = \"a\"", &format!("id = \"a\"\n{line}"));
    refused(&with("headless_s = 86401"), &[], "nve.headless_s", "use 0 to 86400");
    refused(&with("address_check_s = 9"), &[], "nve.address_check_s", "use 10 to 86400");
    refused(&with("redirect_ms = 1"), &[], "nve.redirect_ms", "use 10 to 10000");
    refused(&with("vxlan_port = 47890"), &[], "nve.vxlan_port", "use 4789");
}

#[test]
fn r32_a_scan_has_a_sane_rate_and_end() {
    let with = |line: &str| GOOD.replace("id = \"a\"", &format!("id = \"a\"\n{line}"));
    refused(&with("scan_rate = 10001"), &[], "nve.scan_rate", "use 0 to 10000");
    refused(&with("scan_tries = 0"), &[], "nve.scan_tries", "use 1 to 10");
    refused(&with("vm_capacity = 1024"), &[], "nve.vm_capacity", "use 1 to 1023");
}

#[test]
fn r67_rates_have_bounds() {
    let with = |line: &str| GOOD.replace("id = \"a\"", &format!("id = \"a\"\n{line}"));
    refused(&with("resolution_rate = 1000001"), &[], "nve.resolution_rate", "use 0 to 1000000");
    refused(&with("question_burst = 0"), &[], "nve.question_burst", "use 1 to 1000000");
}

#[test]
fn r45_holds_are_bounded_by_memory_and_age_unless_a_limit_of_packets_is_set() {
    let with = |line: &str| GOOD.replace("[nve]", &format!("[nve]\n{line}"));
    let n = load_text(GOOD, &[]).unwrap().nve;
    assert_eq!((n.handover_hold_packets, n.handover_hold_ms, n.hold_memory_mb), (None, 2500, 320));
    let n = load_text(&with("handover_hold_packets = 0\nhold_memory_mb = 16384"), &[]).unwrap().nve;
    assert_eq!((n.handover_hold_packets, n.hold_memory_mb), (Some(0), 16_384));
    refused(&with("hold_memory_mb = 0"), &[], "nve.hold_memory_mb", "use 1 to 16384");
    refused(&with("handover_hold_ms = 10001"), &[], "nve.handover_hold_ms", "use 0 to 10000");
    let many = with("handover_hold_packets = 10000001");
    refused(&many, &[], "nve.handover_hold_packets", "use 0 to 10000000");
}

#[test]
fn r58_the_table_of_routes_has_bounds() {
    let with = |line: &str| GOOD.replace("id = \"a\"", &format!("id = \"a\"\n{line}"));
    assert_eq!(load_text(&with("routes = 4194304"), &[]).unwrap().nve.routes, 1 << 22);
    refused(&with("routes = 4194305"), &[], "nve.routes", "use 16 to 4194304");
}

#[test]
fn r95_a_vlan_is_one() {
    let with = |vlan: &str| GOOD.replace("name = \"up0\"", &format!("name = \"up0\"\nvlan = {vlan}"));
    let c = load_text(&with("4094"), &[]).unwrap();
    assert_eq!(c.uplinks[0].vlan.map(|v| v.get()), Some(4094));
    assert!(summary(&c).contains("VLAN 4094"));
    assert_eq!(load_text(GOOD, &[]).unwrap().uplinks[0].vlan, None);
    for bad in ["0", "4095", "4096", "65636", "-1"] {
        refused(&with(bad), &[], "vlan", &format!("{bad} is no VLAN; a VLAN is a number from 1 to 4094"));
    }
    let flag = "name=u,ipv4=198.18.7.1/24,vlan=7,dev=net_null7";
    assert!(load_text(GOOD, &["--uplink", flag]).unwrap().uplinks[1].vlan.is_some());
}

#[test]
fn r95_a_bond_has_members_of_its_own() {
    let with = |bond: &str| {
        GOOD.replace("devargs = \"net_af_packet0,iface=up0\"", &format!("vlan = 100\nbond = {{ {bond} }}"))
    };
    let good = with("mode = \"lacp\", members = [\"0000:01:00.0\", \"0000:01:00.1\"]");
    let c = load_text(&good, &[]).unwrap();
    assert_eq!(c.uplinks[0].bond.as_ref().unwrap().members.len(), 2);
    assert!(summary(&c).contains("bond lacp of 0000:01:00.0 and 0000:01:00.1, VLAN 100"));
    assert!(load_text(&with("mode = \"active-backup\", members = [\"net_null1\"]"), &[]).is_ok());
    let lacp = |members: &str| with(&format!("mode = \"lacp\", members = [{members}]"));
    refused(&lacp(""), &[], "uplink[0].bond.members", "name its devices");
    refused(&with("mode = \"lacp\""), &[], "members", "missing field");
    refused(&with("mode = \"balance\", members = [\"a\"]"), &[], "balance", "`active-backup` or `lacp`");
    let twice = lacp("\"net_null1\", \"net_null2\", \"net_null1,no-rx=1\"");
    refused(&twice, &[], "net_null1 is member 0 and member 2", "each device once");
    refused(&lacp("\"net_tap1\""), &[], "net_tap1 is also uplink[0].bond.members[0]", "name another");
    refused(&lacp("\"a\", \"\""), &[], "uplink[0].bond.members[1]", "PCI address");
    let nine: Vec<String> = (0..9).map(|n| format!("\"net_null{n}\"")).collect();
    refused(&lacp(&nine.join(", ")), &[], "9 members", "at most 8");
    let both = good.replace("vlan = 100", "devargs = \"net_null9\"");
    refused(&both, &[], "uplink[0].devargs", "one of devargs and bond");
    let neither = GOOD.replace("devargs = \"net_af_packet0,iface=up0\"", "");
    refused(&neither, &[], "uplink[0].devargs", "PCI address");
    // Another uplink with the same card.
    let second = "[[uplink]]\nname = \"up1\"\ndevargs = \"0000:01:00.1\"\nipv4 = \"198.18.9.1/24\"\n";
    refused(&format!("{good}{second}"), &[], "uplink[1].devargs", "name another");
    assert!(
        load_text(&good, &["--uplink", "net_null7"]).unwrap().uplinks[0].bond.is_none(),
        "a flag goes before"
    );
}

#[test]
fn an_mtu_that_cannot_carry_tenants_is_refused() {
    refused(&GOOD.replace("name = \"up0\"", "name = \"up0\"\nmtu = 1300"), &[], "uplink[0].mtu", "use 1350");
    refused(
        &GOOD.replace("vni = 100", "vni = 100\nmtu = 1500"),
        &[],
        "port[0].mtu",
        "raise the uplinks' mtu",
    );
}

#[test]
fn addresses_that_are_none_are_refused() {
    refused(&GOOD.replace("198.18.0.1/24", "198.18.0.0/24"), &[], "uplink[0].ipv4", "own address");
    refused(&GOOD.replace("198.18.0.1/24", "198.18.0.1"), &[], "ipv4", "prefix length");
    refused(&GOOD.replace("02:00:00:00:00:01", "01:00:00:00:00:01"), &[], "port[0].mac", "unicast");
    refused(&GOOD.replace("vni = 100", "vni = 16777216"), &[], "vni", "16777215");
    let gateway = GOOD.replace("name = \"up0\"", "name = \"up0\"\ngateway4 = \"198.18.1.1\"");
    refused(&gateway, &[], "uplink[0].gateway4", "router on the link");
    refused(GOOD, &["--nva", "localhost"], "nve.nva", "http://");
}

#[test]
fn no_uplink_and_no_file_are_refused() {
    refused("[nve]\nid = \"a\"\nworkers = \"0\"\n", &[], "uplink", "[[uplink]]");
    let flags = Flags::try_parse_from(["godwit"]).unwrap();
    let e = load(Some(Path::new("/nonexistent/x.toml")), &flags, &[0]).unwrap_err().to_string();
    assert!(e.contains("/nonexistent/x.toml") && e.contains("--config"), "{e}");
}

mod domains;
