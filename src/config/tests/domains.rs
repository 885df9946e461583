//! Routing domains of the file.

use godwit_wire::{Mac, Prefix};

use super::*;

const ROUTED: &str = r#"
[nve]
id = "a"
workers = "0x1"
[[uplink]]
name = "up0"
devargs = "net_null0"
ipv4 = "198.18.0.1/16"
[[port]]
name = "v"
devargs = "net_null1"
vni = 100
mac = "02:00:00:00:00:01"
ips = ["10.1.0.1", "2001:db8:1::1", "fe80::1"]
[[domain]]
name = "red"
[[domain.route]]
to = "203.0.113.0/28"
vni = 200
via = "02:00:00:01:00:00"
count = 16
vms = 4
[[domain.route]]
to = "0.0.0.0/0"
vni = 100
via = "02:00:00:00:00:01"
[[vn]]
vni = 100
domain = "red"
subnets = [
    { prefix = "10.1.0.0/24", gateway = "10.1.0.254" },
    { prefix = "2001:db8:1::/64", gateway = "2001:db8:1::ff" },
]
[[vn]]
vni = 200
domain = "red"
routed_only = true
subnets = [{ prefix = "10.2.0.0/16", gateway = "10.2.255.254" }]
[[vm]]
vni = 200
mac = "02:00:00:01:00:00"
ips = ["10.2.0.1"]
locator = "198.18.1.0"
count = 1000
nves = 4
"#;

#[track_caller]
fn with(from: &str, to: &str) -> String {
    assert!(ROUTED.contains(from), "{from}");
    ROUTED.replace(from, to)
}

#[test]
fn r58_a_domain_of_the_file_has_vns_subnets_and_routes() {
    let c = load_text(ROUTED, &[]).unwrap();
    assert_eq!(c.domains[0].gateway_mac, godwit_model::GATEWAY_MAC);
    assert!(c.vns[1].routed_only && !c.vns[0].routed_only);
    assert!(summary(&c).contains("domain red of VNs 100, 200: 17 static routes"), "{}", summary(&c));
    let row = &c.domains[0].routes[0];
    let prefixes: Vec<String> = (0..3).filter_map(|n| row.prefix(n)).map(|p| p.to_string()).collect();
    assert_eq!(prefixes, ["203.0.113.0/28", "203.0.113.16/28", "203.0.113.32/28"]);
    assert_eq!(row.next_hop(5), Mac([2, 0, 0, 1, 0, 1]));
    // A VM may route for what contains subnets, and a VN may have none.
    assert!(
        load_text(&with("subnets = [{ prefix = \"10.2.0.0/16\", gateway = \"10.2.255.254\" }]", ""), &[])
            .is_ok()
    );
}

#[test]
fn r58_rows_of_prefixes_end_where_there_are_no_more() {
    let row = |to: &str| DomainRouteConfig {
        to: to.parse().unwrap(),
        ..load_text(ROUTED, &[]).unwrap().domains[0].routes[0].clone()
    };
    let last = |to: &str, n: u32| row(to).prefix(n).map(|p: Prefix| p.to_string());
    assert_eq!(last("0.0.0.0/0", 0).as_deref(), Some("0.0.0.0/0"));
    assert_eq!(last("0.0.0.0/0", 1), None);
    assert_eq!(last("255.255.255.0/24", 1), None);
    assert_eq!(last("10.0.0.1", 255).as_deref(), Some("10.0.1.0"));
    assert_eq!(last("::/0", 1), None);
    assert_eq!(last("2001:db8::/32", 1).as_deref(), Some("2001:db9::/32"));
    assert_eq!(last("ffff:ffff::/32", 1), None);
}

#[test]
fn r58_domains_that_cannot_be_are_refused() {
    let nva = with("id = \"a\"", "id = \"a\"\nnva = \"http://192.0.2.1:6640\"");
    refused(&nva, &[], "domain[0]: domains are the NVA's", "drop nve.nva");
    refused(&with("name = \"red\"", "name = \"-\""), &[], "domain[0].name", "rename");
    refused(&format!("{ROUTED}[[domain]]\nname = \"red\"\n"), &[], "domain[1].name", "name of its own");
    let mac = |mac: &str| with("name = \"red\"", &format!("name = \"red\"\ngateway_mac = \"{mac}\""));
    refused(&mac("01:00:5e:00:00:01"), &[], "domain[0].gateway_mac", "locally administered");
    refused(&mac("02:00:00:00:00:01"), &[], "port[0].mac: 02:00:00:00:00:01 is the gateway's", "gateway_mac");
    refused(&mac("02:00:00:01:03:e7"), &[], "vm[0].mac", "another address");
    assert!(load_text(&mac("02:00:00:01:03:e8"), &[]).is_ok(), "the address behind the row");
}

#[test]
fn r58_subnets_that_cannot_be_are_refused() {
    refused(
        &with("domain = \"red\"\nrouted_only", "domain = \"blue\"\nrouted_only"),
        &[],
        "vn[1].domain",
        "[[domain]]",
    );
    refused(&with("domain = \"red\"\nrouted_only", "routed_only"), &[], "vn[1].routed_only", "set domain");
    refused(&with("domain = \"red\"\nsubnets", "subnets"), &[], "vn[0].subnets", "set domain");
    let second = |prefix: &str, gateway: &str| {
        with("\"10.2.0.0/16\", gateway = \"10.2.255.254\"", &format!("\"{prefix}\", gateway = \"{gateway}\""))
    };
    let overlap = "vn[0].subnets[0].prefix: 10.1.0.0/24 overlaps 10.0.0.0/8, which is vn[1].subnets[0]";
    refused(&second("10.0.0.0/8", "10.2.0.254"), &[], overlap, "addresses of its own");
    refused(&second("10.2.0.0/16", "10.3.0.1"), &[], "vn[1].subnets[0].gateway: 10.3.0.1 is outside", "host");
    refused(&second("10.2.0.0/16", "10.2.255.255"), &[], "vn[1].subnets[0].gateway", "host");
    refused(&second("10.2.0.0/16", "2001:db8::1"), &[], "not of the family", "host in the subnet");
    refused(&second("10.2.0.1", "10.2.0.1"), &[], "vn[1].subnets[0].prefix", "shorter prefix");
    refused(&second("224.0.0.0/8", "224.0.0.1"), &[], "multicast", "unicast");
    refused(&second("10.2.0.1/16", "10.2.0.9"), &[], "not a prefix", "bits beyond LENGTH clear");
    let many: Vec<String> =
        (0..17).map(|n| format!("{{ prefix = \"10.{n}.0.0/16\", gateway = \"10.{n}.0.1\" }}")).collect();
    let many = with("{ prefix = \"10.2.0.0/16\", gateway = \"10.2.255.254\" }", &many.join(", "));
    refused(&many, &[], "vn[1].subnets: 17 subnets", "use 16 at most");
}

#[test]
fn r58_addresses_that_others_have_or_no_subnet_has_are_refused() {
    let ips = |ip: &str| with("[\"10.2.0.1\"]", &format!("[\"{ip}\"]"));
    refused(
        &ips("10.3.0.1"),
        &[],
        "vm[0].ips: 10.3.0.1 is in no subnet of VN 200: 10.2.0.0/16",
        "its subnet",
    );
    refused(&ips("10.2.255.0"), &[], "vm[0].ips: the last address, 10.3.2.231", "lower count");
    refused(&ips("10.2.0.0"), &[], "the network or the broadcast address", "of a host");
    // A row of a thousand that ends behind the gateway.
    refused(
        &with("gateway = \"10.2.255.254\"", "gateway = \"10.2.1.1\""),
        &[],
        "10.2.1.1 is of vm[0].ips too",
        "of its own",
    );
    refused(&ips("255.255.255.0"), &[], "vm[0].ips: there are no 1000 addresses", "begin earlier");
    let again =
        "[[vm]]\nvni = 200\nmac = \"02:00:00:02:00:00\"\nips = [\"10.2.3.232\"]\nlocator = \"198.18.1.0\"\n";
    refused(&format!("{ROUTED}{again}"), &[], "vm[1].ips: 10.2.3.232 is of vm[0].ips too", "of its own");
    assert!(load_text(&format!("{ROUTED}{}", again.replace(".232", ".233")), &[]).is_ok());
    let little = with("id = \"a\"", "id = \"a\"\naddresses = 1000");
    let routes = with("id = \"a\"", "id = \"a\"\nroutes = 1024");
    refused(&routes, &[], "nve.routes: domain \"red\" alone has 1025 routes", "set it to 1025");
    refused(&little, &[], "nve.addresses: domain \"red\" alone has 1005 addresses", "set it to 1005");
    refused(&with("id = \"a\"", "id = \"a\"\naddresses = 1"), &[], "nve.addresses", "use 16 to");
}

#[test]
fn r58_routes_that_lead_nowhere_are_refused() {
    let route = |keys: &str| {
        let rest = ROUTED.split_once("count = 16\nvms = 4\n").unwrap();
        format!("{}[[domain.route]]\n{keys}\n{}", rest.0, rest.1)
    };
    let via = "vni = 200\nvia = \"02:00:00:01:00:00\"";
    let to = |to: &str| route(&format!("to = \"{to}\"\n{via}"));
    assert!(load_text(&to("192.0.2.0/24"), &[]).is_ok());
    refused(
        &to("203.0.113.0/28"),
        &[],
        "domain[0].route[1].to: 203.0.113.0/28 is in domain[0].route[0].to",
        "one next hop",
    );
    refused(
        &to("10.2.7.0/24"),
        &[],
        "domain[0].route[1].to: 10.2.7.0/24 is in subnet 10.2.0.0/16",
        "outside",
    );
    refused(&to("10.2.0.0/16"), &[], "is in subnet 10.2.0.0/16 (vn[1].subnets[0])", "outside");
    assert!(load_text(&to("10.0.0.0/8"), &[]).is_ok(), "it contains subnets, as a default route does");
    refused(&to("10.0.0.1/8"), &[], "not a prefix", "bits beyond LENGTH clear");
    refused(&to("127.0.0.0/8"), &[], "loopback", "unicast");
    let row = |row: &str| route(&format!("to = \"192.0.2.0/24\"\n{row}"));
    refused(
        &row("vni = 201\nvia = \"02:00:00:01:00:00\""),
        &[],
        "domain[0].route[1].vni: VN 201 is not in",
        "set domain",
    );
    refused(
        &row("vni = 200\nvia = \"02:00:00:00:00:01\""),
        &[],
        "no VM 02:00:00:00:00:01 in VN 200",
        "[[vm]] or [[port]]",
    );
    let most = "vni = 200\nvia = \"02:00:00:01:03:e0\"\ncount = 9\nvms = 9";
    refused(&row(most), &[], "no VM 02:00:00:01:03:e8", "[[vm]] or [[port]]");
    assert!(load_text(&row(&most.replace("vms = 9", "vms = 8")), &[]).is_ok());
    refused(
        &row(&format!("{via}\ncount = 2\nvms = 3")),
        &[],
        "domain[0].route[1].count",
        "no more VMs than prefixes",
    );
    refused(&row(&format!("{via}\ncount = 0")), &[], "domain[0].route[1].count", "1 or more");
    refused(&row(&format!("{via}\ncount = 65536")), &[], "65538 static routes", "use 65536 at most");
    refused(
        &to("223.255.255.0/24").replace("223.255.255.0/24\"\n", "223.255.255.0/24\"\ncount = 2\n"),
        &[],
        "multicast",
        "unicast",
    );
}

#[test]
fn r58_a_domain_has_few_lengths_of_prefixes() {
    let routes = |lengths: std::ops::Range<u8>| -> String {
        let route = |n: u8| {
            let to = Prefix::of("192.0.2.0".parse().unwrap(), n);
            format!("[[domain.route]]\nto = \"{to}\"\nvni = 100\nvia = \"02:00:00:00:00:01\"\n")
        };
        let (front, rest) = ROUTED.split_once("[[vn]]").unwrap();
        format!("{front}{}[[vn]]{rest}", lengths.map(route).collect::<String>())
    };
    // Beside /0, /16, /24 and /28.
    assert!(load_text(&routes(20..24), &[]).is_ok());
    let what = "domain[0].route[6].to: the domain's prefixes have 9 lengths with it: /0, /16, /19, /20";
    refused(&routes(19..24), &[], what, "use 8 lengths of a family at most");
}

#[test]
fn r58_subnets_alone_have_few_lengths_too() {
    let subnets = |lengths: std::ops::Range<u8>, v6: bool| {
        let one = |len: u8| match v6 {
            false => format!("{{ prefix = \"10.{len}.0.0/{len}\", gateway = \"10.{len}.0.1\" }}"),
            true => format!("{{ prefix = \"2001:db8:{len}::/{len}\", gateway = \"2001:db8:{len}::1\" }}"),
        };
        let all: Vec<String> = lengths.map(one).collect();
        // Routes of a length of their own say nothing of it.
        let (front, rest) = ROUTED.split_once("[[domain.route]]").unwrap();
        let (_, rest) = rest.split_once("[[vn]]").unwrap();
        let text = format!("{front}[[vn]]{rest}");
        let old = "{ prefix = \"10.2.0.0/16\", gateway = \"10.2.255.254\" }";
        assert!(text.contains(old));
        text.replace(old, &[old.to_owned(), all.join(", ")].join(", "))
    };
    // Beside /16 and /24 of IPv4, and /64 of IPv6.
    assert!(load_text(&subnets(17..23, false), &[]).is_ok());
    let what = "domain[0]: the subnets of domain \"red\" have 9 lengths";
    refused(&subnets(17..24, false), &[], what, "use 8 lengths of a family at most");
    assert!(load_text(&subnets(49..56, true), &[]).is_ok());
    refused(&subnets(49..57, true), &[], what, "use 8 lengths of a family at most");
}
