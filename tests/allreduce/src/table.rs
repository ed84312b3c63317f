//! What people read: nccl-tests' columns, and tables in the same manner.

use std::fmt::Write;

use crate::c10d::StoreBackend;
use crate::collective::{self, Place, Row};
use crate::place::{Backend, Memory};
use crate::rank::Identity;
use crate::{operators, store};

/// One line while it runs.
pub fn progress(row: &Row) -> String {
    let place = if row.place == Place::Out { "out of place" } else { "in place" };
    match &row.error {
        Some(e) => format!("{} {} B {place}: {e}", row.r#type.name(), row.bytes),
        None => format!("{} {} B {place}: {:.3} GB/s", row.r#type.name(), row.bytes, row.busbw / 1e9),
    }
}

/// The table of nccl-tests: a line a size and type, out of place beside in place.
pub fn collective(backend: Backend, memory: Memory, id: &Identity, rows: &[Row]) -> String {
    let mut t = String::new();
    let _ = writeln!(t, "# {} ranks, {}, {memory:?} tensors, started by {}", id.world, backend.name(), id.launcher);
    let _ = writeln!(t, "#{:>58}{:>37}", "out-of-place", "in-place");
    let _ = writeln!(
        t,
        "#{:>11} {:>12} {:>9} {:>7}  {}  {}",
        "size",
        "count",
        "type",
        "redop",
        ["time", "algbw", "busbw", "#wrong"].map(|c| format!("{c:>8}")).concat(),
        ["time", "algbw", "busbw", "#wrong"].map(|c| format!("{c:>8}")).concat()
    );
    let units = ["(us)", "(GB/s)", "(GB/s)", ""].map(|c| format!("{c:>8}")).concat();
    let _ = writeln!(t, "#{:>11} {:>12} {:>9} {:>7}  {units}  {units}", "(B)", "(elements)", "", "");
    let mut keys: Vec<(&str, u64)> = Vec::new();
    for row in rows {
        let key = (row.r#type.name(), row.bytes);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut wrong = 0;
    for (name, bytes) in keys {
        let of = |place| rows.iter().find(|r| r.r#type.name() == name && r.bytes == bytes && r.place == place);
        let cell = |place| match of(place) {
            Some(Row { error: Some(_), .. }) => format!("{:>32}", "not available"),
            Some(r) => format!(
                "{:>8} {:>7.3} {:>7.3} {:>7}",
                time(collective::median(&r.seconds)),
                r.algbw / 1e9,
                r.busbw / 1e9,
                r.wrong
            ),
            None => format!("{:>32}", "-"),
        };
        let any = of(Place::Out).or_else(|| of(Place::In));
        wrong += rows.iter().filter(|r| r.r#type.name() == name && r.bytes == bytes).map(|r| r.wrong).sum::<u64>();
        let count = any.map_or(0, |r| r.count);
        let _ =
            writeln!(t, " {bytes:>11} {count:>12} {name:>9} {:>7}  {}  {}", "sum", cell(Place::Out), cell(Place::In));
    }
    for row in rows.iter().filter(|r| r.error.is_some()) {
        let _ = writeln!(t, "# {} not available: {}", row.r#type.name(), row.error.as_deref().unwrap_or_default());
    }
    let good: Vec<f64> = rows.iter().filter(|r| r.error.is_none()).map(|r| r.busbw / 1e9).collect();
    let _ = writeln!(t, "# Out of bounds values : {wrong} {}", if wrong == 0 { "OK" } else { "FAILED" });
    let _ = writeln!(t, "# Avg bus bandwidth    : {:.4}", good.iter().sum::<f64>() / good.len().max(1) as f64);
    t
}

/// Microseconds in at most seven characters, as nccl-tests prints them.
fn time(seconds: f64) -> String {
    let us = seconds * 1e6;
    if us < 100.0 {
        format!("{us:.2}")
    } else if us < 10_000.0 {
        format!("{us:.1}")
    } else {
        format!("{us:.0}")
    }
}

fn server(backend: StoreBackend) -> &'static str {
    if backend == StoreBackend::Libuv { "libuv" } else { "legacy" }
}

/// One line while it runs.
pub fn store_progress(row: &store::Row) -> String {
    match &row.error {
        Some(e) => format!("{} clients, {}: {e}", row.clients, server(row.backend)),
        None => format!("{} clients, {}: connected in {:.3} s", row.clients, server(row.backend), row.startup_seconds),
    }
}

/// A line a server and number of clients.
pub fn store(rows: &[store::Row]) -> String {
    let mut t = String::new();
    let _ = writeln!(
        t,
        "#{:>7} {:>8} {:>10} {:>10}  {}",
        "server",
        "clients",
        "start (s)",
        "barrier",
        store::OPERATIONS.map(|o| format!("{:>28}", format!("{o}/s (p50, p99 us)"))).concat()
    );
    for row in rows {
        let _ = write!(t, " {:>7} {:>8} ", server(row.backend), row.clients);
        if let Some(e) = &row.error {
            let _ = writeln!(t, "not available: {e}");
            continue;
        }
        let _ = write!(t, "{:>10.3} {:>10.4}  ", row.startup_seconds, collective::median(&row.barrier_seconds));
        for op in &row.operations {
            let text = format!("{:.0} ({:.0}, {:.0})", op.rate, op.latency_us.p50, op.latency_us.p99);
            let _ = write!(t, "{text:>28}");
        }
        t.push('\n');
    }
    t
}

/// One line while it runs.
pub fn operator_progress(row: &operators::Row) -> String {
    match &row.error {
        Some(e) => format!("{} {} {}: {e}", row.name, row.r#type, row.shape),
        None => format!("{} {} {}: {} us", row.name, row.r#type, row.shape, time(collective::median(&row.seconds))),
    }
}

/// A line an operator.
pub fn operators(rows: &[operators::Row]) -> String {
    let mut t = format!("#{:>12} {:>9} {:>32} {:>12}\n", "operator", "type", "shape", "time (us)");
    for row in rows {
        let figure = match &row.error {
            Some(e) => format!("not available: {e}"),
            None => time(collective::median(&row.seconds)),
        };
        let _ = writeln!(t, " {:>12} {:>9} {:>32} {figure:>12}", row.name, row.r#type, row.shape);
    }
    t
}
