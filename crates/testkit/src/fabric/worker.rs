//! One worker of a switch: the tables and the pipeline that run in production, behind a mailbox
//! that is slow by a random little.

use std::collections::VecDeque;

use godwit_model::VmKey;
use godwit_pipeline::Pipeline;
use godwit_pipeline::mem::{MemOutput, MemPacket, MemPool};
use godwit_pipeline::packet::Packet;
use godwit_tables::event::Event;
use godwit_tables::update::{Key, PortIdx, Update, VmState};
use godwit_tables::vms::{Fib, State};
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::{HashKey, Instant, Span};

/// An order from control.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Change the tables.
    Apply(Update),
    /// Say that everything before is applied.
    Barrier(u64),
    /// Say when what is held for the VM and may go has gone.
    Flush(u64, Key, Option<PortIdx>),
    /// Send control's frame.
    Send(PortIdx, Vec<u8>),
}

/// A worker.
pub(super) struct Worker {
    pub tables: Tables,
    pipeline: Pipeline,
    pool: MemPool,
    pub out: MemOutput<MemPacket>,
    burst: Vec<MemPacket>,
    mailbox: VecDeque<(Instant, Order)>,
    last_due: Instant,
    /// The most orders that ever waited.
    pub backlog: usize,
    /// When the next poll is scheduled; `NEVER` for none.
    pub poll_at: Instant,
    /// When the last event reaches control: events go in order.
    pub last_event: Instant,
    /// Frames that control sent, which came in nowhere.
    sent_for_control: u64,
    /// Flushes that are not over.
    flushes: Vec<Flush>,
}

/// A flush under way.
struct Flush {
    token: u64,
    key: Key,
    /// The VM's port, where what it has sent itself is meant as well; that is not waited for beyond `patience`.
    port: Option<PortIdx>,
    patience: Instant,
}

impl Flush {
    fn is_over(&self, tables: &Tables, now: Instant) -> bool {
        let held = |port| now < self.patience && tables.holds_from(port);
        !tables.has_sendable(self.key) && !self.port.is_some_and(held)
    }
}

/// So long a worker waits for what a VM has sent and is held.
const PATIENCE: Span = Span::from_ms(10);

/// Small tables: a schedule has a handful of everything, and thousands of schedules want memory.
fn config() -> TablesConfig {
    TablesConfig {
        port_capacity: 64,
        location_capacity: 128,
        vn_capacity: 16,
        route_capacity: 256,
        domain_capacity: 8,
        subnet_capacity: 32,
        tunnel_capacity: 64,
        neighbor_capacity: 256,
        special_capacity: 64,
        miss_capacity: 48,
        misses_per_port: 24,
        ask_capacity: 16,
        asks_per_port: 8,
        hold_bytes: 512 << 10,
        settle: Span::from_ms(5000),
        // Large enough for what a VM sends while its switch's session is cut and made again.
        miss_hold_packets: 256,
        replica_limit: 8,
        hash_key: HashKey::new(1, 2),
        ..TablesConfig::default()
    }
}

impl Worker {
    pub fn new() -> Worker {
        Worker {
            tables: Tables::new(&config()),
            pipeline: Pipeline::new(),
            pool: MemPool::endless(),
            out: MemOutput::new(),
            burst: Vec::with_capacity(1),
            mailbox: VecDeque::new(),
            last_due: Instant(0),
            backlog: 0,
            poll_at: Instant::NEVER,
            last_event: Instant(0),
            sent_for_control: 0,
            flushes: Vec::new(),
        }
    }

    /// Puts an order into the mailbox, to be taken no earlier than `due` and no earlier than those
    /// before it; when that will be.
    pub fn post(&mut self, due: Instant, order: Order) -> Instant {
        self.last_due = self.last_due.max(due);
        self.mailbox.push_back((self.last_due, order));
        self.backlog = self.backlog.max(self.mailbox.len());
        self.last_due
    }

    /// The next order that is due.
    pub fn take_order(&mut self, now: Instant) -> Option<Order> {
        self.mailbox.pop_front_if(|(due, _)| *due <= now).map(|(_, order)| order)
    }

    /// No orders wait.
    pub fn is_idle(&self) -> bool {
        self.mailbox.is_empty()
    }

    /// Applies an update, then does what became possible by it.
    pub fn apply(&mut self, update: Update, now: Instant) {
        let event = self.tables.apply(update, now);
        self.out.events.extend(event);
        self.tick(now);
    }

    /// Begins a flush. A frame that came is processed at once, so that only holds are to be waited for.
    pub fn flush(&mut self, token: u64, key: Key, port: Option<PortIdx>, now: Instant) {
        self.flushes.push(Flush { token, key, port, patience: now + PATIENCE });
        self.tick(now);
    }

    /// Sends a frame for control, as the worker's loop does.
    pub fn send(&mut self, port: PortIdx, frame: &[u8]) {
        self.tables.counters.sent(port, frame.len());
        self.sent_for_control += 1;
        self.out.sent.push((port, MemPacket::new(frame)));
    }

    /// A frame came in.
    pub fn receive(&mut self, port: PortIdx, packet: MemPacket, now: Instant) {
        self.burst.push(packet);
        let Worker { pipeline, burst, tables, out, pool, .. } = self;
        pipeline.process(burst, port, tables, out, pool, now);
        self.tick(now);
    }

    /// What the loop does in every iteration.
    pub fn tick(&mut self, now: Instant) {
        self.pipeline.tick(&mut self.tables, &mut self.out, &mut self.pool, now);
        let Worker { flushes, tables, out, .. } = self;
        let over = flushes.extract_if(.., |f| f.is_over(tables, now));
        out.events.extend(over.map(|f| Event::Flushed { token: f.token }));
    }

    /// When the loop would next find something to do by itself.
    pub fn next_poll(&self, now: Instant) -> Instant {
        if self.tables.ready() > 0 {
            return now + Span::from_us(5);
        }
        let waits = !self.tables.asks().is_empty() || self.tables.has_arrivals();
        let asks = if waits { now + Span::from_ms(20) } else { Instant::NEVER };
        self.tables.vms.next_due().max(now + Span::from_us(5)).min(asks)
    }

    /// The worker's number for a VM, if it knows the VM's network.
    pub fn key(&self, vm: VmKey) -> Option<Key> {
        self.tables.vns.by_vni(vm.vni).map(|vn| Key::new(vn, vm.mac))
    }

    /// The port to which it delivers a VM's frames.
    pub fn delivers(&self, vm: VmKey) -> Option<PortIdx> {
        let key = self.key(vm)?;
        match self.tables.vms.get(key)? {
            Fib::Local(port) => Some(port),
            Fib::Special(at) => match self.tables.vms.special(at).state {
                State::Known(VmState::Local { port } | VmState::Arrived { port, .. }) => Some(port),
                _ => None,
            },
            Fib::Remote(_) | Fib::Ageing(_) | Fib::Detached(_) => None,
        }
    }

    /// How many frames too many or too few are accounted for; 0 is right.
    pub fn imbalance(&self) -> i64 {
        let all = self.tables.counters.total();
        let w = &self.tables.counters.worker;
        let into = all.rx_packets + w.copies + self.sent_for_control;
        let out = all.tx_packets + w.consumed + all.dropped() + self.tables.waiting();
        into as i64 - out as i64
    }
}

/// Bytes of a packet, for those who only look.
pub(super) fn bytes(packet: &MemPacket) -> &[u8] {
    packet.data()
}

/// What the last call raised.
pub(super) fn take_events(worker: &mut Worker) -> Vec<Event> {
    std::mem::take(&mut worker.out.events)
}
