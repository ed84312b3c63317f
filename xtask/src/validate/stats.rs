//! Medians, and how far they can be trusted: the percentile bootstrap (Efron 1979). The seed is
//! fixed, so the same figures give the same interval.

use serde::Serialize;

/// An estimate with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The estimate, in the unit of what was measured.
    pub value: f64,
    /// Lower end of the interval, in the same unit.
    pub low: f64,
    /// Upper end of the interval, in the same unit.
    pub high: f64,
}

const RESAMPLES: usize = 1000;
const SEED: u64 = 0x746f_7263;

/// Middle value; of an even number, the mean of the two in the middle. NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    median_of(&mut values.to_vec())
}

fn median_of(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// The geometric mean of the ratios `median(a) / median(b)` over pairs of samples. With one pair this
/// is the ratio itself. `None` without a pair that has samples on both sides.
pub fn ratio(pairs: &[(&[f64], &[f64])]) -> Option<Interval> {
    let pairs: Vec<_> = pairs.iter().filter(|(a, b)| !a.is_empty() && !b.is_empty()).collect();
    if pairs.is_empty() {
        return None;
    }
    let mean = |of: &mut dyn FnMut(&[f64], &[f64]) -> f64| {
        (pairs.iter().map(|(a, b)| of(a, b).ln()).sum::<f64>() / pairs.len() as f64).exp()
    };
    let value = mean(&mut |a, b| median(a) / median(b));
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut draws = Vec::with_capacity(RESAMPLES);
    let mut buffer = Vec::new();
    let mut resampled = |from: &[f64], random: &mut fastrand::Rng| {
        buffer.clear();
        buffer.extend((0..from.len()).map(|_| from[random.usize(..from.len())]));
        median_of(&mut buffer)
    };
    for _ in 0..RESAMPLES {
        draws.push(mean(&mut |a, b| resampled(a, &mut random) / resampled(b, &mut random)));
    }
    draws.sort_by(f64::total_cmp);
    let at = |q: f64| draws[((RESAMPLES - 1) as f64 * q).round() as usize];
    Some(Interval { value, low: at(0.025), high: at(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn equal_samples_give_a_ratio_of_one_and_no_width() {
        let i = ratio(&[(&[2.0; 5], &[2.0; 5])]).unwrap();
        assert_eq!((i.value, i.low, i.high), (1.0, 1.0, 1.0));
    }

    #[test]
    fn noise_widens_the_interval_and_a_real_difference_lies_outside_of_it() {
        let noisy: Vec<f64> = (0..30).map(|i| 10.0 + f64::from(i % 7)).collect();
        let slower: Vec<f64> = noisy.iter().map(|x| x * 1.5).collect();
        let same = ratio(&[(&noisy, &noisy)]).unwrap();
        assert!(same.low < 1.0 && same.high > 1.0, "{same:?}");
        let worse = ratio(&[(&slower, &noisy)]).unwrap();
        assert!(worse.low > 1.2 && worse.high < 1.9, "{worse:?}");
    }

    #[test]
    fn ratios_of_several_cells_are_meant_geometrically() {
        let i = ratio(&[(&[4.0], &[1.0]), (&[1.0], &[1.0])]).unwrap();
        assert!((i.value - 2.0).abs() < 1e-12);
        assert_eq!(ratio(&[(&[], &[1.0])]), None);
    }

    #[test]
    fn the_same_figures_give_the_same_interval() {
        let (a, b) = ([1.0, 2.0, 5.0, 3.0], [2.0, 2.5, 1.0]);
        assert_eq!(ratio(&[(&a, &b)]), ratio(&[(&a, &b)]));
    }
}
