//! The directory's rules, one by one; names say the requirement.

mod allowed;
mod authority;
mod bind;
mod bound;
mod claims;
mod clones;
mod conflict;
mod counts;
mod domain_news;
mod domains;
mod door;
mod drains;
mod explained;
mod groups;
mod history;
mod keys;
mod modes;
mod moves;
mod operator;
mod patience;
mod policies;
mod pull;
mod random;
mod random_domains;
mod sessions;
mod stale;
mod updates;
mod world_orders;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use godwit_model::message::{Change, NvaToNve, NveToNva};
use godwit_model::{
    Abilities, ClaimCause, DenyReason, DirectoryMode, Gateway, Identity, Location, Locators, ModeSet, MoveId,
    MoveMode, MoveOrigin, MovePhase, MoveRecord, MoveStep, MoveStepKind, NveId, Policy, Unplanned, Version,
    VmKey, VmRecord, VnSettings,
};
use godwit_wire::{Instant, Mac, Span, Vni};

use super::*;

/// A directory with its clock, what it made durable, and what it said last.
pub(super) struct World {
    pub d: Directory,
    pub now: Instant,
    pub durable: State,
    next_session: u64,
}

pub(super) fn id(name: &str) -> NveId {
    NveId::new(name).unwrap()
}

pub(super) fn locators(n: u8) -> Locators {
    Locators { v4: Some(Ipv4Addr::new(10, 0, 0, n)), v6: None }
}

pub(super) fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

/// VM `n` of VN 100, which has address 192.168.0.n.
pub(super) fn key(n: u8) -> VmKey {
    VmKey { vni: vni(100), mac: Mac([2, 0, 0, 0, 0, n]) }
}

pub(super) fn ip(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, 0, n))
}

pub(super) fn definition(n: u8) -> VmDefinition {
    VmDefinition {
        name: format!("vm{n}"),
        vn: "red".into(),
        mac: key(n).mac,
        ipv4: vec![Ipv4Addr::new(192, 168, 0, n)],
        ipv6: vec![],
        router: false,
        pinned: None,
        policy: None,
        allowed: Default::default(),
    }
}

pub(super) fn claim(n: u8, base: Version) -> NveToNva {
    let (cause, port) = (ClaimCause::GratuitousArp, "p1".to_owned());
    NveToNva::Claim {
        seq: 7,
        key: key(n),
        ips: vec![ip(n)],
        cause,
        base,
        port,
        router: None,
        overrides: Default::default(),
    }
}

impl World {
    /// VN red (100) with the VMs 1, 2 and 3, attached nowhere.
    pub fn new() -> World {
        World::with(Config::default())
    }

    pub fn with(config: Config) -> World {
        let durable = State { epoch: 1, ..State::default() };
        let mut w =
            World { d: Directory::new(config), now: Instant(1_000_000_000), durable, next_session: 1 };
        let red = VnRecord {
            vni: vni(100),
            name: "red".into(),
            settings: VnSettings { mtu: 1400, ..VnSettings::default() },
        };
        w.create_vn(red).unwrap();
        for n in 1..=3 {
            w.define_vm(definition(n)).unwrap();
        }
        w
    }

    pub fn wall_us(&self) -> u64 {
        1_700_000_000_000_000 + self.now.0 / 1000
    }

    /// Makes durable what must be, and gives the rest.
    fn persist(&mut self, outputs: Vec<Output>) -> Vec<Output> {
        for o in &outputs {
            if let Output::Persist(w) = o {
                self.durable.apply(w);
            }
        }
        outputs
    }

    /// One request, and what it leads to.
    pub fn request(&mut self, peer: Peer, what: Input) -> Reply {
        let Reply { answer, outputs } =
            self.d.handle(Request { peer, what, now: self.now, wall_us: self.wall_us() });
        Reply { answer, outputs: self.persist(outputs) }
    }

    /// Something that an NVE's session brings.
    pub fn nve(&mut self, session: SessionId, what: Input) -> Vec<Output> {
        let Reply { answer, outputs } = self.request(Peer::Nve(session), what);
        assert_eq!(answer, Ok(Answered::Nothing));
        outputs
    }

    pub fn tick(&mut self) -> Vec<Output> {
        self.request(Peer::Clock, Input::Tick).outputs
    }

    /// The session's connection ends.
    pub fn leave(&mut self, session: SessionId) -> Vec<Output> {
        self.nve(session, Input::Disconnected)
    }

    /// Lets time pass in ticks of 10 ms.
    pub fn pass(&mut self, ms: u64) -> Vec<Output> {
        let mut all = Vec::new();
        for _ in 0..ms / 10 {
            self.now = self.now + Span::from_ms(10);
            all.extend(self.tick());
        }
        all
    }

    pub fn say(&mut self, session: SessionId, message: NveToNva) -> Vec<Output> {
        self.nve(session, Input::Message(message))
    }

    pub fn connect(&mut self) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.nve(session, Input::Connected { address: None, identity: Identity::Unproven });
        session
    }

    /// A session of NVE `name` (one letter, which gives its locator), and what it is told.
    pub fn hello(&mut self, name: &str) -> (SessionId, Vec<Output>) {
        let session = self.connect();
        let n = name.as_bytes()[0] - b'a' + 1;
        let hello = NveToNva::Hello {
            nve: id(name),
            locators: locators(n),
            software: "test".into(),
            last_epoch: 0,
            instance: 1,
            abilities: Abilities { modes: ModeSet::ALL, end_markers: false, capacity: 100 },
        };
        let outputs = self.say(session, hello);
        (session, outputs)
    }

    /// A session that is subscribed to VN red.
    pub fn join(&mut self, name: &str) -> SessionId {
        let (session, _) = self.hello(name);
        self.say(session, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
        session
    }

    /// The session that an NVE has now.
    pub fn nve_session(&self, name: &str) -> SessionId {
        self.d.session_for(&id(name)).unwrap()
    }

    /// Claims VM `n`, which must be granted.
    pub fn take(&mut self, session: SessionId, n: u8) -> VmRecord {
        let out = self.say(session, claim(n, Version::ZERO));
        granted(&out, session).unwrap_or_else(|| panic!("no grant: {out:?}"))
    }

    /// Acknowledges every update in `outputs` for this session.
    pub fn ack(&mut self, session: SessionId, outputs: &[Output]) -> Vec<Output> {
        let mut all = Vec::new();
        for m in sent(outputs, session) {
            if let NvaToNve::Update { ack_id, .. } = m {
                all.extend(self.say(session, NveToNva::Ack { ack_id }));
            }
        }
        all
    }

    /// Lets time pass while `sessions` acknowledge everything and stay alive.
    pub fn settle(&mut self, sessions: &[SessionId]) {
        let mut todo = self.pass(100);
        for _ in 0..4 {
            let mut next = Vec::new();
            for s in sessions {
                next.extend(self.ack(*s, &todo));
                self.say(*s, NveToNva::Keepalive);
            }
            next.extend(self.pass(100));
            todo = next;
        }
    }

    pub fn start(&mut self, n: u8, to: &str, id: &str) -> Result<(MoveRecord, Vec<Output>), Refusal> {
        self.start_mode(n, to, id, MoveMode::Hot)
    }

    /// As [`World::start`], by another mode, whose interruption is accepted.
    pub fn start_mode(
        &mut self,
        n: u8,
        to: &str,
        id: &str,
        mode: MoveMode,
    ) -> Result<(MoveRecord, Vec<Output>), Refusal> {
        let (vm, to) = (format!("vm{n}"), super::tests::id(to));
        self.order(Order::StartMove { vm, to, mode, id: id.into(), accept: true })
    }

    pub fn phase(&self, id: &str) -> MovePhase {
        self.d.move_record(&MoveId(id.into())).unwrap().phase
    }

    pub fn step(&mut self, session: SessionId, id: &str, what: MoveStepKind) -> Vec<Output> {
        let step = MoveStep { at_us: self.wall_us(), nve: None, what, note: String::new() };
        let id = MoveId(id.into());
        self.say(session, NveToNva::MoveReport { id, key: key(1), step: Some(step), counts: None })
    }

    /// A crash and a restart: what was durable, in a new incarnation, without sessions.
    pub fn restart(&mut self) {
        let epoch = self.durable.epoch + 1;
        self.d = Directory::restore(self.d.config.clone(), self.durable.clone(), epoch);
        self.durable.epoch = epoch;
    }

    /// What becomes of unplanned moves in VN red.
    pub fn policy(&mut self, unplanned: Unplanned) {
        let to = VnChanges { unplanned: Some(unplanned), ..VnChanges::default() };
        self.set_vn("red", to).unwrap();
    }

    pub fn vm(&self, n: u8) -> &VmRecord {
        self.d.vm(key(n)).unwrap()
    }
}

/// What one session is told.
pub(super) fn sent(outputs: &[Output], to: SessionId) -> Vec<NvaToNve> {
    let of = outputs.iter().filter_map(|o| match o {
        Output::Send { session, message } if *session == to => Some(message.clone()),
        _ => None,
    });
    of.collect()
}

/// All that is told to anybody, with the receiver.
pub(super) fn all_sent(outputs: &[Output]) -> Vec<(SessionId, NvaToNve)> {
    let of = outputs.iter().filter_map(|o| match o {
        Output::Send { session, message } => Some((*session, message.clone())),
        _ => None,
    });
    of.collect()
}

pub(super) fn granted(outputs: &[Output], to: SessionId) -> Option<VmRecord> {
    sent(outputs, to).into_iter().find_map(|m| match m {
        NvaToNve::Grant { record, .. } => Some(record),
        _ => None,
    })
}

pub(super) fn denied(outputs: &[Output], to: SessionId) -> Option<DenyReason> {
    sent(outputs, to).into_iter().find_map(|m| match m {
        NvaToNve::Deny { reason, .. } => Some(reason),
        _ => None,
    })
}

/// Records that a session learns by updates.
pub(super) fn updated(outputs: &[Output], to: SessionId) -> Vec<VmRecord> {
    let of = sent(outputs, to).into_iter().filter_map(|m| match m {
        NvaToNve::Update { change: Change::Vm(r), .. } => Some(r),
        _ => None,
    });
    of.collect()
}

pub(super) fn owner(r: &VmRecord) -> Option<&str> {
    r.active_nve().map(NveId::as_str)
}
