//! Two rows beside each other, in turn: how a contender takes more destinations, the other outer family, the other
//! way, a second worker or a gateway. The rows of the table are minutes apart, and what a machine carries changes
//! by a third within seconds, so their quotient says little.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::ends::Ends;
use crate::godwit::{self, Godwit};
use crate::memory;
use crate::peer::{Peer, SETTLE, Site};
use crate::plan::{self, Case, Row, Sizes};
use crate::stats::{Rates, rounded};
use crate::testpmd::{self, Testpmd};
use crate::vhost;

/// A row and the one that it is compared with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The row.
    pub of: Row,
    /// The other one.
    pub to: Row,
}

/// What a pair gave.
#[derive(Serialize)]
pub struct Ratio {
    /// The row's name.
    pub of: String,
    /// The other one's.
    pub to: String,
    /// The median of the ratios within a round, of Godwit.
    pub godwit: Option<f64>,
    /// Of the best rounds.
    pub godwit_best: Option<f64>,
    /// The same of the floor: what the ends and the machine make of it.
    pub floor: Option<f64>,
    /// Of the best rounds.
    pub floor_best: Option<f64>,
    /// All of it: Godwit's row and the other one, then the floor's.
    pub rounds: [Rates; 4],
}

/// The row that another one is compared with.
pub fn reference(row: Row) -> Row {
    let mut base = row;
    if row.case.is_vhost() {
        (base.guests, base.idle) = (1, 0);
    } else if row.case.is_routed() {
        base = row.bridged();
    } else if row.workers > 1 {
        base.workers = 1;
    } else if row.flows != row.destinations || row.destinations != 1_000 {
        (base.destinations, base.flows, base.nves) = (1_000, 1_000, 1);
    } else {
        base.case = Case::EncapV4;
    }
    base
}

/// The pairs among `rows` for which something is promised: a million destinations, the other families and
/// ways, a second worker, and a guest beside idle ones; and routed rows, each with the bridged row to as many
/// destinations and that of IPv6 also with the one of IPv4, whether these are among them or not.
pub fn pairs(rows: &[Row]) -> Vec<Pair> {
    let promised = |row: &Row| {
        if row.case.is_vhost() {
            return row.is_shortest() && row.idle > 0;
        }
        let million = row.destinations == 1_000_000 && row.case == Case::EncapV4;
        let plain = row.flows == row.destinations && row.is_shortest();
        plain && (million || row.destinations == 1_000 || row.case.is_routed())
    };
    let there = |p: &Pair| p.of != p.to && (p.of.case.is_routed() || rows.contains(&p.to));
    let of_row = |row: &Row| {
        let (of, to) = (*row, reference(*row));
        let other_family = routed_v4(of).map(|to| Pair { of, to });
        [Pair { of, to }].into_iter().chain(other_family)
    };
    rows.iter().filter(|r| promised(r)).flat_map(of_row).filter(there).collect()
}

/// The row of IPv4 that does the same as one of IPv6 routes.
fn routed_v4(row: Row) -> Option<Row> {
    let same = Row { case: Case::RouteV4, inner_v6: false, sizes: Sizes::Fixed(plan::SHORTEST), ..row };
    (row.case == Case::RouteV6 && row.is_shortest()).then_some(same)
}

/// The rows, and behind each of those that are routed the ones that it is compared with.
pub fn with_references(rows: &[Row]) -> Vec<Row> {
    let mut all = Vec::new();
    for row in rows {
        let bridged = Some(row.bridged()).filter(|_| row.case.is_routed());
        all.extend([Some(*row), bridged, routed_v4(*row)].into_iter().flatten());
    }
    let mut seen = Vec::new();
    all.retain(|row| {
        let new = !seen.contains(row);
        seen.push(*row);
        new
    });
    all
}

/// Measures a pair: both rows with Godwit and with the floor, round by round.
///
/// # Errors
/// Where one of the four does not start, or ends.
pub fn measure(sites: [&Site; 2], pair: &Pair, rounds: u32, window: Duration) -> Result<Ratio> {
    let ends = [Ends::new(pair.of, sites[0])?, Ends::new(pair.to, sites[1])?];
    let guests_mb = |e: &Ends| if e.row.case.is_vhost() { 2 * vhost::memory_mb(e) } else { 0 };
    memory::reserve(ends.iter().map(|e| godwit::memory_mb(e) + testpmd::memory_mb(e) + guests_mb(e)).sum())?;
    // The floor takes each guest for a device, and has no room for idle ones.
    let with_floor = pair.of.idle == 0;
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for floor in [false, true].into_iter().take(1 + usize::from(with_floor)) {
        for (site, ends) in sites.iter().zip(&ends) {
            let mut peer: Box<dyn Peer> = match (ends.row.case.is_vhost(), floor) {
                (false, false) => Box::new(Godwit::start(site, ends)?),
                (false, true) => Box::new(Testpmd::start(site, ends)?),
                (true, false) => vhost::godwit(site, ends)?,
                (true, true) => vhost::floor(site, ends)?,
            };
            peer.run(false)?;
            peers.push(peer);
        }
    }
    let mut rates: [Rates; 4] = Default::default();
    for round in 0..rounds as usize {
        for i in 0..peers.len() {
            // The two that are compared follow each other at once, in either order.
            let at = if round % 2 == 0 { i } else { peers.len() - 1 - i };
            peers[at].run(true)?;
            std::thread::sleep(SETTLE);
            let mpps = peers[at].measure(window)?.mpps;
            peers[at].run(false)?;
            rates[at].0.push(mpps);
        }
    }
    let best = |a: &Rates, b: &Rates| rounded(a.best().zip(b.best()).map(|(a, b)| a / b));
    Ok(Ratio {
        of: pair.of.to_string(),
        to: pair.to.to_string(),
        godwit: rounded(rates[0].ratio(&rates[1])),
        godwit_best: best(&rates[0], &rates[1]),
        floor: rounded(rates[2].ratio(&rates[3])),
        floor_best: best(&rates[2], &rates[3]),
        rounds: rates,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_compared_with_the_next_simpler_row() {
        let names = |rows: &[Row]| -> Vec<(String, String)> {
            pairs(rows).iter().map(|p| (p.of.to_string(), p.to.to_string())).collect()
        };
        let quick = names(&plan::quick());
        let base = "encap-v4/60/1000";
        let bridged = || quick.iter().filter(|(of, _)| of.starts_with("encap") || of.starts_with("decap"));
        let of: Vec<&str> = bridged().map(|(of, _)| of.as_str()).collect();
        assert_eq!(of, ["encap-v4/60/1000000", "encap-v6/60/1000", "decap-v4/60/1000", "decap-v6/60/1000"]);
        assert!(bridged().all(|(_, to)| to == base));
        let full = names(&plan::full(2));
        assert_eq!(full.len(), quick.len() + 4);
        let two = ("decap-v6/60/1000/workers=2".to_owned(), "decap-v6/60/1000".to_owned());
        assert!(full.contains(&two));
    }

    #[test]
    fn r58_routed_rows_are_compared_with_bridged_ones_and_ipv6_with_ipv4() {
        let of = |name: &str| -> Vec<String> {
            pairs(&plan::select(&[], name).unwrap()).iter().map(|p| p.to.to_string()).collect()
        };
        assert_eq!(of("route-v4/60/1000"), ["encap-v4/60/1000"]);
        assert_eq!(of("route-v4/60/1000000"), ["encap-v4/60/1000000"]);
        assert_eq!(of("route-v4/60/10000/routers=256"), ["encap-v4/60/10000"]);
        assert_eq!(of("route-v6/62/1000"), ["encap-v6/62/1000/inner=6", "route-v4/60/1000"]);
        let prefixes = ["encap-v6/62/10000/inner=6", "route-v4/60/10000/routers=256"];
        assert_eq!(of("route-v6/62/10000/routers=256"), prefixes);
        let routed = plan::quick().into_iter().filter(|r| r.case.is_routed()).collect::<Vec<_>>();
        assert_eq!((routed.len(), pairs(&routed).len()), (6, 9));
        let counted = with_references(&plan::quick());
        assert!(pairs(&routed).iter().all(|p| counted.contains(&p.to)));
        assert_eq!(counted.len(), plan::quick().len() + 4, "each once");
    }

    #[test]
    fn a_guest_beside_idle_ones_is_compared_with_itself_alone() {
        let guests: Vec<Row> = plan::full(2).into_iter().filter(|r| r.case.is_vhost()).collect();
        let names: Vec<_> = pairs(&guests).iter().map(|p| (p.of.to_string(), p.to.to_string())).collect();
        let pair = |case: &str| (format!("{case}/60/1000/idle=499"), format!("{case}/60/1000"));
        assert_eq!(names, [pair("vhost-encap"), pair("vhost-decap")]);
    }
}
