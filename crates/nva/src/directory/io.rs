//! Settings of the directory, and what comes out of it.

use core::fmt;

use godwit_model::message::NvaToNve;
use godwit_model::{GATEWAY_MAC, Level, MoveId, Secret, timing};
use godwit_wire::{Mac, Span};

use super::authority::AuditEntry;
use super::state::Write;

/// Bounds and times; the defaults are those of the requirement catalogue.
#[derive(Clone, Debug)]
pub struct Config {
    /// After so many milliseconds without a message an NVE is taken for dead; a third of it is the
    /// interval of keepalives.
    pub keepalive_ms: u32,
    /// How long others wait for the old NVE to know first.
    pub upd_delay: Span,
    /// An unacknowledged update is said again after so long (R38).
    pub upd_timeout: Span,
    /// How often it is said again.
    pub upd_retries: u8,
    /// Life of an answer to a query (R40).
    pub pos_life: Span,
    /// Life of an authoritative absence (R36).
    pub neg_life: Span,
    /// A move without its grant ends so long after the last sign that it goes on: the order given again, a state said,
    /// progress reported (R49).
    pub intent_timeout: Span,
    /// It ends so long after the VM's pause, whatever signs there are (R49).
    pub pause_limit: Span,
    /// So many unplanned moves of a VM within `flap_window` freeze it (R22).
    pub flap_limit: usize,
    /// See `flap_limit`.
    pub flap_window: Span,
    /// An old NVE that does not say whether a VM still runs there keeps it after so long (R21).
    pub verify_timeout: Span,
    /// Claims that wait for the old NVE's word at the same time (R21): those of some racks. Those beyond it are not
    /// answered, so that they are repeated.
    pub max_contests: usize,
    /// Records in one part of a snapshot.
    pub snapshot_chunk: usize,
    /// Moves that are remembered.
    pub max_moves: usize,
    /// Steps in a move's timeline.
    pub max_steps: usize,
    /// NVEs that the directory takes.
    pub max_nves: usize,
    /// VNs that one NVE may be a member of.
    pub max_vns_per_nve: usize,
    /// VMs that one NVE in pull mode is told the changes of; beyond that it is to forget the oldest (R38).
    pub max_interests: usize,
    /// Policies that the directory takes.
    pub max_policies: usize,
    /// Routing domains that the directory takes.
    pub max_domains: usize,
    /// MAC of the gateway of every routed network, at every NVE (R58).
    pub gateway_mac: Mac,
    /// Addresses of one VM, both families together.
    pub max_addresses: usize,
    /// What datagrams between NVEs are protected with while this NVA runs (R47); without it they tell each
    /// other nothing directly. Random, and another one at each start: it must not be used under the numbers of
    /// an earlier start.
    pub channel_secret: Option<Secret>,
    /// NVEs get new keys for their datagrams so often; zero: with the NVA's restart, or when one of them is deleted
    /// (D13).
    pub key_life: Span,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            keepalive_ms: 3000,
            upd_delay: Span::from_ms(timing::UPD_DELAY_MS),
            upd_timeout: Span::from_ms(timing::UPD_TIMEOUT_MS),
            upd_retries: timing::UPD_RETRIES,
            pos_life: Span::from_ms(timing::POS_LIFE_MS),
            neg_life: Span::from_ms(5_000),
            intent_timeout: Span::from_ms(timing::MOVE_PATIENCE_MS),
            pause_limit: Span::from_ms(timing::PAUSE_LIMIT_MS),
            flap_limit: 5,
            flap_window: Span::from_ms(180_000),
            verify_timeout: Span::from_ms(10_000),
            max_contests: 65_536,
            snapshot_chunk: 500,
            max_moves: 10_000,
            max_steps: 256,
            max_nves: 16_384,
            max_vns_per_nve: 65_536,
            max_interests: 262_144,
            max_policies: 1_024,
            max_domains: 16_384,
            gateway_mac: GATEWAY_MAC,
            max_addresses: 64,
            channel_secret: None,
            key_life: Span::from_ms(3_600_000),
        }
    }
}

/// One connection of one NVE; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.0)
    }
}

/// What the directory wants done.
///
/// Of one list, all [`Output::Persist`] and [`Output::Audit`], and those of all earlier lists, must be durable before
/// any [`Output::Send`] leaves or an order is answered: what somebody was told survives a crash. Sends of one session
/// go in order.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Make it durable.
    Persist(Write),
    /// Say it on that connection.
    Send {
        /// The connection.
        session: SessionId,
        /// What to say.
        message: NvaToNve,
    },
    /// End that connection; the directory has forgotten it already.
    Close {
        /// The connection.
        session: SessionId,
        /// Why, for people.
        reason: String,
    },
    /// A move's record changed, for those who watch it.
    MoveChanged(MoveId),
    /// An entry of the audit log, which is written before any answer of this list leaves (R68).
    Audit(Box<AuditEntry>),
    /// A line for the log.
    Log {
        /// How much it matters.
        level: Level,
        /// What happened, with names.
        text: String,
    },
}
