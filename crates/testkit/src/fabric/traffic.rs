//! Guests, their numbered frames, and the link between the switches.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_model::VmKey;
use godwit_pipeline::mem::MemPacket;
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Mac, Span};

use super::addresses::{Own, WORD};
use super::host::UPLINK;
use super::invariants::Invariant;
use super::names::{self, Tag};
use super::routing::hops;
use super::schedule::{Announce, Class, Sabotage, Side, VmPlan};
use super::worker::bytes;
use super::world::{Event, World};
use crate::frames::{self, Nd};

/// Gaps between the rounds of an announcement, as QEMU makes them.
pub(super) const ROUNDS: [Span; 4] =
    [Span::from_ms(50), Span::from_ms(150), Span::from_ms(250), Span::from_ms(350)];

/// Frames that wait for a switch that stands still.
const RING: usize = 256;

/// A guest is not silent for longer, whatever its applications do.
pub(super) const CHATTER: Span = Span::from_ms(500);

/// A VM.
pub(super) struct Guest {
    pub key: VmKey,
    pub name: String,
    pub vn: usize,
    pub number: usize,
    /// Where its device is. A paused guest's memory still takes what is delivered there.
    pub at: Option<(usize, PortIdx)>,
    pub running: bool,
    /// Its application is silent until then.
    pub quiet_until: Instant,
    /// Since when it runs where it is.
    pub runs_since: Instant,
    /// Its last move was called off, and its switch has heard of it by then unless its session is cut.
    pub called_off: Option<Instant>,
    /// The whole guest is, until then.
    pub silent_until: Instant,
    /// It stands still until then, or boots.
    pub stalled_until: Instant,
    /// It says nothing of itself at all.
    pub quiet: bool,
    /// The port that it does not use at present, where it has two.
    pub second: Option<PortIdx>,
    /// Since when its switch should deliver to it and does not.
    pub missed_since: Option<Instant>,
    /// Its port is gone, and it comes nowhere again.
    pub gone: bool,
    /// Its record has one address more than it uses.
    pub defined_more: bool,
    /// How it announces itself at its present place.
    pub announce: Announce,
    /// It was paused for a move at least once.
    pub has_moved: bool,
    /// It was shut down for a move.
    pub was_down: bool,
    /// It moved to a switch that had not said that it was prepared.
    pub unprepared: bool,
    /// The port where it is to go on.
    pub awaited: Option<(usize, PortIdx)>,
    /// The move that is being made.
    pub script: Option<usize>,
    /// Moves that are wanted after that.
    pub wanted: VecDeque<usize>,
    /// What it has by its own word.
    pub own: Own,
    /// When its last frame reaches its port: they go in order.
    last_frame: Instant,
}

impl Guest {
    pub fn new(plan: &VmPlan) -> Guest {
        Guest {
            key: names::vm_key(plan.vn, plan.number),
            name: names::vm_name(plan.vn, plan.number),
            vn: plan.vn,
            number: plan.number,
            at: None,
            running: false,
            quiet_until: Instant(0),
            runs_since: Instant(0),
            called_off: None,
            silent_until: Instant(0),
            stalled_until: Instant(0),
            quiet: plan.quiet,
            second: None,
            missed_since: None,
            gone: false,
            defined_more: plan.defined_late,
            announce: Announce::Explicit,
            has_moved: false,
            was_down: false,
            unprepared: false,
            awaited: None,
            script: None,
            wanted: VecDeque::new(),
            own: Own::default(),
            last_frame: Instant(0),
        }
    }
}

impl Guest {
    /// It may say something of its own accord.
    fn speaks(&self, now: Instant) -> bool {
        self.running && !self.quiet && now >= self.stalled_until
    }

    /// It says what it likes, and is heard.
    pub fn can_speak(&self, now: Instant) -> bool {
        self.speaks(now) && self.at.is_some() && now >= self.silent_until.max(self.quiet_until)
    }
}

/// A guest's request for another's address (R28).
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    /// When it was asked first.
    pub since: Instant,
    /// Where the asker was.
    pub at: Option<(usize, PortIdx)>,
    /// The address's owner was being moved.
    moving: bool,
}

impl World {
    /// A guest's frame goes to its port, if it has one.
    pub fn guest_puts(&mut self, vm: usize, flow: usize, packet: MemPacket) {
        let at = self.now + self.rng.us(1, 50);
        let guest = &mut self.guests[vm];
        let Some((host, port)) = guest.at else { return };
        guest.last_frame = guest.last_frame.max(at);
        let at = guest.last_frame;
        let worker = flow % self.hosts[host].workers.len();
        self.queue.push(at, Event::PortRx { host, worker, port, packet });
    }

    /// Sends the next frame of a flow.
    pub fn send_one(&mut self, flow: usize) {
        let packet = self.flows[flow].next_frame(flow);
        self.stats.frames_sent += 1;
        self.guest_puts(self.flows[flow].from, flow, packet);
    }

    pub fn guest_sends(&mut self, flow: usize) {
        let f = &self.flows[flow];
        let guest = &self.guests[f.from];
        if self.now >= self.traffic_until {
            return;
        }
        let gap = Span(self.rng.between(f.every.0 / 2, f.every.0 * 3 / 2));
        if guest.speaks(self.now) && self.now >= guest.quiet_until {
            self.send_one(flow);
        }
        self.after(gap, Event::Send { flow });
    }

    pub fn announce(&mut self, vm: usize, host: usize, port: PortIdx, round: u32) {
        let guest = &self.guests[vm];
        if !guest.running || guest.at != Some((host, port)) {
            return;
        }
        if guest.quiet || guest.announce == Announce::Never {
            return;
        }
        if self.now < guest.silent_until.max(guest.stalled_until) {
            return self.after(CHATTER, Event::Announce { vm, host, port, round });
        }
        let (mac, number) = (guest.key.mac, guest.number);
        let neighbor = number / 16 * 16 + (number + 1) % 4;
        let ask = || frames::arp_request(mac, names::vm_v4(number), names::vm_v4(neighbor));
        let frame = match guest.announce {
            // Any guest asks for some address before long, and again and again.
            Announce::Explicit | Announce::FirstFrame | Announce::Never => ask(),
            _ if round as usize >= ROUNDS.len() => ask(),
            Announce::Garp => frames::garp(mac, names::vm_v4(number)),
            Announce::Na => Nd::announce(mac, names::vm_v6(number)).frame(),
            Announce::Rarp => frames::rarp_announce(mac),
        };
        self.guest_puts(vm, 0, MemPacket::new(&frame));
        let gap = ROUNDS.get(round as usize).copied().unwrap_or(CHATTER);
        self.after(gap, Event::Announce { vm, host, port, round: round + 1 });
    }

    /// Some guest wants to know an address of its network, by ARP or ND.
    pub fn someone_asks(&mut self) {
        if self.now >= self.traffic_until {
            return;
        }
        let gap = self.rng.ms(20, 120);
        self.after(gap, Event::Ask);
        let vm = self.rng.index(self.guests.len());
        // One number more than there are: nobody's address.
        let target = self.rng.index(5);
        let guest = &self.guests[vm];
        let target = guest.number / 16 * 16 + target;
        if !guest.speaks(self.now) || target == guest.number || self.now < guest.silent_until {
            return;
        }
        let (mac, number) = (guest.key.mac, guest.number);
        let arp = self.rng.chance(500);
        let frame = if arp {
            frames::arp_request(mac, names::vm_v4(number), names::vm_v4(target))
        } else {
            Nd::solicit(mac, names::vm_v6(number), names::vm_v6(target)).frame()
        };
        self.remember_question(vm, target, !arp);
        self.guest_puts(vm, 0, MemPacket::new(&frame));
    }

    /// An asker that stays where it is must be answered, whatever the owner does (R28).
    fn remember_question(&mut self, vm: usize, target: usize, nd: bool) {
        let asker = &self.guests[vm];
        let owner = self.guests.iter().position(|g| g.vn == asker.vn && g.number == target);
        let Some(owner) = owner.filter(|_| asker.script.is_none()) else { return };
        let own = |number| names::side(number, Side::Own, nd).1;
        if !self.is_known(vm, own(asker.number)) || !self.is_known(owner, own(target)) {
            return;
        }
        let owner = &self.guests[owner];
        let question = Question { since: self.now, at: asker.at, moving: owner.script.is_some() };
        self.stats.asked += 1;
        self.stats.asked_of_moving += u64::from(question.moving);
        self.questions.entry((vm, target, nd)).or_insert(question);
    }

    /// A guest hears who has an address.
    pub fn question_answered(&mut self, vm: usize, target: usize, nd: bool) {
        self.stats.answered += u64::from(self.questions.remove(&(vm, target, nd)).is_some());
    }

    /// How many frames wait for a switch that stands still, as many as a ring has room for.
    pub fn ring_takes(&mut self, host: usize) -> bool {
        let h = &mut self.hosts[host];
        h.ring += 1;
        h.ring <= RING
    }

    pub fn port_rx(&mut self, host: usize, worker: usize, port: PortIdx, packet: MemPacket) {
        if !self.hosts[host].ports.contains_key(&port) || self.is_down(host) {
            self.stats.frames_at_dead_ports += 1;
            return;
        }
        self.note(|| format!("n{host}/{worker} port {} in {:?}", port.0, Tag::of(bytes(&packet))));
        self.hosts[host].workers[worker].receive(port, packet, self.now);
        self.flush(host, worker);
    }

    pub fn uplink_rx(&mut self, host: usize, mut packet: MemPacket) {
        if self.is_down(host) {
            return;
        }
        if self.sabotaged(Sabotage::RoutedTwice) {
            self.route_again(&mut packet);
        }
        let workers = self.hosts[host].workers.len();
        let worker = names::spread(bytes(&packet), workers);
        if let Some((ttl, inner)) = names::inside_vxlan(bytes(&packet)) {
            self.note(|| format!("n{host}/{worker} uplink in {:?} ttl {ttl}", Tag::of(inner)));
        }
        self.hosts[host].workers[worker].receive(UPLINK, packet, self.now);
        self.flush(host, worker);
    }

    /// A switch delivers a frame to one of its ports.
    pub fn guest_receives(&mut self, host: usize, port: PortIdx, packet: &MemPacket) {
        let frame = bytes(packet);
        let tag = Tag::of(frame);
        self.note(|| format!("n{host} delivers {tag:?} to port {}", port.0));
        let Some(&vm) = self.hosts[host].ports.get(&port) else {
            self.stats.frames_at_dead_ports += 1;
            return;
        };
        let Some(tag) = tag else {
            self.guest_answers(vm, (host, port), frame);
            return self.check_told((host, port), vm, frame);
        };
        if tag.flow == WORD {
            return self.word_received(vm, (host, port), tag, frame);
        }
        let Some(flow) = self.flows.get_mut(usize::from(tag.flow)) else { return };
        let (from, to, routed) = (flow.from, flow.to, flow.is_routed());
        let (came, due) = (hops(frame), hops(&flow.arrives));
        if came != due {
            return self.fail(Invariant::Hops, format!("{tag:?} came with a TTL of {came:?}, not {due:?}"));
        }
        if !flow.is_intact(tag, frame) {
            return self.fail(Invariant::Intact, format!("{tag:?} came changed to n{host}"));
        }
        if !self.plan.joins(self.guests[from].vn, self.guests[vm].vn) {
            return self.fail(Invariant::Isolation, format!("{tag:?} of vm {from} came to vm {vm}"));
        }
        if self.guests[vm].gone {
            return self.fail(Invariant::Ghost, format!("{tag:?} came to vm {vm}, which is gone"));
        }
        if to.is_some_and(|to| to != vm) {
            return self.fail(Invariant::Destination, format!("{tag:?} for {to:?} came to vm {vm}"));
        }
        if self.guests[vm].at != Some((host, port)) {
            self.stats.frames_at_dead_ports += 1;
            return;
        }
        self.stats.frames_received += 1;
        self.stats.frames_routed += u64::from(routed);
        if to.is_some() {
            self.count_receipt(tag);
        }
    }

    /// A guest that is asked for one of its addresses says so (R21, R32).
    fn guest_answers(&mut self, vm: usize, at: (usize, PortIdx), frame: &[u8]) {
        let guest = &self.guests[vm];
        let awake = guest.running && self.now >= guest.silent_until.max(guest.stalled_until);
        if !awake || guest.at != Some(at) || self.sabotaged(Sabotage::NoAnswers) {
            return;
        }
        let Some((ip, mac)) = names::asked_for(frame).and_then(|ip| Some((ip, self.answers_by(vm, ip)?)))
        else {
            return;
        };
        let (v4, v6) = match ip {
            IpAddr::V4(ip) => (ip, Ipv6Addr::UNSPECIFIED),
            IpAddr::V6(ip) => (Ipv4Addr::UNSPECIFIED, ip),
        };
        if let Some(answer) = frames::answer(frame, mac, v4, v6) {
            self.stats.answers_of_guests += 1;
            self.guest_puts(vm, 0, MemPacket::new(&answer));
        }
    }

    fn count_receipt(&mut self, tag: Tag) {
        let flow = &mut self.flows[usize::from(tag.flow)];
        let seq = tag.seq as usize;
        flow.received[seq] = flow.received[seq].saturating_add(1);
        let allowed = 1 + flow.repeated[seq];
        let (newest, judged) = (flow.newest, self.plan.class == Class::Planned && flow.periodic);
        flow.newest = newest.max(tag.seq + 1);
        // A second copy is judged as such.
        if judged && flow.received[seq] == 1 && tag.seq < newest && tag.seq >= flow.in_order {
            let text = format!("{tag:?} came behind number {}", newest - 1);
            return self.fail(Invariant::Order, text);
        }
        let flow = &self.flows[usize::from(tag.flow)];
        if flow.received[seq] > allowed {
            self.fail(Invariant::NoDuplicates, format!("{tag:?} came {} times", allowed + 1));
        }
    }

    /// A switch sends a frame to the underlay.
    pub fn underlay_carries(&mut self, host: usize, packet: MemPacket) {
        let frame = bytes(&packet);
        let destination = Mac(*frame.first_chunk().unwrap_or(&[0; 6]));
        let tag = names::inside_vxlan(frame).and_then(|(ttl, inner)| {
            let tag = Tag::of(inner)?;
            Some((tag, ttl))
        });
        if let Some((tag, ttl)) = tag {
            self.stats.encapsulations += 1;
            self.note(|| format!("n{host} tunnels {tag:?} to {destination} ttl {ttl}"));
            self.count_encapsulation(tag);
        }
        let request = names::inside_vxlan(frame).is_some_and(|(_, inner)| is_broadcast_arp(inner));
        if request {
            return self.fail(Invariant::Destination, format!("n{host} floods an ARP request"));
        }
        let tag = tag.map(|(tag, _)| tag);
        if destination.0[0] & 1 == 1 {
            for to in (0..self.hosts.len()).filter(|to| *to != host) {
                self.underlay_delivers((host, to), packet.clone(), tag);
            }
        } else if let Some(to) = names::host_of(destination).filter(|to| *to < self.hosts.len()) {
            self.underlay_delivers((host, to), packet, tag);
        }
    }

    /// No frame goes round: each is encapsulated a few times at most (R46).
    fn count_encapsulation(&mut self, tag: Tag) {
        let calm = self.plan.class == Class::Planned;
        let hosts = self.hosts.len() as u8;
        let Some(flow) = self.flows.get_mut(usize::from(tag.flow)) else { return };
        let seq = tag.seq as usize;
        flow.encapsulated[seq] = flow.encapsulated[seq].saturating_add(1);
        let once = match flow.to {
            None => hosts - 1,
            Some(_) if calm => 3,
            Some(_) => 4,
        };
        let limit = once.saturating_mul(1 + flow.repeated[seq]);
        if flow.encapsulated[seq] > limit {
            self.fail(Invariant::NoLoop, format!("{tag:?} was encapsulated more than {limit} times"));
        }
    }

    /// Where nothing fails, what one switch sends to another keeps its order.
    fn underlay_delivers(&mut self, (from, to): (usize, usize), packet: MemPacket, tag: Option<Tag>) {
        let stormy = self.is_stormy();
        let weather = &self.plan.weather;
        let (least, most) = weather.underlay_us;
        let (loss, repeat) = if stormy { (weather.loss, weather.repeat) } else { (0, 0) };
        let most = if stormy { most * 20 } else { most };
        if self.rng.chance(loss) {
            self.stats.frames_lost_by_underlay += 1;
            return;
        }
        if self.rng.chance(repeat) {
            self.stats.frames_repeated_by_underlay += 1;
            if let Some(flow) = tag.and_then(|t| self.flows.get_mut(usize::from(t.flow)).zip(Some(t))) {
                let count = &mut flow.0.repeated[flow.1.seq as usize];
                *count = count.saturating_add(1);
            }
            let span = self.rng.us(least, most);
            self.after(span, Event::UplinkRx { host: to, packet: packet.clone() });
        }
        if self.sabotaged(Sabotage::SecretDuplicates) && self.rng.chance(20) {
            let span = self.rng.us(least, most);
            self.after(span, Event::UplinkRx { host: to, packet: packet.clone() });
        }
        let mut at = self.now + self.rng.us(least, most);
        if self.plan.class == Class::Planned {
            let last = self.links.entry((from, to)).or_insert(at);
            *last = at.max(*last);
            at = *last;
        }
        self.queue.push(at, Event::UplinkRx { host: to, packet });
    }
}

/// An ARP packet to everybody.
fn is_broadcast_arp(frame: &[u8]) -> bool {
    frame.first_chunk() == Some(&[0xff; 6]) && frame.get(12..14) == Some(&[8, 6])
}
