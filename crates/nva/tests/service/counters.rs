//! Counters of the NVA, as an operator reads them.

use godwit_api::v1;
use godwit_model::Version;
use godwit_nva::Config;

use crate::client::{Nve, Operator, define, definition, operator, serve};

/// All counters, or those that are not zero.
async fn read(op: &mut Operator, all: bool) -> Vec<v1::Counter> {
    op.get_counters(v1::GetCounters { all }).await.unwrap().into_inner().counters
}

fn value(counters: &[v1::Counter], name: &str) -> Option<u64> {
    counters.iter().find(|c| c.name == name).map(|c| c.value)
}

#[tokio::test]
async fn r75_orders_claims_and_commits_are_counted_with_their_meaning() {
    let nva = serve(Config::default()).await;
    let mut op = operator(&nva.url).await;
    define(&mut op, 2).await;
    op.define_vm(v1::DefineVmRequest { ipv4: definition(1).ipv4, ..definition(9) }).await.unwrap_err();
    let mut a = Nve::join(&nva.url, "a").await.unwrap();
    a.claim(1, Version::ZERO).await.unwrap();
    let shown = read(&mut op, false).await;
    for (name, expected) in [
        ("orders", Some(4)),
        ("orders_refused", Some(1)),
        ("sessions_opened", Some(1)),
        ("claims_granted", Some(1)),
        ("nves_connected", Some(1)),
        ("claims_refused", None),
        ("sessions_overflowed", None),
    ] {
        assert_eq!(value(&shown, name), expected, "{name}: {shown:?}");
    }
    let (batches, writes) = (value(&shown, "batches_committed"), value(&shown, "writes_committed"));
    assert!(batches >= Some(4), "an order's answer waits for its batch: {batches:?}");
    assert!(writes > batches, "a definition comes with its version: {writes:?}");
    let all = read(&mut op, true).await;
    assert_eq!(value(&all, "claims_refused"), Some(0));
    assert!(all.iter().all(|c| c.help.ends_with('.') && !c.drop && !c.kind.is_empty()), "{all:?}");
    let time = all.iter().find(|c| c.name == "commit_time").unwrap();
    assert_eq!((time.unit.as_str(), time.kind.as_str()), ("nanoseconds", "count"));
    let mut names: Vec<_> = all.iter().map(|c| c.name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len(), "no name twice");
}
