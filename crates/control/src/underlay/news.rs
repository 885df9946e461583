//! What became of next hops, for people.

use std::net::IpAddr;

use godwit_tables::update::PortIdx;

use super::Underlay;
use super::spread::NextHop;

/// How many locators a loss concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cut {
    /// Locators that are reached by other next hops from now on.
    pub(crate) go_on: usize,
    /// Locators that no next hop leads to any more.
    pub(crate) wait: usize,
    /// Of these, one; where the next hop is not the NVE itself.
    pub(crate) behind: Option<IpAddr>,
}

/// What became of a next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// It stopped to answer.
    Silent {
        /// Its uplink.
        uplink: PortIdx,
        /// Its address.
        ip: IpAddr,
        /// Whom that concerns.
        cut: Cut,
    },
    /// It answers again.
    Back {
        /// Its uplink.
        uplink: PortIdx,
        /// Its address.
        ip: IpAddr,
    },
    /// An uplink lost its link.
    LinkDown {
        /// The uplink.
        uplink: PortIdx,
        /// Whom that concerns.
        cut: Cut,
    },
}

impl Underlay {
    /// Whom the loss of some next hops concerns, after it has taken effect.
    pub(super) fn cut_behind(&self, lost: impl Fn(&NextHop) -> bool) -> Cut {
        let mut cut = Cut { go_on: 0, wait: 0, behind: None };
        for (&remote, r) in self.remotes.iter().filter(|(_, r)| r.vias.iter().any(&lost)) {
            if r.ways.hops.is_empty() {
                cut.wait += 1;
                if r.vias.iter().any(|(_, ip)| *ip != remote) {
                    cut.behind = cut.behind.or(Some(remote));
                }
            } else {
                cut.go_on += 1;
            }
        }
        cut
    }
}
