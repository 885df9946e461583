//! The thread that drives all guests: their frames, and the orders of the scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use godwit_frontend::{Crowd, Guest, Header};
use godwit_testkit::frames;
use serde::Serialize;

use super::roster::{ASKER, Roster};

/// How long the thread sleeps at most.
const NAP: Duration = Duration::from_millis(1);
/// Guests that have not answered are asked again, so often.
const AGAIN: Duration = Duration::from_millis(300);
/// UDP ports: of talkers, of questions, of answers.
const TALK: u16 = 7000;
const ASK: u16 = 7001;
const ANSWER: u16 = 7002;
/// Where the UDP payload begins.
const PAYLOAD: usize = 14 + 20 + 8;
/// Questions in one turn: their answers fit into the ring of who asks.
const QUESTIONS: usize = 8;

/// An order of the scenario.
enum Order {
    Add(u32, Box<Guest>),
    Remove(u32),
    Announce(Vec<u32>),
    /// Have all guests answer; those that did not in time.
    Sweep(Duration),
    /// Who talks to whom, and frames a second of each.
    Talk(Vec<(u32, u32)>, f64),
    /// Stop talking, wait for the last frames, and tell.
    Stop(Duration),
}

/// What came of an order.
enum Done {
    Nothing,
    Silent(Vec<u32>),
    Talked(Talked),
}

/// What talkers sent and received.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Talked {
    pub sent: u64,
    pub lost: u64,
    pub doubled: u64,
    pub overtaken: u64,
    /// Frames that were not sent, because the switch had not taken what was in the ring.
    pub refused: u64,
    /// Longest time without a frame of any flow, in milliseconds.
    pub silence_ms: f64,
}

impl Talked {
    /// Whether everything arrived, once and in order.
    pub(super) fn is_whole(&self) -> bool {
        self.sent > 0 && self.lost + self.doubled + self.overtaken + self.refused == 0
    }
}

/// One guest's frames to another one.
struct Flow {
    from: u32,
    to: u32,
    next: Instant,
    sent: u64,
    /// Arrived ones that are not the beginning of the row any more.
    early: BTreeSet<u64>,
    /// All before this one arrived.
    whole: u64,
    doubled: u64,
    overtaken: u64,
    refused: u64,
    last: Option<Instant>,
    silence: Duration,
}

impl Flow {
    fn new(from: u32, to: u32, next: Instant) -> Flow {
        Flow {
            from,
            to,
            next,
            sent: 0,
            early: BTreeSet::new(),
            whole: 0,
            doubled: 0,
            overtaken: 0,
            refused: 0,
            last: None,
            silence: Duration::ZERO,
        }
    }

    fn arrived(&mut self, number: u64, now: Instant) {
        if number < self.whole || self.early.contains(&number) {
            self.doubled += 1;
            return;
        }
        self.overtaken += u64::from(self.early.last().is_some_and(|last| number < *last));
        self.early.insert(number);
        while self.early.remove(&self.whole) {
            self.whole += 1;
        }
        if let Some(last) = self.last.replace(now) {
            self.silence = self.silence.max(now - last);
        }
    }

    fn lost(&self) -> u64 {
        self.sent - self.whole - self.early.len() as u64
    }
}

/// The scenario's side of the thread.
pub(super) struct Driver {
    orders: Option<Sender<Order>>,
    done: Receiver<Result<Done>>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts the thread, with nobody to drive.
    ///
    /// # Errors
    /// Where the system has no room for it.
    pub(super) fn start(roster: &Roster) -> Result<Driver> {
        let (orders, taken) = channel();
        let (tell, done) = channel();
        let mut work = Work::new(*roster)?;
        let run = move || work.run(&taken, &tell);
        let thread = Some(std::thread::Builder::new().name("guests".into()).spawn(run)?);
        Ok(Driver { orders: Some(orders), done, thread })
    }

    fn order(&self, order: Order) -> Result<Done> {
        let ended = || anyhow!("the thread that drives the guests has ended");
        self.orders.as_ref().with_context(ended)?.send(order).map_err(|_| ended())?;
        self.done.recv().map_err(|_| ended())?
    }

    pub(super) fn add(&self, n: u32, guest: Guest) -> Result<()> {
        self.order(Order::Add(n, Box::new(guest))).map(drop)
    }

    /// Ends a guest, if it is there.
    pub(super) fn remove(&self, n: u32) -> Result<()> {
        self.order(Order::Remove(n)).map(drop)
    }

    pub(super) fn announce(&self, who: Vec<u32>) -> Result<()> {
        self.order(Order::Announce(who)).map(drop)
    }

    /// Has the first guest ask each other one, until all have answered; those that did not within `patience`.
    pub(super) fn sweep(&self, patience: Duration) -> Result<Vec<u32>> {
        match self.order(Order::Sweep(patience))? {
            Done::Silent(who) => Ok(who),
            _ => Err(anyhow!("a sweep ended without its result")),
        }
    }

    pub(super) fn talk(&self, flows: Vec<(u32, u32)>, rate: u32) -> Result<()> {
        let each = f64::from(rate) / flows.len().max(1) as f64;
        self.order(Order::Talk(flows, each)).map(drop)
    }

    pub(super) fn stop(&self, last: Duration) -> Result<Talked> {
        match self.order(Order::Stop(last))? {
            Done::Talked(talked) => Ok(talked),
            _ => Err(anyhow!("the talk ended without its result")),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked, and said so.
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Work {
    roster: Roster,
    crowd: Crowd,
    flows: Vec<Flow>,
    /// Flows by their ends.
    index: BTreeMap<(u32, u32), usize>,
    interval: Duration,
    talking: bool,
    /// Guests that are to be asked.
    questions: Vec<u32>,
    answered: BTreeSet<u32>,
    /// An order that takes time, its end, and the guests that are to answer.
    pending: Option<(Order, Instant)>,
    again: Instant,
}

impl Work {
    fn new(roster: Roster) -> Result<Work> {
        Ok(Work {
            roster,
            crowd: Crowd::new()?,
            flows: Vec::new(),
            index: BTreeMap::new(),
            interval: Duration::ZERO,
            talking: false,
            questions: Vec::new(),
            answered: BTreeSet::new(),
            pending: None,
            again: Instant::now(),
        })
    }

    fn run(&mut self, orders: &Receiver<Order>, tell: &Sender<Result<Done>>) {
        loop {
            if self.pending.is_none() {
                match orders.try_recv() {
                    Ok(order) => {
                        let done = self.obey(order);
                        if let Some(done) = done.transpose()
                            && tell.send(done).is_err()
                        {
                            return;
                        }
                    }
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let done = self.turn().and_then(|()| self.settle());
            if let Some(done) = done.transpose() {
                let failed = done.is_err();
                if tell.send(done).is_err() || failed {
                    return;
                }
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<Option<Done>> {
        let now = Instant::now();
        match order {
            Order::Add(n, guest) => {
                self.crowd.add(n, *guest)?;
                self.announce(n)?;
            }
            Order::Remove(n) => drop(self.crowd.remove(n)),
            Order::Announce(who) => who.into_iter().try_for_each(|n| self.announce(n))?,
            Order::Talk(flows, each) => {
                self.interval = Duration::from_secs_f64(1.0 / each);
                self.index = flows.iter().copied().zip(0..).collect();
                let start = |n: usize| now + self.interval.mul_f64(n as f64 / flows.len() as f64);
                self.flows = flows.iter().enumerate().map(|(n, f)| Flow::new(f.0, f.1, start(n))).collect();
                self.talking = true;
            }
            Order::Sweep(patience) => {
                self.answered.clear();
                self.again = now;
                self.pending = Some((order, now + patience));
                return Ok(None);
            }
            Order::Stop(last) => {
                self.talking = false;
                self.pending = Some((order, now + last));
                return Ok(None);
            }
        }
        Ok(Some(Done::Nothing))
    }

    /// Ends an order that takes time, where that has come to its end.
    fn settle(&mut self) -> Result<Option<Done>> {
        let now = Instant::now();
        let Some((order, end)) = &self.pending else { return Ok(None) };
        let late = now >= *end;
        let done = match order {
            Order::Sweep(_) => {
                let answered = &self.answered;
                let all = self.crowd.iter().map(|(n, _)| n);
                let silent: Vec<u32> = all.filter(|n| *n != ASKER && !answered.contains(n)).collect();
                if !silent.is_empty() && !late {
                    if now >= self.again && self.questions.is_empty() {
                        self.again = now + AGAIN;
                        self.questions = silent;
                    }
                    return Ok(None);
                }
                Done::Silent(silent)
            }
            _ if !late => return Ok(None),
            _ => Done::Talked(self.talked()),
        };
        self.pending = None;
        Ok(Some(done))
    }

    fn talked(&self) -> Talked {
        let mut all = Talked::default();
        for flow in &self.flows {
            all.sent += flow.sent;
            all.lost += flow.lost();
            all.doubled += flow.doubled;
            all.overtaken += flow.overtaken;
            all.refused += flow.refused;
            all.silence_ms = all.silence_ms.max(flow.silence.as_secs_f64() * 1000.0);
        }
        all
    }

    /// Sends what is due and takes what has come.
    fn turn(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.talking {
            for n in 0..self.flows.len() {
                while self.flows[n].next <= now {
                    let (from, to, number) = (self.flows[n].from, self.flows[n].to, self.flows[n].sent);
                    let went = self.say(from, to, TALK, number)?;
                    let flow = &mut self.flows[n];
                    flow.next += self.interval;
                    flow.sent += u64::from(went);
                    flow.refused += u64::from(!went);
                }
            }
        }
        let asked = self.questions.len().saturating_sub(QUESTIONS);
        for n in self.questions.split_off(asked) {
            self.say(ASKER, n, ASK, 0)?;
        }
        let (mut answers, flows, index, roster) = (Vec::new(), &mut self.flows, &self.index, self.roster);
        let answered = &mut self.answered;
        self.crowd.receive(NAP, |got| {
            let Some((from, to, port, number)) = read(got.frame) else { return };
            // Copies for others come to whom they are not for while a location is unknown.
            if to != roster.mac(got.guest) {
                return;
            }
            match port {
                TALK => {
                    if let Some(n) = index.get(&(from, got.guest)) {
                        flows[*n].arrived(number, Instant::now());
                    }
                }
                ASK => answers.push((got.guest, from)),
                ANSWER => {
                    answered.insert(from);
                }
                _ => {}
            }
        })?;
        for (from, to) in answers {
            self.say(from, to, ANSWER, 0)?;
        }
        Ok(())
    }

    fn announce(&mut self, n: u32) -> Result<()> {
        let frame = frames::padded(frames::garp(self.roster.mac(n), self.roster.ip(n)), 60);
        if let Some(guest) = self.crowd.get(n) {
            guest.send(0, &Header::default(), &frame)?;
        }
        Ok(())
    }

    /// Sends a frame from one guest to another; false where the ring is full or the guest is not there.
    fn say(&mut self, from: u32, to: u32, port: u16, number: u64) -> Result<bool> {
        let roster = self.roster;
        let end = |n: u32| (roster.mac(n), roster.ip(n).into(), port);
        let payload = [u64::from(from).to_be_bytes(), number.to_be_bytes()].concat();
        let frame = frames::padded(frames::udp_frame(end(from), end(to), &payload), 60);
        match self.crowd.get(from) {
            Some(guest) => Ok(guest.send(0, &Header::default(), &frame)?),
            None => Ok(false),
        }
    }
}

/// Sender, destination address, port and number of a guest's frame.
fn read(frame: &[u8]) -> Option<(u32, godwit_wire::Mac, u16, u64)> {
    let word = |at: usize| Some(u64::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    if frame.get(12..14)? != [8, 0] || *frame.get(23)? != 17 {
        return None;
    }
    let port = u16::from_be_bytes(*frame.get(36..)?.first_chunk()?);
    let mac = godwit_wire::Mac(*frame.first_chunk()?);
    Some((u32::try_from(word(PAYLOAD)?).ok()?, mac, port, word(PAYLOAD + 8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_doubles_and_overtaking_are_told_apart() {
        let now = Instant::now();
        let mut flow = Flow::new(0, 1, now);
        flow.sent = 8;
        for number in [0, 1, 3, 2, 2, 6, 5] {
            flow.arrived(number, now);
        }
        // 4 and 7 are missing.
        assert_eq!((flow.lost(), flow.doubled, flow.overtaken), (2, 1, 2));
    }

    #[test]
    fn a_frame_is_read_as_it_was_built() {
        let roster = Roster::new(500);
        let payload = [7_u64.to_be_bytes(), 99_u64.to_be_bytes()].concat();
        let end = |n: u32| (roster.mac(n), roster.ip(n).into(), TALK);
        let frame = frames::padded(frames::udp_frame(end(7), end(300), &payload), 60);
        assert_eq!(read(&frame), Some((7, roster.mac(300), TALK, 99)));
        assert_eq!(read(&frame[..40]), None);
        assert_eq!(read(&frames::garp(roster.mac(1), roster.ip(1))), None);
    }
}
