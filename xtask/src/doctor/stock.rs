//! The stock wheels of PyPI, and upstream's own for an older CUDA: tables (`stock.toml`).

use std::sync::LazyLock;

use serde::Deserialize;

use crate::inspect::makers::numbers;

/// The CUDA that PyPI's wheels for Linux are for, since 2.11. Those of 2.15 are for 13.2, which serves the same GPUs and
/// drivers.
pub const CUDA: &str = "13.0";

/// A release of torch as PyPI has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wheel {
    /// Version of torch: `2.6.0`.
    pub version: String,
    /// First and last Python that it has wheels for.
    python: [String; 2],
    /// Whether the Gloo of its Windows wheel has a transport.
    pub windows_gloo: bool,
}

impl Wheel {
    /// Whether there is a wheel for `python` (`3.11.7`).
    pub fn is_for(&self, python: &str) -> bool {
        let [major, minor, _] = numbers(python);
        let minor = [major, minor, 0];
        numbers(&self.python[0]) <= minor && minor <= numbers(&self.python[1])
    }
}

/// Upstream's own wheels for a CUDA that is older than that of PyPI's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Older {
    /// That CUDA: `12.6`.
    pub cuda: String,
    /// First and last torch that has one.
    pub torch: [String; 2],
    /// What their GPU code is for.
    pub architectures: Vec<String>,
    /// How people know those GPUs.
    pub gpus: String,
}

impl Older {
    /// Whether there is one of torch `version` (`2.6.0`).
    pub fn has(&self, version: &str) -> bool {
        let [first, last] = &self.torch;
        (numbers(first)..=numbers(last)).contains(&numbers(version))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    older: Vec<Older>,
    wheel: Vec<Wheel>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    toml::from_str(include_str!("stock.toml")).unwrap_or_else(|e| unreachable!("a table that a test reads: {e}"))
});

/// All wheels of PyPI, oldest first.
pub fn wheels() -> &'static [Wheel] {
    &TABLE.wheel
}

/// Upstream's own wheels for an older CUDA.
pub fn older() -> &'static [Older] {
    &TABLE.older
}

/// The release called `version` (`2.6.0+cpu` is 2.6.0).
pub fn wheel(version: &str) -> Option<&'static Wheel> {
    wheels().iter().find(|w| numbers(&w.version) == numbers(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `inspect --survey` wrote down is what the table says.
    #[test]
    fn the_table_is_what_the_survey_read() {
        let survey = include_str!("../../../docs/stock-builds.md");
        let mut seen = 0;
        for line in survey.lines().filter(|l| l.contains("| Windows x86-64 |")) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let Some(wheel) = wheel(cells[1]) else { continue };
            assert_eq!(wheel.windows_gloo, cells[4] == "uv", "{line}");
            seen += 1;
        }
        assert_eq!(seen, wheels().len(), "a row of the table is not in docs/stock-builds.md");
    }

    /// Of either end PyPI's table says for which Pythons it is, and some release of CUDA compiles for what is in it.
    #[test]
    fn upstreams_wheels_for_an_older_cuda_are_of_known_versions_and_for_gpus_that_it_knows() {
        for older in older() {
            assert!(older.torch.iter().all(|version| wheel(version).is_some() && older.has(version)), "{older:?}");
            assert!(older.has("2.9.1+cu128") && !older.has("2.5.1") && !older.has("2.15.0"));
            let release = crate::recipe::cuda::release(&older.cuda).unwrap();
            assert!(older.architectures.iter().all(|a| release.architectures.contains(&a.as_str())), "{older:?}");
        }
    }

    #[test]
    fn a_wheel_is_for_the_pythons_that_it_was_made_for() {
        let of = |version: &str, python: &str| wheel(version).is_some_and(|w| w.is_for(python));
        assert!(of("2.6.0+cpu", "3.13.5") && of("2.3.1", "3.8.10"));
        assert!(!of("2.3.1", "3.13.0") && !of("2.15.0", "3.10.1") && !of("2.99.0", "3.11.0"));
    }
}
