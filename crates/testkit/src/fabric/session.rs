//! Sessions between switches and the NVA: streams in order while they last, cut at any point.
//!
//! A cut takes what is on its way in both directions. Each side notices it in its own time, at once
//! or only when keepalives stay away, and what it says until then goes nowhere.

use godwit_control::Input;
use godwit_model::Identity;
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_nva::{Input as NvaInput, Peer, SessionId};
use godwit_wire::{Instant, Span};

use super::invariants::Invariant;
use super::nva::Job;
use super::schedule::{Class, Sabotage};
use super::world::{Event, World};

/// A switch says so often that it lives.
const KEEPALIVE: Span = Span::from_ms(1000);
/// After so long without a word the NVA is taken for dead.
const SILENCE: Span = Span::from_ms(3000);
/// First and longest gap between attempts to connect.
const BACKOFF: (Span, Span) = (Span::from_ms(50), Span::from_ms(2000));

/// One session; its place in the list is its number.
pub(super) struct Conn {
    /// The switch; of a clone's session the one that it is a clone of.
    pub host: usize,
    /// The clone, where it is one's.
    pub clone: Option<usize>,
    /// Nothing passes any more.
    pub cut: bool,
    /// The NVA still believes in it.
    pub nva_open: bool,
    /// When it began.
    pub since: Instant,
    /// When the last message of each direction arrives: order is kept.
    up: Instant,
    down: Instant,
    /// When the switch heard something last.
    heard: Instant,
    /// Messages on their way.
    flying: usize,
}

pub(super) fn session_id(conn: usize) -> SessionId {
    SessionId(conn as u64 + 1)
}

impl World {
    pub fn connect(&mut self, host: usize) {
        if self.hosts[host].conn.is_some() {
            return;
        }
        if !self.nva.is_up() || self.now < self.hosts[host].unreachable_until {
            let h = &mut self.hosts[host];
            h.backoff = Span(h.backoff.0 * 2).clamp(BACKOFF.0, BACKOFF.1);
            let most = h.backoff.0;
            let gap = Span(self.rng.between(most / 2, most));
            return self.after(gap, Event::Connect { host });
        }
        let conn = self.open_conn(host, None);
        self.note(|| format!("n{host} connects: session {conn}"));
        self.stats.sessions += 1;
        self.hosts[host].conn = Some(conn);
        self.hosts[host].backoff = Span(0);
        self.nva_hears_session(conn, NvaInput::Connected { address: None, identity: Identity::Unproven });
        self.control(host, Input::NvaConnected);
    }

    /// A stream for a switch, or for a clone of it.
    pub fn open_conn(&mut self, host: usize, clone: Option<usize>) -> usize {
        let now = self.now;
        let conn = Conn {
            host,
            clone,
            cut: false,
            nva_open: true,
            since: now,
            up: now,
            down: now,
            heard: now,
            flying: 0,
        };
        self.conns.push(conn);
        self.conns.len() - 1
    }

    /// How often a message arrives while its session stays.
    fn arrivals(&mut self) -> u32 {
        let repeat = self.plan.weather.message_repeat;
        if self.now >= self.traffic_until || repeat == 0 {
            return 1;
        }
        let twice = self.rng.chance(repeat);
        self.stats.messages_repeated += u64::from(twice);
        1 + u32::from(twice)
    }

    /// A switch says something to the NVA.
    pub fn nve_says(&mut self, host: usize, message: NveToNva) {
        let Some(conn) = self.hosts[host].conn else {
            return self.fail(Invariant::Session, format!("n{host} says {message:?} without a session"));
        };
        if matches!(message, NveToNva::Bind { .. }) && self.sabotaged(Sabotage::LostBinds) {
            return;
        }
        if message != NveToNva::Keepalive {
            self.note(|| format!("n{host} says ({conn}) {message:?}"));
        }
        self.conn_says(conn, message);
    }

    /// A message on its way to the NVA.
    pub fn conn_says(&mut self, conn: usize, message: NveToNva) {
        if self.conns[conn].cut {
            return;
        }
        let at = (self.now + self.rng.us(10, self.plan.weather.session_us)).max(self.conns[conn].up);
        self.conns[conn].up = at;
        // A second Hello is a second session, which the stream of one cannot carry.
        let times = if matches!(message, NveToNva::Hello { .. }) { 1 } else { self.arrivals() };
        for _ in 0..times {
            self.fly(conn);
            self.queue.push(at, Event::ToNva { conn, message: Box::new(message.clone()) });
        }
    }

    /// The NVA says something to a switch.
    pub fn nva_says(&mut self, conn: usize, message: NvaToNve) {
        if self.conns[conn].cut || !self.conns[conn].nva_open {
            return;
        }
        let at = (self.now + self.rng.us(10, self.plan.weather.session_us)).max(self.conns[conn].down);
        self.conns[conn].down = at;
        let times = if matches!(message, NvaToNve::Welcome { .. }) { 1 } else { self.arrivals() };
        for _ in 0..times {
            self.fly(conn);
            self.queue.push(at, Event::ToNve { conn, message: Box::new(message.clone()) });
        }
    }

    fn fly(&mut self, conn: usize) {
        self.conns[conn].flying += 1;
        self.stats.messages += 1;
        if self.conns[conn].flying > 4096 {
            self.fail(Invariant::Bounded, format!("more than 4096 messages on session {conn}"));
        }
    }

    pub fn nva_hears(&mut self, conn: usize, message: NveToNva) {
        let c = &mut self.conns[conn];
        c.flying -= 1;
        if c.cut || !c.nva_open || !self.nva.is_up() {
            return;
        }
        self.nva_hears_session(conn, NvaInput::Message(message));
    }

    /// Something that a connection brings to the directory.
    pub fn nva_hears_session(&mut self, conn: usize, input: NvaInput) {
        self.nva_request(Job::Input(Peer::Nve(session_id(conn)), input));
    }

    pub fn nve_hears(&mut self, conn: usize, message: NvaToNve) {
        let now = self.now;
        let c = &mut self.conns[conn];
        c.flying -= 1;
        let (host, cut) = (c.host, c.cut);
        if let Some(clone) = c.clone {
            if !cut {
                self.clone_hears(conn, clone, &message);
            }
            return;
        }
        if cut || self.hosts[host].conn != Some(conn) {
            return;
        }
        c.heard = now;
        if message != NvaToNve::Keepalive {
            self.note(|| format!("n{host} hears ({conn}) {message:?}"));
        }
        if let NvaToNve::VerifyIp { key, ip } = message
            && self.sabotaged(Sabotage::HastyUnbind)
        {
            return self.nve_says(host, NveToNva::Unbind { key, ip });
        }
        self.control(host, Input::Nva(message));
        self.check_versions(host);
    }

    /// Ends a session in the midst of whatever it does.
    pub fn cut(&mut self, conn: usize) {
        if self.conns[conn].cut {
            return;
        }
        self.note(|| format!("session {conn} is cut"));
        self.conns[conn].cut = true;
        self.stats.cuts += 1;
        for nve in [true, false] {
            // Mostly the other side resets the connection, sometimes it just falls silent.
            let soon = self.plan.class == Class::Cuts || self.rng.chance(800);
            let lag = if soon { self.rng.us(10, 20_000) } else { SILENCE };
            let notice = if nve { Event::NveNotices { conn } } else { Event::NvaNotices { conn } };
            self.after(lag, notice);
        }
    }

    pub fn cut_host(&mut self, host: usize) {
        if let Some(conn) = self.hosts[host].conn {
            self.cut(conn);
        }
    }

    pub fn nve_notices(&mut self, conn: usize) {
        let host = self.conns[conn].host;
        if let Some(clone) = self.conns[conn].clone {
            return self.clone_lost(conn, clone);
        }
        if self.hosts[host].conn != Some(conn) {
            return;
        }
        self.note(|| format!("n{host} notices that session {conn} is gone"));
        self.conns[conn].cut = true;
        self.hosts[host].conn = None;
        self.control(host, Input::NvaLost);
        let gap = self.rng.us(1000, BACKOFF.0.0 / 1000);
        self.after(gap, Event::Connect { host });
    }

    pub fn nva_notices(&mut self, conn: usize) {
        if self.conns[conn].nva_open && self.nva.is_up() {
            self.conns[conn].nva_open = false;
            self.nva_hears_session(conn, NvaInput::Disconnected);
        }
    }

    /// What the client's task does by the clock.
    pub fn keepalive(&mut self, host: usize) {
        self.after(KEEPALIVE, Event::Keepalive { host });
        let Some(conn) = self.hosts[host].conn else { return };
        if self.now.since(self.conns[conn].heard) > SILENCE {
            self.nve_notices(conn);
        } else {
            self.nve_says(host, NveToNva::Keepalive);
        }
    }
}
