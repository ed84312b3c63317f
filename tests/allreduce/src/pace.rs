//! How often to repeat what is timed.

use std::time::Duration;

use crate::failure::Result;

/// Repeats until `warmup` has passed, by doubling; seconds of one repetition at the end. `repeat` does
/// its work so often and returns how long that took.
pub fn warm_up(warmup: Duration, mut repeat: impl FnMut(u64) -> Result<f64>) -> Result<f64> {
    let warmup = warmup.as_secs_f64();
    let (mut n, mut spent) = (1u64, 0.0);
    loop {
        let seconds = repeat(n)?;
        let each = (seconds / n as f64).max(1e-9);
        spent += seconds;
        if spent >= warmup {
            return Ok(each);
        }
        n = n.saturating_mul(2).min((warmup / each).ceil() as u64).max(1);
    }
}

/// Repetitions that take about `time`, when one takes `each` seconds.
pub fn repetitions(time: Duration, each: f64) -> u64 {
    ((time.as_secs_f64() / each).round() as u64).max(1)
}
