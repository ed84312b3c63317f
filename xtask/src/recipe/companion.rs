//! Companions: packages that are compiled against torch, such as torchvision. Each is a recipe of its own: a file
//! in `recipes/` that has `[companion]` where the others have `[torch]`.

use std::collections::BTreeMap;
use std::str::FromStr;

use pep440_rs::Version;
use serde::{Deserialize, Serialize};

use super::load::{Located, Workspace, is_companion};
use super::lock::Draws;
use super::model::{self, Backend, Limits, LimitsFile, Patch, PythonFile, RecipeFile, Source, Status, System};
use super::near::nearest;
use crate::error::{Error, Result};
use crate::platform::{MOST_TEXT, read_text};

/// One companion's file, as typed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CompanionFile {
    /// Version of this format: 1.
    pub schema: Option<u32>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What is built.
    pub companion: CompanionTable,
    /// Which Pythons; `build` has its build tools and what torch needs to be imported, `verify` what both need.
    pub python: PythonFile,
    /// Variables that its build reads. `{prefix:NAME}` stands for the folder of a prefix made from sources.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// What the stock wheel can do and this one cannot, with the reason.
    #[serde(default)]
    pub lacks: BTreeMap<String, String>,
    /// Bounds on what archives may unpack to.
    #[serde(default)]
    pub limits: LimitsFile,
    /// Its source (`tree = "."`), and what it is compiled against beside torch (prefixes).
    pub source: Vec<Source>,
    /// What is changed in its source.
    #[serde(default)]
    pub patch: Vec<Patch>,
}

/// `[companion]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CompanionTable {
    /// Name of the package, as pip knows it: `torchvision`.
    pub package: String,
    /// Upstream's version of it.
    pub version: String,
    /// Upstream's version of the torch that it goes with.
    pub torch: String,
    /// Seconds since 1970 that stand for "now" while it is built (SOURCE_DATE_EPOCH).
    pub epoch: i64,
    /// SPDX licence expression of the package.
    pub license: String,
    /// PEP 517 backend.
    #[serde(default = "setuptools")]
    pub backend: Backend,
    /// `built-here` only when it was.
    pub status: Option<Status>,
    /// Packages that it uses where they are there, and that its METADATA does not ask for: they are installed with the set.
    /// `python.verify` pins them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brings: Vec<String>,
}

fn setuptools() -> Backend {
    Backend::Setuptools
}

/// A companion's recipe, complete and checked.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Companion {
    /// File name without `.toml`.
    pub name: String,
    /// The recipe without comments, and without what says something to people only.
    #[serde(skip)]
    pub normal: String,
    /// One line for people.
    pub description: String,
    /// Name of the package.
    pub package: String,
    /// Upstream's version.
    pub version: String,
    /// Version of the torch that it goes with.
    pub torch: String,
    /// SOURCE_DATE_EPOCH.
    pub epoch: i64,
    /// SPDX licence expression.
    pub license: String,
    /// PEP 517 backend.
    pub backend: Backend,
    /// What is known about it.
    pub status: Status,
    /// Packages that are installed with it, though it does not ask for them.
    pub brings: Vec<String>,
    /// Pythons and their packages.
    pub python: model::Python,
    /// Variables of its build.
    pub environment: BTreeMap<String, String>,
    /// What stock has and this has not: what → why.
    pub lacks: BTreeMap<String, String>,
    /// How much archives may unpack to.
    pub limits: Limits,
    /// All that is fetched by digest.
    pub source: Vec<Source>,
    /// Patches of its source.
    pub patch: Vec<Patch>,
}

impl Companion {
    /// Whether it is compiled with CUDA, as the variables of its build say.
    #[must_use]
    pub fn has_cuda(&self) -> bool {
        ["FORCE_CUDA", "USE_CUDA"].iter().any(|name| self.environment.get(*name).is_some_and(|value| value == "1"))
    }

    /// Its version beside a torch with this local label: `0.21.0+cpu.libuv`.
    pub fn full_version(&self, local: &str) -> String {
        if local.is_empty() { self.version.clone() } else { format!("{}+{local}", self.version) }
    }

    /// What of it a lock holds.
    pub fn draws(&self) -> Draws<'_> {
        let (source, python) = (&self.source, &self.python);
        Draws { name: &self.name, source, python, system: System::Linux, limits: self.limits }
    }

    /// Names of the prefixes that its sources go to, sorted.
    pub fn prefixes(&self) -> Vec<&str> {
        model::prefixes(&self.source)
    }
}

impl Workspace {
    /// Whether the recipe called `name` is a companion's.
    pub fn is_companion(&self, name: &str) -> bool {
        read_text(&self.recipe_path(name), MOST_TEXT).is_ok_and(|text| is_companion(&text))
    }

    /// Names of the companions' recipes, sorted.
    pub fn companion_names(&self) -> Vec<String> {
        self.names(is_companion)
    }

    /// Reads and checks the companion's recipe called `name` (or the file at that path).
    ///
    /// # Errors
    /// Bad input: there is none, or it is no recipe of a companion.
    pub fn companion(&self, name: &str) -> Result<Companion> {
        let path = self.recipe_path(name);
        let located = Located::read(path.clone())?;
        let file: CompanionFile = located.parse()?;
        let table = &file.companion;
        for version in [&table.version, &table.torch] {
            Version::from_str(version)
                .map_err(|e| located.error(version, &format!("version '{version}' is not a PEP 440 version: {e}")))?;
        }
        if !table.package.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            || table.package.is_empty()
        {
            return Err(located.error(
                "package",
                &format!("'{}' is not the normalised name of a package (lower case, '-')", table.package),
            ));
        }
        // What a torch's recipe may say of these, a companion's may.
        let shared = RecipeFile {
            schema: file.schema,
            python: file.python.clone(),
            source: file.source.clone(),
            patch: file.patch.clone(),
            ..RecipeFile::default()
        };
        located.check(&shared, self)?;
        let trees = file.source.iter().flat_map(|s| &s.into).filter(|p| p.tree.as_deref() == Some("."));
        if trees.count() != 1 {
            return Err(
                located.error("source", "exactly one source is the package itself: `into = [{ tree = \".\" }]`")
            );
        }
        let need = |value: Option<_>, key: &str| {
            value.ok_or_else(|| {
                Error::misuse("recipe", format!("{}: the key '{key}' is missing", path.display()))
                    .next(format!("add '{key}'"))
            })
        };
        let normal = {
            let mut file = file.clone();
            file.description = String::new();
            file.companion.status = None;
            // Not what it is made of, but what stands beside it.
            file.companion.brings.clear();
            toml::to_string(&file)
                .map_err(|e| Error::world("recipe", format!("this recipe cannot be written down: {e}")))?
        };
        Ok(Companion {
            name: path.file_stem().and_then(|s| s.to_str()).unwrap_or("companion").to_owned(),
            normal,
            description: file.description,
            package: file.companion.package,
            version: file.companion.version,
            torch: file.companion.torch,
            epoch: file.companion.epoch,
            license: file.companion.license,
            backend: file.companion.backend,
            status: file.companion.status.unwrap_or(Status::NotYetBuiltHere),
            brings: file.companion.brings,
            python: model::Python {
                requires: file.python.requires.unwrap_or_else(|| ">=3.9".into()),
                versions: need(file.python.versions, "python.versions")?,
                machines: file.python.machines.unwrap_or_else(|| vec!["x86_64".into()]),
                build: file.python.build.unwrap_or_default(),
                verify: file.python.verify.unwrap_or_default(),
            },
            environment: file.environment,
            lacks: file.lacks,
            limits: model::limits(&file.limits),
            source: file.source,
            patch: file.patch,
        })
    }

    /// The companion that `asked` means beside torch `torch`: a package by name, or a recipe by name.
    ///
    /// # Errors
    /// Bad input: there is none, or none for that torch.
    pub fn companion_for(&self, asked: &str, torch: &str) -> Result<Companion> {
        let names = self.companion_names();
        if names.iter().any(|name| name == asked) {
            let found = self.companion(asked)?;
            return if found.torch == torch {
                Ok(found)
            } else {
                Err(other_torch(&found.package, torch, std::slice::from_ref(&found)))
            };
        }
        let all = names.iter().map(|name| self.companion(name)).collect::<Result<Vec<_>>>()?;
        let (mut of_package, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|c| c.package == asked);
        if let Some(at) = of_package.iter().position(|c| c.torch == torch) {
            return Ok(of_package.swap_remove(at));
        }
        if !of_package.is_empty() {
            return Err(other_torch(asked, torch, &of_package));
        }
        let mut packages: Vec<&str> = others.iter().map(|c| c.package.as_str()).collect();
        packages.sort_unstable();
        packages.dedup();
        let e = Error::misuse("no-such-companion", format!("there is no recipe for a companion '{asked}'"));
        let e = match nearest(asked, packages.iter().copied()) {
            Some(near) => e.next(format!("did you mean '{near}'?")),
            None => e,
        };
        Err(e.next(format!("companions with a recipe: {}", packages.join(", "))))
    }
}

fn other_torch(package: &str, torch: &str, known: &[Companion]) -> Error {
    let known: Vec<String> = known.iter().map(|c| format!("{} for torch {}", c.name, c.torch)).collect();
    Error::misuse("companion-of-another-torch", format!("no recipe builds {package} for torch {torch}"))
        .next(format!("there is {}", known.join(", ")))
        .next("a companion fits the torch that it was compiled against: write a recipe of its version for this one")
}
