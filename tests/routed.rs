//! Routing between the subnets of a domain (R58), with real switches: a VM that moves under traffic to another subnet
//! keeps its gateway; Linux's vxlan device and Linux's routing are peers; a guest gets its addresses from the gateway.

use crate::common::lab;
use serde_json::Value;

/// As `scripts/run --scenario routed` shows it, with fewer moves, a lower rate, and holds that have room for what comes
/// while a busy machine keeps a switch from its core for seconds.
#[track_caller]
fn moves(args: &[&str]) -> Vec<Value> {
    let patient = ["routed", "--rate=1000", "--long-holds", "--duration-per-move", "1.2"];
    let (output, report) = lab(&[&patient[..], args].concat());
    assert!(output.status.success(), "the scenario found fault");
    let runs = report["runs"].as_array().expect("runs").clone();
    for run in &runs {
        assert_eq!(run["lost"], 0, "{run}");
        assert_eq!(run["duplicated"], 0, "{run}");
        assert_eq!(run["tcp_alive"], true, "{run}");
        assert_eq!(run["sent"], run["received"], "{run}");
        assert!(run["reordered"].is_number(), "{run}");
        assert!(run["held"].as_u64() > Some(0) && run["forwarded"].as_u64() > Some(0), "{run}");
        gateway_stays(run);
        ways_are_right(run);
    }
    runs
}

/// What v's kernel knows of its gateway has the same bytes before and after each move, in both families.
#[track_caller]
fn gateway_stays(run: &Value) {
    let seen = run["routed"]["gateway"].as_array().expect("entries");
    assert_eq!(seen.len() as u64, 2 * run["moves"].as_u64().expect("moves"), "{run}");
    for one in seen {
        assert_eq!(one["before"], one["after"], "{one}");
        assert!(one["before"].as_str().expect("an entry").contains("lladdr 02:67:77:00:00:01"), "{one}");
    }
    for echoes in run["routed"]["echoes"].as_array().expect("echoes") {
        assert_eq!(echoes["sent"], echoes["received"], "{echoes}");
    }
}

/// Debian's traceroute shows the gateway, then the VM: across subnets, within a network that is routed only, and with a
/// router VM between for the containers behind it.
#[track_caller]
fn ways_are_right(run: &Value) {
    let seen = run["routed"]["paths"].as_array().expect("ways");
    for way in seen {
        assert_eq!(way["hops"], way["expected"], "{way}");
    }
    for family in [4, 6] {
        for when in ["before", "after"] {
            let of = |w: &&Value| w["family"] == family && w["when"] == when;
            let ends = |w: &Value| {
                format!("{}-{}", w["from"].as_str().expect("a VM"), w["to"].as_str().expect("a VM"))
            };
            let mut ways: Vec<String> = seen.iter().filter(of).map(ends).collect();
            ways.sort();
            assert_eq!(ways, ["k-v", "p-v", "s-t", "v-k", "v-p", "v-t"], "{family} {when}");
        }
    }
}

/// Over IPv6, IPv4 inside.
#[test]
fn r58_a_vm_that_moves_keeps_its_gateway_and_loses_nothing_to_another_subnet() {
    moves(&["--moves", "2", "--inner", "4", "--outer", "6"]);
}

/// Over IPv4, IPv6 inside.
#[test]
fn r58_the_same_over_ipv6() {
    moves(&["--moves", "1", "--inner", "6", "--outer", "4"]);
}

#[test]
#[ignore = "long: more than a minute; two combinations run always"]
fn r58_all_four_combinations_lose_nothing() {
    let runs = moves(&["--rate=5000", "--moves", "5"]);
    assert_eq!(runs.len(), 4);
}

/// Switches that know only whom they asked for, and forget it within seconds (R35, R40).
#[test]
#[ignore = "long: a quarter of a minute; records that are pushed run always"]
fn r58_switches_that_pull_their_records_lose_nothing() {
    moves(&["--pull", "--moves", "2", "--inner", "4", "--outer", "6"]);
}

/// A Linux guest gets its IPv4 address by DHCP and its IPv6 address by the gateway's advertisement, migrates, renews
/// its lease, and keeps all of it.
#[test]
#[ignore = "long: half a minute; the guest is emulated"]
fn r58_a_real_guest_is_told_its_addresses_and_keeps_them() {
    let runs = moves(&["--guests", "qemu", "--moves", "2", "--inner", "4", "--outer", "4"]);
    let lease = &runs[0]["routed"]["lease"];
    assert_eq!(lease["kept"], true, "{lease}");
    let leases = lease["leases"].as_array().expect("leases");
    assert_eq!(leases.len(), 3, "one at first, and one after each move: {lease}");
    assert!(leases[0].as_str().expect("a lease").starts_with("10.1.1.10 10.1.1.1 "), "{lease}");
    assert_eq!(lease["addresses"][0], "2001:db8:1:1:67:77ff:fe01:10a/64", "{lease}");
}

/// The same with Debian's dhclient for IPv6.
#[test]
#[ignore = "long: half a minute; the guest is emulated"]
fn r58_a_real_guest_is_told_its_ipv6_address_by_dhcp() {
    let runs = moves(&["--guests", "qemu", "--managed", "--moves", "1", "--inner", "6", "--outer", "4"]);
    let lease = &runs[0]["routed"]["lease"];
    assert_eq!(lease["kept"], true, "{lease}");
    assert_eq!(lease["leases6"], serde_json::json!(["2001:db8:1:1::a", "2001:db8:1:1::a"]), "{lease}");
}

/// Linux's vxlan device has a VM of another subnet behind it, and Linux routes towards ours: packets with options, in
/// fragments and of full length, and larger ones, which the gateway cuts and Linux puts together; tshark finds all
/// headers and checksums right, the times to live fall by one.
#[test]
fn r58_linux_routes_with_us_and_tshark_finds_no_fault() {
    linux_routes("6");
}

#[test]
#[ignore = "long: a third of a minute; the other outer family runs always"]
fn r58_linux_routes_with_us_over_ipv4() {
    linux_routes("4");
}

#[track_caller]
fn linux_routes(outer: &str) {
    let (output, _) = lab(&["interop", "--routed", "--duration", "2", "--outer", outer]);
    assert!(output.status.success(), "the scenario found fault");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.matches("0 malformed, 0 bad checksums").count(), 2, "at the uplink and at v");
    for line in
        ["Godwit: VNIs {202}, inner times to live {63}", "Linux: VNIs {201}, inner times to live {63}"]
    {
        assert!(text.contains(line), "{line}");
    }
    // What is too big for the way is cut (R8), or its sender told what is not.
    assert_eq!(
        text.matches("were answered; the gateway cut").count(),
        3,
        "plain, in fragments, with an option"
    );
    let told = format!(
        "must not be cut: the gateway says {}, v's kernel keeps to it",
        if outer == "4" { 1450 } else { 1430 }
    );
    assert_eq!(text.matches(&told).count(), 2, "over both inner families");
}

/// A guest that leaves checksums and segmentation to the switch, and its peer in another subnet (R11).
#[test]
#[ignore = "long: half a minute; segments within one subnet are cut always"]
fn r58_segments_of_a_routed_guest_are_whole() {
    let (output, _) = lab(&["guest-tso", "--routed", "--size", "1"]);
    assert!(output.status.success(), "the scenario found fault");
}
