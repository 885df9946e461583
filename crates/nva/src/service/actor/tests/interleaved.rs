//! Random interleavings of jobs and commits, beside an actor whose commits end at once. At any moment the one has said
//! exactly what the other had said when the last durable batch was closed.

use std::sync::Arc;

use godwit_model::message::{NvaToNve, NveToNva, QueryBy};
use godwit_model::{ClaimCause, DirectoryMode, NveId, Role, Version};
use tokio::sync::Semaphore;

use super::held::Held;
use super::*;
use crate::directory::{Order, State};
use crate::store::MemoryStore;

const SEEDS: u64 = 60;
const STEPS: usize = 150;
const VMS: u8 = 4;

/// Small numbers that differ from seed to seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % below
    }
}

/// Something to be done.
#[derive(Clone)]
enum Deed {
    Open,
    Gone(usize),
    Say(usize, NveToNva),
    Order(Order),
    Look,
    Ask(NveId),
}

/// A question of an operator.
enum Asked {
    Order(oneshot::Receiver<Result<Answered, Refusal>>),
    Look(oneshot::Receiver<String>),
}

impl Asked {
    fn answer(&mut self) -> Option<String> {
        match self {
            Asked::Order(rx) => rx.try_recv().ok().map(|answer| format!("{answer:?}")),
            Asked::Look(rx) => rx.try_recv().ok(),
        }
    }
}

/// What was said on a session; `None`: it was closed.
type Said = Vec<Option<SessionDown>>;

/// An actor with all that it says.
struct Side {
    actor: Actor,
    jobs: mpsc::Sender<Job>,
    turns: Arc<Semaphore>,
    opening: Vec<oneshot::Receiver<Opened>>,
    sessions: Vec<(SessionId, mpsc::Receiver<Outgoing>)>,
    said: Vec<Said>,
    asked: Vec<Asked>,
    answers: Vec<Option<String>>,
}

impl Side {
    fn new(store: Box<dyn Store>) -> Side {
        let (_, mut actor) = Actor::new(Directory::new(Default::default()), store, Audit::none());
        let (jobs, waiting) = mpsc::channel(QUEUE);
        actor.jobs = waiting;
        Side {
            actor,
            jobs,
            turns: Arc::new(Semaphore::new(QUEUE)),
            opening: vec![],
            sessions: vec![],
            said: vec![],
            asked: vec![],
            answers: vec![],
        }
    }

    fn enqueue(&mut self, deed: Deed) {
        let job = match deed {
            Deed::Open => {
                let (tx, rx) = oneshot::channel();
                self.opening.push(rx);
                Job::Open(None, Identity::Unproven, tx)
            }
            Deed::Gone(n) => Job::Gone(self.sessions[n].0),
            Deed::Say(n, message) => {
                let turn = self.turns.clone().try_acquire_owned().expect("so many do not wait");
                Job::Up(self.sessions[n].0, SessionUp::Message(message), turn)
            }
            Deed::Order(order) => {
                let (tx, rx) = oneshot::channel();
                self.asked.push(Asked::Order(rx));
                Job::Order(Default::default(), order, tx)
            }
            Deed::Look => {
                let (tx, rx) = oneshot::channel();
                self.asked.push(Asked::Look(rx));
                let look = Box::new(move |may: Result<(&Directory, Instant), Refusal>| {
                    let seen = may.map(|(d, _)| format!("{:?} {:?}", d.status(), d.vms(None))).unwrap();
                    Box::new(move || drop(tx.send(seen))) as Box<dyn FnOnce() + Send>
                });
                Job::Look(Operator::default(), "ListVms".into(), look)
            }
            Deed::Ask(nve) => {
                let relay = Relay { nve, what: "nve show", needs: Role::Read, details: String::new() };
                Job::Ask(Operator::default(), relay, v1::AdminRequest::default(), oneshot::channel().0)
            }
        };
        self.jobs.try_send(job).expect("so many do not wait");
    }

    /// Takes what waits.
    fn take(&mut self) {
        if let Ok(first) = self.actor.jobs.try_recv() {
            self.actor.batch(first);
        }
        assert!(self.actor.jobs.is_empty());
        for mut opened in self.opening.drain(..) {
            let Opened { id, outbox, .. } = opened.try_recv().expect("it opens at once");
            self.sessions.push((id, outbox));
            self.said.push(vec![]);
        }
        self.actor.commit();
    }

    /// The commit under way, which is durable, has its effect.
    async fn durable(&mut self) {
        let sealed = until_durable(&mut self.actor.committing).await.unwrap();
        self.actor.let_out(sealed);
        self.actor.commit();
    }

    fn listen(&mut self) {
        for ((_, outbox), said) in self.sessions.iter_mut().zip(&mut self.said) {
            while let Ok(message) = outbox.try_recv() {
                said.push(message.ok().map(|m| SessionDown::try_from(m).expect("the protocol")));
            }
        }
        self.answers.resize(self.asked.len(), None);
        for (asked, answer) in self.asked.iter_mut().zip(&mut self.answers) {
            *answer = answer.take().or_else(|| asked.answer());
        }
    }
}

/// The oracle after a round.
struct Round {
    said: Vec<usize>,
    answers: usize,
    state: State,
}

struct Twins {
    held: Held,
    tried: Side,
    oracle: Side,
    rounds: Vec<Round>,
    /// Of the rounds: those that are in the commit under way or an earlier one, and those whose commit is durable.
    closed: usize,
    durable: usize,
    /// Sessions that are gone are told nothing of what waited.
    gone: Vec<bool>,
    overlapping: usize,
}

impl Twins {
    fn new() -> Twins {
        let held = Held::default();
        Twins {
            tried: Side::new(Box::new(held.clone())),
            oracle: Side::new(Box::new(MemoryStore::default())),
            held,
            rounds: vec![],
            closed: 0,
            durable: 0,
            gone: vec![],
            overlapping: 0,
        }
    }

    fn enqueue(&mut self, deed: Deed) {
        match deed {
            Deed::Open => self.gone.push(false),
            Deed::Gone(n) => self.gone[n] = true,
            _ => {}
        }
        self.tried.enqueue(deed.clone());
        self.oracle.enqueue(deed);
    }

    /// Both take what waits; the oracle's commit ends at once.
    async fn round(&mut self) {
        self.overlapping += usize::from(self.tried.actor.committing.is_some());
        self.tried.take();
        self.oracle.take();
        while self.oracle.actor.committing.is_some() {
            self.oracle.durable().await;
        }
        self.oracle.listen();
        let said = self.oracle.said.iter().map(Vec::len).collect();
        let state = self.oracle.actor.directory.state();
        self.rounds.push(Round { said, answers: self.oracle.answers.len(), state });
        self.check();
    }

    async fn finish(&mut self) {
        if self.tried.actor.committing.is_some() {
            self.held.finish();
            self.tried.durable().await;
            self.durable = self.closed;
            self.check();
        }
    }

    /// What was said is what the oracle had said after the last round that is durable.
    fn check(&mut self) {
        if self.tried.actor.filling.is_empty() {
            self.closed = self.rounds.len();
        }
        if self.tried.actor.committing.is_none() {
            self.durable = self.closed;
        }
        self.tried.listen();
        let Some(last) = self.durable.checked_sub(1) else {
            assert!(self.tried.said.iter().all(Vec::is_empty));
            return assert!(self.tried.answers.iter().all(Option::is_none));
        };
        let Round { said, answers, state } = &self.rounds[last];
        for (n, tried) in self.tried.said.iter().enumerate() {
            let expected = &self.oracle.said[n][..said.get(n).copied().unwrap_or(0)];
            if self.gone[n] {
                assert!(expected.starts_with(tried), "session {n}");
            } else {
                assert_eq!(tried, expected, "session {n}");
            }
        }
        let (answered, waiting) = self.tried.answers.split_at(*answers);
        assert_eq!(answered, &self.oracle.answers[..*answers]);
        assert!(waiting.iter().all(Option::is_none));
        let durable = self.held.durable();
        assert_eq!((&durable.vms, &durable.vns, &durable.nves), (&state.vms, &state.vns, &state.nves));
        assert_eq!(durable.seq, state.seq);
    }

    fn deed(&mut self, dice: &mut Dice) -> Deed {
        let open: Vec<usize> = (0..self.tried.sessions.len()).filter(|n| !self.gone[*n]).collect();
        let n = 1 + dice.roll(VMS.into()) as u8;
        let order = |o| Deed::Order(o);
        match dice.roll(16) {
            0 => return Deed::Open,
            1 => return Deed::Look,
            2 => return order(definition(n, dice.roll(2) == 0)),
            3 => return order(Order::DeleteVm { name: format!("vm{n}") }),
            4 => return Deed::Ask(nve(dice.roll(3))),
            _ if open.is_empty() => return Deed::Open,
            _ => {}
        }
        let session = open[dice.roll(open.len())];
        let held = self.oracle.actor.directory.vm(key(n)).map_or(Version::ZERO, |r| r.version);
        match dice.roll(24) {
            0 => Deed::Gone(session),
            1..6 => Deed::Say(session, hello(dice.roll(3))),
            6..9 => Deed::Say(session, subscribe()),
            9..15 => Deed::Say(session, claim(n, held)),
            15..18 => Deed::Say(session, NveToNva::Withdraw { key: key(n), version: held }),
            18..21 => {
                let by = QueryBy::Mac(key(n).mac);
                Deed::Say(session, NveToNva::Query { seq: dice.roll(1000) as u64, vni: key(n).vni, by })
            }
            _ => match self.tried.said[session].iter().rev().find_map(to_acknowledge) {
                Some(ack_id) => Deed::Say(session, NveToNva::Ack { ack_id }),
                None => Deed::Look,
            },
        }
    }
}

fn to_acknowledge(said: &Option<SessionDown>) -> Option<u64> {
    match said {
        Some(SessionDown::Message(NvaToNve::Update { ack_id, .. })) => Some(*ack_id),
        _ => None,
    }
}

fn key(n: u8) -> VmKey {
    VmKey { vni: Vni::from_low24(7), mac: Mac([2, 0, 0, 0, 0, n]) }
}

fn nve(n: usize) -> NveId {
    NveId::new(["a", "b", "c"][n]).unwrap()
}

fn hello(n: usize) -> NveToNva {
    let locators = Locators { v4: Some([10, 0, 0, n as u8].into()), v6: None };
    NveToNva::Hello {
        nve: nve(n),
        locators,
        software: String::new(),
        last_epoch: 0,
        instance: n as u64 + 1,
        abilities: godwit_model::Abilities::unsaid(),
    }
}

fn subscribe() -> NveToNva {
    NveToNva::Subscribe { vni: key(1).vni, mode: DirectoryMode::Push, lingers: false }
}

fn claim(n: u8, base: Version) -> NveToNva {
    NveToNva::Claim {
        seq: n.into(),
        key: key(n),
        ips: vec![],
        cause: ClaimCause::FirstFrame,
        base,
        port: "p".into(),
        router: None,
        overrides: Default::default(),
    }
}

fn definition(n: u8, router: bool) -> Order {
    Order::DefineVm(VmDefinition {
        name: format!("vm{n}"),
        vn: "red".into(),
        mac: key(n).mac,
        ipv4: vec![],
        ipv6: vec![],
        router,
        pinned: None,
        policy: None,
        allowed: Default::default(),
    })
}

/// A run of one seed; its rounds that were taken during a commit, and all that was said.
async fn run(seed: u64) -> (usize, usize) {
    println!("seed {seed}");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut twins = Twins::new();
    let vn = VnRecord { vni: key(1).vni, name: "red".into(), settings: Default::default() };
    twins.enqueue(Deed::Order(Order::CreateVn(vn)));
    // Seed by seed, commits take longer.
    let patience = 1 + seed as usize % 6;
    for _ in 0..STEPS {
        for _ in 0..dice.roll(4) {
            let deed = twins.deed(&mut dice);
            twins.enqueue(deed);
        }
        twins.round().await;
        if dice.roll(patience) == 0 {
            twins.finish().await;
        }
    }
    while twins.tried.actor.committing.is_some() {
        twins.finish().await;
    }
    assert_eq!(twins.durable, twins.rounds.len(), "nothing is left");
    (twins.overlapping, twins.tried.said.iter().map(Vec::len).sum())
}

#[tokio::test]
async fn r73_what_leaves_is_what_leaves_when_every_commit_ends_at_once() {
    let (mut overlapping, mut said) = (0, 0);
    for seed in 1..=SEEDS {
        let (during, messages) = run(seed).await;
        overlapping += during;
        said += messages;
    }
    assert!(overlapping > 2_000 && said > 5_000, "{overlapping} rounds during a commit, {said} messages");
}
