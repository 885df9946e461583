//! The door of the directory: every change of it is a request, whoever asks for it.

use std::net::SocketAddr;

use godwit_model::message::NveToNva;
use godwit_model::{Identity, NveId, Role};
use godwit_wire::Instant;

use super::{Answered, Directory, Order, Output, Refusal, SessionId};

/// An operator or a VM manager.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operator {
    /// What its certificate or its token proved (R68).
    pub identity: Identity,
    /// Address of the other side, for the audit log.
    pub address: Option<SocketAddr>,
}

/// A request of an operator for a switch, which the NVA passes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relay {
    /// The switch.
    pub nve: NveId,
    /// The request, as operators give it.
    pub what: &'static str,
    /// The role that it takes; one above [`Role::Read`] is for the audit log.
    pub needs: Role,
    /// All of it, for the audit log.
    pub details: String,
}

/// The sender of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// An NVE, by its connection.
    Nve(SessionId),
    /// An operator.
    Operator(Operator),
    /// The process that runs the directory.
    Clock,
}

/// The content of a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// A connection is there; nothing has been said on it.
    Connected {
        /// Address of the other side, for people.
        address: Option<SocketAddr>,
        /// What the other side proved (R68).
        identity: Identity,
    },
    /// A message of an NVE.
    Message(NveToNva),
    /// Something came that the protocol does not have (answered, the session stays), or that the
    /// directory has nothing to do with but that shows that the NVE lives.
    Other {
        /// The error to answer with, if it was one.
        error: Option<String>,
    },
    /// The connection ended; what was sent last may be lost.
    Disconnected,
    /// An operator's order.
    Order(Order),
    /// An operator's question, by its name: who holds the directory answers it where this is not refused.
    Look(String),
    /// An operator's request for a switch; the answer is the session that it goes to.
    Relay(Relay),
    /// Time passed; wanted every 10 ms or so.
    Tick,
}

/// One step of the directory.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// The sender.
    pub peer: Peer,
    /// The content.
    pub what: Input,
    /// Monotonic time.
    pub now: Instant,
    /// Microseconds since 1970, for timelines.
    pub wall_us: u64,
}

/// The result of a request.
#[derive(Clone, PartialEq, Debug)]
pub struct Reply {
    /// The answer to the peer, given when the outputs are durable. After a refusal nothing but the counters has
    /// changed.
    pub answer: Result<Answered, Refusal>,
    /// What is to be done, in this order; of a refused request lines of the logs only.
    pub outputs: Vec<Output>,
}

impl Default for Operator {
    fn default() -> Operator {
        Operator { identity: Identity::Unproven, address: None }
    }
}

impl Peer {
    /// An operator without an identity.
    pub fn operator() -> Peer {
        Peer::Operator(Operator::default())
    }
}

impl Directory {
    /// Takes one request.
    ///
    /// Messages of a connection that is not there (closed, replaced) do nothing.
    pub fn handle(&mut self, request: Request) -> Reply {
        let Request { peer, what, now, wall_us } = request;
        self.begin(now, wall_us);
        let answer = self.dispatch(peer, what);
        let outputs = std::mem::take(&mut self.out);
        debug_assert!(
            answer.is_ok() || outputs.iter().all(|o| matches!(o, Output::Log { .. } | Output::Audit(_))),
            "a refused request changes nothing: {outputs:?}"
        );
        Reply { answer, outputs }
    }

    /// Each peer has inputs of its own.
    fn dispatch(&mut self, peer: Peer, what: Input) -> Result<Answered, Refusal> {
        match (peer, what) {
            (Peer::Nve(session), Input::Connected { address, identity }) => {
                self.connected(session, address, identity);
            }
            (Peer::Nve(session), Input::Message(message)) => self.message(session, message),
            (Peer::Nve(session), Input::Other { error }) => self.other(session, error),
            (Peer::Nve(session), Input::Disconnected) => self.disconnected(session),
            (Peer::Operator(operator), Input::Order(order)) => return self.order(&operator, order),
            (Peer::Operator(operator), Input::Look(what)) => return self.look(&operator, what),
            (Peer::Operator(operator), Input::Relay(relay)) => return self.relay(&operator, relay),
            (Peer::Clock, Input::Tick) => self.tick(),
            (peer, what) => return Err(not_its_own(&peer, &what)),
        }
        Ok(Answered::Nothing)
    }

    fn begin(&mut self, now: Instant, wall_us: u64) {
        debug_assert!(self.out.is_empty(), "the last step left outputs behind");
        self.now = now;
        self.wall_us = wall_us;
        self.clock.step(now, wall_us);
    }
}

fn not_its_own(peer: &Peer, what: &Input) -> Refusal {
    let peer = match peer {
        Peer::Nve(session) => format!("an NVE ({session})"),
        Peer::Operator(_) => "an operator".into(),
        Peer::Clock => "the clock".into(),
    };
    let what = match what {
        Input::Order(_) | Input::Look(_) | Input::Relay(_) => "operators' orders",
        Input::Tick => "ticks of the clock",
        _ => "the messages of an NVE's session",
    };
    Refusal::NotPermitted { peer, what }
}
