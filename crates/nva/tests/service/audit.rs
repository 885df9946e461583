//! Who changed what, over the network (R68).

use godwit_api::v1;
use godwit_nva::service::{AuditFile, Service};
use godwit_nva::store::MemoryStore;
use godwit_nva::{Config, Directory};

use super::client::*;

async fn read(op: &mut Operator, request: v1::ReadAuditRequest) -> Vec<v1::AuditEntry> {
    let mut stream = op.read_audit(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(entry) = stream.message().await.unwrap() {
        all.push(entry);
    }
    all
}

#[tokio::test]
async fn r68_changes_and_refusals_are_written_before_they_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let file = AuditFile { path: dir.path().join("audit.log"), max_bytes: 1 << 20, files: 4 };
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let (store, directory) = (Box::new(MemoryStore::default()), Directory::new(Config::default()));
    let service = Service::audited(&listen, directory, store, Some(file.clone())).await.unwrap();
    let url = format!("http://{}", service.addrs()[0]);
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(service.run_until(async move { drop(stopped.await) }));

    let mut op = operator(&url).await;
    let mut stream = op
        .read_audit(v1::ReadAuditRequest { follow: true, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    define(&mut op, 2).await;
    let text = std::fs::read_to_string(&file.path).unwrap();
    assert_eq!(text.lines().count(), 3, "each is there when it is answered: {text}");
    let refused = op.delete_vm(v1::VmName { name: "nobody".into() }).await.unwrap_err();
    op.list_vms(v1::ListVmsRequest::default()).await.unwrap();
    op.allow_nve(v1::AllowNveRequest {
        nve: "a".into(),
        vns: vec!["red".into()],
        only: true,
        ..Default::default()
    })
    .await
    .unwrap();

    let all = read(&mut op, v1::ReadAuditRequest::default()).await;
    let what: Vec<&str> = all.iter().map(|e| e.what.as_str()).collect();
    assert_eq!(what, ["vn create", "vm define", "vm define", "vm delete", "nve allow"], "no question");
    assert!(all.iter().all(|e| e.who == "unproven" && e.from.starts_with("127.0.0.1:")), "{all:?}");
    assert_eq!((all[3].refused, all[3].why.as_str()), (true, refused.message()));
    let some = read(&mut op, v1::ReadAuditRequest { what: "vm".into(), ..Default::default() }).await;
    assert_eq!(some.len(), 3);
    for entry in &all {
        let next = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap();
        assert_eq!(next.as_ref(), Some(entry), "who follows gets each");
    }
}

#[tokio::test]
async fn r68_without_a_file_the_audit_log_is_in_the_log() {
    let running = serve(Config::default()).await;
    let mut op = operator(&running.url).await;
    define(&mut op, 1).await;
    let refused = op.read_audit(v1::ReadAuditRequest::default()).await.unwrap_err();
    assert!(refused.message().contains("--audit-log"), "{refused}");
}
