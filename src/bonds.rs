//! The legs of bonded uplinks (R95): which carry the bond's frames, as the operator is told of it.

use std::time::{Duration, Instant};

use godwit_api::v1;
use godwit_dpdk::{Leg, Port};

/// A bond that carries nothing so long after its start has a partner that does not know of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bond's legs as last seen.
#[derive(Debug)]
pub struct Legs {
    seen: Vec<Seen>,
    /// When to complain of a bond that has never carried anything; `None`: it has, or it was said.
    complain: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    leg: Leg,
    /// It has carried frames.
    carried: bool,
    /// Times that it stopped to.
    losses: u64,
}

/// What there is to say: `true` for an alarm.
type News = (bool, String);

impl Legs {
    /// Of a port that was started; `None` where it is no bond.
    pub fn of(port: &Port) -> Option<Legs> {
        let seen = |leg| Seen { leg, carried: false, losses: 0 };
        port.is_bond().then(|| Legs {
            seen: port.legs().into_iter().map(seen).collect(),
            complain: Some(Instant::now() + PATIENCE),
        })
    }

    /// Some leg carries frames: the bond's link is up.
    pub fn up(&self) -> bool {
        self.seen.iter().any(|s| s.leg.carries)
    }

    /// Looks at the legs again and tells what has changed.
    pub fn follow(&mut self, port: &Port, now: Instant) {
        for (alarm, text) in self.news(port.legs(), now) {
            match alarm {
                true => tracing::error!(port = %port.name(), "{text}"),
                false => tracing::info!(port = %port.name(), "{text}"),
            }
        }
    }

    fn news(&mut self, legs: Vec<Leg>, now: Instant) -> Vec<News> {
        let mut news = Vec::new();
        let left = legs.iter().filter(|l| l.carries).count();
        for (s, leg) in self.seen.iter_mut().zip(legs) {
            match (s.leg.carries, leg.carries) {
                (true, false) => {
                    s.losses += 1;
                    news.push((true, lost(&leg, left)));
                }
                (false, true) => news.push((false, format!("leg {} carries frames", leg.name))),
                _ => {}
            }
            s.carried |= leg.carries;
            s.leg = leg;
        }
        if self.seen.iter().any(|s| s.carried) {
            self.complain = None;
        }
        if self.complain.take_if(|due| now >= *due).is_some() {
            let what = format!("no leg has carried a frame for {} s: ", PATIENCE.as_secs());
            news.push((
                true,
                what + "the links are down, or the partner has no bond of this mode on these ports",
            ));
        }
        news
    }

    /// For the operator.
    pub fn info(&self) -> Vec<v1::Leg> {
        let info = |s: &Seen| v1::Leg {
            device: s.leg.name.clone(),
            link_up: s.leg.up,
            carries: s.leg.carries,
            rx_packets: s.leg.stats.rx_packets,
            tx_packets: s.leg.stats.tx_packets,
            losses: s.losses,
        };
        self.seen.iter().map(info).collect()
    }
}

fn lost(leg: &Leg, left: usize) -> String {
    let why = match leg.up {
        false => "its link is down",
        true => "the partner has stopped to answer on it, or another leg is active",
    };
    format!("leg {} carries no more frames: {why}; legs left: {left}", leg.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_dpdk::Stats;

    fn leg(name: &str, up: bool, carries: bool) -> Leg {
        Leg { name: name.into(), up, carries, stats: Stats::default() }
    }

    fn pair(start: Instant) -> Legs {
        let seen = |name| Seen { leg: leg(name, true, false), carried: false, losses: 0 };
        Legs { seen: vec![seen("a"), seen("b")], complain: Some(start + PATIENCE) }
    }

    #[test]
    fn r95_a_lost_leg_is_an_alarm_and_counted_and_its_return_is_said() {
        let now = Instant::now();
        let mut legs = pair(now);
        assert!(!legs.up() && legs.news(vec![leg("a", true, false), leg("b", true, false)], now).is_empty());
        let said = legs.news(vec![leg("a", true, true), leg("b", true, true)], now);
        assert_eq!(said.iter().filter(|(alarm, _)| *alarm).count(), 0);
        assert!(said.len() == 2 && legs.up());
        let said = legs.news(vec![leg("a", true, true), leg("b", false, false)], now);
        assert!(
            matches!(&said[..], [(true, text)] if text.contains("leg b") && text.contains("legs left: 1"))
        );
        assert!(legs.up(), "one is enough");
        assert!(legs.news(vec![leg("a", true, true), leg("b", false, false)], now).is_empty(), "said once");
        legs.news(vec![leg("a", false, false), leg("b", false, false)], now + 2 * PATIENCE);
        assert!(!legs.up());
        let said = legs.news(vec![leg("a", true, true), leg("b", true, true)], now + 2 * PATIENCE);
        assert!(said.len() == 2 && said.iter().all(|(alarm, _)| !alarm));
        assert_eq!(legs.info().iter().map(|l| l.losses).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn r95_a_bond_that_nobody_agrees_to_is_complained_of_once() {
        let now = Instant::now();
        let mut legs = pair(now);
        let still = || vec![leg("a", true, false), leg("b", true, false)];
        assert!(legs.news(still(), now + PATIENCE / 2).is_empty());
        assert!(
            matches!(&legs.news(still(), now + PATIENCE)[..], [(true, text)] if text.contains("partner"))
        );
        assert!(legs.news(still(), now + 2 * PATIENCE).is_empty());
    }
}
