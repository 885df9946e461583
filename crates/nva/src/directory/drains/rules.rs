//! Which NVE takes which VM. Nothing here knows the directory: needs and takers go in, a choice or obstacles come out.

use core::fmt;

use godwit_model::{Locators, ModeSet, MoveId, MoveMode, NveId};

/// NVEs that a sentence names.
const NAMED: usize = 3;

/// An NVE that may take VMs.
#[derive(Clone, Debug)]
pub(super) struct Taker {
    pub nve: NveId,
    pub locators: Locators,
    pub modes: ModeSet,
    pub connected: bool,
    pub draining: bool,
    /// VMs that it takes at most.
    pub capacity: usize,
    /// VMs that it has room for now.
    pub free: usize,
}

/// What a VM, and those like it, need of their new NVE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Needs {
    pub mode: MoveMode,
    /// An NVE that sends to the VM and has an IPv4 locator only.
    pub v4: Option<NveId>,
    /// One that has an IPv6 locator only.
    pub v6: Option<NveId>,
}

impl Needs {
    /// Those of a VM that NVEs with these locators send to.
    pub fn new<'a>(mode: MoveMode, senders: impl Iterator<Item = (&'a NveId, Locators)>) -> Needs {
        let mut needs = Needs { mode, v4: None, v6: None };
        for (nve, at) in senders {
            match (at.v4, at.v6) {
                (Some(_), None) => needs.v4.get_or_insert_with(|| nve.clone()),
                (None, Some(_)) => needs.v6.get_or_insert_with(|| nve.clone()),
                _ => continue,
            };
        }
        needs
    }
}

/// Why an NVE does not take a VM, the lasting reasons first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Obstacle {
    /// It does not take part in such moves.
    Mode,
    /// It has no locator of a family in common with this NVE.
    Family(NveId),
    /// It is to be emptied itself.
    Draining,
    /// It has as many VMs as it takes.
    Full(usize),
    /// It may be back in a moment.
    Away,
}

/// What keeps the NVE from taking such a VM, its room aside.
fn obstacle(t: &Taker, needs: &Needs) -> Option<Obstacle> {
    if t.draining {
        return Some(Obstacle::Draining);
    }
    // What an NVE that is away would take is not known.
    if !t.connected {
        return Some(Obstacle::Away);
    }
    if !t.modes.has(needs.mode) {
        return Some(Obstacle::Mode);
    }
    let v4 = needs.v4.as_ref().filter(|_| t.locators.v4.is_none());
    let v6 = needs.v6.as_ref().filter(|_| t.locators.v6.is_none());
    v4.or(v6).cloned().map(Obstacle::Family)
}

/// NVEs that take a VM of these needs, whatever their room.
pub(super) fn takes(t: &Taker, needs: &Needs) -> bool {
    obstacle(t, needs).is_none()
}

/// The NVE with the most room among those that take the VM; else what is in the way at each.
pub(super) fn choose<'a>(takers: &'a [Taker], needs: &Needs) -> Result<&'a Taker, Nowhere> {
    let fit = takers.iter().filter(|t| t.free > 0 && takes(t, needs));
    // Of equals the first by name.
    if let Some(best) = fit.reduce(|best, t| if t.free > best.free { t } else { best }) {
        return Ok(best);
    }
    let why = |t: &Taker| (t.nve.clone(), obstacle(t, needs).unwrap_or(Obstacle::Full(t.capacity)));
    Err(Nowhere { mode: needs.mode, obstacles: takers.iter().map(why).collect() })
}

/// No NVE takes a VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Nowhere {
    mode: MoveMode,
    obstacles: Vec<(NveId, Obstacle)>,
}

impl Nowhere {
    /// One of them may be back in a moment.
    fn may_pass(&self) -> bool {
        self.obstacles.iter().any(|(_, o)| *o == Obstacle::Away)
    }
}

impl fmt::Display for Nowhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.obstacles.is_empty() {
            return f.write_str("there is no other NVE that may take it");
        }
        for (n, (nve, obstacle)) in self.obstacles.iter().take(NAMED).enumerate() {
            let sep = if n == 0 { "" } else { "; " };
            match obstacle {
                Obstacle::Mode => write!(f, "{sep}NVE {nve} takes no {} moves", self.mode)?,
                Obstacle::Family(other) => {
                    write!(f, "{sep}NVE {nve} has no underlay address family in common with NVE {other}")?;
                }
                Obstacle::Draining => write!(f, "{sep}NVE {nve} is being drained itself")?,
                Obstacle::Full(capacity) => write!(f, "{sep}NVE {nve} is full: it takes {capacity} VMs")?,
                Obstacle::Away => write!(f, "{sep}NVE {nve} is not connected")?,
            }
        }
        match self.obstacles.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more NVEs take it as little"),
        }
    }
}

/// Why a VM is not moved, now or at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Left {
    Pinned,
    Frozen,
    /// Another order moves it.
    Moving(MoveId),
    /// The NVE that is drained is not connected.
    SourceAway,
    /// Only moves that interrupt it are allowed.
    Interruption,
    /// Its VN and its NVE have no mode in common that a drain orders.
    NoMode {
        vn: ModeSet,
        nve: ModeSet,
    },
    Nowhere(Nowhere),
}

impl Left {
    /// It may be gone in a moment, without anybody doing anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Left::Moving(_) | Left::SourceAway => true,
            Left::Nowhere(n) => n.may_pass(),
            Left::Pinned | Left::Frozen | Left::Interruption | Left::NoMode { .. } => false,
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Left::Pinned => f.write_str("pinned to this NVE; define it again without the pin"),
            Left::Frozen => {
                f.write_str("frozen after too many unplanned moves; `godwitctl vm clear` lets it move")
            }
            Left::Moving(id) => write!(f, "in move {id}, which this drain did not order"),
            Left::SourceAway => f.write_str("this NVE is not connected"),
            Left::Interruption => f.write_str(
                "interruption not accepted: its VN takes no hot moves; order the drain with \
                 --accept-interruption",
            ),
            Left::NoMode { vn, nve } => {
                write!(f, "a drain orders hot and cold moves; its VN takes {vn}, this NVE {nve}")
            }
            Left::Nowhere(n) => n.fmt(f),
        }
    }
}

/// The mode in which a drain moves a VM.
pub(super) fn mode(vn: ModeSet, nve: ModeSet, accept_interruption: bool) -> Result<MoveMode, Left> {
    let both = |mode| vn.has(mode) && nve.has(mode);
    match (both(MoveMode::Hot), both(MoveMode::Cold)) {
        (true, _) => Ok(MoveMode::Hot),
        (false, true) if accept_interruption => Ok(MoveMode::Cold),
        (false, true) => Err(Left::Interruption),
        (false, false) => Err(Left::NoMode { vn, nve }),
    }
}

/// VMs of the same needs.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Name of their VN.
    pub vn: String,
    pub needs: Needs,
    pub vms: usize,
}

/// Whether the takers have places for all of them; else what is missing.
///
/// Groups with the fewest places choose first, and take those that the fewest other groups could have.
pub(super) fn check(groups: &[Group], takers: &[Taker]) -> Result<(), String> {
    for g in groups {
        if !takers.iter().any(|t| takes(t, &g.needs)) {
            let Err(nowhere) = choose(takers, &g.needs) else { continue };
            return Err(format!("none takes the {} VMs of VN {:?}: {nowhere}", g.vms, g.vn));
        }
    }
    let mut free: Vec<usize> = takers.iter().map(|t| t.free).collect();
    let wanted: Vec<usize> =
        takers.iter().map(|t| groups.iter().filter(|g| takes(t, &g.needs)).count()).collect();
    let places = |g: &Group| -> usize { takers.iter().filter(|t| takes(t, &g.needs)).map(|t| t.free).sum() };
    let mut order: Vec<(usize, &Group)> = groups.iter().map(|g| (places(g), g)).collect();
    order.sort_by_key(|(places, _)| *places);
    for (places, g) in order {
        let mut left = g.vms;
        let mut fit: Vec<usize> = (0..takers.len()).filter(|n| takes(&takers[*n], &g.needs)).collect();
        fit.sort_by_key(|n| wanted[*n]);
        for n in fit {
            let some = left.min(free[n]);
            free[n] -= some;
            left -= some;
        }
        if left > 0 {
            let all: usize = groups.iter().map(|g| g.vms).sum();
            return Err(format!(
                "there is no room for {left} of {all} VMs: those that take the {} VMs of VN {:?} have {places} places",
                g.vms, g.vn
            ));
        }
    }
    Ok(())
}
