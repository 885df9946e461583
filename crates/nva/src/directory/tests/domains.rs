//! Routing domains, subnets and static routes: what orders do, and what is refused of them (R58).

use godwit_model::{
    Advertise, Dhcp, DomainId, GATEWAY_MAC, Learning, Multicast, Subnet, UnderlayGroup, VnRouting,
};
use godwit_wire::Prefix;

use super::*;

pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(super) fn subnet(text: &str, gateway: &str) -> Subnet {
    Subnet { prefix: prefix(text), gateway: gateway.parse().unwrap(), advertise: None, dhcp: None }
}

/// A VN of domain 1 with these subnets.
pub(super) fn routed(name: &str, n: u32, subnets: &[Subnet]) -> VnRecord {
    let routing = VnRouting { domain: DomainId(1), routed_only: false, subnets: subnets.to_vec() };
    let settings = VnSettings { routing: Some(routing), ..VnSettings::default() };
    VnRecord { vni: vni(n), name: name.into(), settings }
}

/// VM `name` of a VN, with its address and the last octet of its MAC.
pub(super) fn vm(name: &str, vn: &str, n: u8, ip: &str) -> VmDefinition {
    let ipv4 = ip.parse().ok().into_iter().collect();
    let ipv6 = ip.parse().ok().into_iter().collect();
    VmDefinition { name: name.into(), vn: vn.into(), mac: key(n).mac, ipv4, ipv6, ..definition(n) }
}

/// A next hop for anything.
pub(super) fn router(name: &str, vn: &str, n: u8, ip: &str) -> VmDefinition {
    VmDefinition { router: true, ..vm(name, vn, n, ip) }
}

/// Domain shop with VN web (200, 10.1.0.0/24 and 2001:db8:1::/64) and VN db (201, 10.2.0.0/24).
pub(super) fn shop() -> World {
    let mut w = World::new();
    w.create_domain("shop").unwrap();
    let web = [subnet("2001:db8:1::/64", "2001:db8:1::1"), subnet("10.1.0.0/24", "10.1.0.1")];
    w.create_vn(routed("web", 200, &web)).unwrap();
    w.create_vn(routed("db", 201, &[subnet("10.2.0.0/24", "10.2.0.1")])).unwrap();
    w
}

/// The refusal names all of these, and is one line.
fn says<T: std::fmt::Debug>(refused: Result<T, Refusal>, kind: RefusalKind, parts: &[&str]) {
    let refusal = refused.unwrap_err();
    let text = refusal.to_string();
    assert_eq!(refusal.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    assert!(!text.contains("  ") && !text.contains('\n'), "{text}");
}

#[test]
fn r58_a_domain_has_a_number_of_its_own_for_ever() {
    let mut w = World::new();
    let (shop, out) = w.create_domain("shop").unwrap();
    assert_eq!((shop.record.id, shop.gateway_mac), (DomainId(1), GATEWAY_MAC));
    assert!(out.iter().any(|o| matches!(o, Output::Persist(Write::PutDomain(_)))));
    assert_eq!(w.create_domain("shop").unwrap().1, [], "the same again changes nothing");
    w.delete_domain("shop").unwrap();
    w.restart();
    assert_eq!(w.create_domain("shop").unwrap().0.record.id, DomainId(2), "another one");
    assert!(matches!(w.create_domain("no name"), Err(Refusal::Name(_))));
    says(w.delete_domain("shpo"), RefusalKind::NotFound, &["shpo", "domain list"]);
    let mut small = World::with(Config { max_domains: 1, ..Config::default() });
    small.create_domain("a").unwrap();
    says(small.create_domain("b"), RefusalKind::Full, &["1 routing domains"]);
}

#[test]
fn r58_domains_subnets_and_routes_outlive_a_restart() {
    let mut w = shop();
    w.define_vm(router("fw", "web", 9, "10.1.0.9")).unwrap();
    w.add_route("shop", "0.0.0.0/0", "fw").unwrap();
    w.add_subnet("db", subnet("10.3.0.0/24", "10.3.0.1")).unwrap();
    let before = (w.d.domains(), w.d.routes("shop").unwrap(), w.d.vns());
    w.restart();
    assert_eq!((w.d.domains(), w.d.routes("shop").unwrap(), w.d.vns()), before);
    let route = &before.1[0];
    assert_eq!((route.vm.as_str(), route.vn.as_str(), route.prefix), ("fw", "web", prefix("0.0.0.0/0")));
    // What orders are checked against is there again, too.
    says(w.delete_vm("fw"), RefusalKind::State, &["fw", "shop", "0.0.0.0/0"]);
    let same = subnet("10.3.0.0/25", "10.3.0.1");
    says(w.add_subnet("web", same), RefusalKind::Exists, &["10.3.0.0/25", "10.3.0.0/24"]);
}

#[test]
fn r58_a_domain_with_vns_and_a_vn_of_no_domain_are_told_so() {
    let mut w = shop();
    says(w.delete_domain("shop"), RefusalKind::State, &["2 VNs", "web, db", "--no-domain", "delete them"]);
    let mut elsewhere = routed("lab", 300, &[]);
    elsewhere.settings.routing.as_mut().unwrap().domain = DomainId(7);
    says(w.create_vn(elsewhere), RefusalKind::NotFound, &["number 7", "domain create"]);
    let s = subnet("10.9.0.0/24", "10.9.0.1");
    says(w.add_subnet("red", s.clone()), RefusalKind::State, &["red", "--domain"]);
    says(w.remove_subnet("red", "10.9.0.0/24"), RefusalKind::State, &["red", "--domain"]);
    says(w.add_subnet("rde", s), RefusalKind::NotFound, &["rde"]);
    w.delete_vn("web").unwrap();
    w.delete_vn("db").unwrap();
    w.delete_domain("shop").unwrap();
}

#[test]
fn r58_subnets_of_a_domain_do_not_overlap_and_those_of_two_may() {
    let mut w = shop();
    for (over, gateway) in
        [("10.1.0.0/16", "10.1.9.1"), ("10.1.0.128/25", "10.1.0.129"), ("10.0.0.0/8", "10.9.0.1")]
    {
        let parts = [over, "10.1.0.0/24", "\"web\"", "\"db\"", "shop", "subnet remove web 10.1.0.0/24"];
        let s = subnet(over, gateway);
        let refused = w.add_subnet("db", s.clone());
        // The widest one overlaps both; the later one is named.
        let parts =
            if over == "10.0.0.0/8" { [over, "10.2.0.0/24", "\"db\"", "shop", "", ""] } else { parts };
        says(refused, RefusalKind::Exists, &parts);
        assert!(w.create_vn(routed("new", 300, &[s])).is_err(), "{over}");
    }
    let twice = [subnet("10.9.0.0/16", "10.9.0.1"), subnet("10.9.1.0/24", "10.9.1.1")];
    says(
        w.create_vn(routed("new", 300, &twice)),
        RefusalKind::Exists,
        &["10.9.1.0/24", "10.9.0.0/16", "new"],
    );
    w.create_domain("other").unwrap();
    let mut same = routed("twin", 300, &[subnet("10.1.0.0/24", "10.1.0.1")]);
    same.settings.routing.as_mut().unwrap().domain = DomainId(2);
    w.create_vn(same).unwrap();
    w.define_vm(vm("a", "web", 7, "10.1.0.7")).unwrap();
    w.define_vm(vm("b", "twin", 7, "10.1.0.7")).unwrap();
}

#[test]
fn r58_a_subnet_that_makes_no_sense_is_refused() {
    let mut w = shop();
    let refused = [
        ("10.9.0.0/24", "10.8.0.1", "gateway 10.8.0.1 is outside of subnet 10.9.0.0/24"),
        ("10.9.0.0/24", "2001:db8::1", "is not of the family"),
        ("10.9.0.0/24", "10.9.0.0", "network or the broadcast"),
        ("10.9.0.0/24", "10.9.0.255", "network or the broadcast"),
        ("10.9.0.1/32", "10.9.0.1", "no room for a VM"),
        ("127.1.0.0/16", "127.1.0.1", "loopback"),
        ("169.254.1.0/24", "169.254.1.1", "link-local"),
        ("224.1.0.0/16", "224.1.0.1", "multicast"),
        ("0.0.0.0/0", "10.0.0.1", "not routed"),
        ("::ffff:10.0.0.0/104", "::ffff:10.0.0.1", "IPv4-mapped"),
        ("fe80::/64", "fe80::1", "link-local"),
        ("ff05::/64", "ff05::1", "multicast"),
    ];
    for (text, gateway, why) in refused {
        says(w.add_subnet("db", subnet(text, gateway)), RefusalKind::Invalid, &[why]);
    }
    let advertise = Some(Advertise { managed: false, other: false, lifetime_s: 1800 });
    let v4 = Subnet { advertise, ..subnet("10.9.0.0/24", "10.9.0.1") };
    says(w.add_subnet("db", v4), RefusalKind::Invalid, &["IPv6"]);
    let dns = |lease_s, ip: &str| Subnet {
        dhcp: Some(Dhcp { lease_s, dns: vec![ip.parse().unwrap()] }),
        ..subnet("10.9.0.0/24", "10.9.0.1")
    };
    says(w.add_subnet("db", dns(1, "10.9.0.2")), RefusalKind::Invalid, &["60 s"]);
    says(w.add_subnet("db", dns(60, "2001:db8::1")), RefusalKind::Invalid, &["family"]);
    w.add_subnet("db", dns(60, "10.9.0.2")).unwrap();
    // Both addresses of a /31 are individual ones.
    w.add_subnet("db", subnet("10.8.0.0/31", "10.8.0.0")).unwrap();
}

#[test]
fn r58_subnets_come_and_go_while_their_vn_is_in_use() {
    let mut w = shop();
    let (a, _) = w.hello("a");
    w.say(a, NveToNva::Subscribe { vni: vni(200), mode: DirectoryMode::Push, lingers: false });
    let known = |out: &[Output]| match sent(out, a).pop() {
        Some(NvaToNve::End { settings, .. }) => settings.routing.map(|r| r.subnets),
        _ => None,
    };
    let new = subnet("10.0.9.0/24", "10.0.9.1");
    let (info, out) = w.add_subnet("web", new.clone()).unwrap();
    let subnets = info.record.settings.routing.unwrap().subnets;
    assert_eq!(subnets[0], new, "in the order of prefixes");
    assert_eq!((subnets.len(), known(&out)), (3, Some(subnets)));
    assert_eq!(w.add_subnet("web", new.clone()).unwrap().1, [], "the same again changes nothing");
    let other = Subnet { gateway: [10, 0, 9, 254].into(), ..new.clone() };
    let (_, out) = w.add_subnet("web", other.clone()).unwrap();
    assert_eq!(known(&out).map(|s| s[0].clone()), Some(other), "another gateway");
    says(w.remove_subnet("web", "10.0.8.0/24"), RefusalKind::NotFound, &["10.0.8.0/24", "10.0.9.0/24"]);
    for n in 1..=7 {
        w.define_vm(vm(&format!("v{n}"), "web", n, &format!("10.0.9.{n}"))).unwrap();
    }
    let parts = ["7 VMs", "10.0.9.0/24", "v1, v2, v3, v4, v5 and 2 more"];
    says(w.remove_subnet("web", "10.0.9.0/24"), RefusalKind::State, &parts);
    for n in 1..=7 {
        w.delete_vm(&format!("v{n}")).unwrap();
    }
    let (_, out) = w.remove_subnet("web", "10.0.9.0/24").unwrap();
    assert_eq!(known(&out).map(|s| s.len()), Some(2));
    w.add_subnet("db", new).unwrap();
}

#[test]
fn r58_bounds_of_subnets_and_of_prefix_lengths_are_told() {
    let mut w = shop();
    // web has /24 and db too; seven more lengths are possible.
    for len in 17..24u8 {
        let net = format!("10.{}.0.0", 100 + len);
        w.add_subnet("db", subnet(&format!("{net}/{len}"), &format!("10.{}.0.1", 100 + len))).unwrap();
    }
    let parts = ["10.200.0.0/16", "IPv4", "/17, /18, /19, /20, /21, /22, /23, /24", "shop", "8 are possible"];
    says(w.add_subnet("db", subnet("10.200.0.0/16", "10.200.0.1")), RefusalKind::Full, &parts);
    w.define_vm(router("fw", "web", 9, "10.1.0.9")).unwrap();
    says(w.add_route("shop", "192.168.0.0/16", "fw"), RefusalKind::Full, &["192.168.0.0/16", "/17"]);
    w.add_route("shop", "192.168.7.7", "fw").unwrap();
    w.add_route("shop", "192.168.0.0/17", "fw").unwrap();
    w.add_subnet("db", subnet("2001:db8:9::/48", "2001:db8:9::1")).unwrap();
    // A length that nothing has any more is free.
    w.remove_subnet("db", "10.118.0.0/18").unwrap();
    w.add_route("shop", "192.168.0.0/16", "fw").unwrap();
    for n in 0..9u8 {
        let net = format!("10.99.{n}");
        let added = w.add_subnet("db", subnet(&format!("{net}.0/24"), &format!("{net}.1")));
        // One of its own, six of other lengths, one of IPv6.
        if n < 8 { drop(added.unwrap()) } else { says(added, RefusalKind::Full, &["\"db\"", "16 at most"]) }
    }
}

#[test]
fn r58_addresses_of_vms_are_in_the_subnets_of_their_vn_and_not_the_gateways() {
    let mut w = shop();
    let parts = ["10.9.0.7", "\"v\"", "10.1.0.0/24", "\"web\"", "vn subnet add web"];
    says(w.define_vm(vm("v", "web", 7, "10.9.0.7")), RefusalKind::Invalid, &parts);
    let parts = ["address 10.1.0.1", "\"v\"", "10.1.0.0/24", "gateway"];
    says(w.define_vm(vm("v", "web", 7, "10.1.0.1")), RefusalKind::Exists, &parts);
    for (ip, what) in [("10.1.0.0", "network"), ("10.1.0.255", "broadcast")] {
        says(w.define_vm(vm("v", "web", 7, ip)), RefusalKind::Invalid, &[ip, what, "10.1.0.0/24"]);
    }
    // Not routed: a family without a subnet in the VN, and what no router forwards.
    w.define_vm(vm("v", "db", 7, "2001:db8:7::7")).unwrap();
    w.define_vm(vm("l", "web", 8, "fe80::8")).unwrap();
    let add = |ip: &str| VmChanges {
        ipv4: ListChange { remove: vec![], add: vec![ip.parse().unwrap()] },
        ..VmChanges::default()
    };
    says(w.set_vm("v", add("10.1.0.7")), RefusalKind::Invalid, &["10.1.0.7", "10.2.0.0/24"]);
    w.set_vm("v", add("10.2.0.7")).unwrap();
    // What it has stays its own where a subnet of the family comes later; nothing else outside comes to it.
    w.add_subnet("db", subnet("2001:db8:2::/64", "2001:db8:2::1")).unwrap();
    w.set_vm("v", add("10.2.0.8")).unwrap();
    let v6 = VmChanges {
        ipv6: ListChange { remove: vec![], add: vec!["2001:db8:7::8".parse().unwrap()] },
        ..VmChanges::default()
    };
    says(w.set_vm("v", v6), RefusalKind::Invalid, &["2001:db8:7::8"]);
    // The other way round: the gateway is an address that a VM has.
    let s = subnet("10.2.0.0/24", "10.2.0.7");
    says(w.add_subnet("db", s), RefusalKind::Exists, &["10.2.0.7", "gateway", "\"v\"", "vm set v"]);
    // A VN without a domain has no subnets that VMs could be outside of.
    w.define_vm(vm("free", "red", 9, "10.9.0.9")).unwrap();
}

#[test]
fn r58_the_gateways_mac_and_prefixes_with_its_address_are_no_vms() {
    let mut w = shop();
    let mac = VmDefinition { mac: GATEWAY_MAC, ..vm("v", "web", 7, "10.1.0.7") };
    says(w.define_vm(mac.clone()), RefusalKind::Exists, &["02:67:77:00:00:01", "\"v\"", "--gateway-mac"]);
    let with = |allowed: godwit_model::Allowed| VmDefinition { allowed, ..vm("v", "web", 7, "10.1.0.7") };
    let nested = godwit_model::Allowed { nested: vec![GATEWAY_MAC], ..Default::default() };
    says(w.define_vm(with(nested)), RefusalKind::Exists, &["02:67:77:00:00:01"]);
    let virtual_ips = vec![prefix("10.1.0.0/28")];
    let shares = godwit_model::Allowed { virtual_ips: virtual_ips.clone(), ..Default::default() };
    says(w.define_vm(with(shares)), RefusalKind::Exists, &["virtual prefix 10.1.0.0/28", "10.1.0.1"]);
    let routes = godwit_model::Allowed { routes: vec![prefix("10.1.0.0/30")], ..Default::default() };
    says(w.define_vm(with(routes)), RefusalKind::Exists, &["route 10.1.0.0/30", "10.1.0.1"]);
    // The other way round.
    let shares = godwit_model::Allowed { virtual_ips: vec![prefix("10.1.0.32/28")], ..Default::default() };
    w.define_vm(with(shares)).unwrap();
    let moved = w.add_subnet("web", subnet("10.1.0.0/24", "10.1.0.33"));
    says(moved, RefusalKind::Exists, &["virtual prefix 10.1.0.32/28", "10.1.0.33", "\"v\""]);
    // Where nothing is routed, it is a MAC as any; a start with it as the gateways' is told of its owner.
    w.define_vm(VmDefinition { vn: "red".into(), name: "free".into(), ipv4: vec![], ..mac }).unwrap();
    assert_eq!(w.d.has_gateway_mac(), None);
    let config = Config { gateway_mac: key(7).mac, ..Config::default() };
    let d = Directory::restore(config, w.durable.clone(), 9);
    assert_eq!(d.has_gateway_mac().map(|r| r.name.as_str()), Some("v"));
}

#[test]
fn r58_a_vn_that_cannot_join_a_domain_or_leave_it_is_told_why() {
    let mut w = shop();
    w.create_domain("mall").unwrap();
    let into = |domain: u32| VnChanges { domain: Some(Some(DomainId(domain))), ..VnChanges::default() };
    let out = VnChanges { domain: Some(None), ..VnChanges::default() };
    says(w.set_vn("web", into(2)), RefusalKind::State, &["\"web\"", "\"shop\"", "\"mall\"", "--no-domain"]);
    for vn in ["web", "red"] {
        says(w.set_vn(vn, into(9)), RefusalKind::NotFound, &["number 9"]);
    }
    let only = VnChanges { routed_only: Some(true), ..VnChanges::default() };
    says(w.set_vn("red", only), RefusalKind::State, &["\"red\"", "--domain"]);
    w.define_vm(router("fw", "web", 9, "10.1.0.9")).unwrap();
    w.add_route("shop", "0.0.0.0/0", "fw").unwrap();
    let parts = ["\"web\"", "\"shop\"", "1 routes", "0.0.0.0/0 by fw", "domain route remove shop"];
    says(w.set_vn("web", out), RefusalKind::State, &parts);
    w.remove_route("shop", "0.0.0.0/0").unwrap();
    // Its VMs keep their addresses; back in the domain none may have the gateway's.
    w.set_vn("web", out).unwrap();
    says(w.delete_domain("shop"), RefusalKind::State, &["\"shop\"", "1 VNs", "db", "--no-domain"]);
    let mac = VmDefinition { mac: GATEWAY_MAC, ..vm("v", "web", 7, "10.1.0.1") };
    w.define_vm(mac).unwrap();
    says(w.set_vn("web", into(1)), RefusalKind::Exists, &["02:67:77:00:00:01", "\"v\"", "--gateway-mac"]);
    w.delete_vm("v").unwrap();
    w.define_vm(vm("l", "web", 7, &GATEWAY_MAC.link_local().to_string())).unwrap();
    w.set_vn("web", into(2)).unwrap();
    let parts = ["fe80::67:77ff:fe00:1", "gateway", "10.1.0.0/24", "\"web\"", "\"l\""];
    says(w.add_subnet("web", subnet("10.1.0.0/24", "10.1.0.1")), RefusalKind::Exists, &parts);
    w.delete_vm("l").unwrap();
    w.add_subnet("web", subnet("10.1.0.0/24", "10.1.0.1")).unwrap();
}

#[test]
fn r58_the_gateways_link_local_address_is_no_vms() {
    let mut w = shop();
    let gateway = GATEWAY_MAC.link_local().to_string();
    let parts = [gateway.as_str(), "\"v\"", "gateway", "\"web\""];
    says(w.define_vm(vm("v", "web", 7, &gateway)), RefusalKind::Exists, &parts);
    w.define_vm(vm("v", "web", 7, "10.1.0.7")).unwrap();
    let add = VmChanges {
        ipv6: ListChange { remove: vec![], add: vec![GATEWAY_MAC.link_local()] },
        ..VmChanges::default()
    };
    says(w.set_vm("v", add), RefusalKind::Exists, &parts);
    // Nor does it become one's by what a VM says.
    let to = VnChanges { learning_v6: Some(Some(Learning::Learned(8))), ..VnChanges::default() };
    w.set_vn("web", to).unwrap();
    let (a, _) = w.hello("a");
    w.say(a, NveToNva::Subscribe { vni: vni(200), mode: DirectoryMode::Push, lingers: false });
    w.delete_vm("v").unwrap();
    w.define_vm(VmDefinition { pinned: Some(id("a")), ..vm("v", "web", 7, "10.1.0.7") }).unwrap();
    let key = VmKey { vni: vni(200), mac: key(7).mac };
    let ip = Some(GATEWAY_MAC.link_local().into());
    let out = w.say(a, NveToNva::Bind { seq: 1, key, mac: key.mac, ip, announced: true, age_ms: 0 });
    let refused = sent(&out, a).into_iter().find_map(|m| match m {
        NvaToNve::BindRefused { text, .. } => Some(text),
        _ => None,
    });
    assert!(refused.is_some_and(|text| text.contains("the gateway's address")), "{out:?}");
    // Another link-local address is; and where nothing is routed there is no gateway.
    w.define_vm(vm("l", "web", 8, "fe80::8")).unwrap();
    w.define_vm(vm("free", "red", 9, &gateway)).unwrap();
}

#[test]
fn r58_r93_what_a_vm_binds_is_in_a_subnet_and_not_the_gateways() {
    let mut w = shop();
    let to = VnChanges { learning_v4: Some(Some(Learning::Learned(8))), ..VnChanges::default() };
    w.set_vn("web", to).unwrap();
    let (a, _) = w.hello("a");
    w.say(a, NveToNva::Subscribe { vni: vni(200), mode: DirectoryMode::Push, lingers: false });
    let key = VmKey { vni: vni(200), mac: key(7).mac };
    let pinned = VmDefinition { pinned: Some(id("a")), ..vm("v", "web", 7, "10.1.0.7") };
    w.define_vm(pinned).unwrap();
    let mut bind = |ip: &str| {
        let ip = Some(ip.parse().unwrap());
        let out = w.say(a, NveToNva::Bind { seq: 1, key, mac: key.mac, ip, announced: true, age_ms: 0 });
        sent(&out, a).into_iter().find_map(|m| match m {
            NvaToNve::Bound { .. } => Some(String::new()),
            NvaToNve::BindRefused { text, .. } => Some(text),
            _ => None,
        })
    };
    assert_eq!(bind("10.1.0.8").as_deref(), Some(""));
    let outside = bind("10.9.0.8").unwrap();
    assert!(outside.contains("outside the subnets") && outside.contains("10.1.0.0/24"), "{outside}");
    let gateway = bind("10.1.0.1").unwrap();
    assert!(gateway.contains("the gateway's address"), "{gateway}");
    let (vms, some) = (1, "v".into());
    let parts = Refusal::SubnetHasVms { vn: "web".into(), prefix: prefix("10.1.0.0/24"), vms, some };
    assert_eq!(w.remove_subnet("web", "10.1.0.0/24").err(), Some(parts));
}

#[test]
fn r58_r94_a_route_leads_to_a_vm_that_may_send_from_its_prefix() {
    let mut w = shop();
    w.define_vm(vm("node", "web", 7, "10.1.0.7")).unwrap();
    w.define_vm(router("far", "red", 9, "192.168.0.9")).unwrap();
    let parts = ["\"far\"", "\"red\"", "\"shop\""];
    says(w.add_route("shop", "10.9.0.0/24", "far"), RefusalKind::State, &parts);
    let parts = ["\"node\"", "10.9.0.0/24", "vm set node --route 10.9.0.0/24", "--router"];
    says(w.add_route("shop", "10.9.0.0/24", "node"), RefusalKind::State, &parts);
    says(w.add_route("shpo", "10.9.0.0/24", "node"), RefusalKind::NotFound, &["shpo"]);
    says(w.add_route("shop", "10.9.0.0/24", "nod"), RefusalKind::NotFound, &["nod"]);
    let allowed = |remove: &[&str], add: &[&str]| VmChanges {
        routes: ListChange {
            remove: remove.iter().map(|p| prefix(p)).collect(),
            add: add.iter().map(|p| prefix(p)).collect(),
        },
        ..VmChanges::default()
    };
    w.set_vm("node", allowed(&[], &["10.9.0.0/16"])).unwrap();
    w.add_route("shop", "10.9.0.0/24", "node").unwrap();
    assert_eq!(w.add_route("shop", "10.9.0.0/24", "node").unwrap().1, [], "the same again changes nothing");
    let parts = ["\"node\"", "10.9.0.0/24", "shop", "domain route remove shop 10.9.0.0/24"];
    says(w.set_vm("node", allowed(&["10.9.0.0/16"], &[])), RefusalKind::State, &parts);
    w.set_vm("node", allowed(&["10.9.0.0/16"], &["10.9.0.0/24"])).unwrap();
    says(w.delete_vm("node"), RefusalKind::State, &["\"node\"", "1 routes", "10.9.0.0/24", "shop"]);
    // Another next hop in its place.
    w.define_vm(router("fw", "db", 8, "10.2.0.8")).unwrap();
    let (route, _) = w.add_route("shop", "10.9.0.0/24", "fw").unwrap();
    assert_eq!((route.vm.as_str(), w.d.routes("shop").unwrap().len()), ("fw", 1));
    w.delete_vm("node").unwrap();
    says(w.remove_route("shop", "10.8.0.0/24"), RefusalKind::NotFound, &["10.8.0.0/24", "domain show shop"]);
    w.remove_route("shop", "10.9.0.0/24").unwrap();
    w.delete_vm("fw").unwrap();
}

#[test]
fn r58_a_route_is_never_to_a_subnet_or_a_part_of_one() {
    let mut w = shop();
    w.define_vm(router("fw", "web", 9, "10.1.0.9")).unwrap();
    for inside in ["10.1.0.0/24", "10.2.0.128/25", "10.2.0.77"] {
        let of = if inside.starts_with("10.1") { "10.1.0.0/24" } else { "10.2.0.0/24" };
        says(w.add_route("shop", inside, "fw"), RefusalKind::Exists, &[inside, of, "shop"]);
    }
    for (nowhere, why) in [
        ("224.0.0.0/8", "multicast"),
        ("127.0.0.0/8", "loopback"),
        ("::ffff:10.0.0.0/104", "IPv4-mapped"),
        ("fe80::/10", "link-local"),
    ] {
        says(w.add_route("shop", nowhere, "fw"), RefusalKind::Invalid, &[nowhere, why]);
    }
    for outside in ["0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.1.0/24", "10.9.0.1"] {
        w.add_route("shop", outside, "fw").unwrap();
    }
    let parts = ["10.1.1.0/24", "10.1.0.0/23", "\"db\"", "domain route remove shop 10.1.1.0/24"];
    w.remove_subnet("web", "10.1.0.0/24").unwrap_err();
    w.add_route("shop", "10.6.1.0/24", "fw").unwrap();
    let parts = parts.map(|p| p.replace("10.1.", "10.6."));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    says(w.add_subnet("db", subnet("10.6.0.0/23", "10.6.0.1")), RefusalKind::Exists, &parts);
}

#[test]
fn r60_r61_multicast_and_underlay_groups_are_a_vns_settings() {
    let mut w = World::new();
    let a = w.join("a");
    let group = UnderlayGroup { v4: Some([239, 1, 1, 1].into()), v6: Some("ff08::1:1".parse().unwrap()) };
    let to =
        VnChanges { multicast: Some(Multicast::Snoop), underlay_group: Some(group), ..VnChanges::default() };
    let (info, out) = w.set_vn("red", to).unwrap();
    let Some(NvaToNve::End { settings, .. }) = sent(&out, a).pop() else { panic!("no End: {out:?}") };
    assert_eq!(settings, info.record.settings);
    assert_eq!((settings.multicast, settings.underlay_group), (Multicast::Snoop, group));
    let rest = VnChanges { rarp: Some(true), ..VnChanges::default() };
    w.set_vn("red", rest).unwrap();
    w.restart();
    assert_eq!(w.d.vns()[0].record.settings.underlay_group, group, "what is not named stays");
    let only = |v4: [u8; 4]| UnderlayGroup { v4: Some(v4.into()), v6: None };
    let v6 = |text: &str| UnderlayGroup { v4: None, v6: Some(text.parse().unwrap()) };
    let bad = [only([10, 0, 0, 1]), only([224, 0, 0, 5]), v6("ff02::1"), v6("ff01::1"), v6("2001:db8::1")];
    for group in bad {
        let to = VnChanges { underlay_group: Some(group), ..VnChanges::default() };
        says(w.set_vn("red", to), RefusalKind::Invalid, &["group", "239.1.1.1"]);
        let settings = VnSettings { underlay_group: group, ..VnSettings::default() };
        let vn = VnRecord { vni: vni(300), name: "new".into(), settings };
        says(w.create_vn(vn), RefusalKind::Invalid, &["group"]);
    }
}
