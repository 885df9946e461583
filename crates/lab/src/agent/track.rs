//! What a receiver of numbered packets remembers: which arrived, which twice, which late, and the
//! silences between arrivals. Pure: packets and times are handed in.

use super::proto::Gap;

/// Silences shorter than this are the ordinary rhythm of the machine and not kept.
pub const GAP_MIN_NS: u64 = 5_000_000;
const GAPS_KEPT: usize = 64;
const RANGES_KEPT: usize = 64;

/// The receiving end of one numbered stream.
#[derive(Default, Debug)]
pub struct Tracker {
    seen: Vec<u64>,
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

    /// Sets the packet's bit; false where it was set.
    fn mark(&mut self, seq: u64) -> bool {
        let (word, bit) = ((seq / 64) as usize, 1u64 << (seq % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1024, 0);
        }
        let fresh = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        fresh
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
        let seen = |s: u64| self.seen.get((s / 64) as usize).is_some_and(|w| w & (1 << (s % 64)) != 0);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for seq in (0..sent).filter(|&s| !seen(s)) {
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

/// A histogram of delays with buckets of an eighth of a power of two.
#[derive(Debug)]
pub struct Delays {
    buckets: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Default for Delays {
    fn default() -> Delays {
        Delays { buckets: vec![0; 64 * 8], count: 0, max_us: 0 }
    }
}

impl Delays {
    fn add(&mut self, us: u64) {
        self.buckets[bucket(us)] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The longest.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The delay that the fraction `q` of all packets did not exceed, to about a tenth.
    pub fn quantile_us(&self, q: f64) -> u64 {
        let wanted = (self.count as f64 * q).ceil() as u64;
        let mut sum = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            sum += n;
            if sum >= wanted && sum > 0 {
                return bucket_end(i).min(self.max_us);
            }
        }
        self.max_us
    }
}

/// Small values have a bucket each; above, three bits below the highest one select it.
fn bucket(us: u64) -> usize {
    if us < 8 {
        return us as usize;
    }
    let top = us.ilog2();
    ((top - 2) * 8) as usize + ((us >> (top - 3)) & 7) as usize
}

/// The largest value of a bucket.
fn bucket_end(index: usize) -> u64 {
    if index < 8 {
        return index as u64;
    }
    let (top, step) = (index as u32 / 8 + 2, index as u64 % 8);
    ((9 + step) << (top - 3)) - 1
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
    fn buckets_follow_each_other_and_hold_their_values() {
        for us in (0..5000).chain([1 << 20, (1 << 40) + 12345]) {
            let b = bucket(us);
            assert!(bucket_end(b) >= us, "{us}");
            assert!(b == 0 || bucket_end(b - 1) < us, "{us}");
        }
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
