//! What waits for the actor, and in which order it is taken.

mod commits;
mod held;
mod interleaved;

use std::sync::Arc;

use godwit_model::message::{NvaToNve, NveToNva, QueryBy};
use godwit_model::{ClaimCause, DirectoryMode, Locators, NveId, Version, VmKey};
use godwit_wire::{Mac, Vni};
use tokio::sync::Semaphore;

use super::super::handle::SHARE;
use super::*;
use crate::directory::{Order, VmDefinition, VnRecord};
use crate::store::MemoryStore;

fn message() -> SessionUp {
    SessionUp::Message(NveToNva::Keepalive)
}

#[tokio::test]
async fn r67_a_storm_of_one_nve_leaves_the_queue_to_the_others() {
    let directory = Directory::new(crate::directory::Config::default());
    let (handle, mut actor) = Actor::new(directory, Box::new(MemoryStore::default()), Audit::none());
    let storm = handle.clone();
    tokio::spawn(async move {
        let share = Arc::new(Semaphore::new(SHARE));
        loop {
            let turn = share.clone().acquire_owned().await.unwrap();
            storm.up(SessionId(1), message(), turn).await.unwrap();
        }
    });
    let share = Arc::new(Semaphore::new(SHARE));
    for _ in 0..100 {
        // As far as the storm gets while the actor is busy.
        for _ in 0..10 * QUEUE {
            tokio::task::yield_now().await;
        }
        assert_eq!(actor.jobs.len(), SHARE);
        let turn = share.clone().acquire_owned().await.unwrap();
        handle.up(SessionId(2), message(), turn).await.unwrap();
        let mut before = 0;
        while let Ok(Job::Up(SessionId(1), ..)) = actor.jobs.try_recv() {
            before += 1;
        }
        assert_eq!(before, SHARE, "the other one's message comes next");
    }
}

/// An actor with VM 7/02:00:00:00:00:01 and an NVE in its VN.
fn with_a_vm() -> (Handle, Actor, SessionId, VmKey) {
    let (handle, mut actor) = Actor::new(
        Directory::new(crate::directory::Config::default()),
        Box::new(MemoryStore::default()),
        Audit::none(),
    );
    let (session, vni, mac) = (SessionId(1), Vni::from_low24(7), Mac([2, 0, 0, 0, 0, 1]));
    let vn = VnRecord { vni, name: "red".into(), settings: Default::default() };
    actor.handle(Peer::operator(), Input::Order(Order::CreateVn(vn))).unwrap();
    let vm = VmDefinition {
        name: "vm".into(),
        vn: "red".into(),
        mac,
        ipv4: vec![],
        ipv6: vec![],
        router: false,
        pinned: None,
        policy: None,
        allowed: Default::default(),
    };
    actor.handle(Peer::operator(), Input::Order(Order::DefineVm(vm))).unwrap();
    actor.nve(session, Input::Connected { address: None, identity: Identity::Unproven });
    let locators = Locators { v4: Some([10, 0, 0, 1].into()), v6: None };
    let (nve, software) = (NveId::new("a").unwrap(), String::new());
    for message in [
        NveToNva::Hello {
            nve,
            locators,
            software,
            last_epoch: 0,
            instance: 1,
            abilities: godwit_model::Abilities::unsaid(),
        },
        NveToNva::Subscribe { vni, mode: DirectoryMode::Pull, lingers: false },
    ] {
        actor.nve(session, Input::Message(message));
    }
    actor.filling = Batch::default();
    (handle, actor, session, VmKey { vni, mac })
}

#[tokio::test]
async fn r67_a_claim_goes_before_the_queries_of_its_own_nve() {
    let (handle, mut actor, session, key) = with_a_vm();
    let share = Arc::new(Semaphore::new(SHARE));
    let say = async |message| {
        let turn = share.clone().acquire_owned().await.unwrap();
        handle.up(session, SessionUp::Message(message), turn).await.unwrap();
    };
    let query = |seq| NveToNva::Query { seq, vni: key.vni, by: QueryBy::Mac(key.mac) };
    for seq in 1..=20 {
        say(query(seq)).await;
    }
    let port = String::from("p1");
    let (ips, cause, router) = (vec![], ClaimCause::GratuitousArp, None);
    say(NveToNva::Claim {
        seq: 100,
        key,
        ips,
        cause,
        base: Version::ZERO,
        port,
        router,
        overrides: Default::default(),
    })
    .await;
    say(query(21)).await;
    let defined = actor.directory.vm(key).unwrap().version;
    let granted = Version { seq: defined.seq + 1, ..defined };
    say(NveToNva::Withdraw { key, version: granted }).await;
    let first = actor.jobs.try_recv().unwrap();
    actor.batch(first);

    let said: Vec<NvaToNve> = actor
        .filling
        .effects
        .iter()
        .filter_map(|e| match e {
            Effect::Say(_, SessionDown::Message(message)) => Some(message.clone()),
            _ => None,
        })
        .collect();
    assert!(matches!(&said[0], NvaToNve::Grant { seq: 100, .. }), "{said:?}");
    let answers: Vec<(u64, Version)> = said
        .iter()
        .filter_map(|m| match m {
            NvaToNve::Response { seq, record, .. } => Some((*seq, record.as_ref().unwrap().version)),
            _ => None,
        })
        .collect();
    let detached = actor.directory.vm(key).unwrap();
    assert!(!detached.is_active(), "the withdrawal came after the claim that it is about");
    let newest: Vec<(u64, Version)> = (1..=21).map(|seq| (seq, detached.version)).collect();
    assert_eq!(answers, newest, "in their order, with what is newest");
}
