//! set: torch and its companions, installed together by pip and held against one another: each companion's symbols
//! against the torch's, then imported and used. Who installs the set writes one requirements file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
        let packages = packages(build)?;
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
        fs_err::write(out.join(REQUIREMENTS), requirements(cx, &companions, &packages)?)?;
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

/// One line for each package of the set, and for all that they need: its version, and the bytes that it may be.
fn requirements(
    cx: &Cx<'_>,
    companions: &BTreeMap<String, Done<companion::Record>>,
    packages: &[Locked],
) -> Result<String> {
    let build = cx.build;
    let minor = build.python.minor();
    let markers =
        Platform { system: build.recipe.system, machine: &build.python.machine, minor: &minor }.environment()?;
    let mut known: BTreeMap<String, (String, String, Vec<String>)> = BTreeMap::new();
    let mut own = Vec::new();
    let torch = cx.made::<Wheel>()?;
    let digests = cx.made::<Provenance>()?.record.digests;
    let files = companions.values().map(|done| (companion::wheel_of(done), &done.record.digests, &done.record.file));
    let files = files.chain([(torch.folder.join(&torch.record.file), &digests, &torch.record.file)]);
    for (path, digests, file) in files {
        let (name, version, needs) = metadata(&path)?;
        let sha256 = digests.get(file).map(|input| input.sha256.clone()).unwrap_or_default();
        own.push(name.clone());
        known.insert(name, (version, sha256, needs));
    }
    for locked in packages {
        let blob = build.store.blob(&locked.sha256, locked.size);
        let blob = blob.ok_or_else(|| Error::world("not-fetched", "a package of the set is not in the store"))?;
        let (name, version, needs) = metadata(&blob.path)?;
        known.entry(name).or_insert((version, locked.sha256.clone(), needs));
    }
    let (mut queue, mut wanted) = (own, BTreeSet::new());
    while let Some(name) = queue.pop() {
        if !wanted.insert(name.clone()) {
            continue;
        }
        let Some((_, _, needs)) = known.get(&name) else {
            return Err(Error::misuse("set-misses", format!("the set needs {name}, which no recipe of it pins"))
                .next("add it to python.verify of the companion's recipe, and run `cargo xtask lock`"));
        };
        for need in needs {
            let requirement = crate::recipe::requirement(need)
                .map_err(|e| Error::misuse("set", format!("{name} asks for '{need}': {e}")))?;
            if requirement.evaluate_markers(&markers, &[]) {
                queue.push(normalize(requirement.name.as_ref()));
            }
        }
    }
    let mut text = String::new();
    for name in wanted {
        if let Some((version, sha256, _)) = known.get(&name) {
            text.push_str(&format!("{name}=={version} ; python_version == \"{minor}\" --hash=sha256:{sha256}\n"));
        }
    }
    Ok(text)
}

/// Name, version and needs that a wheel states.
fn metadata(wheel: &Path) -> Result<(String, String, Vec<String>)> {
    const MOST: u64 = 4 << 20;
    let file = FileAt::new(fs_err::File::open(wheel)?.into_file())?;
    let archive = Archive::open(&file)?;
    let member =
        archive.members().iter().find(|m| m.name.ends_with(".dist-info/METADATA") && m.name.matches('/').count() == 1);
    let member = member.ok_or_else(|| Error::world("wheel", format!("{} has no METADATA", wheel.display())))?;
    let text = archive.small(member, MOST)?;
    let said = Metadata::lenient(&String::from_utf8_lossy(&text));
    let field = |name: &str| said.get(name).unwrap_or_default().to_owned();
    Ok((normalize(&field("Name")), field("Version"), said.all("Requires-Dist").map(str::to_owned).collect()))
}
