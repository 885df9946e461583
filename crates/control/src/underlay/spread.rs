//! Which share of a locator's flows goes by which of its next hops (R95).
//!
//! A fixed number of shares, so that a next hop that goes takes only its own flows along: those are divided among
//! the others, and one that comes takes as few as make it equal.

use std::net::IpAddr;

use godwit_tables::update::{MAX_WAYS, PortIdx, SHARES, Shares};

/// An uplink and a next hop on it.
pub(crate) type NextHop = (PortIdx, IpAddr);

/// In [`Spread::shares`]: given to nobody.
const NOBODY: u8 = u8::MAX;

/// Next hops with a place each, and the place of each share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Spread {
    places: [Option<NextHop>; MAX_WAYS],
    shares: Shares,
}

impl Default for Spread {
    fn default() -> Spread {
        Spread { places: [None; MAX_WAYS], shares: [NOBODY; SHARES] }
    }
}

impl Spread {
    /// Takes over which next hops are fit to be used; beyond [`MAX_WAYS`] there is no place.
    pub(super) fn follow(&mut self, fit: &[NextHop]) {
        for place in &mut self.places {
            *place = place.filter(|hop| fit.contains(hop));
        }
        for &hop in fit {
            if !self.places.contains(&Some(hop))
                && let Some(place) = self.places.iter_mut().find(|p| p.is_none())
            {
                *place = Some(hop);
            }
        }
        self.divide();
    }

    /// Gives what nobody has to who has least; then takes from who has most, until all have alike.
    #[allow(clippy::cast_possible_truncation, reason = "places are below MAX_WAYS")]
    fn divide(&mut self) {
        let mut counts = [0usize; MAX_WAYS];
        for share in &mut self.shares {
            match self.places.get(usize::from(*share)) {
                Some(Some(_)) => counts[usize::from(*share)] += 1,
                _ => *share = NOBODY,
            }
        }
        let taken = self.places.map(|p| p.is_some());
        let least =
            |counts: &[usize; MAX_WAYS]| (0..MAX_WAYS).filter(|p| taken[*p]).min_by_key(|p| counts[*p]);
        let most =
            |counts: &[usize; MAX_WAYS]| (0..MAX_WAYS).filter(|p| taken[*p]).max_by_key(|p| counts[*p]);
        let Some(_) = least(&counts) else { return };
        for at in 0..SHARES {
            if self.shares[at] == NOBODY
                && let Some(place) = least(&counts)
            {
                self.shares[at] = place as u8;
                counts[place] += 1;
            }
        }
        while let (Some(from), Some(to)) = (most(&counts), least(&counts))
            && counts[from] > counts[to] + 1
            && let Some(at) = self.shares.iter().position(|s| usize::from(*s) == from)
        {
            self.shares[at] = to as u8;
            counts[from] -= 1;
            counts[to] += 1;
        }
    }

    /// The next hops with their places, in the order of these.
    pub(super) fn places(&self) -> impl Iterator<Item = (u8, NextHop)> {
        (0..).zip(self.places).filter_map(|(place, hop)| Some((place, hop?)))
    }

    /// How many shares a place has.
    pub(super) fn count(&self, place: Option<u8>) -> usize {
        self.shares.iter().filter(|s| Some(**s) == place).count()
    }

    /// The place of each share, where there are several.
    pub(super) fn shares(&self) -> Option<Shares> {
        (self.places().count() > 1).then_some(self.shares)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hop(n: u8) -> NextHop {
        (PortIdx(u16::from(n) % 3), IpAddr::from([198, 18, 0, n]))
    }

    fn owners(s: &Spread) -> Vec<Option<NextHop>> {
        s.shares.iter().map(|p| s.places.get(usize::from(*p)).copied().flatten()).collect()
    }

    #[test]
    fn r95_one_that_comes_back_takes_its_part_and_no_more() {
        let mut s = Spread::default();
        s.follow(&[hop(1), hop(2), hop(3)]);
        let before = owners(&s);
        s.follow(&[hop(1), hop(3)]);
        s.follow(&[hop(1), hop(2), hop(3)]);
        let moved = before.iter().zip(owners(&s)).filter(|(a, b)| **a != *b).count();
        // What it had was divided, and what it takes now need not be the same.
        assert!(moved <= 2 * SHARES / 3, "{moved} moved");
        assert_eq!(owners(&s).iter().filter(|o| **o == Some(hop(2))).count(), SHARES / 3);
    }

    proptest! {
        /// Whoever comes and goes: each share is somebody's who is fit, all have alike, and a share whose next hop
        /// goes on being fit moves only to one that is new.
        #[test]
        fn r95_flows_of_those_that_stay_do_not_move(steps in proptest::collection::vec(any::<u8>(), 1..40)) {
            let mut s = Spread::default();
            let mut old: Vec<NextHop> = Vec::new();
            for mask in steps {
                let fit: Vec<NextHop> = (0..8).filter(|n| mask >> n & 1 == 1).map(hop).collect();
                let before = owners(&s);
                s.follow(&fit);
                prop_assert_eq!(s.shares().is_some(), fit.len() > 1);
                if fit.is_empty() {
                    old.clear();
                    continue;
                }
                let after = owners(&s);
                for (was, is) in before.iter().zip(&after) {
                    let is = is.unwrap();
                    prop_assert!(fit.contains(&is));
                    let stays = was.is_some_and(|w| fit.contains(&w) && old.contains(&w));
                    prop_assert!(!stays || *was == Some(is) || !old.contains(&is));
                }
                let counts: Vec<usize> =
                    fit.iter().map(|f| after.iter().filter(|o| **o == Some(*f)).count()).collect();
                let (low, high) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                prop_assert!(high - low <= 1, "{:?}", counts);
                old = fit;
            }
        }
    }
}
