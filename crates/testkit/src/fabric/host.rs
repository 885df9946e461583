//! A switch: its control and its workers, joined by mailboxes as in production.

use std::collections::BTreeMap;

use godwit_control::{Input, Level, Nve, NveConfig, Outputs, PortSpec, WorkerSet};
use godwit_tables::event::Event as WorkerEvent;
use godwit_tables::update::{HoldLimits, PortIdx, Update, VmState};
use godwit_wire::{Instant, Span};

use super::bound;
use super::invariants::Invariant;
use super::names;
use super::schedule::{Class, Sabotage, Schedule};
use super::worker::{Order, Worker, take_events};
use super::world::{Event, World};

/// The uplink's number on every switch.
pub(super) const UPLINK: PortIdx = PortIdx(0);

/// One switch.
pub(super) struct Host {
    pub nve: Nve,
    pub workers: Vec<Worker>,
    /// Access ports that are plugged in, and their VMs.
    pub ports: BTreeMap<PortIdx, usize>,
    next_port: u16,
    /// The earliest deadline that is scheduled.
    deadline_at: Instant,
    /// The session that it believes to have.
    pub conn: Option<usize>,
    pub backoff: Span,
    pub unreachable_until: Instant,
    /// Counts its starts.
    pub life: u32,
    /// It is dead until then.
    down_until: Instant,
    /// It stands still until then.
    pub stalled_until: Instant,
    /// Frames that wait for that.
    pub ring: usize,
    out: Outputs,
}

impl Host {
    /// A switch in its `life`, which has an instance number of its own (R96).
    pub fn new(number: usize, plan: &Schedule, life: u32) -> Host {
        let workers = plan.workers[number];
        let mut config = NveConfig::new(names::nve(number), workers);
        config.instance = (u64::from(life) << 32) + number as u64 + 1;
        config.fwd_timer = plan.fwd_timer;
        config.pull = plan.pulls[number].iter().map(|vn| names::vni(*vn)).collect();
        if let Some(addresses) = &plan.addresses {
            config.address_check = addresses.check;
        }
        // One that is cut off from the NVA refuses who joins a VN until it has noticed (R69).
        config.check_senders = plan.class != Class::Frozen;
        // No guest here probes its addresses.
        config.scan_grace = Span::from_ms(100);
        let none = HoldLimits { packets: 0, age: Span::from_ms(1) };
        match plan.sabotage {
            Some(Sabotage::NoForwarding) => config.forward_in_flight = false,
            Some(Sabotage::NoHandoverHold) => config.handover_hold = none,
            Some(Sabotage::NoArriveHold) => config.arrive_hold = none,
            _ => {}
        }
        // Long enough for the slowest weather: where nothing fails, no wait runs out.
        let marks = plan.sabotage != Some(Sabotage::NoMarkers);
        config.marker_wait = Span::from_ms(if marks { 200 } else { 0 });
        config.abilities.end_markers = marks;
        Host {
            nve: Nve::new(config),
            workers: (0..workers).map(|_| Worker::new()).collect(),
            ports: BTreeMap::new(),
            next_port: 1,
            deadline_at: Instant::NEVER,
            conn: None,
            backoff: Span(0),
            unreachable_until: Instant(0),
            life,
            down_until: Instant(0),
            stalled_until: Instant(0),
            ring: 0,
            out: Outputs::default(),
        }
    }
}

impl World {
    /// Gives a switch its uplink.
    pub fn plug_uplink(&mut self, host: usize) {
        let spec = PortSpec::Uplink(names::uplink(host, self.plan.underlay));
        let workers = WorkerSet::first(self.hosts[host].workers.len());
        self.control(host, Input::PortAdded { port: UPLINK, name: "up".into(), spec, workers });
    }

    /// Plugs in a new port for a VM.
    pub fn plug(&mut self, host: usize, vm: usize) -> PortIdx {
        let guest = &self.guests[vm];
        let h = &mut self.hosts[host];
        let port = PortIdx(h.next_port);
        h.next_port += 1;
        h.ports.insert(port, vm);
        let key = guest.key;
        self.note(|| format!("n{host} gets port {} for {key}", port.0));
        self.tell_port(host, port, vm);
        port
    }

    fn tell_port(&mut self, host: usize, port: PortIdx, vm: usize) {
        let key = self.guests[vm].key;
        let spec =
            PortSpec::Access { vni: key.vni, mac: key.mac, explicit_activation: self.plan.vms[vm].explicit };
        let workers = WorkerSet::first(self.hosts[host].workers.len());
        self.control(host, Input::PortAdded { port, name: format!("p{}", port.0), spec, workers });
    }

    pub fn is_down(&self, host: usize) -> bool {
        self.now < self.hosts[host].down_until
    }

    /// The last fault is over: every switch can be reached, once it is up.
    pub fn pardon_hosts(&mut self) {
        for host in &mut self.hosts {
            host.unreachable_until = host.unreachable_until.min(self.now.max(host.down_until));
        }
    }

    /// A switch dies with all that it knows and holds.
    pub fn reboot(&mut self, host: usize, down: Span) {
        if self.is_down(host) {
            return;
        }
        self.cut_host(host);
        let life = self.hosts[host].life + 1;
        let mut fresh = Host::new(host, &self.plan, life);
        let old = &mut self.hosts[host];
        fresh.ports = std::mem::take(&mut old.ports);
        fresh.next_port = old.next_port;
        fresh.down_until = self.now + down;
        fresh.unreachable_until = fresh.down_until;
        self.hosts[host] = fresh;
        self.known.forget(host);
        self.stats.reboots += 1;
        self.after(down, Event::Boot { host });
    }

    /// It starts again: ports are plugged in as they were.
    pub fn boot(&mut self, host: usize) {
        self.note(|| format!("n{host} is up again"));
        self.plug_uplink(host);
        // A paused guest's device was told to stop, and a guest that left has none: hypervisors do
        // not connect these again.
        let guests = &self.guests;
        self.hosts[host].ports.retain(|port, vm| {
            let here = guests[*vm].at == Some((host, *port));
            guests[*vm].running && here || guests[*vm].awaited == Some((host, *port))
        });
        for (port, vm) in self.hosts[host].ports.clone() {
            self.tell_port(host, port, vm);
            let runs = self.guests[vm].running && self.guests[vm].at == Some((host, port));
            if runs && self.plan.vms[vm].explicit {
                self.tell_later(host, Input::ActivatePort { port });
            }
        }
        self.after(Span::from_ms(1), Event::Connect { host });
    }

    /// Something reaches control a little later.
    pub fn tell_later(&mut self, host: usize, input: Input) {
        let (span, life) = (self.rng.us(1, 500), self.hosts[host].life);
        self.after(span, Event::Input { host, life, input: Box::new(input) });
    }

    /// Removes a port, whatever is behind it.
    pub fn unplug(&mut self, host: usize, port: PortIdx) {
        if self.hosts[host].ports.remove(&port).is_some() {
            self.note(|| format!("n{host} loses port {}", port.0));
            self.control(host, Input::PortRemoved { port });
        }
    }

    /// Gives control an input and carries out what it wants.
    pub fn control(&mut self, host: usize, input: Input) {
        if self.is_down(host) {
            return;
        }
        if self.is_stalled(host) {
            let (at, life) = (self.hosts[host].stalled_until, self.hosts[host].life);
            return self.queue.push(at, Event::Input { host, life, input: Box::new(input) });
        }
        let (now, wall) = (self.now, self.wall_us());
        let h = &mut self.hosts[host];
        let mut out = std::mem::take(&mut h.out);
        h.nve.handle(now, wall, input, &mut out);
        self.post_orders(host, &mut out);
        for message in out.to_nva.drain(..) {
            self.nve_says(host, message);
        }
        for note in out.notes.drain(..) {
            self.stats.alarms += u64::from(note.level == Level::Alarm);
            self.note(|| format!("n{host} notes {:?}: {note}", note.level));
        }
        self.hosts[host].out = out;
        self.arm_deadline(host);
    }

    /// Updates, then barriers, then frames, into the mailboxes.
    fn post_orders(&mut self, host: usize, out: &mut Outputs) {
        let (now, slow) = (self.now, self.plan.weather.mailbox_us);
        // What one call wants is put into a mailbox in one go, but a worker may stop in the midst.
        let mut due: Vec<Instant> =
            (0..self.hosts[host].workers.len()).map(|_| now + self.rng.us(1, slow)).collect();
        let mut orders: Vec<(usize, Order)> = Vec::new();
        let broken = self.plan.sabotage;
        let updates =
            out.updates.drain(..).filter_map(|(w, u)| Some((w, Order::Apply(bound::broken(broken, u)?))));
        orders.extend(updates);
        if broken == Some(Sabotage::NoAnnouncer) {
            out.frames.retain(|(_, frame)| names::told_of(frame).is_none());
        }
        orders.extend(out.barriers.drain(..).map(|(w, t)| (w, Order::Barrier(t))));
        orders.extend(out.flushes.drain(..).map(|f| (f.worker, Order::Flush(f.token, f.key, f.port))));
        orders.extend(out.frames.drain(..).map(|(port, f)| (0, Order::Send(port, f))));
        for (worker, order) in orders {
            if self.rng.chance(100) {
                due[worker] = due[worker] + self.rng.us(1, slow / 2 + 1);
            }
            let at = self.hosts[host].workers[worker].post(due[worker], order);
            self.queue.push(at, Event::Mailbox { host, worker });
        }
        let backlog = self.hosts[host].workers.iter().map(|w| w.backlog).max().unwrap_or(0);
        if backlog > 4096 {
            self.fail(Invariant::Bounded, format!("{backlog} orders wait in a mailbox of n{host}"));
        }
    }

    fn arm_deadline(&mut self, host: usize) {
        let now = self.now;
        let h = &mut self.hosts[host];
        let Some(at) = h.nve.next_deadline().filter(|t| *t != Instant::NEVER) else { return };
        // A loop wakes a little after its deadline.
        let at = at.max(now + Span::from_us(20));
        if at < h.deadline_at {
            h.deadline_at = at;
            self.queue.push(at, Event::Deadline { host });
        }
    }

    pub fn deadline(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        if self.now < h.deadline_at {
            return; // An earlier one was scheduled since, and this one anew after it.
        }
        h.deadline_at = Instant::NEVER;
        if h.nve.next_deadline().is_some_and(|t| t <= self.now) {
            self.control(host, Input::Tick);
        } else {
            self.arm_deadline(host);
        }
    }

    /// A worker takes the orders that are due.
    pub fn mailbox(&mut self, host: usize, worker: usize) {
        let now = self.now;
        let mut reached = Vec::new();
        while let Some(order) = self.hosts[host].workers[worker].take_order(now) {
            self.note(|| format!("n{host}/{worker} takes {order:?}"));
            let w = &mut self.hosts[host].workers[worker];
            match order {
                Order::Apply(update) => {
                    w.apply(update, now);
                    if let Update::VmSet { key, state: VmState::Local { .. } | VmState::Arrived { .. } } =
                        update
                    {
                        self.check_one_deliverer(host, key);
                    }
                }
                Order::Barrier(token) => reached.push(token),
                Order::Flush(token, key, port) => w.flush(token, key, port, now),
                Order::Send(port, frame) => w.send(port, &frame),
            }
            self.flush(host, worker);
        }
        for token in reached {
            let (span, life) = (self.rng.us(1, self.plan.weather.event_us), self.hosts[host].life);
            let input = Box::new(Input::Applied { worker, token });
            self.after(span, Event::Input { host, life, input });
        }
    }

    pub fn poll(&mut self, host: usize, worker: usize) {
        let w = &mut self.hosts[host].workers[worker];
        if w.poll_at > self.now {
            return; // Another poll is scheduled for its time.
        }
        w.poll_at = Instant::NEVER;
        w.tick(self.now);
        self.flush(host, worker);
    }

    /// Hands on what a worker sent and said, and lets it be polled again when it wants.
    pub fn flush(&mut self, host: usize, worker: usize) {
        let w = &mut self.hosts[host].workers[worker];
        let events = take_events(w);
        let mut sent = std::mem::take(&mut w.out.sent);
        for (port, frame) in std::mem::take(&mut w.out.punted) {
            self.tell_later(host, Input::Punted { port, frame });
        }
        for word in events {
            if let WorkerEvent::Handover { stats, .. } = &word {
                self.check_forwarding(host, stats);
            }
            let at = self.now + self.rng.us(1, self.plan.weather.event_us);
            let w = &mut self.hosts[host].workers[worker];
            w.last_event = w.last_event.max(at);
            let (at, life) = (w.last_event, self.hosts[host].life);
            self.queue.push(at, Event::Word { host, life, worker, word });
        }
        for (port, packet) in sent.drain(..) {
            if port == UPLINK {
                self.underlay_carries(host, packet);
            } else {
                self.guest_receives(host, port, &packet);
            }
        }
        let w = &mut self.hosts[host].workers[worker];
        w.out.sent = sent;
        let at = w.next_poll(self.now);
        if at < w.poll_at {
            w.poll_at = at;
            self.queue.push(at, Event::Poll { host, worker });
        }
    }
}
