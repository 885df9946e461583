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
//! | File | Content |
//! |---|---|
//! | `door` | requests, replies, and which peer may ask what |
//! | `authority` | what an identity may do; the audit log |
//! | `order` | operators' orders, their answers, and where each is carried out |
//! | `view` | queries |
//! | `counts` | what is counted for operators |
//! | `io`, `state`, `refusal`, `restore` | outputs and settings; what is persisted; reasons of refusals; a restart |
//! | `vns`, `vms`, `nves`, `policies` | each thing that operators define, with its orders |
//! | `domains` | routing domains, subnets, static routes, and what NVEs are told of them |
//! | `allowed`, `bind` | what a VM may have beside its recorded addresses; what it takes of that |
//! | `records` | records of VMs and their indexes |
//! | `session`, `clones` | connections of NVEs; switches that say they are another |
//! | `keys` | what NVEs seal their datagrams to each other with |
//! | `groups` | multicast groups that VMs of NVEs have joined |
//! | `membership`, `ports`, `query` | what an NVE takes part in, has ports for, and asks |
//! | `claim`, `conflict`, `claims` | ownership of a VM; what two NVEs claim; what is remembered of both |
//! | `publish`, `updates`, `interest` | news; those that are under way; who hears of a VM |
//! | `forward`, `stale` | who still needs a forward entry; what an old NVE passes on |
//! | `drains` | NVEs that are emptied, and take no VMs meanwhile |
//! | `moves` | moves, ordered and unplanned |
//! | `tick` | what only time brings about |

mod allowed;
mod authority;
mod bind;
mod claim;
mod claims;
mod clones;
mod conflict;
mod counts;
mod domains;
mod door;
mod drains;
mod forward;
mod groups;
mod interest;
mod io;
mod keys;
mod markers;
mod membership;
mod moves;
mod nves;
mod order;
mod policies;
mod ports;
mod publish;
mod query;
mod records;
mod refusal;
mod restore;
mod session;
mod stale;
mod state;
mod tick;
mod updates;
mod view;
mod vms;
mod vns;

use std::collections::BTreeMap;

pub use godwit_model::Level;
use godwit_model::message::NvaToNve;
use godwit_model::{NveId, Version};
use godwit_wire::Instant;

pub use allowed::{ListChange, VmChanges};
pub use authority::{AuditEntry, BadAccess, Verdict, VnAccess, VnChoice};
pub use clones::RefusedInfo;
pub use domains::{BadGatewayMac, DomainInfo, RouteInfo, check_gateway_mac};
pub use door::{Input, Operator, Peer, Relay, Reply, Request};
pub use drains::{DrainInfo, DrainedVm, VmUnderWay};
pub use io::{Config, Output, SessionId};
pub use order::{Answered, DrainOrder, Order, OtherAnswer};
pub use refusal::{Refusal, RefusalKind};
pub use stale::Departure;
pub use state::{DomainRecord, DrainFailure, DrainRecord, NveRecord, State, StoredMove, VnRecord, Write};
pub use view::{NveInfo, SharedOwner, Status, VnInfo};
pub use vms::VmDefinition;
pub use vns::VnChanges;

use bind::Binding;
use claims::Claims;
use counts::Counts;
use domains::Domains;
use drains::Drains;
use moves::Moves;
use nves::Nve;
use policies::Policies;
use ports::Ports;
use records::Records;
use session::Sessions;
use tick::Clock;
use updates::Updates;
use vns::Vns;

/// All knowledge of the NVA; see the module's text.
pub struct Directory {
    config: Config,
    epoch: u32,
    seq: u64,
    vns: Vns,
    domains: Domains,
    records: Records,
    /// What else is known of bound addresses; nothing of it outlives a restart.
    binding: Binding,
    policies: Policies,
    nves: BTreeMap<NveId, Nve>,
    /// NVEs that may not take part in every VN (R68); some of them have not spoken yet.
    access: BTreeMap<NveId, VnAccess>,
    sessions: Sessions,
    /// Who may not be doubled, and who tries (R96).
    clones: clones::Clones,
    keys: keys::Keys,
    ports: Ports,
    moves: Moves,
    drains: Drains,
    updates: Updates,
    claims: Claims,
    clock: Clock,
    counts: Counts,
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
}

#[cfg(test)]
mod tests;
