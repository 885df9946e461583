//! The directory: one state machine without I/O and without a clock.
//!
//! A [`Request`] goes in: a peer, its input and the time. A [`Reply`] comes out: the answer to the peer, and what is
//! to be persisted, sent and logged. [`Directory::handle`] is the only way to change anything, so that authorization,
//! audit and replay have one place. Queries (`view`) change nothing. The same struct runs in `godwit-nva`, in unit
//! tests and in the simulator.
//!
//! # Rules
//!
//! * Only [`Directory`] assigns versions (R20): `(epoch, seq)`, the epoch raised at each start before
//!   anything is served, the sequence at each change of a location or record.
//! * A location changes by a granted claim, a withdrawal, or the operator's pin; nothing else.
//! * Everything a session depends on is said again on the next one. So a lost connection loses nothing,
//!   and no message needs to be kept for an NVE that is away.
//! * An [`Output::Persist`] comes before the sends that rest on it.
//!
//! # Files
//!
//! `session` speaks with NVEs, `clones` keeps out switches that say they are another, `claim` decides who owns a VM
//! and `conflict` what two NVEs claim, `publish` spreads the news and counts acknowledgements, `interest` knows who
//! hears of a VM, `forward` says who still needs a forward entry, `stale` passes on what an old NVE says, `moves`
//! follows planned moves, `operate` obeys the operator, `policies` spreads what VMs may send, `tick` looks at time.
//! `allowed` checks what the operator lets a VM have beside its recorded addresses, and `bind` what a VM takes of it.

mod allowed;
mod bind;
mod claim;
mod clones;
mod conflict;
mod door;
mod forward;
mod interest;
mod io;
mod moves;
mod operate;
mod order;
mod policies;
mod publish;
mod refusal;
mod restore;
mod session;
mod stale;
mod state;
mod tick;
mod unplanned;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use godwit_model::message::NvaToNve;
use godwit_model::{DenyReason, Gateway, Location, MoveId, NveId, Policy, Version, VmKey, VmRecord};
use godwit_wire::{Instant, Mac, Vni};

pub use allowed::{ListChange, VmChanges};
pub use clones::RefusedInfo;
pub use door::{Input, Operator, Peer, Reply, Request};
pub use io::{Config, Level, Output, SessionId};
pub use operate::{VmDefinition, VnChanges};
pub use order::{Answered, Order, OtherAnswer};
pub use refusal::{Refusal, RefusalKind};
pub use stale::Departure;
pub use state::{NveRecord, State, StoredMove, VnRecord, Write};
pub use view::{NveInfo, SharedOwner, Status, VnInfo};

use bind::Binding;
use conflict::Contest;
use moves::Move;
use publish::{Awaited, Fanout};
use session::Session;

/// A VN and who takes part in it. Members may be there before the operator defines it.
#[derive(Default)]
struct Vn {
    record: Option<VnRecord>,
    /// NVEs that take part (R60).
    members: BTreeSet<NveId>,
    /// Those of them that only forward for VMs that left them: others do not replicate to them (R17).
    lingering: BTreeSet<NveId>,
    /// Connections that get updates.
    subscribers: BTreeSet<SessionId>,
    /// VMs that the operator defined as routers, with their first IPv4 addresses (R27).
    gateways: BTreeMap<Mac, Ipv4Addr>,
}

struct Nve {
    record: NveRecord,
    session: Option<SessionId>,
    /// When its last session was last heard.
    heard: Option<Instant>,
    /// VMs whose location it is.
    vms: BTreeSet<VmKey>,
    /// Its last session ended while it was dirty (R38).
    dirty: bool,
    /// It knew everything below this version when its last session ended; zero after a restart.
    knew_below: Version,
    /// It had a session before the NVA's restart, and may be about to come back (R96).
    expected: bool,
    /// Another switch that was refused for its sake (R96).
    refused: Option<clones::Refused>,
}

impl Nve {
    fn new(record: NveRecord) -> Nve {
        Nve {
            record,
            session: None,
            heard: None,
            vms: BTreeSet::new(),
            dirty: false,
            knew_below: Version::ZERO,
            expected: false,
            refused: None,
        }
    }
}

/// All knowledge of the NVA; see the module's text.
pub struct Directory {
    config: Config,
    epoch: u32,
    seq: u64,
    vns: BTreeMap<Vni, Vn>,
    vn_names: BTreeMap<String, Vni>,
    vms: BTreeMap<VmKey, VmRecord>,
    vm_names: BTreeMap<String, VmKey>,
    /// Every address that leads to a VM, recorded or bound.
    ips: BTreeMap<(Vni, IpAddr), Mac>,
    /// Nested MACs, and virtual ones that a VM has: whose they are.
    macs: BTreeMap<(Vni, Mac), Mac>,
    /// VMs that are allowed prefixes or other MACs.
    allowing: BTreeSet<VmKey>,
    /// What else is known of bound addresses; nothing of it outlives a restart.
    binding: Binding,
    policies: BTreeMap<String, Policy>,
    nves: BTreeMap<NveId, Nve>,
    sessions: BTreeMap<SessionId, Session>,
    /// Who may not be doubled, and who tries (R96).
    clones: clones::Clones,
    /// Sessions with a port for a VM, whether active or not (R15).
    associated: BTreeMap<VmKey, BTreeSet<SessionId>>,
    moves: BTreeMap<MoveId, Move>,
    /// By age, for forgetting.
    move_numbers: BTreeMap<u64, MoveId>,
    open_moves: BTreeSet<MoveId>,
    /// Moves called off lately: an NVE that was away then is told when it is back.
    called_off: BTreeSet<MoveId>,
    /// VMs whose last ordered move was ended by time alone: a late claim may be for that.
    timed_out: BTreeMap<VmKey, MoveId>,
    /// Refused claims that have a record of their own: whose, against which stay of the VM, and why.
    refused: BTreeMap<(VmKey, NveId), ((Version, DenyReason), MoveId)>,
    /// Moves with steps or counts that are not persisted yet.
    unsaved_moves: BTreeSet<MoveId>,
    next_move: u64,
    /// Changes that wait for the old NVE to know first.
    fanouts: BTreeMap<VmKey, Fanout>,
    awaited: BTreeMap<u64, Awaited>,
    /// When the awaited are said again, in order; those that are not awaited any more are skipped.
    retries: VecDeque<(Instant, u64)>,
    next_ack: u64,
    /// The NVE that had a VM last, and the version with which it lost it: it may say so (R39).
    former: BTreeMap<VmKey, (NveId, Version)>,
    /// Number of the last session under the key of the NVEs' datagrams (R47).
    last_sender: u32,
    /// Claims for VMs of other NVEs that wait for the old NVE's word (R21).
    contests: BTreeMap<VmKey, Contest>,
    /// No second line before then that too many claims wait.
    crowd_quiet: Instant,
    /// When VMs moved of late without being ordered to (R22), in microseconds since 1970: that outlives a restart.
    flaps: BTreeMap<VmKey, Vec<u64>>,
    /// When claims were granted, and on which connection, kept for a moment: see `report`.
    granted: BTreeMap<VmKey, (Instant, SessionId)>,
    last_tick: Option<Instant>,
    /// When this incarnation made its first step.
    started: Option<Instant>,
    /// Wall clock at the first step of this incarnation.
    started_us: u64,
    next_sweep: Instant,
    // The step that is being made: its time and what comes out of it.
    now: Instant,
    wall_us: u64,
    out: Vec<Output>,
}

impl Directory {
    fn log(&mut self, level: Level, text: String) {
        self.out.push(Output::Log { level, text });
    }

    fn send(&mut self, session: SessionId, message: NvaToNve) {
        if let Some(s) = self.sessions.get_mut(&session) {
            s.sent = self.now;
            self.out.push(Output::Send { session, message });
        }
    }

    fn persist(&mut self, write: Write) {
        self.out.push(Output::Persist(write));
    }

    /// The next version; above every one before it (R20).
    fn next_version(&mut self) -> Version {
        self.seq += 1;
        self.persist(Write::Seq(self.seq));
        Version { epoch: self.epoch, seq: self.seq }
    }

    fn session_of(&self, nve: &NveId) -> Option<SessionId> {
        self.nves.get(nve)?.session
    }

    fn location_of(&self, nve: &NveId) -> Option<Location> {
        let n = self.nves.get(nve)?;
        Some(Location { nve: nve.clone(), locators: n.record.locators })
    }

    /// Puts a VM's record in place with all indexes, and makes it durable.
    fn put_vm(&mut self, record: VmRecord) {
        let key = record.key;
        if let Some(old) = self.vms.remove(&key) {
            self.unindex(&old);
            let place = |r: &VmRecord| r.location.as_ref().map(|l| l.nve.clone());
            if let Some(nve) = place(&old).filter(|_| place(&old) != place(&record)) {
                self.note_former(&nve, key);
                self.former.insert(key, (nve, old.version));
            }
        }
        self.index(&record);
        self.persist(Write::PutVm(record.clone()));
        self.vms.insert(key, record);
    }

    fn index(&mut self, r: &VmRecord) {
        for (ip, _) in r.addresses() {
            self.ips.insert((r.key.vni, ip), r.key.mac);
        }
        for mac in r.macs().filter(|mac| *mac != r.key.mac) {
            self.macs.insert((r.key.vni, mac), r.key.mac);
        }
        if allowed::wants_more(&r.allowed) {
            self.allowing.insert(r.key);
        }
        self.vm_names.insert(r.name.clone(), r.key);
        if let (Some(g), Some(vn)) = (Gateway::of(r), self.vns.get_mut(&r.key.vni)) {
            vn.gateways.insert(g.mac, g.ip);
        }
        if let Some(nve) = r.location.as_ref().and_then(|l| self.nves.get_mut(&l.nve)) {
            nve.vms.insert(r.key);
        }
    }

    fn unindex(&mut self, r: &VmRecord) {
        for (ip, _) in r.addresses() {
            self.ips.remove(&(r.key.vni, ip));
        }
        for mac in r.macs().filter(|mac| *mac != r.key.mac) {
            self.macs.remove(&(r.key.vni, mac));
        }
        self.allowing.remove(&r.key);
        self.vm_names.remove(&r.name);
        if let Some(vn) = self.vns.get_mut(&r.key.vni) {
            vn.gateways.remove(&r.key.mac);
        }
        if let Some(nve) = r.location.as_ref().and_then(|l| self.nves.get_mut(&l.nve)) {
            nve.vms.remove(&r.key);
        }
    }

    fn save_nve(&mut self, nve: &NveId) {
        if let Some(n) = self.nves.get(nve) {
            let record = n.record.clone();
            self.persist(Write::PutNve(record));
        }
    }

    /// The records of a VN, by MAC.
    fn vms_of(&self, vni: Vni) -> impl Iterator<Item = &VmRecord> {
        let first = VmKey { vni, mac: Mac::ZERO };
        let last = VmKey { vni, mac: Mac::BROADCAST };
        self.vms.range(first..=last).map(|(_, r)| r)
    }
}

#[cfg(test)]
mod tests;
