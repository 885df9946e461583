//! What a receiver of numbered packets remembers: which arrived, which twice, which late, and the
//! silences between arrivals. Pure: packets and times are handed in.

use fixedbitset::FixedBitSet;
use hdrhistogram::Histogram;

use super::proto::Gap;

/// Silences shorter than this are the ordinary rhythm of the machine and not kept.
pub const GAP_MIN_NS: u64 = 5_000_000;
/// Longer delays count as this: an hour.
const LONGEST_US: u64 = 3_600_000_000;
const GAPS_KEPT: usize = 64;
const RANGES_KEPT: usize = 64;

/// The receiving end of one numbered stream.
#[derive(Default, Debug)]
pub struct Tracker {
    seen: FixedBitSet,
    received: u64,
    duplicated: u64,
    reordered: u64,
    highest: Option<u64>,
    /// When the last packet came, and when it was sent.
    last_ns: Option<(u64, u64)>,
    gaps: Vec<Gap>,
    delays: Delays,
}

impl Tracker {
    /// Packet `seq`, sent at `sent_ns`, arrived at `now_ns`.
    pub fn arrived(&mut self, seq: u64, sent_ns: u64, now_ns: u64) {
        if let Some((last, sent)) = self.last_ns
            && now_ns.saturating_sub(last) >= GAP_MIN_NS
        {
            let sender_ns = Some(sent_ns.saturating_sub(sent));
            self.keep_gap(Gap { from_ns: last, to_ns: now_ns, sender_ns });
        }
        self.last_ns = Some((now_ns, sent_ns));
        if !self.mark(seq) {
            self.duplicated += 1;
            return;
        }
        self.received += 1;
        self.delays.add(now_ns.saturating_sub(sent_ns) / 1000);
        match self.highest {
            Some(h) if seq < h => self.reordered += 1,
            _ => self.highest = Some(seq),
        }
    }

    /// Notes a packet; false where it was noted before.
    fn mark(&mut self, seq: u64) -> bool {
        let at = seq as usize;
        if at >= self.seen.len() {
            self.seen.grow(at + 65_536);
        }
        !self.seen.put(at)
    }

    fn keep_gap(&mut self, gap: Gap) {
        let length = |g: &Gap| g.to_ns - g.from_ns;
        let at = self.gaps.partition_point(|g| length(g) >= length(&gap));
        self.gaps.insert(at, gap);
        self.gaps.truncate(GAPS_KEPT);
    }

    /// Different packets that arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Arrivals of packets that had arrived before.
    pub fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Arrivals behind a packet with a higher number.
    pub fn reordered(&self) -> u64 {
        self.reordered
    }

    /// The longest silences, longest first.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Delays from sender to receiver.
    pub fn delays(&self) -> &Delays {
        &self.delays
    }

    /// The first missing ranges below `sent`.
    pub fn missing(&self, sent: u64) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for seq in (0..sent).filter(|&s| !self.seen.contains(s as usize)) {
            let kept = ranges.len();
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == seq => *last = seq,
                _ if kept == RANGES_KEPT => break,
                _ => ranges.push((seq, seq)),
            }
        }
        ranges
    }
}

/// Delays, to a thousandth.
#[derive(Debug)]
pub struct Delays(Histogram<u64>);

impl Default for Delays {
    fn default() -> Delays {
        Delays(Histogram::new_with_max(LONGEST_US, 3).expect("a range and a precision that there are"))
    }
}

impl Delays {
    fn add(&mut self, us: u64) {
        self.0.saturating_record(us);
    }

    /// The longest.
    pub fn max_us(&self) -> u64 {
        self.0.max()
    }

    /// The delay that the fraction `q` of all packets did not exceed.
    pub fn quantile_us(&self, q: f64) -> u64 {
        self.0.value_at_quantile(q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(seqs: &[u64]) -> Tracker {
        let mut t = Tracker::default();
        for (i, &s) in seqs.iter().enumerate() {
            t.arrived(s, 0, 1 + i as u64 * 1000);
        }
        t
    }

    #[test]
    fn counts_what_is_wrong() {
        let t = tracker(&[0, 1, 3, 2, 2, 7]);
        assert_eq!((t.received(), t.duplicated(), t.reordered()), (5, 1, 1));
        assert_eq!(t.missing(10), vec![(4, 6), (8, 9)]);
        assert_eq!(t.missing(3), vec![]);
    }

    #[test]
    fn a_faultless_stream_has_no_complaints() {
        let all: Vec<u64> = (0..10_000).collect();
        let t = tracker(&all);
        assert_eq!((t.received(), t.duplicated(), t.reordered()), (10_000, 0, 0));
        assert!(t.missing(10_000).is_empty() && t.gaps().is_empty());
        assert_eq!(t.missing(10_001), vec![(10_000, 10_000)]);
    }

    #[test]
    fn gaps_come_longest_first() {
        let mut t = Tracker::default();
        for (seq, at_ms) in [(0, 0), (1, 10), (2, 11), (3, 50), (4, 56)] {
            t.arrived(seq, 0, at_ms * 1_000_000);
        }
        let lengths: Vec<u64> = t.gaps().iter().map(|g| (g.to_ns - g.from_ns) / 1_000_000).collect();
        assert_eq!(lengths, [39, 10, 6]);
    }

    #[test]
    fn quantiles() {
        let mut d = Delays::default();
        for us in 1..=1000 {
            d.add(us);
        }
        assert_eq!(d.max_us(), 1000);
        assert!((450..=560).contains(&d.quantile_us(0.5)));
        assert!((980..=1000).contains(&d.quantile_us(0.99)));
    }
}
