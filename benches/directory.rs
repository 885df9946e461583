//! The directory at the size that it is made for (R13): a thousand times a thousand bindings, or as many as
//! `GODWIT_BINDINGS` says, over 4,096 VNs and 4,096 NVEs that pull. What defining, claiming, asking and moving cost,
//! what a restart costs, and what memory a binding takes.
//!
//! One run of each, since most of it cannot be repeated on the same directory: not for small differences.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant as Clock};

use godwit_model::message::{NvaToNve, NveToNva, QueryBy};
use godwit_model::{
    ClaimCause, DirectoryMode, Identity, Locators, MoveMode, NveId, Version, VmKey, VnSettings,
};
use godwit_nva::directory::{
    Answered, Config, Directory, Input, Order, Output, Peer, Refusal, Reply, Request, SessionId,
    VmDefinition, VnRecord,
};
use godwit_wire::{Instant, Mac, Vni};

const NVES: u64 = 4_096;
const VNS: u64 = 4_096;
const WALL_US: u64 = 1_700_000_000_000_000;
/// NVEs that a VN's VMs run at.
const SPREAD: u64 = 16;
const ASKED: u64 = 1_000_000;
const MOVED: u64 = 10_000;

struct Bench {
    directory: Directory,
    now: Instant,
    bindings: u64,
}

/// The VNs take turns, so that each has its share.
fn key(n: u64) -> VmKey {
    let vni = Vni::new((n % VNS) as u32 + 1).expect("24 bits");
    VmKey { vni, mac: Mac::from_u64(0x0200_0000_0000 | n) }
}

fn ip(n: u64) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + (n / VNS) as u32)
}

/// The VMs of a VN run at sixteen NVEs, and each NVE has a part in sixteen VNs.
fn place(n: u64) -> SessionId {
    SessionId((n % VNS + n / VNS % SPREAD) % NVES + 1)
}

fn nve(session: SessionId) -> NveId {
    NveId::new(format!("nve-{}", session.0)).expect("a name")
}

/// Queries of a burst come in no order.
fn scattered(n: u64, of: u64) -> u64 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % of
}

impl Bench {
    fn new(bindings: u64) -> Bench {
        Bench { directory: Directory::new(Config::default()), now: Instant(1_000_000_000), bindings }
    }

    fn request(&mut self, peer: Peer, what: Input) -> Reply {
        self.directory.handle(Request { peer, what, now: self.now, wall_us: WALL_US })
    }

    fn order(&mut self, order: Order) -> (Result<Answered, Refusal>, Vec<Output>) {
        let Reply { answer, outputs } = self.request(Peer::operator(), Input::Order(order));
        (answer, outputs)
    }

    fn say(&mut self, session: SessionId, message: NveToNva) -> Vec<Output> {
        self.now = Instant(self.now.0 + 1_000);
        self.request(Peer::Nve(session), Input::Message(message)).outputs
    }

    /// Says what an NVE answers to what it was told, until nobody says anything.
    fn answer(&mut self, outputs: Vec<Output>) {
        let mut waiting = outputs;
        while let Some(output) = waiting.pop() {
            if let Output::Send { session, message: NvaToNve::Update { ack_id, .. } } = output
                && ack_id != 0
            {
                waiting.extend(self.say(session, NveToNva::Ack { ack_id }));
            }
        }
    }

    fn networks(&mut self) {
        for n in 0..VNS {
            let vn = VnRecord {
                vni: key(n).vni,
                name: format!("vn-{n}"),
                settings: VnSettings { mtu: 1450, ..VnSettings::default() },
            };
            self.order(Order::CreateVn(vn)).0.expect("a new VN");
        }
    }

    fn define(&mut self) {
        for n in 0..self.bindings {
            let vm = VmDefinition {
                name: format!("vm-{n}"),
                vn: format!("vn-{}", n % VNS),
                mac: key(n).mac,
                ipv4: vec![ip(n)],
                ipv6: vec![],
                router: false,
                pinned: None,
                policy: None,
                allowed: Default::default(),
            };
            self.order(Order::DefineVm(vm)).0.expect("a new VM");
        }
    }

    /// Every NVE comes and joins the VNs whose VMs it will have.
    fn connect(&mut self) {
        for n in 1..=NVES {
            let session = SessionId(n);
            self.request(
                Peer::Nve(session),
                Input::Connected { address: None, identity: Identity::Unproven },
            );
            let v4 = Some(Ipv4Addr::from_bits(0xc612_0000 + n as u32));
            let locators = Locators { v4, v6: None };
            let software = String::from("benchmark");
            self.say(
                session,
                NveToNva::Hello {
                    nve: nve(session),
                    locators,
                    software,
                    last_epoch: 0,
                    instance: 1,
                    abilities: godwit_model::Abilities::unsaid(),
                },
            );
        }
        for n in 0..self.bindings.min(VNS * SPREAD) {
            self.join(place(n), key(n).vni);
        }
    }

    fn join(&mut self, session: SessionId, vni: Vni) {
        let outputs =
            self.say(session, NveToNva::Subscribe { vni, mode: DirectoryMode::Pull, lingers: false });
        self.answer(outputs);
    }

    fn claim(&mut self, n: u64, session: SessionId, base: Version) {
        let ips = vec![IpAddr::V4(ip(n))];
        let (cause, port) = (ClaimCause::GratuitousArp, String::from("p1"));
        let claim = NveToNva::Claim {
            seq: n + 1,
            key: key(n),
            ips,
            cause,
            base,
            port,
            router: None,
            overrides: Default::default(),
        };
        let outputs = self.say(session, claim);
        let granted = |o: &Output| matches!(o, Output::Send { message: NvaToNve::Grant { .. }, .. });
        assert!(outputs.iter().any(granted), "VM {n} is granted: {outputs:?}");
        self.answer(outputs);
    }

    fn claim_all(&mut self) {
        for n in 0..self.bindings {
            self.claim(n, place(n), Version::ZERO);
        }
    }

    /// Questions by MAC and by address in turn, each from an NVE of the VN.
    fn ask(&mut self) -> Vec<Duration> {
        let mut took = Vec::with_capacity(ASKED as usize);
        for i in 0..ASKED {
            let n = scattered(i, self.bindings);
            let by = if i % 2 == 0 { QueryBy::Mac(key(n).mac) } else { QueryBy::Ip(IpAddr::V4(ip(n))) };
            let who = place(scattered(i + ASKED, self.bindings) / VNS * VNS + n % VNS);
            let began = Clock::now();
            let outputs = self.say(who, NveToNva::Query { seq: i + 1, vni: key(n).vni, by });
            took.push(began.elapsed());
            let known = |o: &Output| {
                matches!(o, Output::Send { message: NvaToNve::Response { record: Some(_), .. }, .. })
            };
            assert!(outputs.iter().any(known), "VM {n} is known: {outputs:?}");
        }
        took.sort_unstable();
        took
    }

    /// Ordered moves, each until the grant.
    fn moves(&mut self) {
        for i in 0..MOVED {
            let n = scattered(i, self.bindings);
            let record = self.directory.vm(key(n)).expect("it was defined");
            assert!(record.is_active());
            let base = record.version;
            let to = SessionId(place(n).0 % NVES + 1);
            self.join(to, key(n).vni);
            let (vm, id) = (format!("vm-{n}"), format!("move-{i}"));
            let start = Order::StartMove { vm, to: nve(to), mode: MoveMode::Hot, id, accept: true };
            let (Ok(_), outputs) = self.order(start) else { continue };
            self.answer(outputs);
            self.claim(n, to, base);
        }
    }
}

/// Memory of this process in bytes, as the kernel counts it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Does something `n` times and says what each took.
fn timed(what: &str, n: u64, f: impl FnOnce()) {
    let began = Clock::now();
    f();
    let took = began.elapsed();
    let each = took.as_nanos() as f64 / n.max(1) as f64 / 1000.0;
    println!("{what:<28} {n:>12} in {:>8.2} s {each:>10.2} us each", took.as_secs_f64());
}

fn main() {
    let wanted = std::env::var("GODWIT_BINDINGS").ok();
    let bindings = wanted.map_or(1_000_000, |n| n.parse().expect("GODWIT_BINDINGS is a number"));
    let mut b = Bench::new(bindings);
    b.networks();
    let empty = resident();
    timed("define", bindings, || b.define());
    println!("memory of a defined VM       {:>12} bytes", (resident() - empty) / bindings);
    timed("connect and join", NVES, || b.connect());
    timed("claim", bindings, || b.claim_all());
    println!("memory of a binding          {:>12} bytes", (resident() - empty) / bindings);
    let mut took = Vec::new();
    timed("query", ASKED, || took = b.ask());
    let at = |q: usize| took[(took.len() - 1) * q / 1000].as_nanos() as f64 / 1000.0;
    println!("query p50, p99, p99.9        {:>8.2} {:>8.2} {:>8.2} us", at(500), at(990), at(999));
    timed("move, order to grant", MOVED, || b.moves());
    let state = b.directory.state();
    drop(b);
    let mut restored = None;
    timed("restart from its state", bindings, || {
        restored = Some(Directory::restore(Config::default(), state, 2));
    });
    assert_eq!(restored.map(|d| d.status().vms as u64), Some(bindings));
}
