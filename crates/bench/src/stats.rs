//! Numbers of several rounds.

use serde::Serialize;

/// The middle one; of an even number the higher of the two. `None` without any.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied()
}

/// To three decimals, as reports have it.
pub fn rounded(value: Option<f64>) -> Option<f64> {
    value.map(|v| (v * 1000.0).round() / 1000.0)
}

/// The rates of one contender in one row, a round each, in millions of frames a second.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Rates(pub Vec<f64>);

impl Rates {
    /// Their median.
    pub fn median(&self) -> Option<f64> {
        median(&self.0)
    }

    /// The highest: what the machine does undisturbed.
    pub fn best(&self) -> Option<f64> {
        self.0.iter().copied().max_by(f64::total_cmp)
    }

    /// From the lowest to the highest, as a share of the median.
    pub fn spread(&self) -> Option<f64> {
        let low = self.0.iter().copied().min_by(f64::total_cmp)?;
        Some((self.best()? - low) / self.median()?)
    }

    /// The median of the ratios within a round, so that a slow moment of the machine falls on both.
    pub fn ratio(&self, to: &Rates) -> Option<f64> {
        let ratios: Vec<f64> = self.0.iter().zip(&to.0).map(|(a, b)| a / b).collect();
        median(&ratios).filter(|r| r.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_a_round() {
        // The machine was half as fast in the second round: the ratio does not notice.
        let (ours, theirs) = (Rates(vec![30.0, 15.0, 31.0]), Rates(vec![10.0, 5.0, 10.0]));
        assert_eq!(ours.ratio(&theirs), Some(3.0));
        assert_eq!(ours.median(), Some(30.0));
        assert_eq!(ours.best(), Some(31.0));
        assert_eq!(ours.ratio(&Rates::default()), None);
        assert_eq!(Rates::default().spread(), None);
    }
}
