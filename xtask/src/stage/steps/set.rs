//! set: torch and its companions, installed together by pip and held against one another: each companion's symbols
//! against the torch's, then imported and used. Who installs the set writes one requirements file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pep508_rs::MarkerEnvironment;
use serde::{Deserialize, Serialize};

use super::companion::{self, Companion};
use super::provenance::Provenance;
use super::verify::{Check, run_check};
use super::wheel::Wheel;
use crate::compat::{self, Fit};
use crate::error::{Error, Result};
use crate::platform;
use crate::recipe::{Coordinate, Locked};
use crate::source::pypi::Platform;
use crate::stage::build::Build;
use crate::stage::environment;
use crate::stage::step::{Cx, Done, Step};
use crate::store::Parts;
use crate::toolchain::Process;
use crate::wheel::{Archive, FileAt, Metadata, normalize};

/// The stage.
pub struct Set;

/// What is used of each package, as it stands in `tests/scenarios`; one that has none is imported.
const CHECKS: &[(&str, &str)] = &[
    ("any", include_str!("../../../../tests/scenarios/companion.py")),
    ("torchvision", include_str!("../../../../tests/scenarios/torchvision_ops.py")),
    ("torchaudio", include_str!("../../../../tests/scenarios/torchaudio_ops.py")),
    (TRAINING, include_str!("../../../../tests/scenarios/speech_train.py")),
];

/// The people's project: torchaudio prepares, torch trains on two ranks.
const TRAINING: &str = "speech_train";

/// File with one pinned line and digest for all that is installed.
pub const REQUIREMENTS: &str = "requirements.txt";

/// What is kept of a set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// In the order that they ran.
    pub checks: Vec<Check>,
}

impl Step for Set {
    type Record = Record;
    const NAME: &'static str = "set";
    const WHAT: &'static str = "torch and companions, installed together, judged and run";
    const EMBEDS: &'static [(&'static str, &'static str)] = CHECKS;

    fn of(build: &Build<'_>) -> Vec<String> {
        if build.companions.is_empty() { Vec::new() } else { vec![String::new()] }
    }

    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        for (name, input) in &cx.made::<Provenance>()?.record.digests {
            if name.ends_with(".whl") {
                parts.digest(name, &input.sha256);
            }
        }
        environment::inputs(cx.build, &packages(cx.build)?, parts);
        for (package, beside) in &cx.build.companions {
            parts.text(format!("{package} brings"), beside.recipe.brings.join(" "));
        }
        parts.text("executable", cx.build.python.executable.to_string_lossy());
        Ok(())
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, scratch, out) = (cx.build, cx.scratch()?, cx.out()?);
        let torch = cx.made::<Wheel>()?;
        let torch = torch.folder.join(torch.record.file);
        let companions = companions(cx)?;
        let log = out.join("set.log");
        let mut checks = vec![judge(&torch, &companions)?];
        let env = scratch.join("env");
        // What is tried is what a user gets who installs the file that is written here, and pip.
        let packages = packages(build)?;
        let members = members(cx, &companions, &packages)?;
        let named = |locked: &Locked| match &locked.coordinate {
            Some(Coordinate::Pypi { name, .. }) => name == "pip" || members.contains_key(&normalize(name)),
            _ => false,
        };
        let packages: Vec<Locked> = packages.into_iter().filter(named).collect();
        environment::make(build, &env, &scratch, &packages)?;
        let wheels: Vec<PathBuf> =
            std::iter::once(torch.clone()).chain(companions.values().map(companion::wheel_of)).collect();
        environment::add(build, &env, &scratch, &packages, &wheels, Some(&log))?;
        let folder = scratch.join("checks");
        fs_err::create_dir_all(&folder)?;
        let script = |name: &str| -> Result<Process> {
            let (name, text) = CHECKS.iter().find(|(n, _)| *n == name).unwrap_or(&CHECKS[0]);
            // No module's name: Python looks beside the script first, and would take it for the package.
            let script = folder.join(format!("check-{name}.py"));
            fs_err::write(&script, text)?;
            Ok(Process::new(environment::python(&env))
                .arg(&script)
                .envs(platform::own_variables(&folder))
                .env("PATH", std::env::join_paths(platform::system_programs()).unwrap_or_default())
                .env("HOME", &folder)
                .env("LC_ALL", "C.UTF-8")
                .env("OMP_NUM_THREADS", "1")
                .cwd(&folder)
                .timeout(Duration::from_secs(300)))
        };
        for (package, done) in &companions {
            let lacks: Vec<&String> = build.companion(package)?.recipe.lacks.keys().collect();
            let process = script(package)?.arg(package).arg(serde_json::to_string(&lacks).unwrap_or_default());
            let check = run_check(build, &format!("{package}: imported and used"), &process, &log)?;
            if check.said["version"] != done.record.version.as_str() {
                return Err(Error::world(
                    "set",
                    format!(
                        "{package} says that it is {}; it was built as {}",
                        check.said["version"], done.record.version
                    ),
                ));
            }
            checks.push(check);
        }
        if companions.contains_key("torchaudio") {
            let name = "scenario: speech_train (torchaudio, mp.spawn, DDP)";
            let check = run_check(build, name, &script(TRAINING)?, &log)?;
            if check.said["libuv"] != true {
                return Err(Error::world("set", format!("the check '{name}' ran, but not on libuv: {}", check.said)));
            }
            checks.push(check);
        }
        fs_err::write(out.join(REQUIREMENTS), requirements(&members, &build.python.minor()))?;
        Ok(Record { checks })
    }
}

fn companions(cx: &Cx<'_>) -> Result<BTreeMap<String, Done<companion::Record>>> {
    let one = |package: &String| {
        let done = cx.made_of::<Companion>(package)?;
        let done = done.ok_or_else(|| Error::world("set", format!("{package} was not built")))?;
        Ok((package.clone(), done))
    };
    cx.build.companions.keys().map(one).collect()
}

/// All packages that the set is tried with: each once.
fn packages(build: &Build<'_>) -> Result<Vec<Locked>> {
    let mut found: BTreeMap<String, (&Locked, &str)> = BTreeMap::new();
    for beside in build.companions.values() {
        for locked in &build.packages_beside(beside)?.verify {
            let Some(Coordinate::Pypi { name, .. }) = &locked.coordinate else { continue };
            let (known, by) = found.entry(normalize(name)).or_insert((locked, &beside.recipe.name));
            if known.sha256 != locked.sha256 {
                return Err(Error::misuse(
                    "set-disagrees",
                    format!(
                        "the recipes {by} and {} pin two versions of {name}: one environment cannot have both",
                        beside.recipe.name
                    ),
                )
                .next("pin one version in python.verify of both, and run `cargo xtask lock` for each"));
            }
        }
    }
    Ok(found.into_values().map(|(locked, _)| locked.clone()).collect())
}

/// Whether the files say that all of them load on this torch: before anything of them runs.
fn judge(torch: &Path, companions: &BTreeMap<String, Done<companion::Record>>) -> Result<Check> {
    let started = std::time::Instant::now();
    let target = || Err(Error::world("set", "a wheel names its own target"));
    let torch = compat::open_torch(&torch.display().to_string(), target)?;
    let wheels: Vec<String> = companions.values().map(|done| companion::wheel_of(done).display().to_string()).collect();
    let report = compat::report(&torch, &wheels, &[])?;
    if let Some(not) = report.packages.iter().find(|p| p.verdict != Fit::Fits) {
        let mut why: Vec<String> = not.reasons.iter().take(3).map(|r| r.words().0).collect();
        why.extend(not.gaps.iter().take(3).map(|g| format!("{} needs {}", g.by, g.needs.join(", "))));
        return Err(Error::world(
            "set",
            format!(
                "{} {} was compiled against this torch, and {}: {}",
                not.package,
                not.version,
                not.verdict.words(),
                why.join("; ")
            ),
        ));
    }
    let said = report.packages.iter().map(|p| (p.package.clone(), p.verdict.words().into())).collect();
    Ok(Check {
        name: "set: every companion's symbols are this torch's".into(),
        said: serde_json::Value::Object(said),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// A package that may be in a set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    version: String,
    /// Digest of its wheel, hexadecimal.
    sha256: String,
    /// `Requires-Dist`.
    needs: Vec<String>,
}

/// What the set consists of, by normalized name: torch, companions, what they bring, and all that these need.
fn members(
    cx: &Cx<'_>,
    companions: &BTreeMap<String, Done<companion::Record>>,
    packages: &[Locked],
) -> Result<BTreeMap<String, Member>> {
    let build = cx.build;
    let minor = build.python.minor();
    let markers =
        Platform { system: build.recipe.system, machine: &build.python.machine, minor: &minor }.environment()?;
    let mut known = BTreeMap::new();
    let mut first: Vec<String> =
        build.companions.values().flat_map(|b| b.recipe.brings.iter().map(|name| normalize(name))).collect();
    let torch = cx.made::<Wheel>()?;
    let digests = cx.made::<Provenance>()?.record.digests;
    let files = companions.values().map(|done| (companion::wheel_of(done), &done.record.digests, &done.record.file));
    let files = files.chain([(torch.folder.join(&torch.record.file), &digests, &torch.record.file)]);
    for (path, digests, file) in files {
        let sha256 = digests.get(file).map(|input| input.sha256.clone()).unwrap_or_default();
        let (name, member) = member(&path, sha256)?;
        first.push(name.clone());
        known.insert(name, member);
    }
    for locked in packages {
        let blob = build.store.blob(&locked.sha256, locked.size)?;
        let blob = blob.ok_or_else(|| Error::world("not-fetched", "a package of the set is not in the store"))?;
        let (name, member) = member(&blob.path, locked.sha256.clone())?;
        known.entry(name).or_insert(member);
    }
    needed(first, &known, &markers)
}

/// Those of `known` that the packages in `queue` and all that they need are.
fn needed(
    mut queue: Vec<String>,
    known: &BTreeMap<String, Member>,
    markers: &MarkerEnvironment,
) -> Result<BTreeMap<String, Member>> {
    let mut wanted = BTreeMap::new();
    while let Some(name) = queue.pop() {
        if wanted.contains_key(&name) {
            continue;
        }
        let Some(member) = known.get(&name) else {
            return Err(Error::misuse("set-misses", format!("the set needs {name}, which no recipe of it pins"))
                .next("add it to python.verify of the companion's recipe, and run `cargo xtask lock`"));
        };
        for need in &member.needs {
            let requirement = crate::recipe::requirement(need)
                .map_err(|e| Error::misuse("set", format!("{name} asks for '{need}': {e}")))?;
            if requirement.evaluate_markers(markers, &[]) {
                queue.push(normalize(requirement.name.as_ref()));
            }
        }
        wanted.insert(name, member.clone());
    }
    Ok(wanted)
}

/// One line for each package: its version, and the bytes that it may be.
fn requirements(members: &BTreeMap<String, Member>, minor: &str) -> String {
    let line = |(name, member): (&String, &Member)| {
        let Member { version, sha256, .. } = member;
        format!("{name}=={version} ; python_version == \"{minor}\" --hash=sha256:{sha256}\n")
    };
    members.iter().map(line).collect()
}

/// Name of the wheel at `wheel`, whose digest is `sha256`, and what it states of itself.
fn member(wheel: &Path, sha256: String) -> Result<(String, Member)> {
    const MOST: u64 = 4 << 20;
    let file = FileAt::new(fs_err::File::open(wheel)?.into_file())?;
    let archive = Archive::open(&file)?;
    let member =
        archive.members().iter().find(|m| m.name.ends_with(".dist-info/METADATA") && m.name.matches('/').count() == 1);
    let member = member.ok_or_else(|| Error::world("wheel", format!("{} has no METADATA", wheel.display())))?;
    let text = archive.small(member, MOST)?;
    let said = Metadata::lenient(&String::from_utf8_lossy(&text));
    let field = |name: &str| said.get(name).unwrap_or_default().to_owned();
    let needs = said.all("Requires-Dist").map(str::to_owned).collect();
    Ok((normalize(&field("Name")), Member { version: field("Version"), sha256, needs }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::System;

    fn known(packages: &[(&str, &[&str])]) -> BTreeMap<String, Member> {
        let member = |(name, needs): &(&str, &[&str])| {
            let needs = needs.iter().map(|&need| need.to_owned()).collect();
            ((*name).to_owned(), Member { version: "1.0".into(), sha256: "0".repeat(64), needs })
        };
        packages.iter().map(member).collect()
    }

    fn set(first: &[&str], known: &BTreeMap<String, Member>) -> Result<Vec<String>> {
        let platform = Platform { system: System::Linux, machine: "x86_64", minor: "3.11" };
        let first = first.iter().map(|&name| name.to_owned()).collect();
        Ok(needed(first, known, &platform.environment()?)?.into_keys().collect())
    }

    #[test]
    fn a_set_is_what_is_named_and_all_that_it_needs_here_and_no_more() {
        let known = known(&[
            ("torch", &["Typing_Extensions>=4", "cuda-bindings ; sys_platform == 'win32'"]),
            ("typing-extensions", &[]),
            // Two that need each other end too.
            ("torchaudio", &["torch==1.0"]),
            ("soundfile", &["cffi"]),
            ("cffi", &["soundfile"]),
            ("pytest", &[]),
        ]);
        assert_eq!(set(&["torch"], &known).unwrap(), ["torch", "typing-extensions"]);
        let all = ["cffi", "soundfile", "torch", "torchaudio", "typing-extensions"];
        assert_eq!(set(&["torchaudio", "soundfile"], &known).unwrap(), all);
    }

    #[test]
    fn what_a_set_needs_and_nobody_pins_is_named() {
        let known = known(&[("torchvision", &["torch", "pillow"]), ("torch", &[])]);
        let e = set(&["torchvision"], &known).unwrap_err();
        assert_eq!(e.code(), "set-misses");
        assert!(e.what().contains("the set needs pillow"), "{e}");
        assert_eq!(set(&["nothing"], &known).unwrap_err().code(), "set-misses");
        let broken = self::known(&[("torch", &["a b c"])]);
        assert!(set(&["torch"], &broken).unwrap_err().what().contains("torch asks for 'a b c'"));
    }

    #[test]
    fn a_line_pins_a_version_for_its_python_and_its_bytes() {
        let text = requirements(&known(&[("torch", &[])]), "3.11");
        let digest = "0".repeat(64);
        assert_eq!(text, format!("torch==1.0 ; python_version == \"3.11\" --hash=sha256:{digest}\n"));
    }
}
