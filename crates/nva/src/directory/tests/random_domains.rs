//! Domains, subnets, routes and routed VMs in the random schedules, and what must always hold of them (R58).

use std::collections::{BTreeMap, BTreeSet};

use godwit_model::{Domain, DomainId, StaticRoute};
use godwit_wire::Prefix;
use proptest::prelude::*;

use super::domains::{routed, router, subnet, vm};
use super::*;

/// Nested and disjoint ones of both families, with a gateway each.
const SUBNETS: [(&str, &str); 5] = [
    ("10.1.0.0/24", "10.1.0.1"),
    ("10.1.0.0/25", "10.1.0.126"),
    ("10.2.0.0/24", "10.2.0.1"),
    ("10.0.0.0/8", "10.200.0.1"),
    ("2001:db8::/64", "2001:db8::1"),
];
const ROUTES: [&str; 5] = ["0.0.0.0/0", "10.1.0.0/24", "10.1.0.77", "10.2.0.0/16", "2001:db8::/48"];
const ADDRESSES: [&str; 5] = ["10.1.0.1", "10.1.0.7", "10.2.0.7", "192.168.9.9", "2001:db8::7"];
const DOMAINS: [&str; 2] = ["d0", "d1"];

#[derive(Clone, Debug)]
pub(super) enum Op {
    CreateDomain(usize),
    DeleteDomain(usize),
    /// VN, domain, subnet.
    CreateVn(u32, usize, usize),
    DeleteVn(u32),
    /// VN, domain: it joins that one, or leaves its own.
    SetVn(u32, Option<usize>, Option<bool>),
    AddSubnet(u32, usize),
    RemoveSubnet(u32, usize),
    /// Domain, prefix, VM.
    AddRoute(usize, usize, u8),
    RemoveRoute(usize, usize),
    /// VN, VM, address; true: it may send from any.
    Define(u32, u8, usize, bool),
    Delete(u8),
}

/// The VNs that may be in a domain.
pub(super) fn routed_vni() -> impl Strategy<Value = u32> + Clone {
    200..203u32
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let (vn, d, s, r) = (routed_vni(), 0..DOMAINS.len(), 0..SUBNETS.len(), 0..ROUTES.len());
    let vm = 1..4u8;
    prop_oneof![
        3 => d.clone().prop_map(Op::CreateDomain),
        1 => d.clone().prop_map(Op::DeleteDomain),
        5 => (vn.clone(), d.clone(), s.clone()).prop_map(|(v, d, s)| Op::CreateVn(v, d, s)),
        1 => vn.clone().prop_map(Op::DeleteVn),
        3 => (vn.clone(), proptest::option::of(d.clone()), proptest::option::of(any::<bool>()))
            .prop_map(|(v, d, only)| Op::SetVn(v, d, only)),
        3 => (vn.clone(), s.clone()).prop_map(|(v, s)| Op::AddSubnet(v, s)),
        2 => (vn.clone(), s).prop_map(|(v, s)| Op::RemoveSubnet(v, s)),
        4 => (d.clone(), r.clone(), vm.clone()).prop_map(|(d, r, v)| Op::AddRoute(d, r, v)),
        1 => (d, r).prop_map(|(d, r)| Op::RemoveRoute(d, r)),
        5 => (vn, vm.clone(), 0..ADDRESSES.len(), any::<bool>())
            .prop_map(|(v, n, a, any)| Op::Define(v, n, a, any)),
        1 => vm.prop_map(Op::Delete),
    ]
}

/// Carries it out; a refusal leads to nothing, which [`World::order`] demands.
pub(super) fn run(w: &mut World, op: Op) -> Vec<Output> {
    fn out<T>(obeyed: Result<(T, Vec<Output>), Refusal>) -> Vec<Output> {
        obeyed.map(|(_, out)| out).unwrap_or_default()
    }
    let vn = |v: u32| format!("vn{v}");
    let hop = |n: u8| format!("r{n}");
    match op {
        Op::CreateDomain(d) => out(w.create_domain(DOMAINS[d])),
        Op::DeleteDomain(d) => out(w.delete_domain(DOMAINS[d])),
        Op::CreateVn(v, d, s) => {
            let Ok(id) = w.d.domain_id(DOMAINS[d]) else { return vec![] };
            let mut record = routed(&vn(v), v, &[subnet(SUBNETS[s].0, SUBNETS[s].1)]);
            record.settings.routing.as_mut().unwrap().domain = id;
            out(w.create_vn(record))
        }
        Op::DeleteVn(v) => out(w.delete_vn(&vn(v))),
        Op::SetVn(v, d, routed_only) => {
            let Ok(id) = d.map(|d| w.d.domain_id(DOMAINS[d])).transpose() else { return vec![] };
            out(w.set_vn(&vn(v), VnChanges { domain: Some(id), routed_only, ..VnChanges::default() }))
        }
        Op::AddSubnet(v, s) => out(w.add_subnet(&vn(v), subnet(SUBNETS[s].0, SUBNETS[s].1))),
        Op::RemoveSubnet(v, s) => out(w.remove_subnet(&vn(v), SUBNETS[s].0)),
        Op::AddRoute(d, r, n) => out(w.add_route(DOMAINS[d], ROUTES[r], &hop(n))),
        Op::RemoveRoute(d, r) => out(w.remove_route(DOMAINS[d], ROUTES[r])),
        Op::Define(v, n, a, any) => {
            let define = if any { router } else { vm };
            out(w.define_vm(define(&hop(n), &vn(v), n, ADDRESSES[a])))
        }
        Op::Delete(n) => out(w.delete_vm(&hop(n))),
    }
}

/// A domain with its routes.
type Whole = (Domain, BTreeMap<Prefix, VmKey>);

/// What NVEs know of domains by what they were told.
#[derive(Default)]
pub(super) struct Known(BTreeMap<SessionId, BTreeMap<DomainId, Whole>>);

impl Known {
    pub fn see(&mut self, session: SessionId, m: &NvaToNve) {
        let known = self.0.entry(session).or_default();
        match m {
            NvaToNve::Domain { domain, reset } => {
                assert!(*reset || known.contains_key(&domain.id), "a change of what it does not know");
                let entry = known.entry(domain.id).or_insert_with(|| (domain.clone(), BTreeMap::new()));
                entry.0 = domain.clone();
                if *reset {
                    entry.1.clear();
                }
            }
            NvaToNve::DomainRoutes { id, routes, gone } => {
                let entry = known.get_mut(id).expect("routes of a domain that it does not know");
                entry.1.extend(routes.iter().map(|StaticRoute { prefix, via }| (*prefix, *via)));
                entry.1.retain(|p, _| !gone.contains(p));
            }
            NvaToNve::DomainGone { id } => assert!(known.remove(id).is_some(), "it did not know it"),
            NvaToNve::End { vni, settings, .. } => {
                if let Some(r) = &settings.routing {
                    let (domain, _) = known.get(&r.domain).expect("an End before its Domain");
                    assert!(domain.vns.contains(vni), "{vni} is in no {domain:?}");
                }
            }
            _ => {}
        }
    }

    /// Who is subscribed to a VN of a domain knows just what there is; nobody else knows anything.
    fn is_right(&self, w: &World) {
        let d = &w.d;
        let sessions = d.nves.values().filter_map(|n| n.session);
        let (mut right, nothing) = (BTreeMap::new(), BTreeMap::new());
        for info in d.domains() {
            let routes = d.routes(&info.record.name).unwrap();
            let routes: BTreeMap<Prefix, VmKey> = routes.into_iter().map(|r| (r.prefix, r.via)).collect();
            let vns: Vec<Vni> = info.vns.iter().map(|v| v.record.vni).collect();
            let (id, name, gateway_mac) = (info.record.id, info.record.name, info.gateway_mac);
            right.insert(id, (Domain { id, name, gateway_mac, vns }, routes));
        }
        for session in sessions {
            let s = d.sessions.get(&session).unwrap();
            let mut expected = right.clone();
            expected.retain(|_, (domain, _)| domain.vns.iter().any(|vni| s.subscribed.contains_key(vni)));
            assert_eq!(self.0.get(&session).unwrap_or(&nothing), &expected, "{session}");
        }
    }
}

/// What orders promise of domains, whatever was ordered.
pub(super) fn consistent(w: &World, known: &Known) {
    let d = &w.d;
    known.is_right(w);
    let now = d.state();
    assert_eq!(
        (&now.domains, &now.routes, now.last_domain),
        (&w.durable.domains, &w.durable.routes, w.durable.last_domain)
    );
    for info in d.domains() {
        let of = |v: &VnInfo| v.record.settings.routing.clone().map(|r| r.subnets).unwrap_or_default();
        let subnets: Vec<_> = info.vns.iter().flat_map(of).collect();
        for (n, s) in subnets.iter().enumerate() {
            assert!(subnets[n + 1..].iter().all(|o| !o.prefix.overlaps(&s.prefix)), "{subnets:?}");
        }
        for v in &info.vns {
            let gateways: BTreeSet<IpAddr> = of(v).iter().map(|s| s.gateway).collect();
            let mut ips = d.records.of_vn(v.record.vni).flat_map(|r| r.ips());
            assert!(ips.all(|ip| !gateways.contains(&ip)), "a gateway's address is a VM's");
        }
        for r in d.routes(&info.record.name).unwrap() {
            let hop = d.vm(r.via).expect("a next hop that is there");
            assert!(hop.router_pinned && info.vns.iter().any(|v| v.record.vni == r.via.vni), "{r:?}");
            let within = |p: &Prefix| p.prefix_len() <= r.prefix.prefix_len() && p.contains(r.prefix.addr());
            assert!(!subnets.iter().any(|s| within(&s.prefix)), "{r:?} is within a subnet");
        }
    }
}
