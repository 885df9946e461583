//! The poll-mode loop of one core, top to bottom: orders, receive, process, send, tick.
//!
//! | step    | bound an iteration                  | may touch                    |
//! |---------|-------------------------------------|------------------------------|
//! | orders  | [`ORDERS`] commands                 | own tables, queues, replies  |
//! | receive | [`BURST`] frames a busy queue       | one receive queue at a time  |
//! | process | that burst                          | own tables, outboxes, events |
//! | tick    | what is held or about to end        | own tables, outboxes, events |
//! | send    | what the outboxes hold              | transmit queues              |
//!
//! Nothing in it locks, allocates, makes a system call or writes a log (the idle back-off, off by
//! default, sleeps). What control sends with an order, a queue or an empty vector, is given back or
//! reused, so that even freeing memory is control's work.

use godwit_pipeline::packet::{Packet, PacketSource};
use godwit_pipeline::{Pipeline, trace};
use godwit_tables::Tables;
use godwit_tables::counters::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::{Key, PortIdx, Update, VmState};
use godwit_wire::{Instant, Span};

use crate::command::{Command, Mailbox, Reply, Snapshot};
use crate::exits::Exits;
use crate::flush::{Flush, Flushes, Step};
use crate::io::{Io, RxQueue};
use crate::orders::Entry;
use crate::outbox::{OUTBOX, Outboxes};
use crate::perf::{Iteration, Perf, Work};
use crate::polling::{IDLE_POLL, Queues};
use crate::queue_handover::{ActiveHandover, PATIENCE, QueueHandover};
use crate::stages::{Meter, Stage};

/// Frames taken from a queue at a time.
pub const BURST: usize = 64;

/// Orders carried out in one iteration.
pub const ORDERS: usize = 32;

/// Under load the mailbox is looked into once in so many frames: each look takes a line from the other core's cache,
/// and orders that are taken together wait for memory together. Short frames are so many in some 20 us.
pub const LOOK: u32 = 8 * BURST as u32;

/// How many times an outbox's worth of frames is taken back from a VM that stopped: with what waits in a relay.
const TAKEN_BACK: usize = 16;

/// One iteration in so many is timed queue by queue.
const TIMED: u64 = 16;

/// One worker: tables, queues and the loop over them.
pub struct Worker<I: Io> {
    tables: Tables,
    pipeline: Pipeline,
    pool: I::Pool,
    queues: Queues<I>,
    outboxes: Outboxes<I>,
    /// A receive queue that is handed to another worker.
    handover: Option<ActiveHandover<I>>,
    flushes: Flushes,
    mailbox: Mailbox<I>,
    burst: Vec<I::Packet>,
    /// Frames that were on their way to a VM that has stopped.
    returned: Vec<I::Packet>,
    perf: Perf,
    meter: Meter,
    iteration: Iteration,
    /// The orders of the last iteration in which there were any.
    taken: [Entry; ORDERS],
    /// Frames of the iteration before.
    iteration_before: u32,
    /// There was something to do in it.
    busy_before: bool,
    /// Frames since the mailbox was looked into.
    unlooked: u32,
    work: Work,
    stopping: bool,
}

impl<I: Io> Worker<I> {
    /// Allocates all that the loop will use.
    pub fn new(tables: Tables, pool: I::Pool, mailbox: Mailbox<I>) -> Worker<I> {
        Worker {
            tables,
            pipeline: Pipeline::new(),
            pool,
            queues: Queues::new(IDLE_POLL),
            outboxes: Outboxes::new(),
            handover: None,
            flushes: Flushes::new(),
            mailbox,
            burst: Vec::with_capacity(BURST),
            returned: Vec::with_capacity(OUTBOX),
            perf: Perf::new(Instant(0)),
            meter: Meter::default(),
            iteration: Iteration::default(),
            taken: [Entry::NONE; ORDERS],
            iteration_before: 0,
            busy_before: false,
            unlooked: 0,
            work: Work::default(),
            stopping: false,
        }
    }

    /// Looks at each receive queue that rests once within `bound` while there is something to do; zero: no queue
    /// rests. See [`crate::polling`].
    #[must_use]
    pub fn with_idle_poll(mut self, bound: Span) -> Worker<I> {
        self.queues.set_idle_poll(bound);
        self
    }

    /// Brings the tables' memory in, on this thread's NUMA node; before the first iteration.
    pub fn warm_up(&mut self) {
        self.tables.bring_in();
    }

    /// One iteration at time `now`. Returns whether there was anything to do.
    pub fn step(&mut self, now: Instant) -> bool {
        self.account(now);
        let mut busy = self.orders(now);
        self.meter.ended::<I>(Stage::Loop);
        busy |= self.receive(now);
        if self.flushes.is_busy() {
            self.advance_flushes(now);
            busy = true;
        }
        busy |= self.outboxes.serve_due_relays(now, self.busy_before);
        self.outboxes.keep_alive(now);
        self.tick(now);
        self.meter.ended::<I>(Stage::Loop);
        busy |= self.outboxes.flush(&mut self.tables.counters);
        self.meter.ended::<I>(Stage::Send);
        self.meter.close(busy);
        if self.handover.is_some() {
            self.hand_on(now);
        }
        self.work.iterations += 1;
        self.work.busy += u64::from(busy);
        self.iteration.busy = busy;
        busy
    }

    /// Closes the books of the iteration before: it ended just now.
    #[inline]
    fn account(&mut self, now: Instant) {
        if self.iteration.began == Instant(0) {
            self.perf.since = now;
        } else {
            self.perf.iteration(self.iteration, now, I::core_use);
            for order in &self.taken[..self.iteration.orders as usize] {
                self.perf.mailbox.record(now.0.saturating_sub(order.at.0));
            }
        }
        self.iteration_before = self.iteration.packets;
        self.busy_before = self.iteration.busy;
        self.unlooked = self.unlooked.saturating_add(self.iteration.packets);
        self.iteration = Iteration { began: now, ..Iteration::default() };
    }

    /// A [`Command::Stop`] was carried out.
    pub fn stopped(&self) -> bool {
        self.stopping
    }

    /// The tables, for tests and simulations that run a worker by hand.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    fn orders(&mut self, now: Instant) -> bool {
        if self.unlooked < LOOK && self.iteration_before >= BURST as u32 {
            return false;
        }
        self.unlooked = 0;
        // Taking from an empty queue costs a memory fence, every iteration.
        if self.mailbox.commands.is_empty() {
            return false;
        }
        // Every order makes at most one reply: with no room for one, orders wait. Control only makes more room.
        let replies = &self.mailbox.replies;
        let room = replies.capacity() - replies.len();
        let mut n = 0;
        while n < ORDERS.min(room) {
            let Some(entry) = self.mailbox.commands.next() else { break };
            // All the locations are asked of memory before the first is written.
            if let Some(key) = entry.what.key() {
                self.tables.vms.fetch(key);
            }
            self.taken[n] = entry;
            n += 1;
        }
        self.iteration.orders = n as u32;
        for i in 0..n {
            match self.taken[i].what.update() {
                Some(update) => self.apply(update, now),
                None => {
                    if let Some(command) = self.mailbox.commands.rest() {
                        self.carry_out(command, now);
                    }
                }
            }
        }
        n > 0
    }

    fn receive(&mut self, now: Instant) -> bool {
        // Reading the counter costs a frame's processing: one iteration in some is timed.
        let timed = self.work.iterations.is_multiple_of(TIMED);
        if self.queues.has_resting() {
            self.look_at_resting(now, timed);
        }
        let Worker { tables, pipeline, pool, queues, outboxes, mailbox, burst, iteration, meter, .. } = self;
        let mut exits = Exits { outboxes, events: &mailbox.events, punts: &mailbox.punts, meter };
        let mut busy = false;
        let mut before = if timed { I::ticks() } else { 0 };
        for polled in &mut queues.busy {
            let n = polled.rx.rx(burst, BURST);
            if n == 0 {
                continue;
            }
            busy = true;
            exits.meter.ended::<I>(Stage::Receive);
            if !polled.rx.copies() {
                Pipeline::fetch(burst, polled.port, tables);
            }
            pipeline.process(burst, polled.port, tables, &mut exits, pool, now);
            debug_assert!(burst.is_empty(), "every frame of a burst has found its end");
            polled.perf.bursts += 1;
            polled.perf.packets += n as u64;
            iteration.packets += n as u32;
            if timed {
                // Empty polls before a busy queue are its too.
                let after = I::ticks();
                polled.perf.timed_packets += n as u64;
                polled.perf.ticks += after.wrapping_sub(before);
                before = after;
            }
        }
        if queues.is_survey_due(now) {
            queues.survey(now);
        }
        busy
    }

    /// Wakes resting queues in which there is something, before the busy ones are polled.
    fn look_at_resting(&mut self, now: Instant, timed: bool) {
        let before = if timed { I::ticks() } else { 0 };
        let looks = self.queues.look(now, self.busy_before) as u64;
        self.perf.looks.count += looks;
        if timed {
            self.perf.looks.timed += looks;
            self.perf.looks.ticks += I::ticks().wrapping_sub(before);
        }
    }

    /// Flushes go on: receive queues are asked once more until they have been empty; see [`crate::flush`].
    #[cold]
    #[inline(never)]
    fn advance_flushes(&mut self, now: Instant) {
        if self.flushes.begins(now) {
            self.queues.iter_mut().for_each(|(q, _)| q.was_empty = false);
        }
        if self.flushes.drains() {
            self.empty_queues(now);
        }
        let (empty, clear) = (self.queues.iter().all(|(q, _)| q.was_empty), self.outboxes.is_clear());
        if self.flushes.advance(&self.tables, empty, clear, now) == Step::Mark {
            self.outboxes.mark();
        }
        let Worker { flushes, mailbox, .. } = self;
        flushes.tell(|event| mailbox.events.push(event).is_ok());
    }

    /// One more burst of each receive queue that has not been empty yet.
    fn empty_queues(&mut self, now: Instant) {
        let Worker { tables, pipeline, pool, queues, outboxes, mailbox, burst, iteration, meter, .. } = self;
        let mut exits = Exits { outboxes, events: &mailbox.events, punts: &mailbox.punts, meter };
        for (polled, rests) in queues.iter_mut().filter(|(q, _)| !q.was_empty) {
            if rests && !polled.rx.has_frames() {
                polled.was_empty = true;
                continue;
            }
            let n = polled.rx.rx(burst, BURST);
            polled.was_empty = n < BURST;
            if n > 0 {
                pipeline.process(burst, polled.port, tables, &mut exits, pool, now);
                polled.perf.bursts += 1;
                polled.perf.packets += n as u64;
                iteration.packets += n as u32;
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        let Worker { tables, pipeline, pool, outboxes, mailbox, meter, .. } = self;
        let mut exits = Exits { outboxes, events: &mailbox.events, punts: &mailbox.punts, meter };
        pipeline.tick(tables, &mut exits, pool, now);
    }

    fn carry_out(&mut self, command: Command<I>, now: Instant) {
        match command {
            Command::Table(update) => self.apply(update, now),
            Command::AttachRx { port, queue, rx } => {
                self.queues.add(port, queue, rx);
            }
            Command::DetachRx { port, queue } => {
                let rx = self.queues.remove(port, queue);
                self.reply(Reply::Rx { port, queue, rx });
            }
            Command::HandOver(handover) => self.begin_handover(handover, now),
            Command::EndHandover { port, queue } => {
                let active =
                    self.handover.take_if(|active| active.order.port == port && active.order.queue == queue);
                self.reply(Reply::Rx { port, queue, rx: active.and_then(|active| active.rx) });
            }
            Command::AttachTx { port, tx, offloads, outbox } => {
                self.outboxes.attach(port, tx, offloads, outbox);
            }
            Command::ServeRelay { port, relay } => self.outboxes.serve(port, relay),
            Command::DetachTx { port } => {
                let tx = self.outboxes.detach(port, &mut self.tables.counters);
                self.reply(Reply::Tx { port, tx });
            }
            Command::RetirePort { port } => self.tables.counters.retire(port),
            Command::Send { port, frame } => {
                self.send(port, &frame);
                self.reply(Reply::Sent { frame });
            }
            Command::Trace { id, port, frame } => {
                let trace = trace::trace(&self.tables, port, frame.bytes(), now);
                self.reply(Reply::Trace { id, trace });
            }
            Command::Snapshot(mut snapshot) => {
                self.fill(&mut snapshot);
                self.reply(Reply::Snapshot(snapshot));
            }
            Command::ResetPerf => {
                self.perf.reset(now);
                self.meter.reset();
                self.queues.reset_perf();
            }
            Command::Barrier { token } => self.reply(Reply::Reached { token }),
            Command::Flush { token, key, port } => {
                if !self.flushes.add(Flush { token, key, port })
                    && self.mailbox.events.push(Event::Flushed { token }).is_err()
                {
                    self.tables.counters.worker.events_dropped += 1;
                }
            }
            Command::Stop => {
                self.outboxes.flush(&mut self.tables.counters);
                self.stopping = true;
                self.reply(Reply::Stopped);
            }
        }
    }

    fn begin_handover(&mut self, handover: QueueHandover<I>, now: Instant) {
        let QueueHandover { port, queue, .. } = handover;
        let rx = if handover.from.is_none() { self.queues.remove(port, queue) } else { None };
        self.outboxes.mark();
        self.handover = Some(ActiveHandover { order: handover, rx, due: now + PATIENCE, over: false });
    }

    /// Hands a queue on as soon as all that should leave before it has left.
    #[cold]
    fn hand_on(&mut self, now: Instant) {
        let Some(active) = self.handover.as_mut().filter(|active| !active.over) else { return };
        if active.rx.is_none()
            && let Some(rx) = active.order.from.as_ref().and_then(|from| from.pop())
        {
            active.rx = Some(rx);
            active.due = now + PATIENCE;
            self.outboxes.mark();
        }
        if active.rx.is_none() {
            return;
        }
        if !self.outboxes.is_clear() {
            if now < active.due {
                return;
            }
            active.order.progress.late();
        }
        active.over = true;
        let Some(rx) = active.rx.take() else { return };
        let QueueHandover { port, queue, .. } = active.order;
        match &active.order.to {
            // Only one queue is on its way: there is room. Were there none, the queue would stay here.
            Some(to) => active.rx = to.push(rx).err(),
            None => {
                active.order.progress.done();
                self.queues.add(port, queue, rx);
            }
        }
    }

    fn apply(&mut self, update: Update, now: Instant) {
        if let Some(event) = self.tables.apply(update, now)
            && self.mailbox.events.push(event).is_err()
        {
            self.tables.counters.worker.events_dropped += 1;
        }
        if let Update::VmSet { key, state: VmState::Paused { .. } | VmState::Departed { .. } } = update {
            self.take_back(key, now);
        }
    }

    /// A VM has stopped here. What its port's device had not taken by then is held, or goes after it, like what
    /// comes from now on (R45).
    #[cold]
    fn take_back(&mut self, key: Key, now: Instant) {
        let Worker { tables, pipeline, pool, outboxes, mailbox, returned, meter, .. } = self;
        let mut next = 0;
        while let Some(port) = tables.ports.next_of_vm(key, next) {
            next = port.0 + 1;
            // What other workers left may be more than goes at once.
            for _ in 0..TAKEN_BACK {
                outboxes.take_back(port, key.mac(), returned, &mut tables.counters);
                if returned.is_empty() {
                    break;
                }
                let mut exits = Exits { outboxes, events: &mailbox.events, punts: &mailbox.punts, meter };
                pipeline.redirect(returned, (port, key), tables, &mut exits, pool, now);
            }
        }
    }

    fn send(&mut self, port: PortIdx, frame: &[u8]) {
        let Some(mut packet) = self.pool.alloc() else {
            return self.tables.counters.drop_one(port, DropReason::NoBuffer);
        };
        if packet.set(frame) && Pipeline::tag(&mut packet, port, &self.tables) {
            self.tables.counters.sent(port, packet.len());
            self.outboxes.send(port, packet);
        } else {
            self.tables.counters.drop_one(port, DropReason::NoBuffer);
        }
    }

    fn fill(&self, snapshot: &mut Snapshot) {
        snapshot.counters.copy_from(&self.tables.counters);
        snapshot.work = self.work;
        snapshot.locations = self.tables.vms.len() as u64;
        snapshot.held = self.tables.waiting();
        snapshot.queued = self.outboxes.waiting() as u64;
        snapshot.perf.clone_from(&self.perf);
        snapshot.stages = self.meter.ticks();
        self.queues.report(&mut snapshot.queues);
    }

    fn reply(&mut self, reply: Reply<I>) {
        // Room was checked before the order was taken, and only this worker pushes.
        let full = self.mailbox.replies.push(reply).is_err();
        debug_assert!(!full, "a reply found room");
    }
}
