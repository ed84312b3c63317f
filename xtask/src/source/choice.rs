//! Which of a version's wheels is meant, where the asker did not say all of it; and what there is, where none fits.

use std::collections::BTreeMap;

use super::pypi::IndexFile;
use crate::error::{Error, Result};
use crate::wheel::{Name, fits_platform};

/// When each CPython was released (python.org's release schedules, PEP 619 and its successors): a wheel from before
/// that day is for a preview.
const FINAL: &[(u32, &str)] = &[
    (8, "2019-10-14"),
    (9, "2020-10-05"),
    (10, "2021-10-04"),
    (11, "2022-10-24"),
    (12, "2023-10-02"),
    (13, "2024-10-07"),
    (14, "2025-10-07"),
];

/// What `pypi:NAME==VERSION` asks for, and for which system.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Normalized name of the project.
    pub name: &'a str,
    /// The exact version.
    pub version: &'a str,
    /// The end of a platform tag: `win_amd64`, `linux_x86_64`.
    pub platform: Option<&'a str>,
    /// The Python: `3.11`, `3.13t`.
    pub python: Option<&'a str>,
}

/// The wheel that was chosen.
#[derive(Debug, Clone)]
pub struct Chosen<'a> {
    /// The file of the index.
    pub file: &'a IndexFile,
    /// Of how many that would do.
    pub of: usize,
    /// Why this one of those, for people.
    pub why: String,
}

/// A wheel of the index, and its name.
struct Wheel<'a> {
    file: &'a IndexFile,
    name: Name,
}

impl Wheel<'_> {
    /// `11` of `cp311`.
    fn minor(&self) -> u32 {
        self.name.python.strip_prefix("cp3").and_then(|m| m.parse().ok()).unwrap_or(0)
    }

    /// The number that its build tag begins with; 0 without one.
    fn build(&self) -> u64 {
        self.name.build_order().map_or(0, |(number, _)| number)
    }

    fn free_threaded(&self) -> bool {
        self.name.abi.ends_with('t')
    }

    /// Whether it is for a Python that was no more than a preview when the wheel was made.
    fn preview(&self) -> bool {
        let released = FINAL.iter().find(|(minor, _)| *minor == self.minor()).map(|(_, day)| *day);
        match (released, self.file.uploaded.as_deref().and_then(|t| t.get(..10))) {
            (Some(released), Some(uploaded)) => uploaded < released,
            (Some(_), None) => false,
            // Newer than all that were released when this was written.
            (None, _) => self.minor() > FINAL.last().map_or(0, |(minor, _)| *minor),
        }
    }

    /// `3.11`, `3.13t`.
    fn python_version(&self) -> String {
        let t = if self.free_threaded() { "t" } else { "" };
        self.name.python.strip_prefix("cp3").map_or_else(|| self.name.python.clone(), |minor| format!("3.{minor}{t}"))
    }

    fn is_for(&self, python: &str) -> bool {
        let (wanted, free) = python.strip_suffix('t').map_or((python, false), |p| (p, true));
        // `3.11.7` is a 3.11.
        let minor: Vec<&str> = wanted.split('.').take(2).collect();
        self.name.python == format!("cp{}", minor.concat()) && self.free_threaded() == free
    }
}

/// Chooses: this machine's platform where none was named, a final CPython before a preview and before a free-threaded
/// one, the newest of them, the last build of it.
///
/// # Errors
/// If no wheel fits; with all that there are.
pub fn choose<'a>(files: &'a [IndexFile], wanted: Wanted<'_>) -> Result<Chosen<'a>> {
    let all: Vec<Wheel<'_>> = files
        .iter()
        .filter_map(|file| Some(Wheel { file, name: file.filename.parse().ok()? }))
        .filter(|w: &Wheel<'_>| w.name.is_of(wanted.name, wanted.version))
        .collect();
    let fits = |w: &&Wheel<'_>| {
        wanted.platform.is_none_or(|p| fits_platform(&w.name, p)) && wanted.python.is_none_or(|p| w.is_for(p))
    };
    let mut left: Vec<&Wheel<'_>> = all.iter().filter(fits).collect();
    let mut why = Vec::new();
    if wanted.platform.is_none() {
        let here = format!("_{}", std::env::consts::ARCH);
        let own: Vec<&Wheel<'_>> = left
            .iter()
            .filter(|w| w.name.platform.contains("linux") && w.name.platform.ends_with(&here))
            .copied()
            .collect();
        if !own.is_empty() {
            left = own;
            why.push(format!("Linux{here} as no --platform was named"));
        }
    }
    let of = left.len();
    left.sort_by_key(|w| (w.free_threaded(), w.preview(), std::cmp::Reverse((w.minor(), w.build()))));
    let Some(first) = left.first() else { return Err(none_fits(&all, wanted)) };
    if wanted.python.is_none() {
        let kind = match (first.free_threaded(), first.preview()) {
            (true, _) => "the only kind of Python there is",
            (_, true) => "a preview, as there is no other",
            _ => "the newest that was final when the wheel was made",
        };
        why.push(format!("CPython {} as no --python-version was named: {kind}", first.python_version()));
    }
    if first.build() > 0 {
        why.push(format!("build {}, the last one", first.build()));
    }
    let why = if why.is_empty() { "the only one that fits".to_owned() } else { why.join("; ") };
    Ok(Chosen { file: first.file, of, why })
}

/// What there is, per platform, all of it.
fn none_fits(all: &[Wheel<'_>], wanted: Wanted<'_>) -> Error {
    let Wanted { name, version, platform, python } = wanted;
    let asked = [platform.map(|p| format!("for {p}")), python.map(|p| format!("for Python {p}"))];
    let asked: Vec<String> = asked.into_iter().flatten().collect();
    let what = format!("the package index has no wheel of {name} {version} {}", asked.join(" and "));
    let mut e = Error::misuse("no-wheel", what.trim_end().to_owned());
    if all.is_empty() {
        return e.next(format!("check the version: there is no wheel of {name} {version} at all"));
    }
    let mut there: BTreeMap<&str, Vec<&Wheel<'_>>> = BTreeMap::new();
    for wheel in all {
        there.entry(wheel.name.platform.as_str()).or_default().push(wheel);
    }
    e = e.next("choose --platform and --python-version for one of these:");
    for (platform, mut wheels) in there {
        wheels.sort_by_key(|w| (w.minor(), w.free_threaded()));
        let mut pythons: Vec<String> = wheels.iter().map(|w| w.python_version()).collect();
        pythons.dedup();
        e = e.next(format!("  {platform}: {}", pythons.join(" ")));
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[(&str, &str)]) -> Vec<IndexFile> {
        let file = |(name, day): &(&str, &str)| IndexFile {
            filename: (*name).to_owned(),
            url: String::new(),
            sha256: None,
            uploaded: (!day.is_empty()).then(|| format!("{day}T12:00:00Z")),
            yanked: false,
            requires_python: None,
        };
        names.iter().map(file).collect()
    }

    fn wanted<'a>(platform: Option<&'a str>, python: Option<&'a str>) -> Wanted<'a> {
        Wanted { name: "torch", version: "2.9.1", platform, python }
    }

    #[test]
    fn a_final_cpython_is_preferred_to_a_preview_and_to_a_free_threaded_one() {
        let names = [
            ("torch-2.9.1-cp311-cp311-win_amd64.whl", "2025-09-01"),
            ("torch-2.9.1-cp313-cp313-win_amd64.whl", "2025-09-01"),
            ("torch-2.9.1-cp313-cp313t-win_amd64.whl", "2025-09-01"),
            ("torch-2.9.1-cp314-cp314-win_amd64.whl", "2025-09-01"),
            ("torch-2.9.1-cp315-cp315-win_amd64.whl", ""),
        ];
        let files = files(&names);
        let chosen = choose(&files, wanted(Some("win_amd64"), None)).unwrap();
        assert_eq!(chosen.file.filename, names[1].0);
        assert!(chosen.of == 5 && chosen.why.contains("CPython 3.13"), "{}", chosen.why);
        let chosen = choose(&files, wanted(Some("win_amd64"), Some("3.13t"))).unwrap();
        assert_eq!(chosen.file.filename, names[2].0);
        let chosen = choose(&files, wanted(Some("win_amd64"), Some("3.14"))).unwrap();
        assert_eq!((chosen.file.filename.as_str(), chosen.why.as_str()), (names[3].0, "the only one that fits"));
    }

    #[test]
    fn the_last_build_counts_and_a_tag_of_the_old_abi_is_of_its_python() {
        let names = [
            ("torch-2.9.1-cp37-cp37m-manylinux1_x86_64.whl", ""),
            ("torch-2.9.1-2-cp311-none-macosx_11_0_arm64.whl", ""),
            ("torch-2.9.1-cp311-none-macosx_11_0_arm64.whl", ""),
        ];
        let files = files(&names);
        let of = |p, v| choose(&files, wanted(Some(p), v)).unwrap().file.filename.clone();
        assert_eq!(of("macosx_arm64", None), names[1].0);
        assert_eq!(of("manylinux1_x86_64", Some("3.7")), names[0].0);
    }

    #[test]
    fn what_there_is_is_told_per_platform_and_whole() {
        let names: Vec<(String, &str)> = (0..5)
            .flat_map(|minor| {
                ["macosx_14_0_arm64", "manylinux_2_28_aarch64", "manylinux_2_28_x86_64", "win_amd64"]
                    .map(|p| (format!("torch-2.9.1-cp31{minor}-cp31{minor}-{p}.whl"), ""))
            })
            .collect();
        let names: Vec<(&str, &str)> = names.iter().map(|(n, d)| (n.as_str(), *d)).collect();
        let files = files(&names);
        let e = choose(&files, wanted(Some("win_amd64"), Some("3.9"))).unwrap_err();
        let said = e.next_steps().join("\n");
        for platform in ["macosx_14_0_arm64", "manylinux_2_28_aarch64", "manylinux_2_28_x86_64", "win_amd64"] {
            assert!(said.contains(&format!("{platform}: 3.10 3.11 3.12 3.13 3.14")), "{said}");
        }
    }
}
