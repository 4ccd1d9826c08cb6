//! Objective values as targets that models can fit.
//!
//! | symbol | meaning                                                      |
//! |--------|--------------------------------------------------------------|
//! | y      | values, smaller is better                                    |
//! | m      | their median                                                 |
//! | s      | root mean square of m - y over the half that is not worse than m |
//! | Φ⁻¹    | quantile function of the standard normal distribution         |
//!
//! The better half stays as it is. A worse value becomes m + s Φ⁻¹(its rank / n): as far off as it would be, were the values
//! normal with the better half's spread. So a few diverged trials do not set the scale, and where they lie still counts.
//! At last the targets are shifted and scaled to mean 0 and variance 1.
//!
//! Invariant: the order is kept, ties are ties, and finite values of any size give finite targets.
//!
//! Song et al., The Vizier Gaussian Process Bandit Algorithm (2024), section 3.2 (half-rank warping).

use crate::search::normal;

/// Targets of values of which smaller is better.
pub(super) fn targets(values: &[f64]) -> Vec<f64> {
    let Some((mut y, sorted)) = scaled(values) else { return Vec::new() };
    warp_worse_half(&mut y, &sorted);
    standardise(&mut y);
    y
}

/// Targets for what matters over the whole space, not near the best point alone: they are linear in the values, but values
/// more than `cap` times as far from the best one as nine in ten are cut.
pub(super) fn capped(values: &[f64], cap: f64) -> Vec<f64> {
    let Some((mut y, sorted)) = scaled(values) else { return Vec::new() };
    let best = sorted[0];
    let most = sorted[(sorted.len() * 9).div_ceil(10) - 1];
    // Where nine in ten are the best one, the next value says how far apart values are.
    let far = if most > best { Some(most) } else { sorted.iter().copied().find(|v| *v > best) };
    let worst = far.map_or(best, |far| best + cap * (far - best));
    for y in &mut y {
        *y = y.min(worst);
    }
    standardise(&mut y);
    y
}

/// The values, and the sorted values, scaled so that differences and squares stay finite; `None` where there is none.
fn scaled(values: &[f64]) -> Option<(Vec<f64>, Vec<f64>)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let scale = 0.25 / sorted.first()?.abs().max(sorted.last()?.abs()).max(f64::MIN_POSITIVE);
    let times = |values: &[f64]| values.iter().map(|value| value * scale).collect();
    Some((times(values), times(&sorted)))
}

fn warp_worse_half(y: &mut [f64], sorted: &[f64]) {
    let n = sorted.len();
    let median = f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]);
    let better = sorted.partition_point(|v| *v <= median);
    let squares: f64 = sorted[..better].iter().map(|v| (median - v) * (median - v)).sum();
    let mut spread = (squares / better as f64).sqrt();
    if spread <= f64::MIN_POSITIVE {
        // Half of the values or more are the best one: the next value says how far apart values are.
        spread = sorted[better.min(n - 1)] - median;
    }
    for y in y {
        if *y > median {
            let (below, upto) = (sorted.partition_point(|v| v < y), sorted.partition_point(|v| v <= y));
            // Ties share the middle of their ranks.
            *y = median + spread * normal::quantile((below + upto) as f64 / (2 * n) as f64);
        }
    }
}

fn standardise(y: &mut [f64]) {
    let n = y.len() as f64;
    let mean = y.iter().sum::<f64>() / n;
    let largest = y.iter().fold(0.0_f64, |largest, y| largest.max((y - mean).abs()));
    if largest <= f64::MIN_POSITIVE {
        y.fill(0.0);
        return;
    }
    let variance = y.iter().map(|y| ((y - mean) / largest) * ((y - mean) / largest)).sum::<f64>() / n;
    let deviation = largest * variance.sqrt();
    for y in y {
        *y = (*y - mean) / deviation;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{capped, targets};

    #[test]
    fn a_diverged_trial_does_not_set_the_scale() {
        let values = [54.0, 55.0, 56.0, 57.0, 58.0, 59.0, 150.0];
        let tame = targets(&[54.0, 55.0, 56.0, 57.0, 58.0, 59.0, 60.0]);
        let wild = targets(&values);
        assert!(tame.iter().zip(&wild).all(|(a, b)| (a - b).abs() < 1e-12), "{tame:?} {wild:?}");
        assert!(wild[1] - wild[0] > 0.3, "the good ones are told apart: {wild:?}");
    }

    #[test]
    fn constants_are_level_and_nothing_is_nothing() {
        assert_eq!(targets(&[7.5; 4]), [0.0; 4]);
        assert_eq!(targets(&[0.0; 3]), [0.0; 3]);
        assert!(targets(&[]).is_empty());
        let most_are_best = targets(&[1.0, 1.0, 1.0, 1.5]);
        assert!(most_are_best[3] > most_are_best[0]);
    }

    #[test]
    fn capped_targets_are_linear_but_for_what_is_far_off() {
        let mut values: Vec<f64> = (0..20).map(f64::from).collect();
        values.push(1e9);
        let y = capped(&values, 3.0);
        let steps: Vec<f64> = y.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps[..19].iter().all(|step| (step - steps[0]).abs() < 1e-6), "{steps:?}");
        // Nine in ten are 18 or less.
        assert!((steps[19] / steps[0] - (3.0 * 18.0 - 19.0)).abs() < 1e-3, "{steps:?}");
        let rare = capped(&[vec![1.0; 20], vec![2.0, 1e9]].concat(), 3.0);
        assert!(rare[20] > rare[0] && (rare[21] - rare[0] - 3.0 * (rare[20] - rare[0])).abs() < 1e-6, "{rare:?}");
        assert_eq!(capped(&[7.5; 4], 3.0), [0.0; 4]);
        assert!(capped(&[], 3.0).is_empty());
    }

    proptest! {
        #[test]
        fn order_is_kept_and_all_is_finite(values in prop::collection::vec(prop_oneof![
            -10.0..10.0_f64, Just(1e300), Just(-1e300), Just(0.0), Just(f64::MAX), Just(f64::MIN_POSITIVE)
        ], 1..40)) {
            for y in [targets(&values), capped(&values, 1.2)] {
                for i in 0..y.len() {
                    prop_assert!(y[i].is_finite());
                    for j in 0..y.len() {
                        // Differences beyond the precision of the largest value may vanish; none turns round.
                        prop_assert!(values[i] > values[j] || y[i] <= y[j], "{:?} {:?}", values, y);
                    }
                }
            }
        }
    }
}
