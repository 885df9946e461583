//! kill -9 at any moment loses nothing that was acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use godwit_api::tonic::Status;
use godwit_api::v1;
use godwit_model::Version;
use godwit_model::message::{Change, NvaToNve, NveToNva};

use crate::client::{Nve, Operator, definition, key, operator};
use crate::process::Process;

/// What the program has said about a VM: its version and owner, `None` for detached.
type Said = (Version, Option<String>);

/// Rounds of [`r73_nothing_acknowledged_is_lost_by_kill_9`], and what has to be acknowledged in them.
const ROUNDS: u32 = 12;
const ENOUGH: usize = 12;

/// What was acknowledged, and what was asked when the answer was cut off.
#[derive(Default)]
struct Told {
    vms: BTreeMap<u16, Said>,
    moves: Vec<String>,
    next_vm: u16,
    next_move: u32,
    /// This VM may have changed once more than we were told.
    uncertain: Option<u16>,
}

/// Small numbers that differ from run to run; the failing one is printed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

struct Network {
    op: Operator,
    nves: [Nve; 2],
}

impl Network {
    async fn connect(url: &str) -> Result<Network, Status> {
        let mut op = operator(url).await;
        op.create_vn(v1::Vn { name: "red".into(), vni: 100, ..Default::default() }).await?;
        Ok(Network { op, nves: [Nve::join(url, "a").await?, Nve::join(url, "b").await?] })
    }

    /// One change, noted when it was acknowledged.
    async fn change(&mut self, told: &mut Told, dice: &mut Dice) -> Result<(), Status> {
        let known = told.vms.len() as u64;
        if known == 0 || dice.roll(3) == 0 {
            return self.define(told).await;
        }
        let n = *told.vms.keys().nth(dice.roll(known) as usize).unwrap();
        told.uncertain = Some(n);
        let owner = told.vms[&n].1.clone();
        let said = match owner {
            None => self.claim(n, dice.roll(2) as usize).await?,
            Some(owner) if dice.roll(3) == 0 => self.withdraw(n, &owner, told.vms[&n].0).await?,
            Some(owner) => self.relocate(n, &owner, told).await?,
        };
        told.vms.insert(n, said);
        told.uncertain = None;
        Ok(())
    }

    async fn define(&mut self, told: &mut Told) -> Result<(), Status> {
        told.next_vm += 1;
        let n = told.next_vm;
        let record = self.op.define_vm(definition(n)).await?.into_inner();
        told.vms.insert(n, (record.version.unwrap().into(), None));
        Ok(())
    }

    async fn claim(&mut self, n: u16, at: usize) -> Result<Said, Status> {
        let record = self.nves[at].claim(n, Version::ZERO).await?;
        Ok((record.version, Some(self.nves[at].name.clone())))
    }

    async fn withdraw(&mut self, n: u16, owner: &str, version: Version) -> Result<Said, Status> {
        let nve = self.nves.iter_mut().find(|x| x.name == owner).unwrap();
        nve.say(NveToNva::Withdraw { key: key(n), version }).await;
        let newer = |m: &NvaToNve| match m {
            NvaToNve::Update { change: Change::Vm(r), .. } if r.key == key(n) && r.version > version => {
                Some(r.version)
            }
            _ => None,
        };
        Ok((nve.until(newer).await?, None))
    }

    async fn relocate(&mut self, n: u16, owner: &str, told: &mut Told) -> Result<Said, Status> {
        told.next_move += 1;
        let id = format!("move-{}", told.next_move);
        let target = usize::from(self.nves[0].name == owner);
        let to = self.nves[target].name.clone();
        let order =
            v1::StartMoveRequest { vm: format!("vm{n}"), to, mode: 1, id: id.clone(), ..Default::default() };
        self.op.start_move(order).await?;
        told.moves.push(id);
        self.claim(n, target).await
    }

    /// Everything that was acknowledged is there.
    async fn verify(&mut self, told: &mut Told) {
        let list = self.op.list_vms(v1::ListVmsRequest::default()).await.unwrap().into_inner().vms;
        let there: BTreeMap<String, Said> = list
            .into_iter()
            .map(|r| (r.name, (r.version.unwrap().into(), r.location.map(|l| l.nve))))
            .collect();
        for (n, said) in &mut told.vms {
            let found = there.get(&format!("vm{n}")).unwrap_or_else(|| panic!("vm{n} is lost"));
            if told.uncertain == Some(*n) {
                assert!(found.0 >= said.0, "vm{n} fell back from {said:?} to {found:?}");
                *said = found.clone();
            }
            assert_eq!(found, said, "vm{n}");
        }
        for id in &told.moves {
            let shown = self.op.show_move(v1::MoveName { id: id.clone() }).await;
            shown.unwrap_or_else(|e| panic!("the move {id} is lost: {e}"));
        }
        told.uncertain = None;
        self.clear_moves().await;
    }

    /// Moves that the crash left without a claim would only stand in the way.
    async fn clear_moves(&mut self) {
        let open = v1::ListMovesRequest { unfinished_only: true, ..Default::default() };
        for m in self.op.list_moves(open).await.unwrap().into_inner().moves {
            let _ = self.op.abort_move(v1::MoveName { id: m.id }).await;
        }
    }
}

impl Told {
    fn acknowledged(&self) -> usize {
        self.vms.len() + self.moves.len()
    }
}

async fn work(network: &mut Network, told: &mut Told, dice: &mut Dice) -> Status {
    loop {
        if let Err(e) = network.change(told, dice).await {
            return e;
        }
    }
}

#[tokio::test]
async fn r73_nothing_acknowledged_is_lost_by_kill_9() {
    let seed = u64::from(std::process::id()) * 2 + 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    for round in 1..=ROUNDS {
        let mut process = Process::start(dir.path());
        let mut network = Network::connect(&process.url).await.unwrap();
        assert_eq!(network.nves[0].epoch, round, "R73: the epoch rises with every start");
        network.verify(&mut told).await;
        // On a busy machine the lives were too short for much; the last one lasts until enough was acknowledged.
        while round == ROUNDS && told.acknowledged() <= ENOUGH {
            network.change(&mut told, &mut dice).await.unwrap();
        }
        let life = Duration::from_millis(20 + dice.roll(300));
        tokio::select! {
            e = work(&mut network, &mut told, &mut dice) => panic!("round {round}: {e}"),
            () = tokio::time::sleep(life) => process.kill(),
        }
        // The future was dropped in the middle of a change: that VM may be ahead of what we know.
    }
    let process = Process::start(dir.path());
    Network::connect(&process.url).await.unwrap().verify(&mut told).await;
}
