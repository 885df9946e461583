//! The store of `godwit-nva`: one redb file, and a thread of its own that reads and writes it.
//!
//! Every commit is one transaction that is on the disk when it ends. Values are the protobuf records of `godwit-api`,
//! so that a newer version can read what an older wrote.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::{fs, thread};

use godwit_model::{DomainId, MoveId, NveId, VmKey};
use godwit_wire::{Mac, Vni};
use redb::{Database, Durability, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::{Loaded, Pending, Store, StoreError, codec};
use crate::directory::{State, Write};

/// Number of the layout below; a file with a higher one is of a newer version.
pub(super) const FORMAT: u64 = 3;

/// The file's name in the data directory.
pub const FILE: &str = "directory.redb";

type Bytes = &'static [u8];
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const VNS: TableDefinition<u32, Bytes> = TableDefinition::new("vns");
const DOMAINS: TableDefinition<u32, Bytes> = TableDefinition::new("domains");
/// By domain and prefix.
const ROUTES: TableDefinition<(u32, &str), Bytes> = TableDefinition::new("routes");
/// By VNI and MAC.
const VMS: TableDefinition<(u32, u64), Bytes> = TableDefinition::new("vms");
const POLICIES: TableDefinition<&str, Bytes> = TableDefinition::new("policies");
/// By VNI and MAC; times as 64-bit numbers, high byte first.
const FLAPS: TableDefinition<(u32, u64), Bytes> = TableDefinition::new("flaps");
const NVES: TableDefinition<&str, Bytes> = TableDefinition::new("nves");
/// The VNs that NVEs are in, by NVE and VNI.
const MEMBERS: TableDefinition<(&str, u32), ()> = TableDefinition::new("members");
const MOVES: TableDefinition<&str, Bytes> = TableDefinition::new("moves");
/// What NVEs may take part in, by NVE.
const ACCESS: TableDefinition<&str, Bytes> = TableDefinition::new("nve_access");
/// By NVE.
const DRAINS: TableDefinition<&str, Bytes> = TableDefinition::new("drains");

/// The highest number that a routing domain has had, in `META`.
const LAST_DOMAIN: &str = "last_domain";

/// Requests that may wait for the thread: one call at a time needs no more.
const REQUESTS: usize = 1;

/// Something that the thread is to do, and where the result goes.
enum Request {
    Load(oneshot::Sender<Result<Loaded, StoreError>>),
    Commit(Vec<Write>, oneshot::Sender<Result<(), StoreError>>),
}

/// The way to the thread that has the file. Dropped, it waits until the thread has finished what it was given and
/// has closed the file.
pub struct RedbStore {
    path: PathBuf,
    /// `None` tells the thread to end.
    requests: Option<mpsc::SyncSender<Request>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl RedbStore {
    /// Opens the file in `dir`, made where it is missing, and starts its thread.
    ///
    /// # Errors
    /// Where the directory cannot be made, another process has the file, it is damaged, or there is no thread to be
    /// had.
    pub fn open(dir: &Path) -> Result<RedbStore, StoreError> {
        let file = File::open(dir)?;
        let path = file.path.clone();
        let (requests, waiting) = mpsc::sync_channel(REQUESTS);
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || serve(&file, &waiting))
            .map_err(StoreError::Thread)?;
        Ok(RedbStore { path, requests: Some(requests), thread: Some(thread) })
    }

    /// Asks the thread; what it says is the result.
    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Pending<T> {
        let (reply, answer) = oneshot::channel();
        if let Some(requests) = &self.requests {
            // There is room. Where the thread is gone, there is no answer either.
            let _ = requests.try_send(request(reply));
        }
        let file = self.path.clone();
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Died { file })) })
    }
}

impl Store for RedbStore {
    fn load(&mut self) -> Pending<Loaded> {
        self.ask(Request::Load)
    }

    fn commit(&mut self, writes: Vec<Write>) -> Pending<()> {
        self.ask(|reply| Request::Commit(writes, reply))
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // Where it died, whoever asked it has been told.
            let _ = thread.join();
        }
    }
}

/// The thread: one request after the other, until nobody can ask any more.
fn serve(file: &File, requests: &mpsc::Receiver<Request>) {
    while let Ok(request) = requests.recv() {
        match request {
            Request::Load(reply) => drop(reply.send(file.begin())),
            Request::Commit(writes, reply) => drop(reply.send(file.commit(&writes))),
        }
    }
}

/// The open file.
pub(super) struct File {
    db: Database,
    path: PathBuf,
}

impl File {
    /// Opens the file in `dir`, made where it is missing.
    pub fn open(dir: &Path) -> Result<File, StoreError> {
        let unusable = |why| StoreError::Directory { dir: dir.into(), why };
        fs::create_dir_all(dir).map_err(unusable)?;
        let path = dir.join(FILE);
        // A file that was closed in order is trusted without this, and damage to it would be a panic.
        let mut builder = Database::builder();
        builder.set_check_integrity_on_open(true);
        let db = builder.create(&path).map_err(|e| StoreError::open(&path, e))?;
        sync_directory(dir).map_err(unusable)?;
        Ok(File { db, path })
    }

    /// Makes the tables, raises the epoch, and reads everything.
    fn begin(&self) -> Result<Loaded, StoreError> {
        let txn = self.begin_write()?;
        let mut state = State::default();
        {
            let mut meta = txn.open_table(META).map_err(|e| self.broken(e))?;
            let get = |name: &str| -> Result<Option<u64>, StoreError> {
                let value = meta.get(name).map_err(|e| self.broken(e))?;
                Ok(value.map(|v| v.value()))
            };
            match get("format")? {
                Some(v) if v > FORMAT => {
                    let file = self.path.clone();
                    return Err(StoreError::Newer { file, format: v, known: FORMAT });
                }
                _ => {}
            }
            let epoch = get("epoch")?.unwrap_or(0);
            state.epoch = u32::try_from(epoch).map_err(|e| self.broken(e))?;
            state.seq = get("seq")?.unwrap_or(0);
            let last_domain = get(LAST_DOMAIN)?.unwrap_or(0);
            state.last_domain = u32::try_from(last_domain).map_err(|e| self.broken(e))?;
            let next = state.epoch.checked_add(1).ok_or_else(|| self.broken("the epochs are used up"))?;
            meta.insert("format", FORMAT).map_err(|e| self.broken(e))?;
            meta.insert("epoch", u64::from(next)).map_err(|e| self.broken(e))?;
        }
        self.load(&txn, &mut state)?;
        self.load_members(&txn, &mut state)?;
        self.load_domains(&txn, &mut state)?;
        txn.commit().map_err(|e| self.broken(e))?;
        let epoch = state.epoch + 1;
        Ok(Loaded { state, epoch })
    }

    fn load(&self, txn: &redb::WriteTransaction, state: &mut State) -> Result<(), StoreError> {
        for row in txn.open_table(VNS).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (_, value) = row.map_err(|e| self.broken(e))?;
            let r = codec::vn_from(value.value()).map_err(|e| self.broken(e))?;
            state.vns.insert(r.vni, r);
        }
        for row in txn.open_table(VMS).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (_, value) = row.map_err(|e| self.broken(e))?;
            let r = codec::vm_from(value.value()).map_err(|e| self.broken(e))?;
            state.vms.insert(r.key, r);
        }
        for row in txn.open_table(POLICIES).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (_, value) = row.map_err(|e| self.broken(e))?;
            let p = codec::policy_from(value.value()).map_err(|e| self.broken(e))?;
            state.policies.insert(p.name.clone(), p);
        }
        for row in txn.open_table(FLAPS).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (key, value) = row.map_err(|e| self.broken(e))?;
            let (key, times) = codec::flaps_from(key.value(), value.value()).map_err(|e| self.broken(e))?;
            state.flaps.insert(key, times);
        }
        for row in txn.open_table(NVES).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (_, value) = row.map_err(|e| self.broken(e))?;
            let r = codec::nve_from(value.value()).map_err(|e| self.broken(e))?;
            state.nves.insert(r.id.clone(), r);
        }
        for row in txn.open_table(ACCESS).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (nve, value) = row.map_err(|e| self.broken(e))?;
            let (id, access) = codec::access_from(nve.value(), value.value()).map_err(|e| self.broken(e))?;
            state.access.insert(id, access);
        }
        for row in txn.open_table(MOVES).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (_, value) = row.map_err(|e| self.broken(e))?;
            let m = codec::move_from(value.value()).map_err(|e| self.broken(e))?;
            state.moves.insert(m.record.id.clone(), m);
        }
        for row in txn.open_table(DRAINS).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (nve, value) = row.map_err(|e| self.broken(e))?;
            let d = codec::drain_from(nve.value(), value.value()).map_err(|e| self.broken(e))?;
            state.drains.insert(d.nve.clone(), d);
        }
        Ok(())
    }

    /// Into the NVEs that are there. What rows of NVEs up to format 2 have becomes rows of its own.
    fn load_members(&self, txn: &redb::WriteTransaction, state: &mut State) -> Result<(), StoreError> {
        let before = state.nves.values().filter(|n| !n.vnis.is_empty());
        let before: Vec<Write> = before
            .flat_map(|n| {
                let joins = n.vnis.iter().map(|vni| Write::JoinVn(n.id.clone(), *vni));
                [Write::PutNve(n.clone())].into_iter().chain(joins)
            })
            .collect();
        if !before.is_empty() {
            put(txn, &before).map_err(|e| self.broken(e))?;
        }
        for row in txn.open_table(MEMBERS).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (key, _) = row.map_err(|e| self.broken(e))?;
            let (id, vni) = codec::member_from(key.value()).map_err(|e| self.broken(e))?;
            state.apply(&Write::JoinVn(id, vni));
        }
        Ok(())
    }

    fn load_domains(&self, txn: &redb::WriteTransaction, state: &mut State) -> Result<(), StoreError> {
        for row in txn.open_table(DOMAINS).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (id, value) = row.map_err(|e| self.broken(e))?;
            let r = codec::domain_from(id.value(), value.value()).map_err(|e| self.broken(e))?;
            state.domains.insert(r.id, r);
        }
        for row in txn.open_table(ROUTES).map_err(|e| self.broken(e))?.iter().map_err(|e| self.broken(e))? {
            let (key, value) = row.map_err(|e| self.broken(e))?;
            let r = codec::route_from(value.value()).map_err(|e| self.broken(e))?;
            state.routes.insert((DomainId(key.value().0), r.prefix), r.via);
        }
        Ok(())
    }

    fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let txn = self.begin_write()?;
        put(&txn, writes).map_err(|e| self.failed(e))?;
        txn.commit().map_err(|e| self.failed(e))
    }

    fn begin_write(&self) -> Result<redb::WriteTransaction, StoreError> {
        let mut txn = self.db.begin_write().map_err(|e| self.failed(e))?;
        txn.set_durability(Durability::Immediate).map_err(|e| self.failed(e))?;
        Ok(txn)
    }

    #[cfg(test)]
    pub fn set_format(&self, format: u64) {
        let txn = self.begin_write().unwrap();
        txn.open_table(META).unwrap().insert("format", format).unwrap();
        txn.commit().unwrap();
    }

    #[cfg(test)]
    pub fn set_nve(&self, id: &str, row: &[u8]) {
        let txn = self.begin_write().unwrap();
        txn.open_table(NVES).unwrap().insert(id, row).unwrap();
        txn.commit().unwrap();
    }

    fn broken(&self, why: impl ToString) -> StoreError {
        StoreError::Damaged { file: self.path.clone(), why: why.to_string() }
    }

    fn failed(&self, why: impl ToString) -> StoreError {
        StoreError::Write { file: self.path.clone(), why: why.to_string() }
    }
}

/// Carries out the writes in their order.
fn put(txn: &redb::WriteTransaction, writes: &[Write]) -> Result<(), redb::Error> {
    let mut meta = txn.open_table(META)?;
    let mut vns = txn.open_table(VNS)?;
    let mut domains = txn.open_table(DOMAINS)?;
    let mut routes = txn.open_table(ROUTES)?;
    let mut vms = txn.open_table(VMS)?;
    let mut policies = txn.open_table(POLICIES)?;
    let mut flaps = txn.open_table(FLAPS)?;
    let mut nves = txn.open_table(NVES)?;
    let mut members = txn.open_table(MEMBERS)?;
    let mut access = txn.open_table(ACCESS)?;
    let mut moves = txn.open_table(MOVES)?;
    let mut drains = txn.open_table(DRAINS)?;
    for write in writes {
        match write {
            Write::Seq(n) => drop(meta.insert("seq", n)?),
            Write::PutVn(r) => drop(vns.insert(vn_key(r.vni), &codec::vn(r)[..])?),
            Write::RemoveVn(vni) => drop(vns.remove(vn_key(*vni))?),
            Write::PutDomain(r) => {
                let last = meta.get(LAST_DOMAIN)?.map_or(0, |v| v.value());
                meta.insert(LAST_DOMAIN, last.max(r.id.0.into()))?;
                domains.insert(r.id.0, &codec::domain(r)[..])?;
            }
            Write::RemoveDomain(id) => drop(domains.remove(id.0)?),
            Write::PutRoute(id, r) => {
                routes.insert((id.0, r.prefix.to_string().as_str()), &codec::route(r)[..])?;
            }
            Write::RemoveRoute(id, prefix) => drop(routes.remove((id.0, prefix.to_string().as_str()))?),
            Write::PutVm(r) => drop(vms.insert(vm_key(r.key), &codec::vm(r)[..])?),
            Write::RemoveVm(key) => drop(vms.remove(vm_key(*key))?),
            Write::PutPolicy(p) => drop(policies.insert(p.name.as_str(), &codec::policy(p)[..])?),
            Write::RemovePolicy(name) => drop(policies.remove(name.as_str())?),
            Write::PutFlaps(key, times) => drop(flaps.insert(vm_key(*key), &codec::flaps(times)[..])?),
            Write::RemoveFlaps(key) => drop(flaps.remove(vm_key(*key))?),
            Write::PutNve(r) => drop(nves.insert(r.id.as_str(), &codec::nve(r)[..])?),
            Write::RemoveNve(id) => {
                nves.remove(NveId::as_str(id))?;
                members.retain_in((id.as_str(), 0)..=(id.as_str(), u32::MAX), |_, ()| false)?;
            }
            Write::JoinVn(id, vni) => {
                if nves.get(NveId::as_str(id))?.is_some() {
                    members.insert((id.as_str(), vni.get()), ())?;
                }
            }
            Write::LeaveVn(id, vni) => drop(members.remove((id.as_str(), vni.get()))?),
            Write::PutAccess(id, a) => drop(access.insert(id.as_str(), &codec::access(a)[..])?),
            Write::RemoveAccess(id) => drop(access.remove(id.as_str())?),
            Write::PutMove(m) => drop(moves.insert(m.record.id.0.as_str(), &codec::stored_move(m)[..])?),
            Write::RemoveMove(MoveId(id)) => drop(moves.remove(id.as_str())?),
            Write::PutDrain(d) => drop(drains.insert(d.nve.as_str(), &codec::drain(d)[..])?),
            Write::RemoveDrain(nve) => drop(drains.remove(nve.as_str())?),
        }
    }
    Ok(())
}

fn vn_key(vni: Vni) -> u32 {
    vni.get()
}

fn vm_key(key: VmKey) -> (u32, u64) {
    (key.vni.get(), Mac::to_u64(key.mac))
}

/// A new file's name is durable only when its directory is.
fn sync_directory(dir: &Path) -> std::io::Result<()> {
    fs::File::open(dir)?.sync_all()
}
