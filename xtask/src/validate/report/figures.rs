//! Numbers as people read them.

use crate::validate::{Better, Interval};

/// A figure in a unit that fits its size.
pub fn figure(value: f64, unit: &str) -> String {
    match unit {
        "s" if value < 1e-3 => format!("{} µs", digits(value * 1e6)),
        "s" if value < 1.0 => format!("{} ms", digits(value * 1e3)),
        "s" => format!("{} s", digits(value)),
        "B/s" if value < 1e6 => format!("{} kB/s", digits(value / 1e3)),
        "B/s" if value < 1e9 => format!("{} MB/s", digits(value / 1e6)),
        "B/s" => format!("{} GB/s", digits(value / 1e9)),
        _ if value < 1e4 => format!("{}/s", digits(value)),
        _ => format!("{} k/s", digits(value / 1e3)),
    }
}

/// Three digits that count.
fn digits(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// `1.02 (0.98 to 1.05)`.
pub fn ratio(i: Interval) -> String {
    format!("{:.2} ({:.2} to {:.2})", i.value, i.low, i.high)
}

/// What is wanted, in words: `at least 1.00`.
pub fn bound(threshold: f64, better: Better) -> String {
    match better {
        Better::Higher => format!("at least {threshold:.2}"),
        Better::Lower => format!("at most {threshold:.2}"),
    }
}

/// Bytes with a binary unit, as sizes of tensors are chosen.
pub fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

/// The word for a verdict.
pub fn word(passed: Option<bool>) -> &'static str {
    match passed {
        Some(true) => "met",
        Some(false) => "missed",
        None => "not available",
    }
}
