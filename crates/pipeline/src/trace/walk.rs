//! The way of a frame through the tables, step by step.

use godwit_tables::event::AnnounceKind;
use godwit_tables::holds::Origin;
use godwit_tables::tunnels::Tunnel;
use godwit_tables::update::{Key, PortIdx, PortRole, TunnelIdx, VmState, VnIdx};
use godwit_tables::vms::{Fib, State};
use godwit_tables::{Dispatch, DropReason, Tables};
use godwit_wire::ethernet::{Membership, TAG_LEN, membership};
use godwit_wire::policy::{self, Direction, Traffic};
use godwit_wire::{EtherType, FlowHash, Frame, Instant, Mac, guard, tenant};

use super::{Found, MAX_STEPS, Step, Trace, Verdict};
use crate::access;
use crate::bum::{check_word, destinations};
use crate::classify::{Addresses, From, flight_ttl};
use crate::mem::MAX_FRAME;
use crate::overlay::{self, Kind};
use crate::port::Port;
use crate::underlay::{self, Fate, Uplink};
use crate::wish::{Resolution, Wish};

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
            trace.push(Step::Verdict(Verdict::Drop(reason)));
            return trace;
        }
    };
    let mut t = Tracer {
        tables,
        ingress,
        frame,
        now,
        v4: false,
        hash: FlowHash(0),
        tenant: None,
        room: Some(&mut room),
        trace,
    };
    let verdict = match role {
        None => Verdict::Drop(DropReason::PortUnknown),
        Some(PortRole::Access { vn, mac, admission }) => {
            match (admission, Port::of(tables, ingress, vn, mac, admission)) {
                (godwit_tables::update::Admission::Closed, _) => Verdict::Drop(DropReason::PortClosed),
                (_, None) => Verdict::Drop(DropReason::UnknownVn),
                (_, Some(port)) => t.follow_vm(&port),
            }
        }
        Some(PortRole::Uplink { .. }) => t.follow_uplink(&Uplink::of(ingress, &role)),
        Some(PortRole::Exception { uplink }) => match tables.ports.role(uplink) {
            Some(PortRole::Uplink { .. }) => Verdict::Send { port: uplink },
            _ => Verdict::Drop(DropReason::PortGone),
        },
    };
    t.trace.push(Step::Verdict(verdict));
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
    /// The tenant's frame is an IPv4 packet (R4).
    v4: bool,
    /// The hash of its flow (R2).
    hash: FlowHash,
    /// The tenant's frame, once its headers have been read.
    tenant: Option<Frame<'a>>,
    /// Where a tenant's frame without its tag can lie.
    room: Option<&'a mut [u8; MAX_FRAME]>,
    trace: Trace,
}

impl<'a> Tracer<'a> {
    /// Notes what the tenant's frame is.
    fn see(&mut self, frame: Frame<'a>) {
        let look = tenant::Look::of(&frame, &self.tables.hash_key);
        (self.v4, self.hash) = (look.is_v4(), look.hash);
        self.tenant = Some(frame);
    }

    fn parsed(&mut self, dst: Mac, src: Mac, ethertype: EtherType) {
        self.trace.push(Step::Parsed { dst, src, ethertype });
    }

    fn follow_vm(&mut self, port: &Port) -> Verdict {
        let frame = Frame::read(self.frame);
        if let Ok(f) = &frame {
            self.parsed(f.dst(), f.src(), f.outer_type());
        }
        self.trace.push(Step::VnFound { vn: port.vn, vni: port.vni });
        let Ok(frame) = frame else { return Verdict::Drop(DropReason::Truncated) };
        self.see(frame);
        let (wish, _) = access::inspect(&frame, port, self.tables, self.now);
        if wish != Wish::Untag {
            return self.wish(wish, &frame, port, self.frame.len());
        }
        self.trace.push(Step::Untagged);
        // Without the tag: the addresses, then what follows the tag. Only the start matters to
        // `inspect`; a control message is far shorter than this.
        let bare = self.room.take().map(|room| Frame::read(untagged(self.frame, room)));
        let Some(Ok(frame)) = bare else { return Verdict::Drop(DropReason::Truncated) };
        self.see(frame);
        let (wish, _) = access::inspect(&frame, port, self.tables, self.now);
        self.wish(wish, &frame, port, self.frame.len() - TAG_LEN)
    }

    fn wish(&mut self, wish: Wish, frame: &Frame<'_>, port: &Port, len: usize) -> Verdict {
        if !matches!(wish, Wish::Drop(_)) {
            self.trace.push(Step::SourceAccepted { mac: frame.src() });
        }
        if matches!(wish, Wish::Unicast(_) | Wish::Flood)
            && let Err(reason) = self.policy(port.port, Direction::Out)
        {
            return Verdict::Drop(reason);
        }
        match wish {
            Wish::Unicast(to) | Wish::ToOwner(to) => self.resolve(Key::new(port.vn, to), len, From::Local),
            Wish::Flood => self.flood(port.vn, true),
            Wish::Announce(kind, _) => {
                self.trace.push(Step::Announces { kind });
                Verdict::Consumed
            }
            Wish::Nothing => Verdict::Consumed,
            Wish::FirstFrame | Wish::Probe => {
                if wish == Wish::FirstFrame {
                    self.trace.push(Step::Announces { kind: AnnounceKind::FirstFrame });
                }
                let room = self.tables.room_for_arrival(self.ingress, self.frame.len());
                room.map_or_else(Verdict::Drop, |()| Verdict::Held)
            }
            Wish::Resolve(r) => self.asks(&r),
            Wish::Untag => Verdict::Drop(DropReason::VlanTag),
            Wish::Drop(reason) => Verdict::Drop(reason),
        }
    }

    /// What the policy of a port's VM says of the frame. Whether its rate is used up is not to be seen here.
    fn policy(&mut self, port: PortIdx, direction: Direction) -> Result<(), DropReason> {
        let traffic = self.tenant.as_ref().and_then(|frame| Traffic::of(frame, direction));
        let Some(judged) = self.tables.ports.judge(port, traffic.as_ref()) else { return Ok(()) };
        self.trace.push(Step::Policy { port, judged });
        match judged.verdict {
            policy::Verdict::Allow => Ok(()),
            policy::Verdict::Deny => Err(DropReason::PolicyDenied),
        }
    }

    fn asks(&mut self, r: &Resolution) -> Verdict {
        let (target, owner, verdict) = match r {
            Resolution::Arp(reply) => (reply.spa.into(), Some(reply.sha), Verdict::Answered),
            Resolution::Nd(advert) => (advert.target.into(), advert.tlla, Verdict::Answered),
            Resolution::Wait { ask, .. } => (ask.target, None, Verdict::Waits),
            Resolution::Flood { ask } => (ask.target, None, self.flood(ask.vn, true)),
        };
        self.trace.push(Step::AsksFor { target, owner });
        verdict
    }

    fn flood(&self, vn: VnIdx, to_tunnels: bool) -> Verdict {
        let word = self.tenant.as_ref().and_then(guard::word);
        if to_tunnels && let Err(reason) = check_word(self.tables, self.ingress, word) {
            return Verdict::Drop(reason);
        }
        match destinations(self.tables, vn, self.ingress, word, to_tunnels).count() {
            0 => Verdict::Drop(DropReason::NoReceiver),
            n => Verdict::Replicated(n),
        }
    }

    fn follow_uplink(&mut self, uplink: &Uplink) -> Verdict {
        if let Some(a) = Addresses::of(self.frame) {
            self.parsed(a.dst_mac(), a.src_mac(), a.ethertype);
        }
        let c = overlay::classify(self.frame, true, uplink, self.tables, &mut None);
        let (vn, dst, outer) = match (c.kind, c.inner) {
            (Kind::Drop(reason), _) => return Verdict::Drop(reason),
            (_, Some(inner)) => inner,
            (_, None) => return self.underlay(uplink),
        };
        let inner = self.frame.get(outer.inner_offset..outer.inner_end).unwrap_or_default();
        self.trace.push(Step::Outer { sender: outer.src, ttl: outer.ttl });
        self.trace.push(Step::VnFound { vn, vni: outer.vni });
        let inner = match self.room.take() {
            Some(room) if c.untag && membership(inner) == Membership::Priority => {
                self.trace.push(Step::Untagged);
                untagged(inner, room)
            }
            _ => inner,
        };
        let Ok(frame) = Frame::read(inner) else { return Verdict::Drop(DropReason::InnerTruncated) };
        self.see(frame);
        if c.kind == Kind::Group {
            return self.flood(vn, false);
        }
        self.resolve(Key::new(vn, dst), inner.len(), From::outer(&outer))
    }

    fn underlay(&self, uplink: &Uplink) -> Verdict {
        match underlay::inspect(self.frame, uplink).0 {
            Fate::Arp(_) | Fate::Nd(_) => Verdict::Answered,
            Fate::Echo4 | Fate::Echo6 if underlay::is_valid_echo(self.frame) => Verdict::Answered,
            Fate::Echo4 | Fate::Echo6 => self.host(uplink, false),
            Fate::Peer => Verdict::Consumed,
            Fate::Host { news } => self.host(uplink, news),
        }
    }

    fn host(&self, uplink: &Uplink, used: bool) -> Verdict {
        match uplink.exception() {
            Some(port) if underlay::is_exception(self.tables, port) => Verdict::Send { port },
            Some(_) => Verdict::Drop(DropReason::PortGone),
            None if used => Verdict::Consumed,
            None => Verdict::Drop(DropReason::NoExceptionPort),
        }
    }

    /// What [`crate::context::Context::resolve`] does.
    fn resolve(&mut self, key: Key, len: usize, from: From) -> Verdict {
        let fib = self.tables.vms.get(key);
        self.trace.push(Step::FibHit { key, found: self.found(fib) });
        match (fib, from) {
            (Some(Fib::Local(port)), _) => self.deliver(port, key.vn()),
            (Some(Fib::Remote(first) | Fib::Ageing(first)), From::Local) => {
                // A frame waits for the tunnel that its entry names, whatever its twin does.
                let ready = self.tables.tunnels.ready(first).is_some();
                let way = if ready { self.way(first) } else { (first, self.tables.tunnels.get(first)) };
                self.tunnel(way);
                match way.1 {
                    None => Verdict::Drop(DropReason::NoTunnel),
                    Some(t) if t.header.is_some() => self.encapsulate(Some(t), len, false, from),
                    Some(_) => self.hold(false, self.tables.miss_hold_packets(), len, Verdict::Held),
                }
            }
            (Some(Fib::Special(at)), _) => {
                let s = self.tables.vms.special(at);
                let querying = matches!(s.state, State::Querying { .. });
                match self.tables.dispatch(&s.state, from_origin(from), false) {
                    Dispatch::Deliver(port) => self.deliver(port, key.vn()),
                    Dispatch::Hold => self.hold(querying, s.limits.packets, len, Verdict::Held),
                    Dispatch::Drop(reason) => Verdict::Drop(reason),
                    Dispatch::Tunnel { tunnel, in_flight } => {
                        let way = self.way(tunnel);
                        self.tunnel(way);
                        match from {
                            From::Overlay { ttl, .. } if flight_ttl(ttl).is_none() => {
                                Verdict::Drop(DropReason::TtlExhausted)
                            }
                            _ => self.encapsulate(way.1, len, in_flight, from),
                        }
                    }
                }
            }
            (None, From::Local) if self.tables.may_query(self.ingress, self.now) => {
                self.hold(true, self.tables.miss_hold_packets(), len, Verdict::Miss)
            }
            (None, From::Local) => Verdict::Drop(DropReason::MissLimit),
            (None | Some(Fib::Remote(_) | Fib::Ageing(_)), From::Overlay { .. }) => {
                Verdict::Drop(DropReason::NotLocal)
            }
        }
    }

    fn found(&self, fib: Option<Fib>) -> Found {
        match fib {
            None => Found::Missing,
            Some(Fib::Local(port)) => Found::Known(VmState::Local { port }, 0),
            Some(Fib::Remote(tunnel)) => Found::Known(VmState::Remote { tunnel }, 0),
            Some(Fib::Ageing(tunnel)) => Found::Known(VmState::Ageing { tunnel }, 0),
            Some(Fib::Special(at)) => {
                let s = self.tables.vms.special(at);
                match s.state {
                    State::Querying { .. } => Found::Querying(s.waiting()),
                    State::Known(state) => Found::Known(state, s.waiting()),
                }
            }
        }
    }

    /// The tunnel that the tenant's frame goes through, and its flow's way.
    fn way(&self, tunnel: TunnelIdx) -> (TunnelIdx, Option<&'a Tunnel>) {
        match self.tables.tunnels.for_frame(tunnel, self.v4, self.hash) {
            Some((tunnel, t)) => (tunnel, t.remote.is_some().then_some(t)),
            None => (tunnel, None),
        }
    }

    fn tunnel(&mut self, (tunnel, t): (TunnelIdx, Option<&Tunnel>)) {
        self.trace.push(Step::Tunnel {
            tunnel,
            remote: t.and_then(|t| t.remote),
            mtu: t.map_or(0, |t| t.mtu),
            hop: t.and_then(|t| Some((t.uplink, t.header.as_ref()?.dst_mac()))),
        });
    }

    fn hold(&self, querying: bool, packets: u32, len: usize, held: Verdict) -> Verdict {
        self.tables.room_to_hold(querying, packets, len).map_or_else(Verdict::Drop, |()| held)
    }

    fn deliver(&mut self, port: PortIdx, vn: VnIdx) -> Verdict {
        match self.tables.ports.leads_to(port, vn) {
            false => Verdict::Drop(DropReason::PortGone),
            true if port == self.ingress => Verdict::Drop(DropReason::Hairpin),
            true => self.policy(port, Direction::In).map_or_else(Verdict::Drop, |()| Verdict::Send { port }),
        }
    }

    fn encapsulate(&mut self, tunnel: Option<&Tunnel>, len: usize, in_flight: bool, from: From) -> Verdict {
        let mark = match from {
            From::Local => self.tables.ports.dscp(self.ingress),
            From::Overlay { dscp, .. } => dscp,
        };
        if let Some(dscp) = mark {
            self.trace.push(Step::Marked { dscp });
        }
        match tunnel {
            Some(t) if len > usize::from(t.inner_max) => Verdict::Drop(DropReason::TooBig),
            Some(t) => match t.remote {
                Some(remote) => Verdict::Encapsulated { remote, in_flight },
                None => Verdict::Drop(DropReason::NoTunnel),
            },
            None => Verdict::Drop(DropReason::NoTunnel),
        }
    }
}

fn from_origin(from: From) -> Origin {
    match from {
        From::Local => Origin::Local,
        From::Overlay { .. } => Origin::Overlay,
    }
}
