//! Where a VM's interface is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::NveId;

/// An NVE's underlay addresses; at least one is set in a valid value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Locators {
    /// IPv4 locator.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 locator.
    pub v6: Option<Ipv6Addr>,
}

impl Locators {
    /// Neither family is set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Whether `ip` is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) => self.v4 == Some(a),
            IpAddr::V6(a) => self.v6 == Some(a),
        }
    }
}

/// An NVE as others see it: its name and where to send to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// The NVE.
    pub nve: NveId,
    /// Its locators.
    pub locators: Locators,
}

/// Part of an NVE in the traffic of a VM that is bound to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BindingState {
    /// The NVE carries the VM's traffic.
    Active,
    /// The VM is to run there (R50): others know the way and send nothing by it.
    Pending,
}

/// A VM's interface at one NVE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// The NVE.
    pub location: Location,
    /// Its part.
    pub state: BindingState,
}

/// All bindings of a VM's interface: at most one of them active, none while it is detached (R19), at most one pending
/// (R50), one an NVE.
///
/// Readers ask for what they need (the active one, that of an NVE, all of them), and none counts on their number.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Bindings {
    active: Option<Binding>,
    pending: Option<Binding>,
}

impl Bindings {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.active.iter().chain(&self.pending)
    }

    /// Location of the active one.
    pub fn active(&self) -> Option<&Location> {
        self.active.as_ref().map(|b| &b.location)
    }

    /// Location of the pending one.
    pub fn pending(&self) -> Option<&Location> {
        self.pending.as_ref().map(|b| &b.location)
    }

    /// The binding to this NVE.
    pub fn at(&self, nve: &NveId) -> Option<&Binding> {
        self.iter().find(|b| b.location.nve == *nve)
    }

    /// Makes `location` the active one; returns the one before. A pending one of its NVE is over with that.
    pub(crate) fn bind(&mut self, location: Location) -> Option<Location> {
        self.pending.take_if(|b| b.location.nve == location.nve);
        self.active.replace(Binding { location, state: BindingState::Active }).map(|b| b.location)
    }

    /// Ends the active one; returns it.
    pub(crate) fn detach(&mut self) -> Option<Location> {
        self.active.take().map(|b| b.location)
    }

    /// Sets or ends the pending one; there is none to the NVE of the active one.
    pub fn set_pending(&mut self, location: Option<Location>) {
        let here = self.active().map(|l| &l.nve);
        let elsewhere = location.filter(|l| Some(&l.nve) != here);
        self.pending = elsewhere.map(|location| Binding { location, state: BindingState::Pending });
    }

    /// The NVE has other locators.
    pub(crate) fn relocate(&mut self, nve: &NveId, locators: Locators) {
        for b in self.active.iter_mut().chain(&mut self.pending).filter(|b| b.location.nve == *nve) {
            b.location.locators = locators;
        }
    }
}

/// Active at a location, or nowhere.
impl From<Option<Location>> for Bindings {
    fn from(active: Option<Location>) -> Bindings {
        let active = active.map(|location| Binding { location, state: BindingState::Active });
        Bindings { active, pending: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nve: &str, n: u8) -> Location {
        let v4 = Some(Ipv4Addr::new(192, 0, 2, n));
        Location { nve: NveId::new(nve).unwrap(), locators: Locators { v4, v6: None } }
    }

    #[test]
    fn r33_at_most_one_binding_is_active_and_each_nve_has_one() {
        let mut b = Bindings::from(Some(at("a", 1)));
        assert_eq!(b.bind(at("b", 2)), Some(at("a", 1)));
        assert_eq!((b.active(), b.iter().count()), (Some(&at("b", 2)), 1));
        assert_eq!(b.bind(at("b", 3)), Some(at("b", 2)), "at its NVE again, by another locator");
        assert_eq!((b.active(), b.iter().count()), (Some(&at("b", 3)), 1));
        assert!(b.at(&at("a", 1).nve).is_none());
        assert_eq!(b.detach(), Some(at("b", 3)));
        assert_eq!((b.detach(), &b), (None, &Bindings::from(None)));
    }

    #[test]
    fn new_locators_are_those_of_one_nve() {
        let mut b = Bindings::from(Some(at("a", 1)));
        b.relocate(&at("b", 2).nve, at("b", 2).locators);
        assert_eq!(b.active(), Some(&at("a", 1)));
        b.relocate(&at("a", 1).nve, at("a", 9).locators);
        assert_eq!(b.active(), Some(&at("a", 9)));
    }

    #[test]
    fn r50_a_pending_binding_is_beside_the_active_one_and_never_in_its_place() {
        let mut b = Bindings::from(Some(at("a", 1)));
        b.set_pending(Some(at("a", 1)));
        assert_eq!(b.pending(), None, "it runs there already");
        b.set_pending(Some(at("b", 2)));
        assert_eq!((b.active(), b.pending(), b.iter().count()), (Some(&at("a", 1)), Some(&at("b", 2)), 2));
        b.relocate(&at("b", 2).nve, at("b", 9).locators);
        b.detach();
        assert_eq!((b.active(), b.pending()), (None, Some(&at("b", 9))), "it waits for its activation");
        assert_eq!(b.bind(at("c", 3)), None);
        assert_eq!(b.pending(), Some(&at("b", 9)));
        assert_eq!(b.bind(at("b", 9)), Some(at("c", 3)));
        assert_eq!((b.active(), b.pending()), (Some(&at("b", 9)), None));
    }
}
