//! kill -9 while many ask at once, so that a batch fills while another one is committed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use godwit_api::tonic::Status;
use godwit_api::v1;
use godwit_model::Version;
use godwit_model::message::{Change, NvaToNve};

use crate::client::{Nve, Operator, PATIENCE, definition, operator};
use crate::process::Process;

const ROUNDS: usize = 6;
const OPERATORS: u16 = 8;
/// VMs of each operator.
const VMS: u16 = 4;

/// What anybody was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    count: usize,
    newest: BTreeMap<String, Version>,
}

impl Told {
    fn note(&self, name: String, version: Version) {
        let mut inner = self.0.lock().unwrap();
        inner.count += 1;
        let newest = inner.newest.entry(name).or_insert(version);
        *newest = version.max(*newest);
    }

    fn note_vm(&self, record: v1::VmRecord) {
        self.note(record.name, record.version.unwrap().into());
    }

    /// Until so much more was told.
    async fn grown_by(&self, more: usize) {
        let before = self.0.lock().unwrap().count;
        while self.0.lock().unwrap().count < before + more {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Changes its VMs and looks at everybody's, until the connection breaks.
async fn operate(mut op: Operator, first: u16, told: Told) -> Status {
    for n in 0.. {
        let vm = v1::DefineVmRequest { router: (n / VMS).is_multiple_of(2), ..definition(first + n % VMS) };
        match op.define_vm(vm).await {
            Ok(record) => told.note_vm(record.into_inner()),
            Err(e) => return e,
        }
        if n % 5 == first % 5 {
            match op.list_vms(v1::ListVmsRequest::default()).await {
                Ok(list) => list.into_inner().vms.into_iter().for_each(|r| told.note_vm(r)),
                Err(e) => return e,
            }
        }
    }
    unreachable!("the process is killed before")
}

/// Hears of all VMs, until the connection breaks.
async fn hear(mut nve: Nve, told: Told) -> Status {
    let noted = nve.until(|m| {
        if let NvaToNve::Update { change: Change::Vm(r), .. } = m {
            told.note(r.name.clone(), r.version);
        }
        None::<()>
    });
    noted.await.unwrap_err()
}

#[tokio::test]
async fn r73_nothing_that_many_were_told_at_once_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::default();
    for round in 0..=ROUNDS {
        let mut process = Process::start(dir.path());
        let mut op = operator(&process.url).await;
        op.create_vn(v1::Vn { name: "red".into(), vni: 100, ..Default::default() }).await.unwrap();
        let list = op.list_vms(v1::ListVmsRequest::default()).await.unwrap().into_inner().vms;
        let there: BTreeMap<String, Version> =
            list.into_iter().map(|r| (r.name, r.version.unwrap().into())).collect();
        for (name, version) in &told.0.lock().unwrap().newest {
            let found = there.get(name).unwrap_or_else(|| panic!("round {round}: {name} is lost"));
            assert!(found >= version, "round {round}: {name} fell back from {version} to {found}");
        }
        if round == ROUNDS {
            return;
        }
        let mut crowd = tokio::task::JoinSet::new();
        crowd.spawn(hear(Nve::join(&process.url, "a").await.unwrap(), told.clone()));
        for n in 0..OPERATORS {
            crowd.spawn(operate(operator(&process.url).await, 1 + n * VMS, told.clone()));
        }
        // Neither too early, nor at the same point of a commit each time.
        let grown = told.grown_by(200 + 37 * round);
        tokio::time::timeout(PATIENCE, grown).await.expect("it does not go on");
        process.kill();
        while let Some(ended) = crowd.join_next().await {
            ended.unwrap();
        }
    }
}
