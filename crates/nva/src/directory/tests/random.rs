//! Random schedules against what must always hold.

use std::collections::BTreeMap;

use godwit_model::message::Attachment;
use proptest::prelude::*;

use super::*;

const NVES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Op {
    Hello(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    Disconnect(usize),
    Claim(usize, u8, bool),
    Withdraw(usize, u8, bool),
    AckAll(usize),
    Report(usize, bool),
    Step(usize, u8, MoveStepKind),
    Start(u8, usize),
    Abort(u8),
    Define(u8, bool),
    Delete(u8),
    Pin(u8),
    Pass(u64),
    /// VN of a routing domain.
    Join(usize, u32),
    Part(usize, u32),
    Linger(usize, u32, bool),
    Routed(random_domains::Op),
    /// A crash; true: the outputs of the step before it never left.
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let (nve, vm) = (0..NVES.len(), 1..4u8);
    let kinds = [MoveStepKind::Prepared, MoveStepKind::Paused, MoveStepKind::Failed, MoveStepKind::Aborted];
    prop_oneof![
        4 => nve.clone().prop_map(Op::Hello),
        4 => nve.clone().prop_map(Op::Subscribe),
        1 => nve.clone().prop_map(Op::Unsubscribe),
        1 => nve.clone().prop_map(Op::Disconnect),
        8 => (nve.clone(), vm.clone(), any::<bool>()).prop_map(|(n, v, b)| Op::Claim(n, v, b)),
        3 => (nve.clone(), vm.clone(), any::<bool>()).prop_map(|(n, v, b)| Op::Withdraw(n, v, b)),
        8 => nve.clone().prop_map(Op::AckAll),
        1 => (nve.clone(), any::<bool>()).prop_map(|(n, b)| Op::Report(n, b)),
        4 => (nve.clone(), vm.clone(), prop::sample::select(kinds.to_vec()))
            .prop_map(|(n, v, k)| Op::Step(n, v, k)),
        6 => (vm.clone(), nve.clone()).prop_map(|(v, n)| Op::Start(v, n)),
        1 => vm.clone().prop_map(Op::Abort),
        2 => (vm.clone(), any::<bool>()).prop_map(|(v, b)| Op::Define(v, b)),
        1 => vm.clone().prop_map(Op::Delete),
        1 => vm.prop_map(Op::Pin),
        6 => (1..60u64).prop_map(|n| Op::Pass(n * 10)),
        12 => random_domains::op().prop_map(Op::Routed),
        3 => (nve.clone(), random_domains::routed_vni()).prop_map(|(n, v)| Op::Join(n, v)),
        1 => (nve.clone(), random_domains::routed_vni()).prop_map(|(n, v)| Op::Part(n, v)),
        1 => (nve, random_domains::routed_vni(), any::<bool>()).prop_map(|(n, v, l)| Op::Linger(n, v, l)),
        1 => Just(Op::Crash),
    ]
}

/// What an observer of all messages remembers.
#[derive(Default)]
struct Watcher {
    sessions: BTreeMap<usize, SessionId>,
    unacked: BTreeMap<SessionId, Vec<u64>>,
    revisions: BTreeMap<(SessionId, Vni), u64>,
    /// The highest version seen of a key, and the record that had it.
    newest: BTreeMap<VmKey, (Version, Option<VmRecord>)>,
    domains: random_domains::Known,
}

impl Watcher {
    fn see(&mut self, w: &World, outputs: &[Output]) {
        for (session, m) in all_sent(outputs) {
            self.domains.see(session, &m);
            match m {
                NvaToNve::Grant { record, .. } => self.granted(w, session, &record),
                NvaToNve::End { vni, revision, .. } => {
                    self.revisions.insert((session, vni), revision);
                }
                NvaToNve::Update { vni, revision, ack_id, change } => {
                    self.update(session, vni, revision, ack_id);
                    if let Change::Vm(r) = change {
                        self.record(&r);
                    }
                }
                NvaToNve::Snapshot { vms, .. } => vms.iter().for_each(|r| self.record(r)),
                _ => {}
            }
        }
        self.durable(w);
    }

    /// A grant is true, and durable, when it leaves.
    fn granted(&mut self, w: &World, session: SessionId, record: &VmRecord) {
        let claimer = *self.sessions.iter().find(|(_, s)| **s == session).unwrap().0;
        assert_eq!(owner(record), Some(NVES[claimer]));
        assert_eq!(w.durable.vms.get(&record.key).map(|r| r.version), Some(record.version));
        self.record(record);
    }

    /// One version, one location: nobody ever hears two stories of the same version.
    fn record(&mut self, r: &VmRecord) {
        let newest = self.newest.entry(r.key).or_insert((Version::ZERO, None));
        if r.version > newest.0 {
            *newest = (r.version, Some(r.clone()));
        } else if let Some(known) = newest.1.as_ref().filter(|k| k.version == r.version) {
            assert_eq!((&known.bindings, &known.ipv4), (&r.bindings, &r.ipv4));
        }
    }

    fn update(&mut self, session: SessionId, vni: Vni, revision: u64, ack_id: u64) {
        let last = self.revisions.get_mut(&(session, vni)).expect("an update before the snapshot");
        assert!(revision <= *last + 1, "a gap: {revision} after {last}");
        *last = (*last).max(revision);
        self.unacked.entry(session).or_default().push(ack_id);
    }

    /// What the directory believes is what a crash would leave, and versions never fall.
    fn durable(&mut self, w: &World) {
        let now = w.d.state();
        assert_eq!((&now.vms, &now.vns, &now.nves), (&w.durable.vms, &w.durable.vns, &w.durable.nves));
        assert_eq!(now.seq, w.durable.seq);
        for r in now.vms.values() {
            let seen = self.newest.get(&r.key).map_or(Version::ZERO, |n| n.0);
            assert!(r.version >= seen, "{} fell from {seen} to {}", r.key, r.version);
            assert_eq!(r.is_active(), r.bindings.iter().count() == 1);
            self.record(r);
        }
    }
}

/// Every VM is in the set of its owner and in no other; indexes tell the truth.
fn consistent(w: &World) {
    let d = &w.d;
    for (id, n) in &d.nves {
        let here = d.records.values().filter(|r| r.bindings.at(id).is_some());
        let here: BTreeSet<VmKey> = here.map(|r| r.key).collect();
        assert_eq!(n.vms, here, "VMs of {id}");
        if let Some(s) = n.session {
            assert_eq!(d.sessions.get(&s).unwrap().nve.as_ref(), Some(id));
        }
    }
    for (id, n) in &d.nves {
        let member = d.vns.iter().filter(|(_, v)| v.members.contains(id)).map(|(vni, _)| vni);
        assert_eq!(view::memberships(n), member.collect::<Vec<_>>(), "VNs of {id}");
    }
    let ips: usize = d.records.values().map(|r| r.addresses().count()).sum();
    let (names, leading, _) = d.records.index_sizes();
    assert_eq!((leading, names), (ips, d.records.len()));
    for a in d.updates.all_awaited() {
        assert!(d.sessions.get(&a.session).is_some(), "waiting for a session that is gone");
    }
    assert!(d.moves.open().all(|m| !m.record.phase.is_final()));
    for m in d.moves.by_age().filter(|m| !m.record.phase.is_final()) {
        assert!(d.moves.open().any(|o| o.record.id == m.record.id));
        if m.awaits_grant() {
            let r = d.vm(m.record.key).expect("a moving VM is not deleted");
            assert_eq!(r.moving.as_ref(), Some(&m.record.id));
        }
    }
}

fn run(w: &mut World, t: &mut Watcher, op: Op) {
    let say = |w: &mut World, t: &Watcher, n: usize, m: NveToNva| match t.sessions.get(&n) {
        Some(s) => w.say(*s, m),
        None => vec![],
    };
    let held = |w: &World, v: u8| w.d.vm(key(v)).map_or(Version::ZERO, |r| r.version);
    let out = match op {
        Op::Hello(n) => {
            let (session, out) = w.hello(NVES[n]);
            t.sessions.insert(n, session);
            out
        }
        Op::Subscribe(n) => {
            say(w, t, n, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false })
        }
        Op::Unsubscribe(n) => say(w, t, n, NveToNva::Unsubscribe { vni: vni(100) }),
        Op::Disconnect(n) => match t.sessions.remove(&n) {
            Some(session) => w.leave(session),
            None => vec![],
        },
        Op::Claim(n, v, fresh) => {
            let base = if fresh { held(w, v) } else { Version { epoch: 1, seq: 1 } };
            say(w, t, n, claim(v, base))
        }
        Op::Withdraw(n, v, fresh) => {
            let version = if fresh { held(w, v) } else { Version { epoch: 1, seq: 2 } };
            say(w, t, n, NveToNva::Withdraw { key: key(v), version })
        }
        Op::AckAll(n) => {
            let ids = t.sessions.get(&n).and_then(|s| t.unacked.remove(s)).unwrap_or_default();
            ids.into_iter().flat_map(|ack_id| say(w, t, n, NveToNva::Ack { ack_ids: vec![ack_id] })).collect()
        }
        Op::Report(n, all) => {
            let mine = w.d.records.values().filter(|r| all && owner(r) == Some(NVES[n]));
            let attachments =
                mine.map(|r| Attachment { key: r.key, port: "p1".into(), version: r.version, active: true });
            let attachments = attachments.collect();
            say(w, t, n, NveToNva::Report { attachments, more: false })
        }
        Op::Step(n, v, what) => {
            let id = w.d.moves(Some(&format!("vm{v}")), false).last().map(|m| m.id.0.clone());
            match (id, t.sessions.get(&n)) {
                (Some(id), Some(s)) => w.step(*s, &id, what),
                _ => vec![],
            }
        }
        Op::Start(v, n) => w.start(v, NVES[n], "").map(|x| x.1).unwrap_or_default(),
        Op::Abort(v) => {
            let id = w.d.moves(Some(&format!("vm{v}")), true).last().map(|m| m.id.clone());
            let aborted = id.map(|id| w.abort_move(&id));
            aborted.and_then(Result::ok).map(|x| x.1).unwrap_or_default()
        }
        Op::Define(v, router) => {
            let def = VmDefinition { router, ..definition(v) };
            w.define_vm(def).map(|x| x.1).unwrap_or_default()
        }
        Op::Delete(v) => {
            let name = format!("vm{v}");
            w.delete_vm(&name).map(|x| x.1).unwrap_or_default()
        }
        Op::Pin(v) => {
            let _ = w.define_nve(&id("tor"), locators(99));
            let def = VmDefinition { pinned: Some(id("tor")), ..definition(v) };
            w.define_vm(def).map(|x| x.1).unwrap_or_default()
        }
        Op::Pass(ms) => w.pass(ms),
        Op::Join(n, v) => {
            say(w, t, n, NveToNva::Subscribe { vni: vni(v), mode: DirectoryMode::Push, lingers: false })
        }
        Op::Part(n, v) => say(w, t, n, NveToNva::Unsubscribe { vni: vni(v) }),
        Op::Linger(n, v, lingers) => say(w, t, n, NveToNva::Linger { vni: vni(v), lingers }),
        Op::Routed(op) => random_domains::run(w, op),
        Op::Crash => {
            w.restart();
            *t = Watcher { newest: std::mem::take(&mut t.newest), ..Watcher::default() };
            vec![]
        }
    };
    // What was said to a session was said before it closed.
    t.see(w, &out);
    for o in &out {
        if let Output::Close { session, .. } = o {
            t.sessions.retain(|_, s| s != session);
        }
    }
    consistent(w);
    random_domains::consistent(w, &t.domains);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r20_r21_r73_invariants_hold_under_random_schedules(ops in proptest::collection::vec(op(), 1..120)) {
        let mut w = World::new();
        let mut t = Watcher::default();
        t.see(&w, &[]);
        for op in ops {
            run(&mut w, &mut t, op);
        }
        // When everybody acknowledges, nothing stays under way, and no granted move waits for ever.
        let sessions: Vec<SessionId> = t.sessions.values().copied().collect();
        for s in &sessions {
            for ack_id in t.unacked.remove(s).unwrap_or_default() {
                w.say(*s, NveToNva::Ack { ack_ids: vec![ack_id] });
            }
        }
        w.settle(&sessions);
        // A claim that waited for an old NVE that is away may have been decided last.
        while !w.d.claims.contests.is_empty() {
            w.settle(&sessions);
        }
        w.settle(&sessions);
        prop_assert!(w.d.is_quiet());
        for m in w.d.moves(None, false) {
            prop_assert!(m.phase != MovePhase::Granted, "move {} waits for nobody", m.id);
        }
    }
}
