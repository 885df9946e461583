//! Jobs are taken while a batch is committed, and nothing leaves before its own commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{ClaimCause, DirectoryMode, MoveMode, MovePhase, NveId, Version, VmRecord};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::held::Held;
use super::*;
use crate::directory::{Config, Order, OtherAnswer, Status as Counts, VnInfo, Write};
use crate::service::handle::SHARE;

/// A running actor on a held store.
struct Rig {
    handle: Handle,
    held: Held,
    stop: watch::Sender<bool>,
    actor: JoinHandle<Result<(), StoreError>>,
}

impl Rig {
    fn start() -> Rig {
        // A test that was kept from its core for a while is no NVE that is silent.
        Rig::with(Config { keepalive_ms: 60_000, ..Config::default() })
    }

    fn with(config: Config) -> Rig {
        let held = Held::default();
        let (handle, actor) = Actor::new(Directory::new(config), Box::new(held.clone()), Audit::none());
        let (stop, stopped) = watch::channel(false);
        Rig { handle, held, stop, actor: tokio::spawn(actor.run(stopped)) }
    }

    fn order<T>(&self, order: Order) -> JoinHandle<Result<T, Status>>
    where
        T: TryFrom<Answered, Error = OtherAnswer> + Send + 'static,
    {
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.order(Operator::default(), order).await })
    }

    fn counts(&self) -> JoinHandle<Result<Counts, Status>> {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            handle.look(Operator::default(), "GetStatus".into(), |d, _| Ok(d.status())).await
        })
    }

    fn watch(&self) -> JoinHandle<Result<watch::Receiver<v1::MoveRecord>, Status>> {
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.watch(MoveId("m".into())).await })
    }

    async fn say(&self, session: SessionId, message: NveToNva) {
        let turn = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        self.handle.up(session, SessionUp::Message(message), turn).await.unwrap();
    }

    /// An NVE with a part in VN red.
    async fn join(&self, name: &str, n: u8) -> Opened {
        let opened = self.greet(name, n).await;
        self.say(
            opened.id,
            NveToNva::Subscribe { vni: key(1).vni, mode: DirectoryMode::Push, lingers: false },
        )
        .await;
        self.quiet().await;
        opened
    }

    /// An NVE without a part in any VN.
    async fn greet(&self, name: &str, n: u8) -> Opened {
        let opened = self.handle.open(None, Identity::Unproven).await.unwrap();
        let locators = Locators { v4: Some([10, 0, 0, n].into()), v6: None };
        let (nve, software) = (NveId::new(name).unwrap(), String::new());
        self.say(
            opened.id,
            NveToNva::Hello {
                nve,
                locators,
                software,
                last_epoch: 0,
                instance: n.into(),
                abilities: godwit_model::Abilities::unsaid(),
            },
        )
        .await;
        self.quiet().await;
        opened
    }

    /// All that was asked for is durable.
    async fn quiet(&self) {
        settle().await;
        while self.held.under_way().is_some() {
            self.held.finish();
            settle().await;
        }
    }

    /// VN red is there, and VM 1 is being committed.
    async fn committing_a_vm() -> (Rig, JoinHandle<Result<VmRecord, Status>>) {
        let rig = Rig::start();
        drop(rig.order::<VnInfo>(red()));
        rig.quiet().await;
        let first = rig.order::<VmRecord>(vm(1));
        settle().await;
        assert_eq!(puts(&rig.held), [key(1)]);
        (rig, first)
    }
}

/// Everybody does what can be done.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// The VMs in the commit under way.
fn puts(held: &Held) -> Vec<VmKey> {
    let writes = held.under_way().expect("a commit is under way");
    let puts = writes.iter().filter_map(|w| match w {
        Write::PutVm(r) => Some(r.key),
        _ => None,
    });
    puts.collect()
}

fn key(n: u16) -> VmKey {
    let [hi, lo] = n.to_be_bytes();
    VmKey { vni: Vni::from_low24(7), mac: Mac([2, 0, 0, 0, hi, lo]) }
}

fn red() -> Order {
    Order::CreateVn(VnRecord { vni: key(1).vni, name: "red".into(), settings: Default::default() })
}

fn vm(n: u16) -> Order {
    Order::DefineVm(VmDefinition {
        name: format!("vm{n}"),
        vn: "red".into(),
        mac: key(n).mac,
        ipv4: vec![],
        ipv6: vec![],
        router: false,
        pinned: None,
        policy: None,
        allowed: Default::default(),
    })
}

#[tokio::test]
async fn r73_jobs_are_taken_during_a_commit_and_answered_after_their_own() {
    let (rig, first) = Rig::committing_a_vm().await;
    let second = rig.order::<VmRecord>(vm(2));
    let counts = rig.counts();
    settle().await;
    assert!(!first.is_finished() && !second.is_finished() && !counts.is_finished());

    rig.held.finish();
    settle().await;
    assert!(first.is_finished(), "its commit is durable");
    assert_eq!(puts(&rig.held), [key(2)], "the next batch follows");
    assert!(!second.is_finished());
    assert!(!counts.is_finished(), "it counts a VM that is not durable");

    rig.held.finish();
    assert_eq!(second.await.unwrap().unwrap().key, key(2));
    assert_eq!(counts.await.unwrap().unwrap().vms, 2);
}

#[tokio::test]
async fn r73_a_query_during_a_commit_is_not_answered_before_it() {
    let (rig, first) = Rig::committing_a_vm().await;
    let counts = rig.counts();
    let unknown = rig.order::<VmRecord>(Order::DeleteVm { name: "vm9".into() });
    settle().await;
    assert!(!counts.is_finished() && !unknown.is_finished(), "both rest on what is not durable yet");
    rig.held.finish();
    settle().await;
    assert_eq!(rig.held.under_way(), None, "neither writes anything");
    assert!(first.is_finished() && counts.is_finished() && unknown.is_finished());
    assert_eq!(counts.await.unwrap().unwrap().vms, 1);
}

#[tokio::test]
async fn r73_a_store_that_refuses_ends_the_actor_and_nothing_of_either_batch_is_said() {
    let (rig, first) = Rig::committing_a_vm().await;
    let second = rig.order::<VmRecord>(vm(2));
    let counts = rig.counts();
    settle().await;
    rig.held.refuse();
    let ended = rig.actor.await.unwrap().unwrap_err();
    assert!(ended.to_string().contains("no space"), "{ended}");
    for answer in [first.await.unwrap().err(), second.await.unwrap().err(), counts.await.unwrap().err()] {
        assert!(answer.unwrap().message().contains("stopping"));
    }
    assert!(rig.held.durable().vms.is_empty());
}

#[tokio::test]
async fn r73_at_a_stop_the_commit_under_way_is_finished_and_what_it_led_to_is_said() {
    let (rig, first) = Rig::committing_a_vm().await;
    let second = rig.order::<VmRecord>(vm(2));
    settle().await;
    rig.stop.send_replace(true);
    settle().await;
    assert!(!rig.actor.is_finished());
    rig.held.finish();
    rig.actor.await.unwrap().unwrap();
    assert_eq!(first.await.unwrap().unwrap().key, key(1));
    assert!(second.await.unwrap().is_err(), "it is neither durable nor said");
    assert_eq!(rig.held.durable().vms.len(), 1);
}

#[tokio::test]
async fn r67_a_batch_that_is_full_takes_no_more() {
    let (rig, first) = Rig::committing_a_vm().await;
    let more: Vec<_> = (2..302).map(|n| rig.order::<VmRecord>(vm(n))).collect();
    settle().await;
    rig.held.finish();
    settle().await;
    assert!(first.is_finished());
    assert_eq!(puts(&rig.held).len(), 256);
    assert!(more.iter().all(|m| !m.is_finished()));
    rig.held.finish();
    settle().await;
    assert_eq!(puts(&rig.held).len(), 44);
    assert_eq!(more.iter().filter(|m| m.is_finished()).count(), 256);
    rig.quiet().await;
    assert!(more.iter().all(JoinHandle::is_finished));
}

#[tokio::test]
async fn r67_a_storm_during_a_commit_has_its_share_and_no_more() {
    let held = Held::default();
    let (handle, mut actor) =
        Actor::new(Directory::new(Default::default()), Box::new(held.clone()), Audit::none());
    actor.handle(Peer::operator(), Input::Order(red())).unwrap();
    actor.commit();
    let sent = Arc::new(AtomicUsize::new(0));
    let storm = sent.clone();
    tokio::spawn(async move {
        let share = Arc::new(Semaphore::new(SHARE));
        loop {
            let turn = share.clone().acquire_owned().await.unwrap();
            handle.up(SessionId(1), SessionUp::Message(NveToNva::Keepalive), turn).await.unwrap();
            storm.fetch_add(1, Ordering::Relaxed);
        }
    });
    let after = async |rounds: usize, actor: &mut Actor| {
        for _ in 0..rounds {
            for _ in 0..2 * SHARE {
                tokio::task::yield_now().await;
            }
            if let Ok(job) = actor.jobs.try_recv() {
                actor.batch(job);
            }
            actor.commit();
        }
        sent.load(Ordering::Relaxed)
    };
    assert_eq!(after(20, &mut actor).await, SHARE);
    actor.give_back();
    assert_eq!(
        after(20, &mut actor).await,
        2 * SHARE,
        "an NVE whose messages wait for long is no silent one"
    );
    held.finish();
    let sealed = until_durable(&mut actor.committing).await.unwrap();
    actor.let_out(sealed);
    actor.commit();
    assert!(after(20, &mut actor).await > 10 * SHARE, "nothing is being committed");
}

#[tokio::test]
async fn r71_there_are_no_ticks_while_nothing_is_taken() {
    let (rig, _first) = Rig::committing_a_vm().await;
    let _more: Vec<_> = (2..257).map(|n| rig.order::<VmRecord>(vm(n))).collect();
    let share = Arc::new(Semaphore::new(1));
    let (handle, turn) = (rig.handle.clone(), share.clone().acquire_owned().await.unwrap());
    let last = async move { handle.up(SessionId(1), SessionUp::Message(NveToNva::Keepalive), turn).await };
    drop(tokio::spawn(last));
    settle().await;
    // A tick would give the turn back.
    tokio::time::sleep(10 * TICK).await;
    settle().await;
    assert_eq!(share.available_permits(), 0);
    rig.held.finish();
    settle().await;
    assert_eq!(share.available_permits(), 1);
}

#[tokio::test]
async fn r73_a_session_that_ends_during_a_commit_is_told_nothing_more() {
    let rig = Rig::start();
    drop(rig.order::<VnInfo>(red()));
    let mut a = rig.join("a", 1).await;
    let mut b = rig.join("b", 2).await;
    while a.outbox.try_recv().is_ok() || b.outbox.try_recv().is_ok() {}
    drop(rig.order::<VmRecord>(vm(1)));
    settle().await;
    assert!(a.outbox.is_empty() && b.outbox.is_empty(), "the definition is not durable yet");
    rig.handle.gone(a.id).await;
    let c = rig.join("a", 1).await;
    let told = |opened: &mut Opened| {
        let mut updates = 0;
        while let Ok(Ok(message)) = opened.outbox.try_recv() {
            let message = SessionDown::try_from(message).unwrap();
            updates += usize::from(matches!(message, SessionDown::Message(NvaToNve::Update { .. })));
        }
        updates
    };
    assert!(told(&mut b) >= 1, "the other one is told when it is durable");
    assert!(a.outbox.try_recv().is_err() && a.outbox.is_closed());
    assert_ne!(c.id, a.id, "a number is not used again");
}

#[tokio::test]
async fn r73_a_watcher_sees_no_phase_that_a_crash_would_take_back() {
    let rig = Rig::start();
    drop(rig.order::<VnInfo>(red()));
    drop(rig.order::<VmRecord>(vm(1)));
    let a = rig.join("a", 1).await;
    let _b = rig.join("b", 2).await;
    let claim = NveToNva::Claim {
        seq: 1,
        key: key(1),
        ips: vec![],
        cause: ClaimCause::FirstFrame,
        base: Version::ZERO,
        port: "p".into(),
        router: None,
        overrides: Default::default(),
    };
    rig.say(a.id, claim).await;
    rig.quiet().await;
    let (to, id) = (NveId::new("b").unwrap(), String::from("m"));
    drop(rig.order::<MoveRecord>(Order::StartMove {
        vm: "vm1".into(),
        to,
        mode: MoveMode::Hot,
        id,
        accept: true,
    }));
    settle().await;
    let early = rig.watch();
    settle().await;
    assert!(!early.is_finished(), "the move is not durable yet");
    rig.quiet().await;
    let early = early.await.unwrap().unwrap();
    let ordered = early.borrow().phase();

    let aborted = rig.order::<MoveRecord>(Order::AbortMove { id: MoveId("m".into()) });
    settle().await;
    let late = rig.watch();
    settle().await;
    assert!(rig.held.under_way().is_some() && !aborted.is_finished() && !late.is_finished());
    assert_eq!(early.borrow().phase(), ordered, "the end is not durable yet");
    rig.held.finish();
    rig.quiet().await;
    assert_eq!(early.borrow().phase(), v1::MovePhase::Aborted);
    assert_eq!(late.await.unwrap().unwrap().borrow().phase(), v1::MovePhase::Aborted);
    assert_eq!(aborted.await.unwrap().unwrap().phase, MovePhase::Aborted);
}

#[tokio::test]
async fn r71_time_passes_while_every_batch_is_full() {
    let rig = Rig::with(Config { keepalive_ms: 300, ..Config::default() });
    drop(rig.order::<VnInfo>(red()));
    rig.quiet().await;
    // It is told of no VM, so that its session does not end because it reads nothing.
    let silent = rig.greet("a", 1).await;
    let mut vms = 1..u16::MAX;
    while !silent.outbox.is_closed() {
        // More than a batch takes waits at each hand-over.
        for n in vms.by_ref().take(300) {
            drop(rig.order::<VmRecord>(vm(n)));
        }
        assert!(!vms.is_empty(), "the silent NVE's session never ends");
        settle().await;
        tokio::time::sleep(TICK).await;
        if rig.held.under_way().is_some() {
            rig.held.finish();
        }
        settle().await;
    }
}

#[tokio::test]
async fn r38_a_commit_that_takes_long_leads_to_no_storm_of_what_has_not_left() {
    let rig = Rig::start();
    drop(rig.order::<VnInfo>(red()));
    let mut a = rig.join("a", 1).await;
    while a.outbox.try_recv().is_ok() {}
    drop(rig.order::<VmRecord>(vm(1)));
    settle().await;
    // One that is made while the other is committed, and its own takes long as well.
    drop(rig.order::<VmRecord>(vm(2)));
    for _ in 0..2 {
        tokio::time::sleep(60 * TICK).await;
        rig.held.finish();
        settle().await;
    }
    let (mut updates, mut others) = ([0; 2], 0);
    while let Ok(Ok(message)) = a.outbox.try_recv() {
        match SessionDown::try_from(message).unwrap() {
            SessionDown::Message(NvaToNve::Update { change, .. }) => {
                let told = format!("{change:?}");
                let of = (1..=2).find(|n| told.contains(&format!("\"vm{n}\""))).expect("of these two");
                updates[of - 1] += 1;
            }
            SessionDown::Message(NvaToNve::Keepalive) => {}
            _ => others += 1,
        }
    }
    assert!(updates.iter().all(|n| (1..=3).contains(n)), "{updates:?}");
    assert_eq!(others, 0, "no snapshot: nobody missed anything");
}
