//! Two switches that say they are one, by a cloned configuration (R96): the first stays, the second is refused.
//!
//! A process has an instance number, so that a switch that connects again replaces its own older session at once. A
//! Hello of another process with the name or a locator of an NVE whose session is there is not answered: it waits until
//! that session says something, which refuses it, or ends, which lets it in. So a switch that was started anew
//! comes in as soon as its old connection is closed or was silent for too long, and a clone never does. After a
//! restart of the NVA those that had a session before are waited for, so long as it may take them to come back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::message::NvaToNve;
use godwit_model::{Abilities, Locators, NveId};
use godwit_wire::{Bucket, Instant, Rate, Span};

use super::{Directory, Level, NveRecord, Output, SessionId};

/// An NVE whose session ended with the last NVA process is back after so long, beyond the silence by which it notices
/// that: an attempt to connect that was under way lasts up to 3 s, the gap to the next one up to 2 s, and another
/// 2 s are for a host that is busy just then. With the default keepalive an NVE is expected for 10 s.
const COMES_BACK: Span = Span::from_ms(3000 + 2000 + 2000);
/// How often the same refusal is an alarm.
const ALARMS: Rate = Rate::every(Span::from_ms(60_000), 1);
/// A refusal is shown to operators for so long.
const SHOWN: Span = Span::from_ms(120_000);

/// What an NVE said of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    pub nve: NveId,
    pub locators: Locators,
    pub software: String,
    pub last_epoch: u32,
    pub instance: u64,
    pub abilities: Abilities,
}

/// An NVE that was first with what another one names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rival {
    nve: NveId,
    /// The locator that both have; none where it is the name.
    locator: Option<IpAddr>,
}

/// Names and locators that are taken, and sessions that wait for one of them.
#[derive(Default)]
pub(super) struct Clones {
    /// Locators of NVEs with a session, or that are expected.
    locators: BTreeMap<IpAddr, NveId>,
    /// By the NVE that was first.
    waiting: BTreeMap<NveId, BTreeSet<SessionId>>,
    /// NVEs that had a session before a restart are expected until then.
    until: Option<Instant>,
    /// That is over.
    settled: bool,
}

impl Clones {
    /// The NVE with this locator, where it has a session or is expected.
    pub fn at(&self, ip: IpAddr) -> Option<&NveId> {
        self.locators.get(&ip)
    }
}

/// Refusals for the sake of one NVE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    text: String,
    count: u64,
    last: Instant,
    alarms: Bucket,
}

impl Refused {
    pub(super) fn info(&self, now: Instant) -> Option<RefusedInfo> {
        let ago = now.since(self.last);
        let info = || RefusedInfo { text: self.text.clone(), count: self.count, ago_ms: ago.as_ms() };
        (ago < SHOWN).then(info)
    }
}

/// Another switch that came with an NVE's name or with a locator of its own, and was refused (R96).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedInfo {
    /// Who has what, and what to do.
    pub text: String,
    /// How often since the first time.
    pub count: u64,
    /// Milliseconds since the last time.
    pub ago_ms: u64,
}

fn addresses(locators: Locators) -> impl Iterator<Item = IpAddr> {
    locators.v4.map(IpAddr::V4).into_iter().chain(locators.v6.map(IpAddr::V6))
}

fn listed(locators: Locators) -> String {
    addresses(locators).map(|ip| ip.to_string()).collect::<Vec<_>>().join(" and ")
}

impl Directory {
    /// A live NVE that another process speaks for and that has the name or a locator of this Hello.
    pub(super) fn rival_of(&self, session: SessionId, hello: &Hello) -> Option<Rival> {
        let live = |nve: &NveId| self.nves.get(nve).is_some_and(|n| n.session.is_some() || n.expected);
        if let Some(n) = self.nves.get(&hello.nve) {
            let other = n.session.is_some_and(|s| s != session) || n.session.is_none() && n.expected;
            if other && n.record.instance != hello.instance {
                return Some(Rival { nve: hello.nve.clone(), locator: None });
            }
        }
        addresses(hello.locators).find_map(|ip| {
            let nve = self.clones.locators.get(&ip).filter(|nve| **nve != hello.nve && live(nve))?;
            Some(Rival { nve: nve.clone(), locator: Some(ip) })
        })
    }

    /// Lets a Hello wait until the NVE that was first has said something, or is gone.
    pub(super) fn contend(&mut self, session: SessionId, hello: Hello, rival: Rival) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        s.pending = Some(Box::new(hello));
        self.clones.waiting.entry(rival.nve).or_default().insert(session);
    }

    /// The session says something: whoever wants to be its NVE, or wants its locator, is not that.
    pub(super) fn refuse_clones_of(&mut self, session: SessionId) {
        if self.clones.waiting.is_empty() {
            return;
        }
        let Some(nve) = self.sessions.get(&session).and_then(|s| s.nve.clone()) else { return };
        if self.session_of(&nve) != Some(session) {
            return;
        }
        for waiting in self.clones.waiting.remove(&nve).unwrap_or_default() {
            self.refuse(waiting, &nve);
        }
    }

    fn refuse(&mut self, session: SessionId, first: &NveId) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let Some(hello) = s.pending.take() else { return };
        let (Some(rival), Some(text)) =
            (self.rival_of(session, &hello), self.refusal(session, &hello, first))
        else {
            // What it wanted was given up meanwhile.
            return self.hello(session, *hello);
        };
        if rival.nve != *first {
            return self.contend(session, *hello, rival);
        }
        self.note_refusal(first, &text);
        self.send(session, NvaToNve::Refused { text: text.clone() });
        self.disconnected(session);
        self.out.push(Output::Close { session, reason: text });
    }

    /// Both sides with all that is known of them, and what to do.
    fn refusal(&self, session: SessionId, hello: &Hello, first: &NveId) -> Option<String> {
        let n = self.nves.get(first)?;
        let at = |session: SessionId| match self.sessions.get(&session).and_then(|s| s.address) {
            Some(peer) => format!("at {peer}"),
            None => format!("of {session}"),
        };
        let (second, at_second) = (listed(hello.locators), at(session));
        let at_first = n.session.map_or_else(String::new, at);
        let has = listed(n.record.locators);
        Some(match self.rival_of(session, hello)?.locator {
            None => format!(
                "NVE {first} is there already: the switch {at_first} with locator {has} has its session and answers, \
                 so another one of that name, {at_second} with locator {second}, is refused; give that one an nve.id \
                 and locators of its own"
            ),
            Some(ip) => format!(
                "locator {ip} is taken: NVE {first}, the switch {at_first} with locator {has}, has it and answers, so \
                 NVE {}, {at_second} with locator {second}, is refused; give that one locators of its own",
                hello.nve
            ),
        })
    }

    fn note_refusal(&mut self, first: &NveId, text: &str) {
        let now = self.now;
        let Some(n) = self.nves.get_mut(first) else { return };
        let before = n.refused.take().filter(|r| r.info(now).is_some());
        let (count, mut alarms) = before.map_or((1, Bucket::default()), |r| (r.count + 1, r.alarms));
        let is_alarm = alarms.take(ALARMS, now);
        n.refused = Some(Refused { text: text.into(), count, last: now, alarms });
        if is_alarm {
            let often = if count > 1 { format!(" ({count} times)") } else { String::new() };
            self.log(Level::Alarm, format!("ALARM: {text}{often}"));
        }
    }

    /// A session that ends waits for nobody.
    pub(super) fn contends_no_more(&mut self, session: SessionId, pending: Option<Box<Hello>>) {
        if pending.is_some() {
            self.clones.waiting.retain(|_, sessions| {
                sessions.remove(&session);
                !sessions.is_empty()
            });
        }
    }

    /// The NVE has a session with these locators; nobody else gets them meanwhile. Its record has those of before.
    pub(super) fn guard(&mut self, nve: &NveId, locators: Locators) {
        self.unguard(nve);
        self.clones.locators.extend(addresses(locators).map(|ip| (ip, nve.clone())));
    }

    fn unguard(&mut self, nve: &NveId) {
        let Some(had) = self.nves.get(nve).map(|n| n.record.locators) else { return };
        for ip in addresses(had) {
            if self.clones.locators.get(&ip) == Some(nve) {
                self.clones.locators.remove(&ip);
            }
        }
    }

    /// The NVE is gone: whoever waited for its end comes in, the first of them.
    pub(super) fn no_longer_live(&mut self, nve: &NveId) {
        let live = |n: &super::Nve| n.session.is_some() || n.expected;
        if self.nves.get(nve).is_some_and(live) {
            return;
        }
        self.unguard(nve);
        for session in self.clones.waiting.remove(nve).unwrap_or_default() {
            let pending = self.sessions.get_mut(&session).and_then(|s| s.pending.take());
            if let Some(hello) = pending {
                self.hello(session, *hello);
            }
        }
    }

    /// The NVE of a record had a session before this NVA was started, and may be about to come back.
    pub(super) fn expect(&mut self, record: &NveRecord) {
        if !record.foreign {
            self.guard(&record.id, record.locators);
        }
    }

    /// Those that did not come back since a restart are not waited for any longer.
    pub(super) fn sweep_clones(&mut self) {
        let limit = Span(Span::from_ms(self.config.keepalive_ms.into()).0 + COMES_BACK.0);
        let until = *self.clones.until.get_or_insert(self.now + limit);
        if self.clones.settled || self.now < until {
            return;
        }
        self.clones.settled = true;
        let absent: Vec<NveId> =
            self.nves.values().filter(|n| n.expected).map(|n| n.record.id.clone()).collect();
        for nve in absent {
            if let Some(n) = self.nves.get_mut(&nve) {
                n.expected = false;
            }
            self.no_longer_live(&nve);
        }
    }
}
