//! A running switch: control with its sides of workers and devices.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{anyhow, bail};
use godwit_control::io::Flush;
use godwit_control::{Input, Level, Nve, Outputs};
use godwit_dpdk::{Eal, Mempool};
use godwit_model::message::NveToNva;
use godwit_tables::update::PortIdx;
use godwit_worker::command::{Command, MAX_SENT, Reply};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::devices::Devices;
use crate::kernel::Interfaces;
use crate::workers::{self, Since, WorkerHandle};

/// A switch that the tasks of the control thread share.
pub type Shared = Rc<RefCell<Switch>>;

/// A worker that takes longer to stop is told of.
const STOPS: Duration = Duration::from_secs(1);
/// And one that takes longer to do as ordered.
const SETTLES: Duration = Duration::from_secs(5);

/// All of a running switch that control owns.
pub struct Switch {
    /// The configuration it was started with.
    pub config: Config,
    /// The pure core of control.
    pub nve: Nve,
    /// Control's sides of the workers.
    pub workers: Vec<WorkerHandle>,
    /// The devices.
    pub devices: Devices,
    /// The kernel's interfaces; empty until they have been read.
    pub interfaces: Interfaces,
    /// Packet buffers.
    pub pool: Arc<Mempool>,
    /// The switch's clock.
    pub clock: Since,
    /// EAL uses hugepages.
    pub hugepages: bool,
    /// A driver said that a link changed; control looks within a millisecond.
    pub links_changed: Arc<AtomicBool>,
    /// The kernel's routes that are not in use, and why.
    pub ignored_routes: Vec<crate::kernel::Ignored>,
    outputs: Outputs,
    /// What waits to be said to the NVA, in order; the session takes it.
    to_nva: Vec<NveToNva>,
    barriers: Vec<(usize, u64, oneshot::Receiver<Reply<godwit_worker::dpdk::DpdkIo>>)>,
    /// The EAL ends with the switch, after everything that uses it.
    _eal: Eal,
}

impl Switch {
    /// A switch without devices, of parts that run.
    pub fn new(
        config: Config,
        nve: Nve,
        workers: Vec<WorkerHandle>,
        pool: Arc<Mempool>,
        clock: Since,
        eal: Eal,
    ) -> Switch {
        Switch {
            config,
            nve,
            workers,
            devices: Devices::default(),
            interfaces: Interfaces::new(),
            pool,
            clock,
            hugepages: eal.uses_hugepages(),
            links_changed: Arc::default(),
            ignored_routes: Vec::new(),
            outputs: Outputs::default(),
            to_nva: Vec::new(),
            barriers: Vec::new(),
            _eal: eal,
        }
    }

    /// Tells control that something happened, and carries out what it wants done.
    pub fn input(&mut self, input: Input) {
        let now = self.clock.now();
        self.nve.handle(now, wall_us(), input, &mut self.outputs);
        self.dispatch();
    }

    fn dispatch(&mut self) {
        let mut out = std::mem::take(&mut self.outputs);
        for (worker, update) in out.updates.drain(..) {
            self.workers[worker].update(update);
        }
        for (worker, token) in out.barriers.drain(..) {
            let reached = self.workers[worker].ask(Command::Barrier { token });
            self.barriers.push((worker, token, reached));
        }
        for Flush { worker, token, key, port } in out.flushes.drain(..) {
            self.workers[worker].order(Command::Flush { token, key, port });
        }
        for (port, frame) in out.frames.drain(..) {
            if frame.len() > MAX_SENT {
                tracing::error!(port = port.0, len = frame.len(), "control made a frame that is too long");
                continue;
            }
            // Any worker reaches any port; the first always exists. The answer brings the frame back, to be freed.
            drop(self.workers[0].ask(Command::Send { port, frame }));
        }
        self.to_nva.append(&mut out.to_nva);
        for note in out.notes.drain(..) {
            match note.level {
                Level::Debug => tracing::debug!("{note}"),
                Level::Info => tracing::info!("{note}"),
                Level::Warn => tracing::warn!("{note}"),
                Level::Alarm => tracing::error!("{note}"),
            }
        }
        self.outputs = out;
    }

    /// Takes what the workers said, and hands it to control. Returns whether there was anything.
    pub fn poll_workers(&mut self) -> bool {
        let mut any = false;
        for worker in 0..self.workers.len() {
            self.workers[worker].pump();
            for _ in 0..workers::EVENTS {
                let Some(event) = self.workers[worker].event() else { break };
                any = true;
                self.input(Input::Worker { worker, event });
            }
            any |= self.poll_punts(worker);
        }
        any | self.poll_barriers()
    }

    /// Hands VMs' frames that a worker punted to control. More than [`workers::PUNTS`] wait for the next turn, and keep
    /// no other input waiting.
    fn poll_punts(&mut self, worker: usize) -> bool {
        let mut any = false;
        for _ in 0..workers::PUNTS {
            let Some(punt) = self.workers[worker].punt() else { break };
            any = true;
            self.input(Input::Punted { port: punt.port(), frame: punt.bytes().to_vec() });
        }
        any
    }

    fn poll_barriers(&mut self) -> bool {
        let mut reached = Vec::new();
        self.barriers.retain_mut(|(worker, token, receiver)| match receiver.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => true,
            Ok(_) => {
                reached.push((*worker, *token));
                false
            }
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
        for &(worker, token) in &reached {
            self.input(Input::Applied { worker, token });
        }
        !reached.is_empty()
    }

    /// Lets control look at its timers.
    pub fn run_timers(&mut self) {
        if self.nve.next_deadline().is_some_and(|due| due <= self.clock.now()) {
            self.input(Input::Tick);
        }
    }

    /// Tells control of devices whose link changed, and workers the receiver offload capabilities of guests.
    pub fn poll_links(&mut self) {
        for d in self.devices.iter() {
            if let (Some(port), Some(offloads), true) = (&d.port, &d.receive_offloads, d.is_access) {
                offloads.set(port.guest_receive_offloads());
            }
        }
        let mut changed = Vec::new();
        for d in self.devices.iter_mut().filter(|d| d.link_counts && d.presence.is_present()) {
            let up = d.look_at_link();
            d.follow_guest(up);
            if up != d.link_up {
                d.link_up = up;
                changed.push((d.number, up));
            }
        }
        for (port, up) in changed {
            self.input(Input::PortLink { port, up });
        }
    }

    /// What is to be said to the NVA, in order.
    pub fn take_to_nva(&mut self) -> Vec<NveToNva> {
        std::mem::take(&mut self.to_nva)
    }

    /// Workers have so much to do that control should take nothing more from the NVA.
    pub fn is_behind(&self) -> bool {
        self.workers.iter().any(WorkerHandle::is_behind)
    }

    /// Waits until every order given so far has taken effect in every worker.
    pub async fn settled(switch: &Shared) {
        let barriers: Vec<_> = {
            let mut s = switch.borrow_mut();
            s.workers.iter_mut().map(|w| w.ask(Command::Barrier { token: 0 })).collect()
        };
        for (worker, mut barrier) in barriers.into_iter().enumerate() {
            // A worker that is stopping answers nothing; nothing is to be waited for then.
            while tokio::time::timeout(SETTLES, &mut barrier).await.is_err() {
                let core = switch.borrow().workers[worker].at.core;
                tracing::warn!(core, "the worker has not taken its orders for {SETTLES:?}: waiting for it");
            }
        }
    }

    /// The number of a VM's port.
    ///
    /// # Errors
    /// An unknown name, or the port of an uplink.
    pub fn access_port(&self, name: &str) -> anyhow::Result<PortIdx> {
        let device = self.devices.by_name(name).ok_or_else(|| self.no_port(name))?;
        if !device.is_access {
            bail!("port {name:?} is no VM's port; uplinks stay as configured until the switch restarts");
        }
        Ok(device.number)
    }

    /// The refusal of an unknown name.
    pub fn no_port(&self, name: &str) -> anyhow::Error {
        let names: Vec<&str> = self.devices.iter().map(|d| d.name.as_str()).collect();
        anyhow!("NVE {} has no port {name:?}; it has {}", self.config.nve.id, names.join(", "))
    }

    /// Stops the workers and closes the devices.
    pub async fn stop(switch: Shared) {
        let stopped: Vec<_> = {
            let mut s = switch.borrow_mut();
            s.workers.iter_mut().map(|w| w.ask(Command::Stop)).collect()
        };
        for (worker, answer) in stopped.into_iter().enumerate() {
            for w in &mut switch.borrow_mut().workers {
                w.pump();
            }
            if tokio::time::timeout(STOPS, pumped(&switch, answer)).await.is_err() {
                let core = switch.borrow().workers[worker].at.core;
                tracing::warn!(core, "the worker has not stopped in {STOPS:?}: waiting for it");
            }
        }
        for w in &mut switch.borrow_mut().workers {
            w.join();
        }
    }
}

/// Waits for an answer while nothing else pumps the workers' queues.
async fn pumped<T>(switch: &Shared, mut answer: oneshot::Receiver<T>) {
    while matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
        switch.borrow_mut().workers.iter_mut().for_each(WorkerHandle::pump);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Wall-clock time in microseconds since 1970.
fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}
