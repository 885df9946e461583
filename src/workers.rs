//! The worker threads, and control's side of their queues.

use std::collections::VecDeque;
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

use godwit_tables::event::Event;
use godwit_tables::update::Update;
use godwit_wire::Instant;
use godwit_worker::command::{Command, Mailbox, Order, Reply};
use godwit_worker::dpdk::DpdkIo;
use godwit_worker::punts::Punt;
use godwit_worker::worker::Worker;
use tokio::sync::oneshot;

use crate::placement::WorkerAt;

/// Orders that fit into a worker's mailbox.
pub const MAILBOX: usize = 4096;
/// Events that fit into a worker's queue.
pub const EVENTS: usize = 4096;
/// Punted frames that control takes from a worker in one turn.
pub const PUNTS: usize = 32;
/// Updates that may wait for room in a mailbox before control stops taking more from the NVA.
pub const BACKLOG: usize = 65_536;
/// Iterations without work before a worker with an idle sleep sleeps.
const SPINS: u32 = 64;

/// Time since the switch's start, on the clock that all its threads share.
#[derive(Clone, Copy)]
pub struct Since(Clock);

impl Since {
    /// Now is zero.
    pub fn now_is_zero() -> Since {
        Since(Clock::now())
    }

    /// The time that has passed.
    #[inline]
    pub fn now(&self) -> Instant {
        Instant(self.0.elapsed().as_nanos() as u64)
    }
}

/// A worker's reading of that clock: the time stamp counter, set by the clock every [`ANCHOR_US`].
/// Asking the system each time costs four cycles a frame in full bursts.
struct Ticks {
    clock: Since,
    /// What the clock said, and the counter then.
    anchor: (Instant, u64),
    /// Nanoseconds a tick, times 2^32.
    scale: u64,
    /// Ticks after which the clock is asked again.
    stale: u64,
}

/// How long a worker goes by the counter alone, in microseconds. So short that neither an inexact
/// frequency nor a frequency that changes matters.
const ANCHOR_US: u64 = 20;

impl Ticks {
    fn new(clock: Since) -> Ticks {
        let hz = godwit_dpdk::tsc_hz();
        // A counter of unknown frequency is not used: the clock is asked every time.
        let scale = if hz == 0 { 0 } else { (1_000_000_000_u128 << 32).div_euclid(hz.into()) as u64 };
        let stale = hz / 1_000_000 * ANCHOR_US;
        Ticks { clock, anchor: (clock.now(), godwit_dpdk::tsc()), scale, stale }
    }

    #[inline]
    fn now(&mut self) -> Instant {
        let tick = godwit_dpdk::tsc();
        let passed = tick.wrapping_sub(self.anchor.1);
        if passed >= self.stale {
            // Never back, should the counter have run ahead by a hair.
            self.anchor = (self.clock.now().max(self.anchor.0), tick);
            return self.anchor.0;
        }
        Instant(self.anchor.0.0 + ((passed * self.scale) >> 32))
    }
}

/// What a worker thread needs beside the worker.
pub struct Thread {
    /// The worker's number.
    pub number: usize,
    /// Its core.
    pub core: usize,
    /// The switch's clock.
    pub clock: Since,
    /// Sleep so long after iterations without work; zero never sleeps.
    pub idle_sleep: Duration,
}

/// Starts a pinned thread that runs `worker` until it is told to stop.
///
/// # Errors
/// Where the system starts no thread.
pub fn spawn(mut worker: Worker<DpdkIo>, thread: Thread) -> std::io::Result<JoinHandle<()>> {
    let name = format!("worker-{}", thread.number);
    std::thread::Builder::new().name(name).spawn(move || {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: thread.core }) {
            tracing::warn!(worker = thread.number, core = thread.core, "cannot pin the worker to its core");
        }
        // Without registration DPDK's memory pools bypass their caches for this thread.
        let _registration = godwit_dpdk::ThreadRegistration::register()
            .inspect_err(|e| tracing::warn!(worker = thread.number, "packet buffers will be slow: {e}"));
        worker.warm_up();
        poll(&mut worker, &thread);
    })
}

fn poll(worker: &mut Worker<DpdkIo>, thread: &Thread) {
    let mut idle = 0;
    let mut ticks = Ticks::new(thread.clock);
    while !worker.stopped() {
        if worker.step(ticks.now()) || thread.idle_sleep.is_zero() {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle > SPINS {
            std::thread::sleep(thread.idle_sleep);
        }
    }
}

/// Control's side of one worker.
pub struct WorkerHandle {
    /// Its core and the core's NUMA node.
    pub at: WorkerAt,
    mailbox: Mailbox<DpdkIo>,
    /// Orders that wait for room in the mailbox.
    backlog: VecDeque<Order<DpdkIo>>,
    clock: Since,
    /// Who asked, in the order of the questions: a worker answers in the order of its orders.
    askers: VecDeque<oneshot::Sender<Reply<DpdkIo>>>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    /// For a worker that was built with `mailbox` and runs in `thread`.
    pub fn new(at: WorkerAt, mailbox: Mailbox<DpdkIo>, clock: Since, thread: JoinHandle<()>) -> WorkerHandle {
        WorkerHandle {
            at,
            clock,
            mailbox,
            backlog: VecDeque::new(),
            askers: VecDeque::new(),
            thread: Some(thread),
        }
    }

    /// Sends an order that has no answer.
    pub fn order(&mut self, command: Command<DpdkIo>) {
        self.backlog.push_back(Order { at: self.clock.now(), command });
        self.pump();
    }

    /// Sends an update of the tables.
    pub fn update(&mut self, update: Update) {
        self.order(Command::Table(update));
    }

    /// Sends an order that has an answer.
    pub fn ask(&mut self, command: Command<DpdkIo>) -> oneshot::Receiver<Reply<DpdkIo>> {
        let (answer, receiver) = oneshot::channel();
        self.askers.push_back(answer);
        self.order(command);
        receiver
    }

    /// Moves orders into the mailbox as far as there is room, and answers to those who asked.
    pub fn pump(&mut self) {
        while let Some(order) = self.backlog.pop_front() {
            if let Err(order) = self.mailbox.commands.push(order) {
                self.backlog.push_front(order);
                break;
            }
        }
        while let Some(reply) = self.mailbox.replies.pop() {
            // Who asked may have given up: the answer is dropped here, by control, as it should.
            if let Some(asker) = self.askers.pop_front() {
                let _ = asker.send(reply);
            }
        }
    }

    /// The next thing that the worker noticed.
    pub fn event(&self) -> Option<Event> {
        self.mailbox.events.pop()
    }

    /// The next frame of a VM that the worker punted.
    pub fn punt(&self) -> Option<Punt> {
        self.mailbox.punts.take()
    }

    /// Orders under way: in the mailbox or waiting for room in it.
    pub fn depth(&self) -> usize {
        self.backlog.len() + self.mailbox.commands.len()
    }

    /// So many orders wait that control should not take more in.
    pub fn is_behind(&self) -> bool {
        self.backlog.len() > BACKLOG
    }

    /// Waits for the thread; call it after the worker answered [`Command::Stop`].
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(core = self.at.core, "the worker's thread panicked");
        }
    }
}
