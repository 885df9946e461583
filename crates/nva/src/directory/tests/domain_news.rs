//! What NVEs are told of routing domains, and when (R58).

use godwit_model::{Domain, DomainId, GATEWAY_MAC, StaticRoute};
use godwit_wire::Prefix;

use super::domains::{prefix, routed, router, shop, subnet, vm};
use super::*;

/// What is said of domains and of VNs to a session, in order.
#[derive(PartialEq, Debug)]
enum Told {
    Domain { vns: Vec<u32>, reset: bool },
    Routes { routes: Vec<Prefix>, gone: Vec<Prefix> },
    Gone(u32),
    End { vni: u32, domain: Option<u32> },
}

fn told(outputs: &[Output], to: SessionId) -> Vec<Told> {
    let of = sent(outputs, to).into_iter().filter_map(|m| match m {
        NvaToNve::Domain { domain, reset } => {
            let Domain { id, name, gateway_mac, vns } = domain;
            assert_eq!((id, name.as_str(), gateway_mac), (DomainId(1), "shop", GATEWAY_MAC));
            let vns = vns.iter().map(|v| v.get()).collect();
            Some(Told::Domain { vns, reset })
        }
        NvaToNve::DomainRoutes { id, routes, gone } => {
            assert_eq!(id, DomainId(1));
            Some(Told::Routes { routes: routes.iter().map(|r| r.prefix).collect(), gone })
        }
        NvaToNve::DomainGone { id } => Some(Told::Gone(id.0)),
        NvaToNve::End { vni, settings, .. } => {
            Some(Told::End { vni: vni.get(), domain: settings.routing.map(|r| r.domain.0) })
        }
        _ => None,
    });
    of.collect()
}

fn whole(vns: &[u32]) -> Told {
    Told::Domain { vns: vns.to_vec(), reset: true }
}

/// Other VNs.
fn change(vns: &[u32]) -> Told {
    Told::Domain { vns: vns.to_vec(), reset: false }
}

fn routes(new: &[&str], gone: &[&str]) -> Told {
    let all = |texts: &[&str]| texts.iter().map(|p| prefix(p)).collect();
    Told::Routes { routes: all(new), gone: all(gone) }
}

fn end(vni: u32, domain: Option<u32>) -> Told {
    Told::End { vni, domain }
}

fn subscribe(w: &mut World, s: SessionId, n: u32) -> Vec<Output> {
    w.say(s, NveToNva::Subscribe { vni: vni(n), mode: DirectoryMode::Push, lingers: false })
}

#[test]
fn r58_a_domain_is_told_before_the_first_end_that_names_it_and_then_its_changes() {
    let mut w = shop();
    w.define_vm(router("fw", "web", 9, "10.1.0.9")).unwrap();
    w.add_route("shop", "0.0.0.0/0", "fw").unwrap();
    let (a, out) = w.hello("a");
    assert_eq!(told(&out, a), [], "it has no part in it");
    let out = subscribe(&mut w, a, 200);
    assert_eq!(told(&out, a), [whole(&[200, 201]), routes(&["0.0.0.0/0"], &[]), end(200, Some(1))]);
    let out = subscribe(&mut w, a, 201);
    assert_eq!(told(&out, a), [end(201, Some(1))], "it knows the domain");
    let (_, out) = w.add_route("shop", "10.9.0.0/24", "fw").unwrap();
    assert_eq!(told(&out, a), [routes(&["10.9.0.0/24"], &[])]);
    let (_, out) = w.remove_route("shop", "10.9.0.0/24").unwrap();
    assert_eq!(told(&out, a), [routes(&[], &["10.9.0.0/24"])]);
    let (_, out) = w.create_vn(routed("app", 202, &[subnet("10.3.0.0/24", "10.3.0.1")])).unwrap();
    assert_eq!(told(&out, a), [change(&[200, 201, 202])]);
    // A VN that somebody had joined before it was defined: the domain's news come before its End.
    let (b, _) = w.hello("b");
    assert_eq!(told(&subscribe(&mut w, b, 203), b), [end(203, None)]);
    subscribe(&mut w, a, 203);
    let (_, out) = w.create_vn(routed("new", 203, &[])).unwrap();
    let vns = [200, 201, 202, 203];
    assert_eq!(told(&out, a), [change(&vns), end(203, Some(1))]);
    assert_eq!(told(&out, b), [whole(&vns), routes(&["0.0.0.0/0"], &[]), end(203, Some(1))]);
    let (_, out) = w.delete_vn("new").unwrap();
    assert_eq!(told(&out, a), [end(203, None), change(&vns[..3])]);
    assert_eq!(told(&out, b), [end(203, None), Told::Gone(1)]);
}

#[test]
fn r58_who_has_no_vn_of_a_domain_any_more_is_told_that_it_is_gone() {
    let mut w = shop();
    let (a, _) = w.hello("a");
    subscribe(&mut w, a, 200);
    subscribe(&mut w, a, 201);
    assert_eq!(told(&w.say(a, NveToNva::Unsubscribe { vni: vni(200) }), a), []);
    assert_eq!(told(&w.say(a, NveToNva::Unsubscribe { vni: vni(201) }), a), [Told::Gone(1)]);
    assert_eq!(told(&w.say(a, NveToNva::Unsubscribe { vni: vni(201) }), a), [], "once");
    let out = subscribe(&mut w, a, 201);
    assert_eq!(told(&out, a), [whole(&[200, 201]), end(201, Some(1))], "as for the first time");
    // A new session knows nothing of what the one before was told.
    let (a, _) = w.hello("a");
    assert_eq!(told(&subscribe(&mut w, a, 201), a), [whole(&[200, 201]), end(201, Some(1))]);
    w.restart();
    let (a, _) = w.hello("a");
    assert_eq!(told(&subscribe(&mut w, a, 201), a), [whole(&[200, 201]), end(201, Some(1))]);
}

#[test]
fn r58_many_routes_come_in_parts_after_their_domain() {
    let mut w = shop();
    w.define_vm(router("fw", "web", 9, "10.1.0.9")).unwrap();
    let all: BTreeSet<String> =
        (0..2500).map(|n: u32| format!("172.{}.{}.0/24", 16 + n / 256, n % 256)).collect();
    for p in &all {
        w.add_route("shop", p, "fw").unwrap();
    }
    let (a, _) = w.hello("a");
    let out = subscribe(&mut w, a, 201);
    assert_eq!(told(&out, a)[0], whole(&[200, 201]));
    let parts: Vec<Vec<StaticRoute>> = sent(&out, a)
        .into_iter()
        .filter_map(|m| match m {
            NvaToNve::DomainRoutes { routes, .. } => Some(routes),
            _ => None,
        })
        .collect();
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
    let got: BTreeSet<String> = parts.iter().flatten().map(|r| r.prefix.to_string()).collect();
    assert_eq!(got, all);
    let fw = VmKey { vni: vni(200), mac: key(9).mac };
    assert!(parts.iter().flatten().all(|r| r.via == fw));
}

#[test]
fn r58_r43_who_routes_to_a_vn_hears_of_its_vms_and_gets_no_copies() {
    let mut w = shop();
    w.define_vm(vm("v", "web", 7, "10.1.0.7")).unwrap();
    let (a, _) = w.hello("a");
    let (b, _) = w.hello("b");
    subscribe(&mut w, a, 200);
    subscribe(&mut w, b, 201);
    // b routes to web, where it has no port: a has nothing to send to it meanwhile.
    let lingers = w.say(b, NveToNva::Subscribe { vni: vni(200), mode: DirectoryMode::Push, lingers: true });
    let members = |out: &[Output]| {
        let mut changes = sent(out, a).into_iter().filter_map(|m| match m {
            NvaToNve::Update { change, .. } => Some(change),
            _ => None,
        });
        let news = changes.next();
        assert_eq!(changes.next(), None, "one change");
        news
    };
    assert!(matches!(members(&lingers), Some(Change::MemberLingers(l)) if l.nve == id("b")));
    w.ack(a, &lingers);
    // It subscribes again: with a port there now, and without one once more.
    for lingers in [false, true] {
        let again = NveToNva::Subscribe { vni: vni(200), mode: DirectoryMode::Push, lingers };
        let out = w.say(b, again.clone());
        assert_eq!(matches!(members(&out), Some(Change::MemberLingers(_))), lingers);
        w.ack(a, &out);
        let out = w.say(b, again);
        assert_eq!(members(&out), None, "the same as before");
    }
    let info = w.d.vn_named("web").unwrap();
    assert_eq!((info.members, info.routing), (vec![id("a")], vec![id("b")]));
    let nve = w.d.nves(w.now).into_iter().find(|n| n.record.id == id("b")).unwrap();
    assert_eq!((nve.vnis, nve.routing), (vec![vni(201)], vec![vni(200)]));
    // It is told where the VM is, and what is behind is waited for.
    let key = VmKey { vni: vni(200), mac: key(7).mac };
    let ips = vec!["10.1.0.7".parse().unwrap()];
    let (cause, base) = (ClaimCause::GratuitousArp, Version::ZERO);
    let (port, overrides) = ("p1".to_owned(), Default::default());
    let claim = NveToNva::Claim { seq: 1, key, ips, cause, base, port, router: None, overrides };
    let out = w.say(a, claim);
    let record = granted(&out, a).expect("a grant");
    assert_eq!(updated(&out, b), std::slice::from_ref(&record));
    let (c, _) = w.hello("c");
    let ending = NveToNva::ForwardEnding { key, version: record.version };
    let extended = |out: &[Output]| sent(out, c).iter().any(|m| matches!(m, NvaToNve::ForwardExtend { .. }));
    assert!(extended(&w.say(c, ending.clone())), "b has not acknowledged");
    w.ack(b, &out);
    assert!(!extended(&w.say(c, ending)), "it has");
}

fn into(domain: u32) -> VnChanges {
    VnChanges { domain: Some(Some(DomainId(domain))), ..VnChanges::default() }
}

const OUT: VnChanges = VnChanges {
    domain: Some(None),
    flood_silent: None,
    unplanned: None,
    rarp: None,
    learning_v4: None,
    learning_v6: None,
    multicast: None,
    underlay_group: None,
    routed_only: None,
    on_cold: None,
    modes: None,
};

#[test]
fn r58_a_vn_with_vms_joins_a_domain_and_leaves_it_and_its_nves_learn_it_in_order() {
    let mut w = shop();
    let (a, _) = w.hello("a");
    let (b, _) = w.hello("b");
    subscribe(&mut w, a, 200);
    // red, VN 100, has VMs and is in no domain.
    subscribe(&mut w, b, 100);
    let (info, out) = w.set_vn("red", into(1)).unwrap();
    assert_eq!(info.record.settings.routing.map(|r| (r.routed_only, r.subnets.len())), Some((false, 0)));
    let vns = [100, 200, 201];
    assert_eq!(told(&out, a), [change(&vns)]);
    assert_eq!(told(&out, b), [whole(&vns), end(100, Some(1))]);
    assert_eq!(w.set_vn("red", into(1)).unwrap().1, [], "the same again changes nothing");
    w.add_subnet("red", subnet("10.3.0.0/24", "10.3.0.1")).unwrap();
    let only = VnChanges { routed_only: Some(true), ..VnChanges::default() };
    let (info, out) = w.set_vn("red", only).unwrap();
    assert!(info.record.settings.routing.is_some_and(|r| r.routed_only && r.subnets.len() == 1));
    assert_eq!((told(&out, a), told(&out, b)), (vec![], vec![end(100, Some(1))]));
    w.restart();
    let (a, _) = w.hello("a");
    let (b, _) = w.hello("b");
    subscribe(&mut w, a, 200);
    let out = subscribe(&mut w, b, 100);
    assert_eq!(told(&out, b), [whole(&vns), end(100, Some(1))]);
    // Its subnets go with it: another VN may have them.
    let (info, out) = w.set_vn("red", OUT).unwrap();
    assert_eq!(info.record.settings.routing, None);
    assert_eq!(told(&out, b), [end(100, None), Told::Gone(1)]);
    assert_eq!(told(&out, a), [change(&[200, 201])]);
    assert_eq!(w.set_vn("red", OUT).unwrap().1, [], "it is in none");
    w.add_subnet("db", subnet("10.3.0.0/24", "10.3.0.1")).unwrap();
}
