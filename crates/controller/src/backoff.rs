//! Growing pauses after failures in a row, each a little longer by chance: what failed together does not come back together.

use std::time::Duration;

use jiff::Timestamp;

/// The longest that chance adds, as a part of the pause.
const SPREAD: f64 = 0.25;

/// Twice as long with each failure in a row, from `first` on up to `longest`, and by `chance` (0 to 1) a quarter longer.
pub fn pause(failures: u32, first: Duration, longest: Duration, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let grown = first.saturating_mul(1 << doublings).min(longest);
    grown + grown.mul_f64(SPREAD * chance.clamp(0.0, 1.0))
}

/// A number from 0 to 1, from the last digits of the time: it need not be a secret, only another one in each process and at each time.
pub fn chance(now: Timestamp) -> f64 {
    f64::from(now.subsec_nanosecond().unsigned_abs() % 1_000_000) / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_are_spread_over_a_quarter() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(60));
        let seconds: Vec<u64> =
            (0..9).map(|failures| pause(failures, first, longest, 0.0).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(u32::MAX, first, longest, 1.0), Duration::from_secs(75));
        let spread: Vec<Duration> =
            (0..100).map(|part| pause(5, first, longest, f64::from(part) / 100.0)).collect();
        assert!(spread.is_sorted() && spread[99] > spread[0] + Duration::from_secs(3), "{spread:?}");
    }

    #[test]
    fn chance_is_another_one_each_time() {
        let drawn: Vec<f64> = (0..1000).map(|_| chance(Timestamp::now())).collect();
        assert!(drawn.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!(drawn.windows(2).any(|pair| (pair[0] - pair[1]).abs() > f64::EPSILON));
    }
}
