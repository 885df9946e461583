//! The VMs' manager: it performs the moves that the NVA orders, as many as there are, and knows nothing of drains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;

use super::crowd::Crowd;
use crate::cmd;
use crate::lab::VNI;
use crate::lab::rpc::{Admin, Operator, is_unreachable};

/// How often the manager asks for moves, and how far they are.
const POLL: Duration = Duration::from_millis(20);
/// How long a part of a move may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last frames of a VM may take to its switch.
const DRAINED: Duration = Duration::from_secs(20);

/// A switch, as its host's manager sees it.
pub struct Switch {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its admin interface.
    pub admin: Admin,
}

/// The manager of all hosts.
pub struct Manager<'a> {
    pub crowd: &'a Crowd,
    pub operator: Operator,
    pub switches: Vec<Switch>,
    /// Ports that were added.
    ports: AtomicU64,
    under_way: Mutex<BTreeSet<String>>,
    over: AtomicBool,
    /// Why moves were given up.
    pub given_up: Mutex<Vec<String>>,
}

impl<'a> Manager<'a> {
    pub fn new(crowd: &'a Crowd, operator: Operator, switches: Vec<Switch>) -> Manager<'a> {
        Manager {
            crowd,
            operator,
            switches,
            ports: AtomicU64::new(100),
            under_way: Mutex::default(),
            over: AtomicBool::new(false),
            given_up: Mutex::default(),
        }
    }

    /// Performs what is ordered, each move in a thread of its own, until [`Manager::end`].
    pub fn run<'s>(&'s self, scope: &'s std::thread::Scope<'s, '_>) {
        scope.spawn(move || {
            let numbers: BTreeMap<String, usize> =
                (0..self.crowd.len()).map(|n| (self.crowd.spec(n).name.clone(), n)).collect();
            while !self.over.load(Ordering::Relaxed) {
                let request = v1::ListMovesRequest { unfinished_only: true, ..Default::default() };
                // The NVA may be away.
                let moves = self.operator.list_moves(request).map(|l| l.moves).unwrap_or_default();
                for m in moves.into_iter().filter(|m| m.phase() < v1::MovePhase::Granted) {
                    let Some(vm) = numbers.get(&m.vm).copied() else { continue };
                    let known = !self.under_way.lock().is_ok_and(|mut set| set.insert(m.id.clone()));
                    if !known {
                        scope.spawn(move || self.perform(vm, &m));
                    }
                }
                sleep(POLL);
            }
        });
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// A new port for a VM, with the tap behind it; its name, which is the tap's, too.
    ///
    /// # Errors
    /// Where the switch refuses.
    pub fn plug(&self, vm: usize, host: usize) -> Result<String> {
        let number = self.ports.fetch_add(1, Ordering::Relaxed);
        let spec = self.crowd.spec(vm);
        let port = format!("{}-{number}", spec.name);
        let switch = &self.switches[host];
        switch.admin.ask(Ask::AddPort(v1::AddPort {
            name: port.clone(),
            devargs: format!("net_tap{number},iface={port}"),
            vni: VNI,
            mac: spec.mac.to_u64(),
            ..Default::default()
        }))?;
        cmd::ip_batch(&switch.namespace, &[format!("link set {port} up")])?;
        Ok(port)
    }

    fn unplug(&self, host: usize, port: &str) -> Result<()> {
        self.switches[host].admin.ask(Ask::RemovePort(v1::RemovePort { name: port.into() })).map(drop)
    }

    /// Repeats a call while the NVA cannot be reached.
    fn patiently<T>(&self, call: impl Fn() -> Result<T>) -> Result<T> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match call() {
                Err(e) if is_unreachable(&e) && Instant::now() < give_up => sleep(POLL),
                result => return result,
            }
        }
    }

    /// Waits until a move has come so far; an error where it was called off.
    fn reached(&self, id: &str, phase: v1::MovePhase) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let record = self.patiently(|| self.operator.show_move(v1::MoveName { id: id.into() }))?;
            match record.phase() {
                v1::MovePhase::Aborted | v1::MovePhase::Failed => bail!("move {id} was called off"),
                now if now >= phase => return Ok(()),
                now if Instant::now() > give_up => bail!("move {id} stands at {}", now.as_str_name()),
                _ => sleep(POLL),
            }
        }
    }

    /// One move; where it cannot be made, the VM goes on at its old host, and the move is called off.
    fn perform(&self, vm: usize, m: &v1::MoveRecord) {
        let Some(old) = self.crowd.at(vm) else { return };
        let Err(why) = self.hot(vm, m) else { return };
        let name = &self.crowd.spec(vm).name;
        if let Ok(mut list) = self.given_up.lock() {
            list.push(format!("move {} of VM {name} to {}: {why:#}", m.id, m.to));
        }
        let _ = self.patiently(|| self.operator.abort_move(v1::MoveName { id: m.id.clone() }));
        let back = self.crowd.attach(vm, old.host, &old.port).and_then(|()| self.crowd.announce(vm));
        if let (Err(e), Ok(mut list)) = (back, self.given_up.lock()) {
            list.push(format!("VM {name} did not go on at {}: {e:#}", self.switches[old.host].name));
        }
        self.crowd.pause(vm, false);
    }

    fn hot(&self, vm: usize, m: &v1::MoveRecord) -> Result<()> {
        let to = self.switches.iter().position(|s| s.name == m.to).context("no such switch")?;
        let old = self.crowd.at(vm).context("the VM is attached nowhere")?;
        let new = self.plug(vm, to)?;
        if let Err(e) = self.reached(&m.id, v1::MovePhase::Prepared) {
            self.unplug(to, &new)?;
            return Err(e);
        }
        self.crowd.pause(vm, true);
        self.crowd.drained(vm, DRAINED)?;
        let pause = v1::PausePort { name: old.port.clone(), move_id: m.id.clone() };
        self.switches[old.host].admin.ask(Ask::PausePort(pause))?;
        self.crowd.attach(vm, to, &new)?;
        self.crowd.announce(vm)?;
        self.crowd.pause(vm, false);
        self.reached(&m.id, v1::MovePhase::Done)?;
        self.unplug(old.host, &old.port)?;
        self.crowd.forget_tap(&old);
        Ok(())
    }
}
