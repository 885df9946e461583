//! A store whose commits end when the test says so.

use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::directory::{State, Write};
use crate::store::{Loaded, Pending, Store, StoreError};

/// The store; a clone of it is the test's side.
#[derive(Clone, Default)]
pub struct Held(Arc<Mutex<Inner>>);

type Done = oneshot::Sender<Result<(), StoreError>>;

#[derive(Default)]
struct Inner {
    durable: State,
    commit: Option<(Vec<Write>, Done)>,
}

impl Held {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// What a crash would leave now.
    pub fn durable(&self) -> State {
        self.inner().durable.clone()
    }

    /// The writes of the commit under way.
    pub fn under_way(&self) -> Option<Vec<Write>> {
        self.inner().commit.as_ref().map(|(writes, _)| writes.clone())
    }

    /// The commit under way is durable.
    pub fn finish(&self) {
        let mut inner = self.inner();
        let (writes, done) = inner.commit.take().expect("a commit is under way");
        writes.iter().for_each(|w| inner.durable.apply(w));
        done.send(Ok(())).expect("the actor waits");
    }

    /// The commit under way fails.
    pub fn refuse(&self) {
        let (_, done) = self.inner().commit.take().expect("a commit is under way");
        let refusal = StoreError::Write { file: "disk".into(), why: "no space".into() };
        done.send(Err(refusal)).expect("the actor waits");
    }
}

impl Store for Held {
    fn load(&mut self) -> Pending<Loaded> {
        let mut inner = self.inner();
        let state = inner.durable.clone();
        inner.durable.epoch += 1;
        Box::pin(ready(Ok(Loaded { state, epoch: inner.durable.epoch })))
    }

    fn commit(&mut self, writes: Vec<Write>) -> Pending<()> {
        let (done, durable) = oneshot::channel();
        let before = self.inner().commit.replace((writes, done));
        assert!(before.is_none(), "one commit at a time");
        Box::pin(async move { durable.await.expect("the test ends each commit") })
    }
}
