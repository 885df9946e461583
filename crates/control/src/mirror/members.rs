//! The members of a VN, by name and by locator.

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_model::{Location, Locators, NveId};

/// NVEs that take part in a VN.
#[derive(Default, Debug)]
pub(super) struct Members {
    by_nve: BTreeMap<NveId, Locators>,
    at: BTreeMap<IpAddr, NveId>,
}

impl Members {
    pub(super) fn of(all: Vec<Location>) -> Members {
        let mut members = Members::default();
        all.into_iter().for_each(|l| members.insert(l));
        members
    }

    pub(super) fn insert(&mut self, location: Location) {
        let Location { nve, locators } = location;
        self.remove(&nve);
        for ip in both(locators) {
            self.at.insert(ip, nve.clone());
        }
        self.by_nve.insert(nve, locators);
    }

    pub(super) fn remove(&mut self, nve: &NveId) {
        let Some(locators) = self.by_nve.remove(nve) else { return };
        for ip in both(locators) {
            // Another one may have it by now.
            if self.at.get(&ip) == Some(nve) {
                self.at.remove(&ip);
            }
        }
    }

    pub(super) fn get(&self, nve: &NveId) -> Option<Locators> {
        self.by_nve.get(nve).copied()
    }

    /// The member with this locator.
    pub(super) fn at(&self, ip: IpAddr) -> Option<(&NveId, Locators)> {
        let (nve, locators) = self.by_nve.get_key_value(self.at.get(&ip)?)?;
        Some((nve, *locators))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NveId, Locators)> {
        self.by_nve.iter().map(|(nve, l)| (nve, *l))
    }
}

fn both(l: Locators) -> impl Iterator<Item = IpAddr> {
    l.v4.map(IpAddr::V4).into_iter().chain(l.v6.map(IpAddr::V6))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn location(nve: &str, n: u8) -> Location {
        let locators = Locators { v4: Some(Ipv4Addr::new(10, 0, 0, n)), v6: None };
        Location { nve: NveId::new(nve).unwrap(), locators }
    }

    #[test]
    fn d18_a_member_is_found_by_its_locator_as_long_as_it_has_it() {
        let mut all = Members::of(vec![location("a", 1), location("b", 2)]);
        let at =
            |all: &Members, n: u8| all.at(Ipv4Addr::new(10, 0, 0, n).into()).map(|(nve, _)| nve.to_string());
        assert_eq!((at(&all, 1).as_deref(), at(&all, 2).as_deref()), (Some("a"), Some("b")));
        all.insert(location("a", 3));
        assert_eq!((at(&all, 1), at(&all, 3).as_deref()), (None, Some("a")));
        // B's goes to A before B is told of with another one.
        all.insert(location("a", 2));
        all.remove(&NveId::new("b").unwrap());
        assert_eq!(at(&all, 2).as_deref(), Some("a"));
        assert_eq!(all.iter().count(), 1);
    }
}
