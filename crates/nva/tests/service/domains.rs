//! Routing domains over the wire, and over a kill of the program (R58).

use godwit_api::tonic::Code;
use godwit_api::v1;
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{DirectoryMode, DomainId};
use godwit_wire::Vni;

use crate::client::{Nve, Operator, operator};
use crate::process::Process;

fn subnet(prefix: &str, gateway: [u8; 4]) -> v1::Subnet {
    v1::Subnet { prefix: prefix.into(), gateway: gateway.to_vec(), advertise: None, dhcp: None }
}

async fn define(op: &mut Operator) {
    op.create_domain(v1::DomainName { name: "shop".into() }).await.unwrap();
    let subnets = vec![subnet("10.1.0.0/24", [10, 1, 0, 1])];
    let routing = Some(v1::VnRouting { domain: 0, routed_only: true, subnets });
    let settings = Some(v1::VnSettings { routing, ..Default::default() });
    let web = v1::Vn { name: "web".into(), vni: 200, domain: "shop".into(), settings, ..Default::default() };
    let made = op.create_vn(web.clone()).await.unwrap().into_inner();
    assert_eq!((made.domain.as_str(), made.settings.unwrap().routing.unwrap().domain), ("shop", 1));
    let refused = op.create_vn(v1::Vn { domain: "shpo".into(), ..web }).await.unwrap_err();
    assert!(refused.code() == Code::NotFound && refused.message().contains("shpo"), "{refused}");
    let fw = v1::DefineVmRequest {
        name: "fw".into(),
        vn: "web".into(),
        mac: 0x0200_0000_0009,
        ipv4: vec![vec![10, 1, 0, 9]],
        router: true,
        ..Default::default()
    };
    op.define_vm(fw).await.unwrap();
    let route = v1::AddRouteRequest { domain: "shop".into(), prefix: "0.0.0.0/0".into(), via: "fw".into() };
    let route = op.add_route(route).await.unwrap().into_inner();
    assert_eq!((route.vm.as_str(), route.vn.as_str()), ("fw", "web"));
    let odd = v1::AddRouteRequest { domain: "shop".into(), prefix: "10.0.0.1/8".into(), via: "fw".into() };
    let odd = op.add_route(odd).await.unwrap_err();
    assert!(odd.code() == Code::InvalidArgument && odd.message().contains("prefix"), "{odd}");
    let more = v1::SubnetOfVn { vn: "web".into(), subnet: Some(subnet("10.2.0.0/24", [10, 2, 0, 1])) };
    op.add_subnet(more).await.unwrap();
}

#[tokio::test]
async fn r58_domains_are_told_to_nves_and_outlive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut p = Process::start(dir.path());
    let mut op = operator(&p.url).await;
    define(&mut op).await;
    let shown = op.show_domain(v1::DomainName { name: "shop".into() }).await.unwrap().into_inner();
    let listed = op.list_domains(v1::ListDomainsRequest {}).await.unwrap().into_inner().domains;
    let without_routes = v1::DomainInfo { routes: vec![], ..shown.clone() };
    assert_eq!((shown.route_count, shown.routes.len(), listed), (1, 1, vec![without_routes]));
    p.kill();
    let p = Process::start(dir.path());
    let mut op = operator(&p.url).await;
    let again = op.show_domain(v1::DomainName { name: "shop".into() }).await.unwrap().into_inner();
    assert_eq!(again, shown);
    let mut a = Nve::join(&p.url, "a").await.unwrap();
    let vni = Vni::from_low24(200);
    a.say(NveToNva::Subscribe { vni, mode: DirectoryMode::Push, lingers: false }).await;
    // The domain comes before the End that names it.
    let told = |m: &NvaToNve| match m {
        NvaToNve::Domain { domain, reset: true } => Some(domain.clone()),
        NvaToNve::End { settings, .. } if settings.routing.is_some() => panic!("an End before the domain"),
        _ => None,
    };
    let domain = a.until(told).await.unwrap();
    assert_eq!((domain.id, domain.vns), (DomainId(1), vec![vni]));
    let routes = |m: &NvaToNve| match m {
        NvaToNve::DomainRoutes { id: DomainId(1), routes, .. } => Some(routes.len()),
        NvaToNve::End { settings, .. } if settings.routing.is_some() => panic!("an End before the routes"),
        _ => None,
    };
    assert_eq!(a.until(routes).await.unwrap(), 1);
    let ended = |m: &NvaToNve| match m {
        NvaToNve::End { vni, settings, .. } if vni.get() == 200 => settings.routing.clone(),
        _ => None,
    };
    assert_eq!(a.until(ended).await.unwrap().subnets.len(), 2);
    // What goes in the end, and the number is not given again.
    let route = v1::RemoveRouteRequest { domain: "shop".into(), prefix: "0.0.0.0/0".into() };
    op.remove_route(route).await.unwrap();
    op.delete_vm(v1::VmName { name: "fw".into() }).await.unwrap();
    let gone = v1::RemoveSubnetRequest { vn: "web".into(), prefix: "10.2.0.0/24".into() };
    op.remove_subnet(gone).await.unwrap();
    op.delete_vn(v1::VnName { name: "web".into() }).await.unwrap();
    op.delete_domain(v1::DomainName { name: "shop".into() }).await.unwrap();
    let next = op.create_domain(v1::DomainName { name: "shop".into() }).await.unwrap().into_inner();
    assert_eq!(next.id, 2);
}
