//! Orders of operators.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use godwit_api::tonic::Code;
use godwit_api::{SessionDown, v1};
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{Version, VmRecord};
use godwit_nva::service::Service;
use godwit_nva::store::{Loaded, Pending, Store, StoreError};
use godwit_nva::{Config, Directory, State, Write};

use crate::client::{Nve, define, definition, key, operator, serve};

#[tokio::test]
async fn refusals_are_statuses_that_say_what_to_do() {
    let nva = serve(Config::default()).await;
    let mut op = operator(&nva.url).await;
    define(&mut op, 2).await;
    let unknown = op.show_vm(v1::VmName { name: "nobody".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("vm define"), "{unknown}");
    let twice = v1::DefineVmRequest { ipv4: definition(1).ipv4, ..definition(9) };
    assert_eq!(op.define_vm(twice).await.unwrap_err().code(), Code::AlreadyExists);
    let bad = v1::DefineVmRequest { ipv4: vec![vec![1, 2]], ..definition(9) };
    let bad = op.define_vm(bad).await.unwrap_err();
    assert_eq!((bad.code(), bad.message().contains("ipv4")), (Code::InvalidArgument, true));
    let full = op.delete_vn(v1::VnName { name: "red".into() }).await.unwrap_err();
    assert_eq!(full.code(), Code::FailedPrecondition);
    let order = v1::StartMoveRequest { vm: "vm1".into(), to: "b".into(), ..Default::default() };
    assert_eq!(op.start_move(order).await.unwrap_err().code(), Code::NotFound);
    let watch = op.watch_move(v1::MoveName { id: "x".into() }).await.unwrap_err();
    assert_eq!(watch.code(), Code::NotFound);
    let no_locator = v1::NveDefinition { name: "tor".into(), locators: None };
    assert_eq!(op.define_nve(no_locator).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn r92_r93_r94_what_is_allowed_is_set_and_bound_over_the_wire() {
    let nva = serve(Config::default()).await;
    let mut op = operator(&nva.url).await;
    define(&mut op, 2).await;
    let mut a = Nve::join(&nva.url, "a").await.unwrap();
    a.claim(1, Version::ZERO).await.unwrap();
    let shared = v1::VmAddresses {
        virtual_ips: vec!["192.168.0.200".into()],
        nested: vec![0x0200_0000_0101],
        ..Default::default()
    };
    for name in ["vm1", "vm2"] {
        let nested = if name == "vm1" { shared.nested.clone() } else { vec![] };
        let add = Some(v1::VmAddresses { nested, ..shared.clone() });
        let order = v1::SetVmRequest { name: name.into(), add, ..Default::default() };
        op.set_vm(order).await.unwrap();
    }
    let again = v1::SetVmRequest { name: "vm2".into(), add: Some(shared.clone()), ..Default::default() };
    let refused = op.set_vm(again).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.message().contains("vm set vm1 --no-nested 02:00:00:00:01:01"), "{refused}");
    let odd = v1::VmAddresses { routes: vec!["10.0.0.1/8".into()], ..Default::default() };
    let odd = v1::SetVmRequest { name: "vm2".into(), add: Some(odd), ..Default::default() };
    let odd = op.set_vm(odd).await.unwrap_err();
    assert!(odd.code() == Code::InvalidArgument && odd.message().contains("routes"), "{odd}");
    let ip = Some("192.168.0.200".parse().unwrap());
    a.say(NveToNva::Bind { seq: 4, key: key(1), mac: key(1).mac, ip, announced: true, age_ms: 0 }).await;
    let bound = |m: &NvaToNve| match m {
        NvaToNve::Bound { seq: 4, record } => Some(record.clone()),
        _ => None,
    };
    let record = a.until(bound).await.unwrap();
    let shown = op.show_vm(v1::VmName { name: "vm2".into() }).await.unwrap().into_inner();
    let owners: Vec<_> = shown.shared.iter().map(|s| (s.ip.clone(), s.vm.as_str())).collect();
    assert_eq!(owners, [(vec![192, 168, 0, 200], "vm1")]);
    let word = v1::LearningWord { room: Some(3) };
    let learning = Some(v1::LearningChange { v4: Some(word), v6: None });
    let set = v1::SetVnRequest { name: "red".into(), learning, ..Default::default() };
    let vn = op.set_vn(set).await.unwrap().into_inner();
    assert_eq!(vn.settings.unwrap().learning, Some(v1::Learning { v4: Some(3), v6: None }));
    let shown = op.show_vm(v1::VmName { name: "vm1".into() }).await.unwrap().into_inner();
    assert_eq!(VmRecord::try_from(shown), Ok(record));
}

#[tokio::test]
async fn everything_defined_is_listed_and_can_be_deleted() {
    let nva = serve(Config::default()).await;
    let mut op = operator(&nva.url).await;
    define(&mut op, 2).await;
    let locators = v1::Locators { v4: vec![10, 9, 9, 9], v6: vec![] };
    let tor = v1::NveDefinition { name: "tor".into(), locators: Some(locators) };
    assert!(op.define_nve(tor).await.unwrap().into_inner().foreign);
    let pinned = v1::DefineVmRequest { pinned_nve: "tor".into(), ..definition(3) };
    assert!(op.define_vm(pinned).await.unwrap().into_inner().pinned);
    let vns = op.list_vns(v1::ListVnsRequest::default()).await.unwrap().into_inner().vns;
    assert_eq!((vns[0].name.as_str(), vns[0].vms, &vns[0].members[..]), ("red", 3, &["tor".to_owned()][..]));
    let vms = op
        .list_vms(v1::ListVmsRequest { vn: "red".into(), ..Default::default() })
        .await
        .unwrap()
        .into_inner()
        .vms;
    assert_eq!(vms.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["vm1", "vm2", "vm3"]);
    let status = op.get_status(v1::NvaStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.epoch, status.vns, status.vms, status.nves_connected), (1, 1, 3, 0));
    for name in ["vm1", "vm2", "vm3"] {
        op.delete_vm(v1::VmName { name: name.into() }).await.unwrap();
    }
    op.delete_nve(v1::NveName { name: "tor".into() }).await.unwrap();
    op.delete_vn(v1::VnName { name: "red".into() }).await.unwrap();
    let nves = op.list_nves(v1::ListNvesRequest::default()).await.unwrap().into_inner().nves;
    assert!(nves.is_empty());
}

/// A store whose disk fails when it is told to.
struct Failing(Arc<AtomicBool>);

impl Store for Failing {
    fn load(&mut self) -> Pending<Loaded> {
        Box::pin(ready(Ok(Loaded { state: State::default(), epoch: 1 })))
    }

    fn commit(&mut self, _: Vec<Write>) -> Pending<()> {
        let refusal = StoreError::Write { file: "disk".into(), why: "no space".into() };
        Box::pin(ready(if self.0.load(Ordering::Relaxed) { Err(refusal) } else { Ok(()) }))
    }
}

#[tokio::test]
async fn r73_what_is_not_durable_is_not_said() {
    let broken = Arc::new(AtomicBool::new(false));
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let store = Box::new(Failing(broken.clone()));
    let directory = Directory::new(Config::default());
    let service = Service::start(&listen, directory, store).await.unwrap();
    let url = format!("http://{}", service.addrs()[0]);
    let service = tokio::spawn(service.run_until(std::future::pending()));
    let mut op = operator(&url).await;
    define(&mut op, 1).await;
    let mut a = Nve::join(&url, "a").await.unwrap();
    broken.store(true, Ordering::Relaxed);
    let refused = a.claim(1, Version::ZERO).await.unwrap_err();
    assert_ne!(refused.code(), Code::PermissionDenied, "the session ends without an answer");
    let ended = service.await.unwrap().unwrap_err();
    assert!(ended.to_string().contains("no space"), "and the service with the reason: {ended}");
}

fn ask() -> v1::AskNveRequest {
    let kind = Some(v1::admin_request::Kind::GetStatus(v1::GetStatus {}));
    v1::AskNveRequest { nve: "a".into(), request: Some(v1::AdminRequest { kind, from: 0 }) }
}

#[tokio::test]
async fn r75_a_request_is_relayed_to_an_nve_and_answered() {
    let nva = serve(Config::default()).await;
    let mut op = operator(&nva.url).await;
    assert_eq!(op.ask_nve(ask()).await.unwrap_err().code(), Code::NotFound);
    let mut a = Nve::join(&nva.url, "a").await.unwrap();
    let nve = tokio::spawn(async move {
        loop {
            if let SessionDown::AdminOrder { id, request } = a.receive().await.unwrap() {
                assert!(matches!(request.kind, Some(v1::admin_request::Kind::GetStatus(_))));
                let done = v1::Done { text: "here".into() };
                let kind = Some(v1::admin_response::Kind::Done(done));
                a.reply(id, v1::AdminResponse { kind, next: 0 }).await;
                return a;
            }
        }
    });
    let answer = op.ask_nve(ask()).await.unwrap().into_inner();
    assert!(matches!(answer.kind, Some(v1::admin_response::Kind::Done(d)) if d.text == "here"));
    drop(nve.await.unwrap());
}

#[tokio::test]
async fn r75_a_request_ends_with_the_session_it_was_relayed_on() {
    let nva = serve(Config::default()).await;
    let mut op = operator(&nva.url).await;
    let mut a = Nve::join(&nva.url, "a").await.unwrap();
    let nve = tokio::spawn(async move {
        while !matches!(a.receive().await.unwrap(), SessionDown::AdminOrder { .. }) {}
    });
    let lost = op.ask_nve(ask()).await.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable, "{lost}");
    nve.await.unwrap();
}
