//! Why the word of a VM manager on a port is refused.

use godwit_model::{MoveId, NveId, OperState, VmKey};
use godwit_tables::update::PortIdx;

/// A state that RFC 7666 has no transition to from the one before (R16).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key} was {from}, and RFC 7666 has no way from there to {to}; {remedy}", remedy = remedy(*from))]
pub struct NoTransition {
    /// The VM.
    pub key: VmKey,
    /// What was said of it last.
    pub from: OperState,
    /// What is said now.
    pub to: OperState,
}

fn remedy(from: OperState) -> String {
    match from.next() {
        [] => "remove the port and add it again".into(),
        next => {
            let next: Vec<&str> = next.iter().map(|s| s.as_str()).collect();
            format!("after {from} come {}", next.join(", "))
        }
    }
}

/// Why the manager cannot have that now; each says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ManagerRefusal {
    /// No port has this number.
    #[error("there is no port {}", .0.0)]
    NoPort(PortIdx),
    /// The port has no VM behind it.
    #[error("port {port} is no access port: {lack}")]
    NoAccessPort {
        /// The port's name.
        port: String,
        /// What it therefore does not have.
        lack: &'static str,
    },
    /// The pause is ordered at the wrong end of the move.
    #[error("move {id} brings {key} to this NVE; pause it at {from}")]
    Target {
        /// The move.
        id: MoveId,
        /// The VM.
        key: VmKey,
        /// The NVE that it is to leave.
        from: NveId,
    },
    /// The VM is in another move.
    #[error("{key} is in move {here} here, not in {id}; name that one, or call it off first")]
    OtherMove {
        /// The VM.
        key: VmKey,
        /// The move that it is in.
        here: MoveId,
        /// The move that was named.
        id: MoveId,
    },
    /// The directory has not told of the move.
    #[error(
        "this NVE has not heard of move {id} of {key}; wait until `godwitctl move show {id}` says prepared, or see \
         whether the NVE's session with the NVA is up"
    )]
    UnknownMove {
        /// The move.
        id: MoveId,
        /// The VM.
        key: VmKey,
    },
    /// The state does not follow the one before.
    #[error(transparent)]
    State(#[from] NoTransition),
}
