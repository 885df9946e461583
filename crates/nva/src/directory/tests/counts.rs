//! What the directory counts for operators.

use godwit_model::message::QueryBy;

use super::*;
use MoveStepKind as K;

fn count(w: &World, name: &str) -> u64 {
    let entry = w.d.counters().find(|e| e.descriptor.name == name);
    entry.unwrap_or_else(|| panic!("no counter {name}")).value
}

#[track_caller]
fn assert_counts(w: &World, expected: &[(&str, u64)]) {
    let counted: Vec<(&str, u64)> = expected.iter().map(|(name, _)| (*name, count(w, name))).collect();
    assert_eq!(counted, expected);
}

#[test]
fn messages_and_sessions_are_counted_as_they_come_and_go() {
    let mut w = World::new();
    let a = w.join("a");
    let stranger = w.connect();
    w.say(stranger, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    let known = QueryBy::Mac(key(1).mac);
    w.say(a, NveToNva::Query { seq: 1, vni: vni(100), by: known });
    w.say(a, NveToNva::Query { seq: 2, vni: vni(100), by: QueryBy::Ip(ip(77)) });
    let begun = [("messages", 5), ("messages_refused", 1), ("queries_answered", 2), ("sessions_opened", 2)];
    assert_counts(&w, &begun);
    assert_counts(&w, &[("sessions_closed", 0), ("nves_connected", 1), ("vns", 1), ("vms", 3)]);
    w.leave(stranger);
    w.leave(a);
    // Of a connection that is gone already.
    w.leave(a);
    w.say(a, NveToNva::Keepalive);
    assert_counts(&w, &[("messages", 5), ("sessions_closed", 2), ("nves_connected", 0)]);
}

#[test]
fn r18_r21_claims_are_counted_by_their_verdict() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.take(a, 1);
    w.say(b, claim(1, Version::ZERO));
    let waiting =
        [("claims_granted", 1), ("claims_confirmed", 1), ("claims_contested", 1), ("claims_waiting", 1)];
    assert_counts(&w, &waiting);
    let version = w.vm(1).version;
    w.say(a, NveToNva::Verified { key: key(1), version, alive: true, note: "here".into() });
    assert_counts(&w, &[("claims_refused", 1), ("claims_waiting", 0), ("claims_granted", 1)]);
    w.settle(&[a, b]);
    w.policy(Unplanned::Accept);
    let base = w.vm(1).version;
    let out = w.say(b, claim(1, base));
    assert_counts(&w, &[("claims_granted", 2), ("moves_unplanned", 1), ("moves_done", 0)]);
    assert_counts(&w, &[("moves_unfinished", 1), ("updates_unacknowledged", 1), ("vms_frozen", 0)]);
    w.ack(a, &out);
    assert_counts(&w, &[("moves_done", 1), ("moves_unfinished", 0), ("updates_unacknowledged", 0)]);
}

#[test]
fn r49_orders_and_moves_are_counted_by_how_they_end() {
    let mut w = World::new();
    let sessions = [w.join("a"), w.join("b")];
    let [a, b] = sessions;
    w.take(a, 1);
    w.settle(&sessions);
    let before = count(&w, "orders");
    w.start(1, "b", "done").unwrap();
    w.start(1, "b", "done").unwrap(); // The same move.
    w.say(b, claim(1, Version::ZERO));
    w.settle(&sessions);
    w.start(1, "a", "aborted").unwrap();
    w.abort_move(&MoveId("aborted".into())).unwrap();
    w.start(1, "a", "failed").unwrap();
    w.step(b, "failed", K::Failed);
    w.start(1, "z", "refused").unwrap_err();
    assert_eq!((w.phase("done"), w.phase("failed")), (MovePhase::Done, MovePhase::Failed));
    assert_counts(&w, &[("orders", before + 6), ("orders_refused", 1), ("moves_ordered", 3)]);
    assert_counts(&w, &[("moves_done", 1), ("moves_aborted", 1), ("moves_failed", 1)]);
    assert_counts(&w, &[("moves_unplanned", 0), ("moves_unfinished", 0)]);
}

#[test]
fn r93_bindings_are_counted_by_their_verdict() {
    let mut w = World::new();
    let a = w.join("a");
    w.take(a, 1);
    let mut bind = |ip: &str| {
        let (key, ip) = (key(1), Some(ip.parse().unwrap()));
        w.say(a, NveToNva::Bind { seq: 1, key, mac: key.mac, ip, announced: true, age_ms: 0 })
    };
    bind("2001:db8::9");
    bind("2001:db8::9");
    bind("192.168.0.99");
    assert_counts(&w, &[("binds_granted", 1), ("binds_confirmed", 1), ("binds_refused", 1)]);
    assert_counts(&w, &[("binds_limited", 0)]);
}

/// They are no part of what is persisted.
#[test]
fn counters_begin_anew_with_a_restart() {
    let mut w = World::new();
    let a = w.join("a");
    w.take(a, 1);
    w.restart();
    assert_counts(&w, &[("messages", 0), ("claims_granted", 0), ("orders", 0), ("vms", 3)]);
    let mut names: Vec<_> = w.d.counters().map(|e| e.descriptor.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "no name twice");
}
