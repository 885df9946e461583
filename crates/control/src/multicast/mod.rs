//! Multicast groups of a switch's VNs (R61): which ports' VMs are members, by IGMP and MLD, which other NVEs have
//! members, by the directory, and when which VM is asked (RFC 2236, RFC 3376, RFC 2710, RFC 3810, RFC 4541).
//!
//! Pure: messages and time in; groups that changed, and questions to VMs, out. A group counts for all of its sources,
//! so that each version of both protocols leads to the same membership.
//!
//! The switch is the querier of its own VMs, unless a router here wins the election. Its queries go to ports one by
//! one, so that those of several switches never meet; they are not sent to VMs that may be routers: these would give
//! way, and a router that does not ask is not known as one.

mod election;
mod members;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::{Deadlines, MAX_GROUPS, NveId};
use godwit_tables::groups::routers_of;
use godwit_tables::update::PortIdx;
use godwit_wire::membership::{Message, Version, Wish};
use godwit_wire::{Instant, Span, Vni, igmp, mld};

use election::{Election, OTHER_PRESENT};
use members::{Groups, Place};

/// Between two general queries.
pub(crate) const QUERY_INTERVAL: Span = Span::from_ms(125_000);
/// Time within which hosts answer these.
const RESPONSE: Span = Span::from_ms(10_000);
/// Messages that may be lost.
pub(crate) const ROBUSTNESS: u8 = 2;
/// A membership lasts so long after its last report.
const MEMBERSHIP: Span = Span::from_ms(125_000 * 2 + 10_000);
/// A router that asks is one for so long after its last query.
const ROUTER: Span = OTHER_PRESENT;
/// Time within which a VM answers that has just arrived, or whose group was left.
const LAST_MEMBER: Span = Span::from_ms(1000);
/// Groups that the VMs of a port join at most.
pub(crate) const MAX_GROUPS_OF_PORT: usize = 64;

/// An IP family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    const fn latest(self) -> Version {
        match self {
            Family::V4 => Version::Igmp3,
            Family::V6 => Version::Mld2,
        }
    }
}

/// A question to the VM of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) port: PortIdx,
    pub(crate) family: Family,
    pub(crate) version: Version,
    /// `None`: all groups.
    pub(crate) group: Option<IpAddr>,
    pub(crate) max_response: Span,
}

/// What an input led to.
#[derive(Default, Debug)]
pub(crate) struct Outcome {
    /// Groups of which a member came or went.
    pub(crate) changed: BTreeSet<(Vni, IpAddr)>,
    pub(crate) questions: Vec<(Vni, Question)>,
    /// Groups that VMs of a port wanted to join, beyond what it or its VN may.
    pub(crate) refused: Vec<(Vni, PortIdx, IpAddr)>,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    /// General queries of a VN.
    General(Vni),
    /// The question to a VM that arrived is said again.
    Arrival(Vni, PortIdx),
    /// A group was left, and its last question is said again.
    Last(Vni, PortIdx, IpAddr),
    /// A membership ends, or a router's time as one.
    End(Vni, PortIdx, IpAddr),
    /// The elected querier of a family has been silent for too long.
    Querier(Vni, Family),
}

/// A port that takes part.
#[derive(Clone, Copy, Debug)]
struct PortState {
    /// Its VM may be a router: it is not asked, and what it joined stays until it leaves.
    router: bool,
}

/// A VN that snoops.
#[derive(Default, Debug)]
struct Vn {
    ports: BTreeMap<PortIdx, PortState>,
    groups: Groups,
    /// Who asks, where a router was heard.
    elections: BTreeMap<Family, Election>,
    /// General queries that the start still owes.
    startup: u8,
}

/// All VNs that snoop.
#[derive(Default, Debug)]
pub(crate) struct Multicast {
    vns: BTreeMap<Vni, Vn>,
    due: Deadlines<Due>,
}

impl Multicast {
    /// The VN is snooped.
    pub(crate) fn is_snooped(&self, vni: Vni) -> bool {
        self.vns.contains_key(&vni)
    }

    /// When [`Multicast::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due.next()
    }

    /// Begins to snoop a VN: its ports are told next.
    pub(crate) fn add_vn(&mut self, vni: Vni, now: Instant) {
        self.vns.entry(vni).or_default().startup = ROBUSTNESS - 1;
        self.due.set(Due::General(vni), Some(now + startup_interval()));
    }

    /// Ends it: nothing of the VN is known any more. Returns the groups that had members.
    pub(crate) fn remove_vn(&mut self, vni: Vni) -> Vec<IpAddr> {
        self.due.retain(|due| due.vni() != vni);
        self.vns.remove(&vni).map(|vn| vn.groups.all()).unwrap_or_default()
    }

    /// The port's VM may talk now, or has another part: it is asked by itself, so that it is a member within its answer
    /// (R61).
    pub(crate) fn port_opened(
        &mut self,
        vni: Vni,
        port: PortIdx,
        router: bool,
        now: Instant,
        to: &mut Outcome,
    ) {
        let Some(vn) = self.vns.get_mut(&vni) else { return };
        let old = vn.ports.insert(port, PortState { router });
        if old.is_some_and(|p| p.router == router) {
            return;
        }
        if router {
            // What it has joined so far does not end by itself any more.
            let ends = self.due.range(..).map(|(due, _)| due).filter(|due| due.is_end_at(vni, port));
            let ends: Vec<Due> = ends.filter(|due| !due.is_router()).collect();
            ends.into_iter().for_each(|due| self.due.set(due, None));
            self.due.set(Due::Arrival(vni, port), None);
            return;
        }
        for group in vn.groups.of_port(port).filter(|g| !g.is_unspecified()) {
            self.due.arm(Due::End(vni, port, group), now + MEMBERSHIP);
        }
        self.ask_arrival(vni, port, to);
        self.due.set(Due::Arrival(vni, port), Some(now + LAST_MEMBER));
    }

    /// The port's VM may talk no more: it is a member of nothing (R61).
    pub(crate) fn port_closed(&mut self, vni: Vni, port: PortIdx, to: &mut Outcome) {
        let Some(vn) = self.vns.get_mut(&vni) else { return };
        if vn.ports.remove(&port).is_none() {
            return;
        }
        let gone: Vec<IpAddr> = vn.groups.of_port(port).collect();
        for group in gone {
            self.leave(vni, port, group, to);
        }
        self.due.set(Due::Arrival(vni, port), None);
    }

    /// A VM said something. `own` are the addresses that the switch asks from, if they count in elections.
    pub(crate) fn heard(
        &mut self,
        vni: Vni,
        port: PortIdx,
        message: &Message<'_>,
        own: [Option<IpAddr>; 2],
        now: Instant,
        to: &mut Outcome,
    ) {
        let Some(state) = self.vns.get(&vni).and_then(|vn| vn.ports.get(&port).copied()) else { return };
        match message {
            Message::Query(query) => {
                // One without an address takes no part in elections and routes nothing (RFC 4541 section 2.1.1).
                if state.router && !query.src.is_unspecified() {
                    let own = own.into_iter().flatten().find(|ip| Family::of(*ip) == Family::of(query.src));
                    self.router_asked(vni, (port, query.src), query.version, own, now, to);
                }
            }
            Message::Report(report) => {
                for (group, wish) in report.wishes().filter(|(group, _)| !is_link_local(*group)) {
                    match wish {
                        Wish::Member => self.join(vni, port, group, state, now, to),
                        Wish::Left => self.left(vni, port, group, state, now, to),
                    }
                }
            }
        }
    }

    fn router_asked(
        &mut self,
        vni: Vni,
        (port, src): (PortIdx, IpAddr),
        version: Version,
        own: Option<IpAddr>,
        now: Instant,
        to: &mut Outcome,
    ) {
        let Some(vn) = self.vns.get_mut(&vni) else { return };
        let (every, family) = (routers_of(src), Family::of(src));
        let election = vn.elections.entry(family).or_default();
        election.heard((port, src), version, own, now);
        self.due.set(Due::Querier(vni, family), election.ends());
        if vn.groups.add(every, Place::Port(port)) {
            to.changed.insert((vni, every));
        }
        self.due.set(Due::End(vni, port, every), Some(now + ROUTER));
    }

    fn join(
        &mut self,
        vni: Vni,
        port: PortIdx,
        group: IpAddr,
        state: PortState,
        now: Instant,
        to: &mut Outcome,
    ) {
        let Some(vn) = self.vns.get_mut(&vni) else { return };
        let is_member = vn.groups.has(group, &Place::Port(port));
        let has_room = vn.groups.count_of_port(port) < MAX_GROUPS_OF_PORT
            && (vn.groups.is_wanted_here(group) || vn.groups.count_here() < MAX_GROUPS - 2);
        if !is_member && !has_room {
            to.refused.push((vni, port, group));
            return;
        }
        if vn.groups.add(group, Place::Port(port)) {
            to.changed.insert((vni, group));
        }
        let end = (!state.router).then_some(now + MEMBERSHIP);
        self.due.set(Due::End(vni, port, group), end);
        self.due.set(Due::Last(vni, port, group), None);
    }

    /// A VM left a group: others behind the port may be members still.
    fn left(
        &mut self,
        vni: Vni,
        port: PortIdx,
        group: IpAddr,
        state: PortState,
        now: Instant,
        to: &mut Outcome,
    ) {
        let Some(vn) = self.vns.get(&vni) else { return };
        if !vn.groups.has(group, &Place::Port(port)) {
            return;
        }
        if state.router {
            return self.leave(vni, port, group, to);
        }
        // The question is under way already.
        if self.due.has(Due::Last(vni, port, group)) {
            return;
        }
        to.questions.push((vni, last_member(vn, port, group)));
        self.due.set(Due::Last(vni, port, group), Some(now + LAST_MEMBER));
        self.due.set(Due::End(vni, port, group), Some(now + LAST_MEMBER + LAST_MEMBER));
    }

    fn leave(&mut self, vni: Vni, port: PortIdx, group: IpAddr, to: &mut Outcome) {
        self.due.set(Due::End(vni, port, group), None);
        self.due.set(Due::Last(vni, port, group), None);
        let Some(vn) = self.vns.get_mut(&vni) else { return };
        if vn.groups.remove(group, &Place::Port(port)) {
            to.changed.insert((vni, group));
        }
        if group.is_unspecified() {
            let family = Family::of(group);
            let election = vn.elections.entry(family).or_default();
            let was_won = election.is_won();
            election.gone(port);
            self.due.set(Due::Querier(vni, family), election.ends());
            if election.is_won() && !was_won {
                // Nobody asks any more.
                self.due.set(Due::General(vni), Some(Instant(0)));
            }
        }
    }

    /// The elected querier of a family is silent: the switch asks.
    fn querier_silent(&mut self, vni: Vni, family: Family, now: Instant) {
        let Some(election) = self.vns.get_mut(&vni).and_then(|vn| vn.elections.get_mut(&family)) else {
            return;
        };
        election.expire(now);
        self.due.set(Due::Querier(vni, family), election.ends());
        if election.is_won() {
            self.due.set(Due::General(vni), Some(Instant(0)));
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant, to: &mut Outcome) {
        while let Some(due) = self.due.pop_due(now) {
            match due {
                Due::General(vni) => self.ask_all(vni, now, to),
                Due::Arrival(vni, port) => self.ask_arrival(vni, port, to),
                Due::Last(vni, port, group) => {
                    to.questions.extend(self.vns.get(&vni).map(|vn| (vni, last_member(vn, port, group))));
                }
                Due::End(vni, port, group) => self.leave(vni, port, group, to),
                Due::Querier(vni, family) => self.querier_silent(vni, family, now),
            }
        }
    }

    /// General queries to all VMs of a VN, but for what an elected router asks.
    fn ask_all(&mut self, vni: Vni, now: Instant, to: &mut Outcome) {
        let Some(vn) = self.vns.get_mut(&vni) else { return };
        for family in Family::BOTH.into_iter().filter(|f| vn.elections.get(f).is_none_or(Election::is_won)) {
            let hosts = vn.ports.iter().filter(|(_, p)| !p.router);
            to.questions.extend(hosts.map(|(port, _)| {
                let version = vn.version(family);
                let q = Question { port: *port, family, version, group: None, max_response: RESPONSE };
                (vni, q)
            }));
        }
        let next = if vn.startup > 0 { startup_interval() } else { QUERY_INTERVAL };
        vn.startup = vn.startup.saturating_sub(1);
        self.due.set(Due::General(vni), Some(now + next));
    }

    fn ask_arrival(&self, vni: Vni, port: PortIdx, to: &mut Outcome) {
        let Some(vn) = self.vns.get(&vni) else { return };
        for family in Family::BOTH {
            let q = Question {
                port,
                family,
                version: vn.version(family),
                group: None,
                max_response: LAST_MEMBER,
            };
            to.questions.push((vni, q));
        }
    }

    // ---- Other NVEs ----

    /// Groups that another NVE has members of, by the directory.
    pub(crate) fn others(
        &mut self,
        vni: Vni,
        nve: &NveId,
        reset: bool,
        (joined, left): (Vec<IpAddr>, Vec<IpAddr>),
        to: &mut Outcome,
    ) {
        let Some(vn) = self.vns.get_mut(&vni) else { return };
        let place = Place::Nve(nve.clone());
        let old: Vec<IpAddr> = if reset { vn.groups.of_nve(nve) } else { left };
        for group in old.into_iter().filter(|g| !joined.contains(g)) {
            if vn.groups.remove(group, &place) {
                to.changed.insert((vni, group));
            }
        }
        for group in joined {
            let is_group = (group.is_multicast() && !is_link_local(group)) || group.is_unspecified();
            let room = vn.groups.of_nve(nve).len() < MAX_GROUPS;
            if is_group && room && vn.groups.add(group, place.clone()) {
                to.changed.insert((vni, group));
            }
        }
    }

    /// Only these NVEs take part in the VN.
    pub(crate) fn retain_others(&mut self, vni: Vni, stays: impl Fn(&NveId) -> bool, to: &mut Outcome) {
        let Some(vn) = self.vns.get_mut(&vni) else { return };
        let gone: Vec<NveId> = vn.groups.nves().filter(|nve| !stays(nve)).cloned().collect();
        for nve in gone {
            self.others(vni, &nve, true, (Vec::new(), Vec::new()), to);
        }
    }

    // ---- What follows ----

    /// The ports here whose VMs want a group.
    pub(crate) fn ports(&self, vni: Vni, group: IpAddr) -> impl Iterator<Item = PortIdx> + '_ {
        self.vns.get(&vni).into_iter().flat_map(move |vn| vn.groups.ports(group))
    }

    /// The other NVEs that want a group.
    pub(crate) fn nves(&self, vni: Vni, group: IpAddr) -> impl Iterator<Item = &NveId> + '_ {
        self.vns.get(&vni).into_iter().flat_map(move |vn| vn.groups.nves_of(group))
    }

    /// All groups that ports here want.
    pub(crate) fn wanted_here(&self, vni: Vni) -> BTreeSet<IpAddr> {
        self.vns.get(&vni).map(|vn| vn.groups.here()).unwrap_or_default()
    }

    /// All groups with members.
    pub(crate) fn groups(&self, vni: Vni) -> Vec<IpAddr> {
        self.vns.get(&vni).map(|vn| vn.groups.all()).unwrap_or_default()
    }
}

impl Vn {
    /// The version to ask in: that of a router here, which its hosts follow.
    fn version(&self, family: Family) -> Version {
        self.elections.get(&family).and_then(Election::version).unwrap_or(family.latest())
    }
}

impl Due {
    fn vni(self) -> Vni {
        match self {
            Due::General(vni) | Due::Arrival(vni, _) | Due::Querier(vni, _) => vni,
            Due::Last(vni, ..) | Due::End(vni, ..) => vni,
        }
    }

    fn is_end_at(self, at: Vni, here: PortIdx) -> bool {
        matches!(self, Due::End(vni, port, _) if (vni, port) == (at, here))
    }

    fn is_router(self) -> bool {
        matches!(self, Due::End(_, _, group) if group.is_unspecified())
    }
}

fn last_member(vn: &Vn, port: PortIdx, group: IpAddr) -> Question {
    let family = Family::of(group);
    let version = vn.version(family);
    Question { port, family, version, group: Some(group), max_response: LAST_MEMBER }
}

/// Between the general queries of a start: a quarter of the interval (RFC 3376 section 8.6).
const fn startup_interval() -> Span {
    Span(QUERY_INTERVAL.0 / 4)
}

/// Nobody needs to be asked for these.
fn is_link_local(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => igmp::is_link_local(v4),
        IpAddr::V6(v6) => mld::is_link_local(v6),
    }
}
