//! Who makes a TCPStore, and whether it asks for libuv, by version: a table (`makers.toml`) that was read from the
//! stock wheels. `inspect::defaults` reads a torch's own files, and is what counts where they are there; the table is
//! for what no file says (the binding's default), and for tracebacks, where there are none.

use std::sync::LazyLock;

use serde::Deserialize;

/// How a process without an agent chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Whether `use_libuv` of the URL is read.
    pub url: bool,
    /// Whether USE_LIBUV is read.
    pub variable: bool,
    /// What it is without both.
    pub default: bool,
    /// The same on Windows, where it differs.
    pub windows: Option<bool>,
}

impl Choice {
    /// What it is where neither the URL nor the variable says anything.
    pub fn default_on(self, windows: bool) -> bool {
        if windows { self.windows.unwrap_or(self.default) } else { self.default }
    }
}

/// How an agent, or a worker that uses its agent's store, chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// By the binding's default alone: neither the URL nor USE_LIBUV is read.
    Binding,
    /// Off, unless `--rdzv-conf use_libuv` says otherwise.
    RdzvConf,
    /// There is no such store.
    None,
}

/// Versions that behave alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Era {
    /// First version of torch that it holds for.
    pub from: String,
    /// Last version of torch that it holds for.
    pub to: String,
    /// The default of the C++ binding.
    pub binding: bool,
    /// What decides which store `init_method="env://"` makes.
    pub env: Choice,
    /// What decides which store `init_method="tcp://…"` makes.
    pub tcp: Choice,
    /// The agent's store of the static rendezvous.
    pub r#static: Maker,
    /// The agent's store of the c10d backend.
    pub c10d: Maker,
    /// The second store of that agent.
    pub dynamic: Maker,
    /// The worker's client of the agent's store.
    pub worker: Maker,
    /// Whose workers use the agent's store: `static`, `c10d`.
    pub shares: Vec<String>,
}

/// Where in `rendezvous.py` the calls stand.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lines {
    /// First version of torch that it holds for.
    pub from: String,
    /// Last version of torch that it holds for.
    pub to: String,
    /// The worker's client of its agent's store.
    pub agent: u32,
    /// The store of a process without an agent.
    pub own: u32,
    /// The handler of `tcp://`.
    pub tcp: u32,
    /// The handler of `env://`.
    pub env: u32,
}

/// Whose stores a launcher has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stores {
    /// An agent's, with the static rendezvous, and its workers'.
    Static,
    /// An agent's, with the c10d backend, and its workers'.
    C10d,
    /// Each process' own, as `env://` makes it.
    Env,
}

/// A way of starting processes, and the stores that come of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launcher {
    /// What people call it.
    pub name: String,
    /// Which stores it makes.
    pub stores: Stores,
    /// Where this was read.
    pub source: String,
}

/// `makers.toml`: who makes which store, by version and launcher.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// How versions of torch behave, oldest first.
    pub era: Vec<Era>,
    /// Lines of `rendezvous.py`, for messages that name them.
    pub lines: Vec<Lines>,
    /// The launchers that people use.
    pub launcher: Vec<Launcher>,
}

/// The table, as it was compiled in.
pub fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        toml::from_str(include_str!("makers.toml")).unwrap_or_else(|e| unreachable!("a table that a test reads: {e}"))
    });
    &TABLE
}

/// The row that `version` (`2.6.0+cpu`) falls into; the last one for what is newer than all that was read.
pub fn era(version: &str) -> Option<&'static Era> {
    let eras = &table().era;
    let wanted = numbers(version);
    let found = eras.iter().find(|e| numbers(&e.from) <= wanted && wanted <= numbers(&e.to));
    // Between two rows of released versions lies a patch release that was not read: it is of the row before.
    found.or_else(|| eras.iter().rev().find(|e| numbers(&e.from) <= wanted))
}

/// The first three numbers of a version.
pub fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split(['.', '+', 'a', 'b', 'r', 'd']).map(|n| n.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_one_another_and_a_version_finds_its_own() {
        for rows in table().era.windows(2) {
            assert!(numbers(&rows[0].to) < numbers(&rows[1].from), "{} {}", rows[0].to, rows[1].from);
        }
        for rows in table().lines.windows(2) {
            assert!(numbers(&rows[0].to) < numbers(&rows[1].from), "{} {}", rows[0].to, rows[1].from);
        }
        let of = |version: &str| era(version).map(|e| (e.from.as_str(), e.binding));
        assert_eq!(of("2.6.0+cpu.libuv"), Some(("2.5.0", true)));
        assert_eq!(of("2.3.1"), Some(("2.3.0", false)));
        assert_eq!(of("2.16.0a0"), Some(("2.7.0", true)));
        assert_eq!(of("2.6.1"), Some(("2.5.0", true)));
        assert_eq!(of("1.13.1"), None);
    }
}
