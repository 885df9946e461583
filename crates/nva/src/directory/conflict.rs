//! Two NVEs and one VM: claims that no move explains (R21), and VMs that go to and fro (R22).
//!
//! Under `unplanned = verify` a claim for a VM that lives elsewhere waits, without an answer, until the old NVE
//! has said whether the VM still runs there. A live VM keeps its place. An old NVE that is away loses it after
//! three missed keepalives; one that is there and says nothing keeps it.

use godwit_model::message::NvaToNve;
use godwit_model::{DenyReason, Locators, MoveStepKind, NveId, Version, VmKey};
use godwit_wire::{Instant, Rate, Span};

use super::claim::ClaimRequest;
use super::{Directory, Level, SessionId, Write};

/// Steps of a claim before its verdict that are kept: an owner that comes and goes is asked each time.
const MAX_STORY: usize = 8;
/// Lines that too many claims wait.
const CROWD_LINES: Rate = Rate::per_second(1, 1);

/// A claim that waits for the old NVE's word.
pub(super) struct Contest {
    /// Who claims, by which connection, and what it said last.
    nve: NveId,
    session: SessionId,
    asked: ClaimRequest,
    /// Where the directory has the VM.
    owner: NveId,
    /// Version of that location: when it changes, the claim is looked at anew.
    version: Version,
    /// When the owner's patience began: with the contest, and again with each question.
    since: Instant,
    /// The connection on which the owner was asked.
    on: Option<SessionId>,
}

/// What becomes of a contest when time passes.
enum Turn {
    Wait,
    Ask(SessionId),
    /// The ground changed: the claim is judged once more.
    Again,
    Forget,
    Keep(String),
    Give(String),
}

impl Directory {
    /// A claim for a VM of another NVE begins to wait, or goes on waiting.
    pub(super) fn contest(&mut self, session: SessionId, nve: NveId, asked: ClaimRequest) {
        let key = asked.key;
        let Some(r) = self.records.get(&key) else { return };
        let Some(owner) = r.active_nve().cloned() else { return };
        let version = r.version;
        let waiting = self.claims.contests.len();
        match self.claims.contests.get_mut(&key).filter(|c| c.version == version) {
            Some(c) if c.nve == nve => {
                let story = std::mem::take(&mut c.asked.story);
                (c.session, c.asked) = (session, ClaimRequest { story, ..asked });
            }
            Some(_) => self.contest_between(session, nve, asked),
            None if waiting >= self.config.max_contests => {
                // No room is no reason: the claim comes again, and finds some (R18).
                if self.claims.crowd_lines.take(CROWD_LINES, self.now) {
                    let text = format!(
                        "{waiting} claims wait for other NVEs' words: that of NVE {nve} for {key}, and others, are \
                         looked at when they come again"
                    );
                    self.log(Level::Warn, text);
                }
            }
            None => {
                let asked = ClaimRequest { story: vec![self.claimed_step(&nve, asked.cause)], ..asked };
                let text =
                    format!("NVE {nve} claims {key}, which is at {owner}, without a move: asking {owner}");
                self.log(Level::Warn, text);
                let c = Contest { nve, session, asked, owner, version, since: self.now, on: None };
                self.claims.contests.insert(key, c);
                self.counts.claims_contested += 1;
                self.turn(key);
            }
        }
    }

    /// Two claims for one VM: the newer base wins, then the lower address (R21).
    fn contest_between(&mut self, session: SessionId, nve: NveId, asked: ClaimRequest) {
        let key = asked.key;
        let address = |nve: &NveId| self.nves.get(nve).map_or(Locators::default(), |n| n.record.locators);
        let Some(c) = self.claims.contests.get(&key) else { return };
        let rank = |base: Version, l: Locators| (std::cmp::Reverse(base), l.v4.is_none(), l.v4, l.v6);
        let newcomer_wins = rank(asked.base, address(&nve)) < rank(c.asked.base, address(&c.nve));
        let claimed = self.claimed_step(&nve, asked.cause);
        let Some(c) = self.claims.contests.get_mut(&key) else { return };
        let (winner, (session, loser, lost)) = if newcomer_wins {
            let lost = (c.session, c.nve.clone(), c.asked.clone());
            // What the owner was asked stands for the newcomer, too.
            let asking = c.asked.story.iter().filter(|s| s.what != MoveStepKind::Claimed).cloned();
            let story = std::iter::once(claimed).chain(asking).collect();
            (c.session, c.nve, c.asked) = (session, nve.clone(), ClaimRequest { story, ..asked });
            (nve, lost)
        } else {
            (c.nve.clone(), (session, nve, asked))
        };
        let text = format!("NVE {winner} claims {key} too, and goes before");
        self.deny(session, &loser, &lost, DenyReason::OwnedElsewhere, text);
    }

    /// A verdict that needs no word of the old NVE ends the claimer's waiting.
    pub(super) fn end_contest(&mut self, nve: &NveId, key: VmKey) {
        if self.claims.contests.get(&key).is_some_and(|c| c.nve == *nve) {
            self.claims.contests.remove(&key);
        }
    }

    /// The NVE takes no VMs any more: its claims that wait for another NVE's word are refused (R85).
    pub(super) fn refuse_claims_under_way(&mut self, nve: &NveId) {
        let its = self.claims.contests.extract_if(.., |_, c| c.nve == *nve);
        let its: Vec<Contest> = its.map(|(_, c)| c).collect();
        for c in its {
            let text = format!("NVE {nve} is being drained and takes no VMs");
            self.deny(c.session, &c.nve, &c.asked, DenyReason::Draining, text);
        }
    }

    /// The old NVE has looked.
    pub(super) fn verified(&mut self, nve: &NveId, key: VmKey, version: Version, alive: bool, note: &str) {
        if self.claims.contests.get(&key).is_none_or(|c| c.owner != *nve || c.version != version) {
            return self.log(Level::Debug, format!("NVE {nve} speaks of {key}, which nobody contests"));
        }
        let word = if alive { "it runs here" } else { "it does not run here" };
        let step = self.story_step(Some(nve), MoveStepKind::Answered, &format!("{word}: {note}"));
        if let Some(c) = self.claims.contests.get_mut(&key) {
            c.asked.story.push(step);
        }
        if alive {
            self.keep(key, &format!("it runs there: {note}"));
        } else {
            self.give(key, &format!("NVE {nve} has it no more: {note}"));
        }
    }

    pub(super) fn sweep_contests(&mut self) {
        let keys: Vec<VmKey> = self.claims.contests.keys().copied().collect();
        for key in keys {
            self.turn(key);
        }
        self.sweep_unplanned();
    }

    fn turn(&mut self, key: VmKey) {
        match self.next_turn(key) {
            Turn::Wait => {}
            Turn::Ask(session) => {
                let Some(owner) = self.claims.contests.get(&key).map(|c| c.owner.clone()) else { return };
                let step = self.story_step(
                    None,
                    MoveStepKind::Asked,
                    &format!("NVE {owner}, whether it still runs there"),
                );
                let Some(c) = self.claims.contests.get_mut(&key) else { return };
                (c.on, c.since) = (Some(session), self.now);
                if c.asked.story.len() < MAX_STORY {
                    c.asked.story.push(step);
                }
                let version = c.version;
                self.send(session, NvaToNve::Verify { key, version });
            }
            Turn::Again => {
                if let Some(c) = self.claims.contests.remove(&key) {
                    self.claim(c.session, c.nve, c.asked);
                }
            }
            Turn::Forget => drop(self.claims.contests.remove(&key)),
            Turn::Keep(why) => self.keep(key, &why),
            Turn::Give(why) => self.give(key, &why),
        }
    }

    fn next_turn(&self, key: VmKey) -> Turn {
        let Some(c) = self.claims.contests.get(&key) else { return Turn::Wait };
        // A claimer that comes back claims again.
        if self.sessions.get(&c.session).is_none_or(|s| s.nve.as_ref() != Some(&c.nve)) {
            return Turn::Forget;
        }
        if self.records.get(&key).is_none_or(|r| r.version != c.version) {
            return Turn::Again;
        }
        match self.session_of(&c.owner) {
            Some(on) if c.on != Some(on) => Turn::Ask(on),
            Some(_) if self.now.since(c.since) >= self.config.verify_timeout => {
                Turn::Keep(format!("NVE {} did not say whether it still runs there", c.owner))
            }
            Some(_) => Turn::Wait,
            None => {
                let heard = self.nves.get(&c.owner).and_then(|n| n.heard);
                // Not heard since our own start: it has the time to come back.
                let since = heard.unwrap_or(c.since);
                if self.now.since(since) >= Span::from_ms(self.config.keepalive_ms.into()) {
                    Turn::Give(format!("NVE {} is away", c.owner))
                } else {
                    Turn::Wait
                }
            }
        }
    }

    /// The VM stays where it is.
    fn keep(&mut self, key: VmKey, why: &str) {
        let Some(c) = self.claims.contests.remove(&key) else { return };
        let (name, owner) = (self.records.get(&key).map_or("", |r| &r.name), &c.owner);
        let text = format!(
            "VM {name} is at NVE {owner}, and {why}; order a move (`godwitctl vm move {name} --to {}`) or stop it \
             there first",
            c.nve
        );
        self.deny(c.session, &c.nve, &c.asked, DenyReason::OwnedElsewhere, text);
    }

    /// The VM goes to who claims it.
    fn give(&mut self, key: VmKey, why: &str) {
        let Some(c) = self.claims.contests.remove(&key) else { return };
        self.log(Level::Warn, format!("NVE {} gets {key} without a move: {why}", c.nve));
        let by = self.reopen_late(key, &c.nve);
        self.grant(c.session, c.nve, &c.asked, by, why);
    }

    /// Counts a move that nobody ordered; true where it was one too many (R22). By the wall clock, so that a restart
    /// of the NVA changes nothing: one that is set back counts more than there were of late, and the operator can
    /// clear what was frozen for it; one that is set forward forgets.
    pub(super) fn count_unplanned(&mut self, key: VmKey) -> bool {
        let (now, window) = (self.wall_us, self.config.flap_window);
        let mut moves = self.claims.take_flaps(key).unwrap_or_default();
        moves.retain(|at| is_within(*at, now, window));
        moves.push(now);
        let frozen = moves.len() >= self.config.flap_limit;
        if frozen {
            self.persist(Write::RemoveFlaps(key));
        } else {
            self.persist(Write::PutFlaps(key, moves.clone()));
            self.claims.set_flaps(key, moves);
        }
        frozen
    }

    /// The unplanned moves of a VM count no more.
    pub(super) fn forget_unplanned(&mut self, key: VmKey) {
        if self.claims.take_flaps(key).is_some() {
            self.persist(Write::RemoveFlaps(key));
        }
    }

    /// Forgets unplanned moves that were too long ago to count.
    fn sweep_unplanned(&mut self) {
        let (now, window) = (self.wall_us, self.config.flap_window);
        let counts = |moves: &[u64]| moves.iter().any(|at| is_within(*at, now, window));
        let over: Vec<VmKey> =
            self.claims.flaps().iter().filter(|(_, m)| !counts(m)).map(|(key, _)| *key).collect();
        for key in over {
            self.forget_unplanned(key);
        }
    }

    /// What a refused claim is about is written once, here and in the message.
    pub(super) fn deny(
        &mut self,
        session: SessionId,
        nve: &NveId,
        asked: &ClaimRequest,
        reason: DenyReason,
        text: String,
    ) {
        let ClaimRequest { seq, key, cause, .. } = *asked;
        self.counts.claims_refused += 1;
        self.log(Level::Warn, format!("denied NVE {nve} the VM {key} ({cause:?}): {text}"));
        self.claim_refused(key, nve, &text);
        self.unplanned_refused(nve, asked, reason, &text);
        let record = self.records.get(&key).cloned();
        let reason = self.as_known_to(nve, reason);
        self.send(session, NvaToNve::Deny { seq, key, reason, text, record });
    }
}

/// `at` is less than `window` before `now`, or after it; both in microseconds.
fn is_within(at: u64, now: u64, window: Span) -> bool {
    now.saturating_sub(at) < window.0 / 1000
}
