//! A lab of NVEs around a directory that fits on a page: messages arrive in order, when the test
//! says so. Each NVE's worker is a model that applies updates and checks that they make sense.

pub mod binds;
pub mod domains;
pub mod nva;
pub mod said;
pub mod worker;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_control::{
    Input, Level, Note, Nve, NveConfig, Outputs, PortSpec, UplinkSpec, UplinkV4, UplinkV6, WorkerSet,
};
use godwit_model::message::{MoveRole, NvaToNve, NveToNva};
use godwit_model::{ConnectionPause, Location, Locators, MoveId, MoveMode, NveId, Version, VmKey};
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::{Key, PortIdx, Update, VmState, VnIdx};
use godwit_wire::{Instant, Mac, Span, Vni};

use nva::MiniNva;
use worker::Tables;

pub const UPLINK: PortIdx = PortIdx(0);
pub const PORT: PortIdx = PortIdx(1);
pub const VNI: u32 = 5001;

pub fn vni() -> Vni {
    Vni::new(VNI).unwrap()
}

pub fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

pub fn vm(n: u8) -> VmKey {
    VmKey { vni: vni(), mac: mac(n) }
}

pub fn vm_ip(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

pub fn key(n: u8) -> Key {
    Key::new(VnIdx(0), mac(n))
}

pub fn nve_id(i: usize) -> NveId {
    NveId::new(["a", "b", "c", "d"][i]).unwrap()
}

pub fn locator(i: usize) -> IpAddr {
    Ipv4Addr::new(198, 18, 0, i as u8 + 1).into()
}

pub fn location(i: usize) -> Location {
    let IpAddr::V4(v4) = locator(i) else { unreachable!() };
    Location { nve: nve_id(i), locators: Locators { v4: Some(v4), v6: None } }
}

pub fn uplink(i: usize) -> UplinkSpec {
    let IpAddr::V4(addr) = locator(i) else { unreachable!() };
    UplinkSpec {
        mac: Mac([2, 0xff, 0, 0, 0, i as u8]),
        v4: Some(UplinkV4 { addr, prefix_len: 24, gateway: None }),
        v6: None,
        v6_link_local: None,
        mtu: 1550,
        exception: None,
        vlan: None,
    }
}

pub fn uplink_v6(i: usize) -> UplinkSpec {
    let addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, i as u16 + 1);
    UplinkSpec { v6: Some(UplinkV6 { addr, prefix_len: 64, gateway: None }), v4: None, ..uplink(i) }
}

pub fn access(n: u8) -> PortSpec {
    PortSpec::Access { vni: vni(), mac: mac(n), explicit_activation: false }
}

/// One NVE with what surrounds it.
pub struct Host {
    pub nve: Nve,
    pub tables: Tables,
    /// Everything it ever said to the NVA, in order.
    pub said: Vec<NveToNva>,
    pub notes: Vec<Note>,
    pub frames: Vec<(PortIdx, Vec<u8>)>,
    /// Everything that its worker was ever told.
    pub updates: Vec<Update>,
    pub barriers: VecDeque<(usize, u64)>,
    pub connected: bool,
    /// Messages on their way to it.
    pub inbox: VecDeque<NvaToNve>,
    /// Messages on their way to the NVA.
    pub outbox: VecDeque<NveToNva>,
}

impl Host {
    pub fn state(&self, n: u8) -> Option<VmState> {
        self.tables.vms.get(&key(n)).copied()
    }

    pub fn tunnel_ip(&self, n: u8) -> Option<IpAddr> {
        let to = self.state(n)?.target()?;
        self.tables.tunnels.get(&to.tunnel).map(|t| t.0)
    }

    pub fn alarms(&self) -> usize {
        self.notes.iter().filter(|n| n.level == Level::Alarm).count()
    }
}

pub struct Lab {
    pub now: Instant,
    pub hosts: Vec<Host>,
    /// Datagrams between NVEs on their way, with the receiver.
    pub datagrams: VecDeque<(usize, Event)>,
    pub nva: MiniNva,
    /// Underlay neighbors answer, and workers apply barriers, at once.
    pub answer_arp: bool,
    pub apply: bool,
    /// Print what happens.
    pub trace: bool,
}

impl Lab {
    /// NVEs `0..count` with uplinks, connected, nothing more.
    pub fn new(count: usize) -> Lab {
        Lab::with(count, |_| {})
    }

    pub fn with(count: usize, tweak: impl Fn(&mut NveConfig)) -> Lab {
        let mut lab = Lab {
            now: Instant(1_000_000_000),
            hosts: Vec::new(),
            datagrams: VecDeque::new(),
            nva: MiniNva::new(count),
            answer_arp: true,
            apply: true,
            trace: false,
        };
        for i in 0..count {
            // The model's VMs answer nothing by themselves.
            let mut config = NveConfig { scan_rate: 0, ..NveConfig::new(nve_id(i), 1) };
            tweak(&mut config);
            lab.hosts.push(Host {
                nve: Nve::new(config),
                tables: Tables::default(),
                said: Vec::new(),
                notes: Vec::new(),
                frames: Vec::new(),
                updates: Vec::new(),
                barriers: VecDeque::new(),
                connected: false,
                inbox: VecDeque::new(),
                outbox: VecDeque::new(),
            });
            lab.uplink(i, uplink(i));
            lab.connect(i);
        }
        lab.settle();
        lab
    }

    pub fn uplink(&mut self, i: usize, spec: UplinkSpec) {
        let workers = WorkerSet::first(1);
        self.input(
            i,
            Input::PortAdded { port: UPLINK, name: "up0".into(), spec: PortSpec::Uplink(spec), workers },
        );
    }

    /// One input, with all that follows inside the NVE.
    pub fn input(&mut self, i: usize, input: Input) {
        let mut todo = VecDeque::from([input]);
        while let Some(input) = todo.pop_front() {
            let mut out = Outputs::default();
            if self.trace && input != Input::Tick {
                println!("{} {i} <- {input:?}", self.now.0 / 1_000_000);
            }
            let wall = 1_700_000_000_000_000 + self.now.0 / 1000;
            let h = &mut self.hosts[i];
            h.nve.handle(self.now, wall, input, &mut out);
            for (_, update) in out.updates {
                h.tables.apply_checked(update);
                h.updates.push(update);
            }
            h.barriers.extend(out.barriers);
            // Its worker has nothing that waits.
            let flushed = out.flushes.iter().map(|f| (f.worker, Event::Flushed { token: f.token }));
            todo.extend(flushed.map(|(worker, event)| Input::Worker { worker, event }));
            if self.apply {
                todo.extend(h.barriers.drain(..).map(|(worker, token)| Input::Applied { worker, token }));
            }
            if self.answer_arp {
                let answers = out.frames.iter().filter_map(|(port, f)| worker::arp_answer(*port, f));
                todo.extend(answers.map(|event| Input::Worker { worker: 0, event }));
            }
            if self.trace {
                out.to_nva.iter().for_each(|m| println!("   {i} -> {m:?}"));
                out.notes.iter().for_each(|n| println!("   {i} ## {n}"));
            }
            let sent = out.frames.iter().filter_map(|(_, f)| godwit_wire::peer::parse(f).ok());
            let sent = sent.map(|r| Event::Peer { src: r.src, dst: r.dst, datagram: *r.datagram });
            let sent: Vec<Event> = sent.collect();
            h.frames.extend(out.frames);
            assert!(h.connected || out.to_nva.is_empty(), "said without a session: {:?}", out.to_nva);
            h.said.extend(out.to_nva.iter().cloned());
            h.outbox.extend(out.to_nva);
            h.notes.extend(out.notes);
            for event in sent {
                let Event::Peer { dst, .. } = event else { continue };
                let to = (0..self.hosts.len()).find(|j| locator(*j) == dst);
                self.datagrams.extend(to.map(|j| (j, event)));
            }
        }
    }

    pub fn event(&mut self, i: usize, event: Event) {
        self.input(i, Input::Worker { worker: 0, event });
    }

    /// Lets messages and answers flow until nothing moves; time stands still.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.settle_once() {
                return;
            }
        }
        panic!("the lab does not come to rest");
    }

    fn settle_once(&mut self) -> bool {
        let mut moved = false;
        for i in 0..self.hosts.len() {
            moved |= self.nva_hears(i) | self.nve_hears(i);
        }
        while let Some((to, event)) = self.datagrams.pop_front() {
            self.event(to, event);
            moved = true;
        }
        moved
    }

    /// The NVA takes what NVE `i` said.
    pub fn nva_hears(&mut self, i: usize) -> bool {
        let Some(message) = self.hosts[i].outbox.pop_front() else { return false };
        for (to, answer) in self.nva.handle(i, message) {
            if self.hosts[to].connected {
                self.hosts[to].inbox.push_back(answer);
            }
        }
        true
    }

    /// NVE `i` takes one message.
    pub fn nve_hears(&mut self, i: usize) -> bool {
        let Some(message) = self.hosts[i].inbox.pop_front() else { return false };
        self.input(i, Input::Nva(message));
        true
    }

    /// Time passes; timers fire when they are due.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + Span::from_ms(ms);
        for _ in 0..100_000 {
            let due = self.hosts.iter().filter_map(|h| h.nve.next_deadline()).min();
            let Some(due) = due.filter(|t| *t <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            for i in 0..self.hosts.len() {
                if self.hosts[i].nve.next_deadline().is_some_and(|t| t <= self.now) {
                    self.input(i, Input::Tick);
                }
            }
            self.settle();
        }
        panic!("timers fire without end");
    }

    pub fn connect(&mut self, i: usize) {
        self.hosts[i].connected = true;
        self.input(i, Input::NvaConnected);
    }

    /// The session breaks; what was on its way is lost.
    pub fn disconnect(&mut self, i: usize) {
        self.hosts[i].connected = false;
        self.hosts[i].inbox.clear();
        self.hosts[i].outbox.clear();
        self.nva.lost(i);
        self.input(i, Input::NvaLost);
    }

    /// The switch starts anew: it has its uplink and a session, and remembers nothing.
    pub fn restart(&mut self, i: usize) {
        self.disconnect(i);
        let config = NveConfig { scan_rate: 0, ..NveConfig::new(nve_id(i), 1) };
        let h = &mut self.hosts[i];
        (h.nve, h.tables) = (Nve::new(config), Tables::default());
        h.barriers.clear();
        self.uplink(i, uplink(i));
        self.connect(i);
        self.settle();
    }

    pub fn add_port(&mut self, i: usize, port: PortIdx, n: u8) {
        let name = format!("vm{n}-{}", port.0);
        self.input(i, Input::PortAdded { port, name, spec: access(n), workers: WorkerSet::first(1) });
    }

    pub fn announce(&mut self, i: usize, port: PortIdx, n: u8) {
        let event =
            Event::Announce { port, kind: AnnounceKind::GratuitousArp, mac: mac(n), ip: Some(vm_ip(n)) };
        self.event(i, event);
    }

    /// Defines VM `n` and runs it at NVE `i` on `PORT + n - 1`, granted.
    pub fn run_vm(&mut self, i: usize, n: u8) {
        self.nva.define(vm(n), vm_ip(n));
        let port = PortIdx(u16::from(n));
        self.add_port(i, port, n);
        self.settle();
        self.announce(i, port, n);
        self.settle();
        assert_eq!(self.hosts[i].state(n), Some(VmState::Local { port }));
    }

    pub fn order_move(&mut self, id: &str, n: u8, from: usize, to: usize) {
        self.order_mode(id, n, (from, to), MoveMode::Hot);
    }

    /// Orders a move; where a warm one leads is told ahead.
    pub fn order_mode(&mut self, id: &str, n: u8, (from, to): (usize, usize), mode: MoveMode) {
        let record = self.nva.order_move(id, vm(n));
        if mode == MoveMode::Warm {
            let news = self.nva.set_pending(vm(n), Some(location(to)));
            self.say(news);
        }
        let record = self.nva.records.get(&record.key).cloned().unwrap_or(record);
        for (i, role) in [(to, MoveRole::Target), (from, MoveRole::Source)] {
            let message = NvaToNve::MovePrepare {
                id: MoveId(id.into()),
                role,
                record: record.clone(),
                from: location(from),
                to: location(to),
                mode,
            };
            if self.hosts[i].connected {
                self.hosts[i].inbox.push_back(message);
            }
        }
    }

    fn say(&mut self, said: nva::Said) {
        for (i, message) in said {
            if self.hosts[i].connected {
                self.hosts[i].inbox.push_back(message);
            }
        }
    }

    /// A move's parties are told that it was called off.
    pub fn abort(&mut self, id: &str, n: u8, parties: &[usize]) {
        self.nva.records.get_mut(&vm(n)).unwrap().moving = None;
        let abort = || NvaToNve::MoveAbort { id: MoveId(id.into()), key: vm(n), reason: "off".into() };
        self.say(parties.iter().map(|i| (*i, abort())).collect());
    }

    /// It is to run nowhere else any more.
    pub fn end_pending(&mut self, n: u8) {
        let news = self.nva.set_pending(vm(n), None);
        self.say(news);
    }

    /// Its connections are paused, or go on (R54).
    pub fn pause(&mut self, n: u8, pause: Option<ConnectionPause>) {
        let news = self.nva.pause(vm(n), pause);
        self.say(news);
    }

    /// The directory has it nowhere, by the word of its manager.
    pub fn detach(&mut self, n: u8) {
        let news = self.nva.detach(vm(n));
        self.say(news);
    }

    pub fn version(&self, n: u8) -> Version {
        self.nva.records[&vm(n)].version
    }
}
