//! The way of a frame through the tables, step by step.

use core::net::IpAddr;

use godwit_tables::event::AnnounceKind;
use godwit_tables::tunnels::Tunnel;
use godwit_tables::update::{Key, PortIdx, PortRole, Target, VmState, VnIdx};
use godwit_tables::vms::{Fib, State};
use godwit_tables::{Action, Decision, DropReason, Egress, Tables};
use godwit_wire::ethernet::{Membership, TAG_LEN, membership};
use godwit_wire::forward::{self, Header};
use godwit_wire::policy::{self, Direction, Traffic};
use godwit_wire::{EtherType, Frame, Instant, Mac, tenant};

use super::{Ending, Found, MAX_STEPS, Problem, Step, Trace};
use crate::MAX_PUNT;
use crate::access;
use crate::bum::{Audience, Bound, audience, bound, destinations};
use crate::classify::{Addresses, Arrival};
use crate::disposition::{Disposition, Resolution};
use crate::gateway;
use crate::mem::MAX_FRAME;
use crate::overlay::{self, Kind};
use crate::port::Port;
use crate::routed::{self, Routed};
use crate::underlay::{self, Fate, Uplink};

/// Follows a frame that comes in on `ingress`.
pub fn trace(tables: &Tables, ingress: PortIdx, frame: &[u8], now: Instant) -> Trace {
    let role = tables.ports.role(ingress).copied();
    let first = Step::Ingress { port: ingress, role };
    let mut trace = Trace { steps: [first; MAX_STEPS], len: 1 };
    let (mut bare, mut room) = ([0; MAX_FRAME], [0; MAX_FRAME]);
    let untags = match role {
        Some(PortRole::Uplink { .. }) => Uplink::of(ingress, &role).untags(frame),
        _ => Ok(false),
    };
    let frame = match untags {
        Ok(false) => frame,
        Ok(true) => {
            trace.push(Step::Untagged);
            untagged(frame, &mut bare)
        }
        Err(reason) => {
            trace.push(Step::Ending(Ending::Drop(reason)));
            return trace;
        }
    };
    let mut t = Tracer { tables, ingress, frame, now, tenant: None, room: Some(&mut room), trace };
    let verdict = match role {
        None => Ending::Drop(DropReason::PortUnknown),
        Some(PortRole::Access { vn, mac, admission }) => {
            match (admission, Port::of(tables, ingress, vn, mac, admission)) {
                (godwit_tables::update::Admission::Closed, _) => Ending::Drop(DropReason::PortClosed),
                (_, None) => Ending::Drop(DropReason::UnknownVn),
                (_, Some(port)) => t.follow_vm(&port),
            }
        }
        Some(PortRole::Uplink { .. }) => t.follow_uplink(&Uplink::of(ingress, &role)),
        Some(PortRole::Exception { uplink }) => match tables.ports.role(uplink) {
            Some(PortRole::Uplink { .. }) => Ending::Send { port: uplink },
            _ => Ending::Drop(DropReason::PortGone),
        },
    };
    t.trace.push(Step::Ending(verdict));
    t.trace
}

/// The frame without its first tag, in `room`; what does not fit there is cut off.
fn untagged<'a>(frame: &[u8], room: &'a mut [u8; MAX_FRAME]) -> &'a [u8] {
    let len = (frame.len() - TAG_LEN).min(room.len());
    room[..12].copy_from_slice(&frame[..12]);
    room[12..len].copy_from_slice(&frame[12 + TAG_LEN..len + TAG_LEN]);
    &room[..len]
}

struct Tracer<'a> {
    tables: &'a Tables,
    ingress: PortIdx,
    frame: &'a [u8],
    now: Instant,
    /// The tenant's frame, once its headers have been read.
    tenant: Option<Frame<'a>>,
    /// Where a tenant's frame without its tag can lie.
    room: Option<&'a mut [u8; MAX_FRAME]>,
    trace: Trace,
}

impl<'a> Tracer<'a> {
    fn parsed(&mut self, dst: Mac, src: Mac, ethertype: EtherType) {
        self.trace.push(Step::Parsed { dst, src, ethertype });
    }

    fn follow_vm(&mut self, port: &Port) -> Ending {
        let frame = Frame::read(self.frame);
        if let Ok(f) = &frame {
            self.parsed(f.dst(), f.src(), f.outer_type());
        }
        self.trace.push(Step::VnFound { vn: port.vn, vni: port.vni });
        let Ok(mut frame) = frame else { return Ending::Drop(DropReason::Truncated) };
        let (mut disposition, _) = access::inspect(&frame, port, self.tables, self.now);
        if disposition == Disposition::Untag {
            self.trace.push(Step::Untagged);
            let bare = self.room.take().map(|room| Frame::read(untagged(self.frame, room)));
            let Some(Ok(bare)) = bare else { return Ending::Drop(DropReason::Truncated) };
            frame = bare;
            (disposition, _) = access::inspect(&frame, port, self.tables, self.now);
        }
        self.tenant = Some(frame);
        self.disposition(disposition, &frame, port)
    }

    fn disposition(&mut self, disposition: Disposition, frame: &Frame<'_>, port: &Port) -> Ending {
        if !matches!(disposition, Disposition::Drop(_)) {
            self.trace.push(Step::SourceAccepted { mac: frame.src() });
        }
        if disposition.is_carried()
            && let Err(reason) = self.policy(port.port)
        {
            return Ending::Drop(reason);
        }
        match disposition {
            Disposition::Unicast(to) | Disposition::ToOwner(to) => {
                self.resolve(Key::new(port.vn, to), frame, Arrival::Local)
            }
            Disposition::Route => self.route(frame, port),
            Disposition::Punt => {
                self.trace.push(Step::Punted);
                match self.tables.ports.may_punt(port.port, self.now) {
                    false => Ending::Drop(DropReason::PuntLimit),
                    true if frame.bytes().len() > MAX_PUNT => Ending::Drop(DropReason::PuntFull),
                    true => Ending::Consumed,
                }
            }
            Disposition::Flood => self.flood(port.vn, true),
            Disposition::Announce(kind, _) => {
                self.trace.push(Step::Announces { kind });
                Ending::Consumed
            }
            Disposition::Nothing => Ending::Consumed,
            Disposition::FirstFrame | Disposition::Probe => {
                if disposition == Disposition::FirstFrame {
                    self.trace.push(Step::Announces { kind: AnnounceKind::FirstFrame });
                }
                let room = self.tables.room_for_arrival(self.ingress, frame.bytes().len());
                room.map_or_else(Ending::Drop, |()| Ending::Held)
            }
            Disposition::Resolve(r) => self.asks(&r),
            Disposition::Untag => Ending::Drop(DropReason::VlanTag),
            Disposition::Drop(reason) => Ending::Drop(reason),
        }
    }

    /// What the gateway does with a packet.
    fn route(&mut self, frame: &Frame<'_>, port: &Port) -> Ending {
        let Some(routing) = port.routing else { return Ending::Drop(DropReason::NotRoutable) };
        let header = forward::read(frame);
        if let Ok(Header { dst, .. }) = header {
            let route = self.tables.routes.matching(routing.domain, dst);
            self.trace.push(Step::Route { dst, route });
        }
        let (reason, problem) = match routed::look_up(frame, &routing, self.tables) {
            Routed::To(key) => {
                let ttl = header.map_or(0, |h| h.ttl.saturating_sub(1));
                self.trace.push(Step::Forwards { dst: key.mac(), src: routing.mac, ttl });
                return self.resolve(key, frame, Arrival::Routed);
            }
            Routed::Echo => return Ending::Answered,
            Routed::Await(place) => {
                match self.tables.check_await(&place, port.port, frame.bytes().len(), self.now) {
                    Ok(true) => return Ending::Miss,
                    Ok(false) => return Ending::Held,
                    Err(reason) => (reason, (reason == DropReason::HostUnreachable).then_some(Problem::Host)),
                }
            }
            Routed::Drop(reason, problem) => (reason, problem),
        };
        if let Some(problem) = problem
            && let Some(from) = gateway::speaks_as(frame, port.vn, &routing, problem, self.tables)
            && gateway::permits_error(frame)
        {
            self.trace.push(Step::Tells { from, problem });
        }
        Ending::Drop(reason)
    }

    /// A frame that is too big for a tunnel is cut, if the gateway has sent it on and it may be (R8).
    fn cut(&self, key: Key, frame: &Frame<'_>, to: Target, from: Arrival) -> Option<Ending> {
        let is_routed = from == Arrival::Routed || routed::is_routed(frame, key.vn(), self.tables);
        let cut = is_routed.then(|| routed::fragments(frame, to, self.tables))??;
        let look = tenant::Look::of(frame, &self.tables.hash_key);
        let (_, way) = self.tables.tunnels.for_frame(to.tunnel, look.is_v4(), look.hash)?;
        Some(Ending::Fragmented { remote: way.remote?, pieces: cut.count() })
    }

    /// What the policy of the VM that sends the frame says of it. Whether its rate is used up is not to be seen here.
    fn policy(&mut self, port: PortIdx) -> Result<(), DropReason> {
        let traffic = self.tenant.as_ref().and_then(|frame| Traffic::of(frame, Direction::Out));
        let Some(judged) = self.tables.ports.judge(port, traffic.as_ref()) else { return Ok(()) };
        self.trace.push(Step::Policy { port, judged });
        match judged.verdict {
            policy::Verdict::Allow => Ok(()),
            policy::Verdict::Deny => Err(DropReason::PolicyDenied),
        }
    }

    fn asks(&mut self, r: &Resolution) -> Ending {
        let (target, owner, verdict) = match r {
            Resolution::Arp(reply) => (reply.spa.into(), Some(reply.sha), Ending::Answered),
            Resolution::Nd(advert) => (advert.target.into(), advert.tlla, Ending::Answered),
            Resolution::Wait { ask, .. } => (ask.target, None, Ending::Waits),
            Resolution::Flood { ask } => (ask.target, None, self.flood(ask.vn, true)),
        };
        self.trace.push(Step::AsksFor { target, owner });
        verdict
    }

    fn flood(&self, vn: VnIdx, to_tunnels: bool) -> Ending {
        let audience = match &self.tenant {
            Some(frame) => audience(frame, self.tables, vn, self.ingress, to_tunnels),
            None => Ok(Audience::EVERYBODY),
        };
        let audience = match audience {
            Ok(audience) => audience,
            Err(reason) => return Ending::Drop(reason),
        };
        let all = || destinations(self.tables, vn, self.ingress, audience, to_tunnels);
        let tunnels = all().filter(|d| d.is_tunnel()).count();
        let bound = if to_tunnels { bound(self.tables, vn, audience, tunnels) } else { Bound::Kept };
        let count = all().count();
        let count = match bound {
            Bound::Kept => count,
            Bound::Group(_) => count - tunnels + 1,
            Bound::Cut(limit) => count - tunnels + limit,
        };
        match count {
            0 => audience.without_receiver().map_or(Ending::Consumed, Ending::Drop),
            n => Ending::Replicated(n),
        }
    }

    fn follow_uplink(&mut self, uplink: &Uplink) -> Ending {
        if let Some(a) = Addresses::of(self.frame) {
            self.parsed(a.dst_mac(), a.src_mac(), a.ethertype);
        }
        let c = overlay::inspect(self.frame, true, uplink, self.tables, &mut None);
        let (vn, dst, outer) = match (c.kind, c.inner) {
            (Kind::Drop(reason), _) => return Ending::Drop(reason),
            (_, Some(inner)) => inner,
            (_, None) => return self.underlay(uplink),
        };
        let mut inner = self.frame.get(outer.inner_offset..outer.inner_end).unwrap_or_default();
        self.trace.push(Step::Outer { sender: outer.src, ttl: outer.ttl });
        self.trace.push(Step::VnFound { vn, vni: outer.vni });
        if c.untag
            && membership(inner) == Membership::Priority
            && let Some(room) = self.room.take()
        {
            self.trace.push(Step::Untagged);
            inner = untagged(inner, room);
        }
        let Ok(frame) = Frame::read(inner) else { return Ending::Drop(DropReason::InnerTruncated) };
        self.tenant = Some(frame);
        if c.kind == Kind::Group {
            return self.flood(vn, false);
        }
        self.resolve(Key::new(vn, dst), &frame, Arrival::outer(&outer))
    }

    fn underlay(&self, uplink: &Uplink) -> Ending {
        match underlay::inspect(self.frame, uplink).0 {
            Fate::Arp(_) | Fate::Nd(_) => Ending::Answered,
            Fate::Echo4 | Fate::Echo6 if underlay::is_valid_echo(self.frame) => Ending::Answered,
            Fate::Echo4 | Fate::Echo6 => self.host(uplink, false),
            Fate::Peer => Ending::Consumed,
            Fate::Host { news } => self.host(uplink, news || underlay::group_query(self.frame).is_some()),
        }
    }

    fn host(&self, uplink: &Uplink, used: bool) -> Ending {
        match uplink.exception() {
            Some(port) if underlay::is_exception(self.tables, port) => Ending::Send { port },
            Some(_) => Ending::Drop(DropReason::PortGone),
            None if used => Ending::Consumed,
            None => Ending::Drop(DropReason::NoExceptionPort),
        }
    }

    /// What the tables decide of a tenant's frame for a single VM, in a trace's words.
    fn resolve(&mut self, key: Key, frame: &Frame<'_>, from: Arrival) -> Ending {
        let decision = self.tables.decide(key, &from.inbound(self.ingress, frame.bytes()), self.now);
        self.trace.push(Step::FibHit { key, found: self.found(decision.entry) });
        let way = match decision.egress() {
            Some(Egress::Tunnel(target)) => self.tunnel(target, frame),
            Some(Egress::Port(port)) => {
                self.judged(port, frame, &decision);
                None
            }
            None => None,
        };
        let remote = || way.and_then(|t| t.remote);
        match decision.action {
            Action::Deliver(port) => Ending::Send { port },
            Action::Encapsulate { .. } => self.leaves(remote(), false, from),
            Action::Forward { .. } => self.leaves(remote(), true, from),
            Action::Query { room } => room.map_or_else(Ending::Drop, |()| Ending::Miss),
            Action::AwaitTunnel { room, .. } | Action::Hold { room, .. } => {
                room.map_or_else(Ending::Drop, |()| Ending::Held)
            }
            Action::Drop { reason, egress } => {
                if reason == DropReason::TooBig
                    && let Some(Egress::Tunnel(to)) = egress
                    && let Some(ending) = self.cut(key, frame, to, from)
                {
                    self.marked(from);
                    return ending;
                }
                if reason == DropReason::TooBig {
                    self.marked(from);
                }
                Ending::Drop(reason)
            }
        }
    }

    fn found(&self, fib: Option<Fib>) -> Found {
        match fib {
            None => Found::Missing,
            Some(Fib::Local(port)) => Found::Known(VmState::Local { port }, 0),
            Some(Fib::Remote(to)) => Found::Known(VmState::Remote { to }, 0),
            Some(Fib::Ageing(to)) => Found::Known(VmState::Ageing { to }, 0),
            Some(Fib::Detached(reset)) => Found::Known(VmState::Detached { reset }, 0),
            Some(Fib::Special(at)) => {
                let s = self.tables.vms.special(at);
                match s.state {
                    State::Querying { .. } => Found::Querying(s.waiting()),
                    State::Known(state) => Found::Known(state, s.waiting()),
                }
            }
        }
    }

    /// Notes the tunnel that a frame goes through, and answers with its flow's way (R4, R95). A tunnel that is not
    /// ready has none yet, whatever its twin has.
    fn tunnel(&mut self, target: Target, frame: &Frame<'_>) -> Option<&'a Tunnel> {
        let tunnels = &self.tables.tunnels;
        let look = tenant::Look::of(frame, &self.tables.hash_key);
        let way = tunnels.ready(target.tunnel);
        let way = way.and_then(|_| tunnels.for_frame(target.tunnel, look.is_v4(), look.hash));
        let (tunnel, t) = match way {
            Some((tunnel, t)) => (tunnel, Some(t)),
            None => (target.tunnel, tunnels.get(target.tunnel)),
        };
        self.trace.push(Step::Tunnel {
            tunnel,
            remote: t.and_then(|t| t.remote),
            mtu: t.map_or(0, |t| t.mtu),
            hop: t.and_then(|t| Some((t.uplink, t.header.as_ref()?.dst_mac()))),
        });
        t
    }

    /// Notes what the policy of a port's VM has said of the frame, if it was asked (R23).
    fn judged(&mut self, port: PortIdx, frame: &Frame<'_>, decision: &Decision) {
        let asked = matches!(
            decision.action,
            Action::Deliver(_) | Action::Drop { reason: DropReason::PolicyDenied, .. }
        );
        let traffic = Traffic::of(frame, Direction::In);
        if asked && let Some(judged) = self.tables.ports.judge(port, traffic.as_ref()) {
            self.trace.push(Step::Policy { port, judged });
        }
    }

    fn leaves(&mut self, remote: Option<IpAddr>, in_flight: bool, from: Arrival) -> Ending {
        self.marked(from);
        remote.map_or(Ending::Drop(DropReason::NoTunnel), |remote| Ending::Encapsulated { remote, in_flight })
    }

    /// Notes the DSCP that the outer header gets of a policy, or of the one that the frame came with (R23).
    fn marked(&mut self, from: Arrival) {
        let mark = match from {
            Arrival::Local | Arrival::Routed => self.tables.ports.dscp(self.ingress),
            Arrival::Overlay { dscp, .. } => dscp,
        };
        if let Some(dscp) = mark {
            self.trace.push(Step::Marked { dscp });
        }
    }
}
