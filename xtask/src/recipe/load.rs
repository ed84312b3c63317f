//! Reading recipes: TOML in, checked [`Recipe`] out. Errors point at file, line and column.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{Requirement, VerbatimUrl};

use super::model::{self, Recipe, RecipeFile};
use super::{
    coordinate::Coordinate, cuda, features, near::nearest, requirement::first_line, requirement::pinned, toolchain,
    unity,
};
use crate::error::{Context, Error, Result};
use crate::platform::{MOST_TEXT, read_text};

/// The version of the recipe format that this program reads.
pub const SCHEMA: u32 = 1;

/// What decides which compiler is taken.
const COMPILER: &str = "CC and CXX in the environment, or toolchain.from";

/// What is wrong with recipes that extend each other.
const COMES_BACK: &str = "the chain of 'extends' comes back to this recipe";

/// Variables that a build sets by what a recipe says in another place, or by what was asked for, and that place. Under
/// `[settings]` or `[cmake]` another value would come in unseen: past the checks, the keys of the toolkit, and `doctor`.
const SET_ELSEWHERE: &[(&str, &str)] = &[
    ("TORCH_CUDA_ARCH_LIST", "cuda.architectures"),
    ("CMAKE_CUDA_ARCHITECTURES", "cuda.architectures"),
    ("CUDA_HOME", "the sources of the prefix 'cuda', or --cuda-home"),
    ("CUDA_PATH", "the sources of the prefix 'cuda', or --cuda-home"),
    ("CUDACXX", "the sources of the prefix 'cuda', or --cuda-home"),
    ("CMAKE_CUDA_COMPILER", "the sources of the prefix 'cuda', or --cuda-home"),
    ("CUDAToolkit_ROOT", "the sources of the prefix 'cuda', or --cuda-home"),
    ("CUDA_TOOLKIT_ROOT_DIR", "the sources of the prefix 'cuda', or --cuda-home"),
    ("CUDAHOSTCXX", COMPILER),
    ("CMAKE_CUDA_HOST_COMPILER", COMPILER),
    ("CC", COMPILER),
    ("CXX", COMPILER),
    ("CMAKE_C_COMPILER", COMPILER),
    ("CMAKE_CXX_COMPILER", COMPILER),
    ("CMAKE_SYSROOT", COMPILER),
    ("CMAKE_TOOLCHAIN_FILE", COMPILER),
    ("SOURCE_DATE_EPOCH", "torch.epoch"),
    ("PYTORCH_BUILD_VERSION", "torch.version and torch.local"),
    ("PYTORCH_BUILD_NUMBER", "torch.version and torch.local"),
    ("PYTORCH_EXTRA_INSTALL_REQUIREMENTS", "cuda.requires"),
    ("_GLIBCXX_USE_CXX11_ABI", "torch.cxx11-abi"),
];

/// The folder structure around recipes: `recipes/`, `patches/`, and the root for `file:`.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The repository's root.
    pub root: PathBuf,
}

impl Workspace {
    /// The file that tells a folder that a release wrote from a clone.
    pub const RELEASE_MARK: &str = "RELEASE";

    /// Whether these are a release's own recipes, which nobody edits.
    pub fn is_released(&self) -> bool {
        self.root.join(Self::RELEASE_MARK).is_file()
    }

    /// The folder of recipes and locks.
    pub fn recipes(&self) -> PathBuf {
        self.root.join("recipes")
    }

    /// The folder of patches and of the CMake module.
    pub fn patches(&self) -> PathBuf {
        self.root.join("patches")
    }

    /// Path of the recipe called `name`; a path to a `.toml` file is taken as it is.
    pub fn recipe_path(&self, name: &str) -> PathBuf {
        if name.ends_with(".toml") { PathBuf::from(name) } else { self.recipes().join(format!("{name}.toml")) }
    }

    /// Names of the recipes of a torch, sorted. A file whose name begins with `_` is no recipe: others extend it.
    pub fn recipe_names(&self) -> Vec<String> {
        self.names(|text| !is_companion(text))
    }

    /// Names of the recipes whose text is `wanted`, sorted. One that cannot be read has no text.
    pub(super) fn names(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.recipes())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
            .filter(|name| !name.starts_with('_'))
            .filter(|name| wanted(&read_text(&self.recipe_path(name), MOST_TEXT).unwrap_or_default()))
            .collect();
        names.sort();
        names
    }

    /// The recipes for people, drafts by themselves. What is known of a recipe stands in its own file.
    fn listed(&self, names: &[String]) -> Vec<String> {
        let built = |n: &&String| self.file(n).is_ok_and(|f| f.torch.status == Some(model::Status::BuiltHere));
        let (built, drafts): (Vec<_>, Vec<_>) = names.iter().partition(built);
        let line = |what: &str, names: Vec<&String>| {
            (!names.is_empty())
                .then(|| format!("{what}: {}", names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ")))
        };
        [line("recipes built here", built), line("drafts, never built to the end", drafts)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The file of the recipe called `name` as it was typed, by itself.
    ///
    /// # Errors
    /// Bad input: it cannot be read, or is no recipe.
    pub fn file(&self, name: &str) -> Result<RecipeFile> {
        Located::read(self.recipe_path(name))?.parse()
    }

    /// Where the recipe `base` is that the one at `path` extends: beside it, or else in the workspace.
    fn base_path(&self, path: &Path, base: &str) -> PathBuf {
        let beside = path.with_file_name(format!("{base}.toml"));
        if beside.exists() { beside } else { self.recipe_path(base) }
    }

    /// The files that the recipe called `name` (or the file at that path) is made of: its own first, then those that it
    /// extends.
    ///
    /// # Errors
    /// Bad input: one of them cannot be read, or is no recipe of a torch; they extend each other.
    pub fn files(&self, name: &str) -> Result<Vec<PathBuf>> {
        let (files, followed) = self.followed(name);
        followed.map(|()| files)
    }

    /// The same as far as they can be followed, with the one that cannot be, and why it cannot.
    pub fn followed(&self, name: &str) -> (Vec<PathBuf>, Result<()>) {
        let mut files: Vec<PathBuf> = Vec::new();
        let mut next = Some(self.recipe_path(name));
        while let Some(path) = next {
            let comes_back = files.contains(&path);
            files.push(path.clone());
            let base = Located::read(path).and_then(|located| {
                if comes_back {
                    return Err(located.error("extends", COMES_BACK));
                }
                let file: RecipeFile = located.parse()?;
                Ok(file.extends.map(|base| self.base_path(&located.path, &base)))
            });
            match base {
                Ok(base) => next = base,
                Err(e) => return (files, Err(e)),
            }
        }
        (files, Ok(()))
    }

    /// Reads, merges and checks the recipe called `name` (or the file at that path).
    ///
    /// # Errors
    /// Bad input, with the line: there is no such recipe, or it contradicts itself.
    pub fn load(&self, name: &str) -> Result<Recipe> {
        let path = self.recipe_path(name);
        if !path.exists() {
            let names = self.recipe_names();
            let mut e = Error::misuse("no-such-recipe", format!("there is no recipe '{name}' ({})", path.display()));
            if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
                e = e.next(format!("did you mean '{near}'?"));
            }
            return Err(self.listed(&names).into_iter().fold(e, Error::next));
        }
        let mut chain = Vec::new();
        let mut next = Some(path.clone());
        while let Some(path) = next {
            let located = Located::read(path)?;
            if chain.is_empty() && is_companion(&located.text) {
                return Err(located
                    .error("companion", &format!("'{name}' is the recipe of a companion, and no torch"))
                    .next("build it beside its torch: `build-torch --with PACKAGE`"));
            }
            if chain.iter().any(|(l, _): &(Located, RecipeFile)| l.path == located.path) {
                return Err(located.error("extends", COMES_BACK));
            }
            let file: RecipeFile = located.parse()?;
            located.check(&file, self)?;
            next = match &file.extends {
                None => None,
                Some(base) => {
                    let base_path = self.base_path(&located.path, base);
                    if !base_path.exists() {
                        return Err(located.error("extends", &format!("there is no recipe '{base}'")));
                    }
                    Some(base_path)
                }
            };
            chain.push((located, file));
        }
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("recipe").to_owned();
        let mut merged = RecipeFile::default();
        for (_, file) in chain.iter().rev() {
            merge(&mut merged, file.clone());
        }
        for (located, file) in &chain {
            located.check_without(file, &chain)?;
        }
        let normal = normal_form(&merged)?;
        complete(stem, merged, normal, &path).doing(|| format!("reading {}", path.display()))
    }
}

/// Whether the text of a recipe is that of a companion: it has the table `[companion]`.
pub(super) fn is_companion(text: &str) -> bool {
    text.lines().any(|line| line.trim_end() == "[companion]")
}

/// A recipe's text, and where it stands: errors point into it.
pub(super) struct Located {
    path: PathBuf,
    text: String,
}

impl Located {
    pub(super) fn read(path: PathBuf) -> Result<Self> {
        let text = read_text(&path, MOST_TEXT)
            .map_err(|e| Error::misuse("recipe-unreadable", format!("{} cannot be read: {e}", path.display())))?;
        Ok(Self { path, text })
    }

    pub(super) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(&self.text).map_err(|e| self.toml_error(&e))
    }

    /// Line and column (from 1) of byte `offset`.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..offset.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        (line, before.chars().rev().take_while(|c| *c != '\n').count() + 1)
    }

    fn at(&self, offset: usize, what: &str) -> Error {
        let (line, column) = self.position(offset);
        let source = self.text.lines().nth(line - 1).unwrap_or("");
        Error::misuse("recipe", format!("{}:{line}:{column}: {what}\n    {line} | {source}", self.path.display()))
    }

    /// An error at the first place where `needle` stands as a key or a string.
    pub(super) fn error(&self, needle: &str, what: &str) -> Error {
        let offset = self
            .text
            .match_indices(needle)
            .map(|(i, _)| i)
            .find(|&i| {
                let line_start = self.text[..i].rfind('\n').map_or(0, |n| n + 1);
                !self.text[line_start..i].trim_start().starts_with('#')
            })
            .unwrap_or(0);
        self.at(offset, what)
    }

    fn toml_error(&self, e: &toml::de::Error) -> Error {
        let message = e.message().lines().collect::<Vec<_>>().join(" ");
        let mut error = self.at(e.span().map_or(0, |s| s.start), &message);
        // serde says: unknown field `x`, expected one of `a`, `b`
        if let Some(rest) = message.strip_prefix("unknown field `") {
            let mut quoted = rest.split('`');
            let unknown = quoted.next().unwrap_or("");
            let valid: Vec<&str> = quoted.skip(1).step_by(2).collect();
            if let Some(near) = nearest(unknown, valid.iter().copied()) {
                error = error.next(format!("did you mean '{near}'?"));
            }
        }
        error
    }

    /// What can be said about one file alone, while line numbers are at hand.
    pub(super) fn check(&self, file: &RecipeFile, workspace: &Workspace) -> Result<()> {
        match file.schema {
            None => return Err(self.at(0, "the key 'schema' is missing").next("write `schema = 1` at the top")),
            Some(s) if s != SCHEMA => {
                return Err(self
                    .error("schema", &format!("schema {s} is not known to this program, which reads {SCHEMA}"))
                    .next("update torchmill, or write the recipe for the schema it knows"));
            }
            Some(_) => {}
        }
        for name in file.features.keys().chain(file.machine.values().flat_map(|m| m.features.keys())) {
            if !features::KNOWN.contains(&name.as_str()) {
                let mut e = self.error(name, &format!("unknown feature '{name}'"));
                if let Some(near) = nearest(name, features::KNOWN.iter().copied()) {
                    e = e.next(format!("did you mean '{near}'?"));
                }
                return Err(e.next("variables that are no switch go under [settings]"));
            }
        }
        for name in file.settings.keys().chain(file.machine.values().flat_map(|m| m.settings.keys())) {
            if name.starts_with("USE_") || name.starts_with("BUILD_") {
                return Err(
                    self.error(name, &format!("'{name}' is a switch: it belongs under [features], as true or false"))
                );
            }
        }
        let variables = file.settings.keys().chain(file.machine.values().flat_map(|m| m.settings.keys()));
        for name in variables.chain(file.cmake.keys()) {
            if let Some((_, place)) = SET_ELSEWHERE.iter().find(|(variable, _)| variable == name) {
                return Err(self
                    .error(name, &format!("'{name}' is no setting: {place} decides what it is"))
                    .next(format!("leave it out, and see to {place}")));
            }
        }
        if let Some(commit) = &file.torch.commit
            && (commit.len() != 40 || !commit.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(self.error(commit, &format!("commit '{commit}' is not 40 hexadecimal digits")));
        }
        if let Some(version) = &file.torch.version
            && let Err(e) = Version::from_str(version)
        {
            return Err(self.error(version, &format!("version '{version}' is not a PEP 440 version: {e}")));
        }
        for range in [&file.python.requires, &file.toolchain.gcc, &file.toolchain.clang, &file.toolchain.msvc]
            .into_iter()
            .flatten()
        {
            if let Err(e) = VersionSpecifiers::from_str(range) {
                return Err(self.error(range, &format!("'{range}' is not a range of versions: {}", first_line(&e))));
            }
        }
        for requirement in [&file.python.build, &file.python.verify].into_iter().flatten().flatten() {
            self.check_requirement(requirement)?;
        }
        for requirement in file.cuda.requires.iter().flatten() {
            self.check_dependency(requirement)?;
        }
        if let Some(version) = &file.cuda.version
            && cuda::release(version).is_none()
        {
            let known: Vec<&str> = cuda::RELEASES.iter().map(|r| r.version).collect();
            return Err(self
                .error(version, &format!("CUDA '{version}' is not known to this program"))
                .next(format!("it knows {}", known.join(", "))));
        }
        for source in &file.source {
            if source.coordinates.is_empty() {
                return Err(self.error(&source.name, &format!("source '{}' has no coordinate", source.name)));
            }
            if source.coordinates.iter().any(|c| matches!(c, Coordinate::Git { .. }))
                && source.coordinates.len() > 1
                && !source.coordinates.iter().all(|c| matches!(c, Coordinate::Git { .. }))
            {
                return Err(self.error(
                    &source.name,
                    "a git coordinate and an archive never have the same bytes: they cannot be one source",
                ));
            }
            for place in &source.into {
                if place.tree.is_some() && !place.alias.is_empty() {
                    return Err(
                        self.error(&source.name, "'alias' is for files of a prefix; the tree is real files only")
                    );
                }
                if place.tree.is_some() == place.prefix.is_some() {
                    return Err(self.error(&source.name, "a placement has exactly one of 'tree' and 'prefix'"));
                }
                let aliases = place.alias.iter().flat_map(|(name, of)| [name, of]);
                let named = [&place.tree, &place.prefix, &place.only, &place.folder];
                for path in named.into_iter().flatten().chain(aliases) {
                    if path.starts_with('/') || path.split('/').any(|s| s == "..") {
                        return Err(self.error(path, &format!("'{path}' leaves the tree")));
                    }
                }
            }
        }
        for patch in &file.patch {
            let mut parts = Path::new(&patch.file).components();
            if patch.file.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
                let what = format!("the patch '{}' is not named by its path below patches/", patch.file.escape_debug());
                return Err(self.error(&patch.file, &what));
            }
            let path = workspace.patches().join(&patch.file);
            if !path.exists() {
                return Err(self.error(&patch.file, &format!("there is no patch {}", path.display())));
            }
        }
        Ok(())
    }

    /// What a recipe does without must be in one that it builds on.
    fn check_without(&self, file: &RecipeFile, chain: &[(Self, RecipeFile)]) -> Result<()> {
        let names = || {
            let files = chain.iter().filter(|(located, _)| located.path != self.path).map(|(_, f)| f);
            files.flat_map(|f| f.source.iter().map(|s| s.name.as_str()).chain(f.patch.iter().map(|p| p.file.as_str())))
        };
        for name in &file.without {
            if !names().any(|n| n == name) {
                let mut e = self.error(name, &format!("'without' names '{name}', which the base does not have"));
                if let Some(near) = nearest(name, names()) {
                    e = e.next(format!("did you mean '{near}'?"));
                }
                return Err(e);
            }
        }
        Ok(())
    }

    fn parse_requirement(&self, requirement: &str) -> Result<Requirement<VerbatimUrl>> {
        super::requirement(requirement).map_err(|e| {
            self.error(requirement, &format!("'{requirement}' is not a PEP 508 requirement: {}", first_line(&e)))
        })
    }

    /// What the wheel will ask for may leave a choice, as the stock wheel's does.
    fn check_dependency(&self, requirement: &str) -> Result<()> {
        match self.parse_requirement(requirement)?.version_or_url {
            Some(pep508_rs::VersionOrUrl::VersionSpecifier(range)) if !range.is_empty() => Ok(()),
            _ => Err(self
                .error(requirement, &format!("'{requirement}' takes any version"))
                .next("the wheel runs with what it was compiled with: name a version with ==, or a range")),
        }
    }

    fn check_requirement(&self, requirement: &str) -> Result<()> {
        let parsed = self.parse_requirement(requirement)?;
        if pinned(&parsed).is_none() {
            return Err(self
                .error(requirement, &format!("'{requirement}' does not pin one version with =="))
                .next("a lock holds exact bytes, so the recipe names exact versions"));
        }
        Ok(())
    }
}

/// Lays `over` over `base`: tables key by key, sources and patches by name, the rest whole.
fn merge(base: &mut RecipeFile, over: RecipeFile) {
    fn put<T>(base: &mut Option<T>, over: Option<T>) {
        if over.is_some() {
            *base = over;
        }
    }
    put(&mut base.schema, over.schema);
    put(&mut base.description, over.description);
    let elsewhere = over.system.is_some_and(|own| own != base.system.unwrap_or_default());
    put(&mut base.system, over.system);
    let another = over.torch.version.as_ref().is_some_and(|own| base.torch.version.as_ref() != Some(own));
    if another || elsewhere {
        // Which sources compile together was seen with those of one version, and the headers of one system.
        base.unity.clear();
    }
    if another {
        // A tch fits one version of torch; it compiles against no other, and says so only after hours.
        base.torch.tch = None;
    }
    base.source.retain(|s| !over.without.contains(&s.name));
    base.patch.retain(|p| !over.without.contains(&p.file));
    put(&mut base.torch.version, over.torch.version);
    put(&mut base.torch.commit, over.torch.commit);
    put(&mut base.torch.local, over.torch.local);
    put(&mut base.torch.epoch, over.torch.epoch);
    put(&mut base.torch.tch, over.torch.tch);
    put(&mut base.torch.backend, over.torch.backend);
    put(&mut base.torch.cxx11_abi, over.torch.cxx11_abi);
    // What is known of a base is not known of what builds on it.
    base.torch.status = over.torch.status;
    put(&mut base.python.requires, over.python.requires);
    put(&mut base.python.versions, over.python.versions);
    put(&mut base.python.machines, over.python.machines);
    put(&mut base.python.build, over.python.build);
    put(&mut base.python.verify, over.python.verify);
    put(&mut base.toolchain.from, over.toolchain.from);
    put(&mut base.toolchain.gcc, over.toolchain.gcc);
    put(&mut base.toolchain.clang, over.toolchain.clang);
    put(&mut base.toolchain.msvc, over.toolchain.msvc);
    // As with the status.
    base.toolchain.tried = over.toolchain.tried;
    put(&mut base.toolchain.memory_per_job, over.toolchain.memory_per_job);
    // Where it stands in its source goes with the source.
    if over.libuv.source.is_some() || over.libuv.version.is_some() {
        base.libuv.folder = None;
    }
    put(&mut base.libuv.version, over.libuv.version);
    put(&mut base.libuv.source, over.libuv.source);
    put(&mut base.libuv.folder, over.libuv.folder);
    put(&mut base.cuda.version, over.cuda.version);
    put(&mut base.cuda.architectures, over.cuda.architectures);
    put(&mut base.cuda.requires, over.cuda.requires);
    put(&mut base.cuda.nvcc_threads, over.cuda.nvcc_threads);
    put(&mut base.limits.unpacked, over.limits.unpacked);
    put(&mut base.limits.members, over.limits.members);
    put(&mut base.limits.disk, over.limits.disk);
    base.features.extend(over.features);
    base.settings.extend(over.settings);
    base.cmake.extend(over.cmake);
    base.unity.extend(over.unity);
    for (name, machine) in over.machine {
        let own = base.machine.entry(name).or_default();
        own.features.extend(machine.features);
        own.settings.extend(machine.settings);
    }
    base.validation.extend(over.validation);
    for source in over.source {
        match base.source.iter_mut().find(|s| s.name == source.name) {
            Some(old) => *old = source,
            None => base.source.push(source),
        }
    }
    for patch in over.patch {
        match base.patch.iter_mut().find(|p| p.file == patch.file) {
            Some(old) => *old = patch,
            None => base.patch.push(patch),
        }
    }
}

/// An error if a torch of this version has no libuv store: it came with 2.2.
///
/// # Errors
/// Bad input: an older version.
pub fn check_store(version: &Version) -> Result<()> {
    if *version < Version::new([2, 2, 0]) {
        return Err(no_store(version, "the libuv store came with 2.2"));
    }
    Ok(())
}

/// An error: `version` has no libuv store, and why that is known.
pub fn no_store(version: &Version, why: &str) -> Error {
    Error::misuse("no-libuv-store", format!("PyTorch {version} has no libuv store to build: {why}"))
        .next("choose a newer version; 2.2.0 is the first that has it")
}

/// The recipe as one file that stands for itself, without what says something to people only: the
/// same text for every recipe that means the same build.
fn normal_form(file: &RecipeFile) -> Result<String> {
    let mut file = file.clone();
    file.extends = None;
    file.description = None;
    file.torch.status = None;
    file.toolchain.tried.clear();
    // As if it were left out.
    file.torch.cxx11_abi = file.torch.cxx11_abi.filter(|new| !new);
    file.toolchain.from = file.toolchain.from.filter(|from| *from != model::ToolchainFrom::Machine);
    file.unity.retain(|_, unity| unity.is_on());
    file.validation.clear();
    toml::to_string(&file).map_err(|e| Error::world("recipe", format!("this recipe cannot be written down: {e}")))
}

fn complete(name: String, file: RecipeFile, normal: String, path: &Path) -> Result<Recipe> {
    fn need<T>(value: Option<T>, key: &str, path: &Path) -> Result<T> {
        value.ok_or_else(|| {
            Error::misuse("recipe", format!("{}: the key '{key}' is missing", path.display()))
                .next(format!("add '{key}', or let the recipe extend one that has it"))
        })
    }
    let cuda = if file.features.get("USE_CUDA").copied().unwrap_or(false) {
        let cuda = model::Cuda {
            version: need(file.cuda.version, "cuda.version", path)?,
            architectures: need(file.cuda.architectures, "cuda.architectures", path)?,
            requires: file.cuda.requires.unwrap_or_default(),
            nvcc_threads: file.cuda.nvcc_threads.unwrap_or(1),
        };
        cuda::check(&cuda, &file.source, file.python.verify.as_deref().unwrap_or_default(), path)?;
        Some(cuda)
    } else {
        None
    };
    toolchain::check(&file.toolchain, file.system.unwrap_or_default(), &file.source, path)?;
    for (target, unity) in &file.unity {
        unity::check(target, unity, path)?;
    }
    let version = need(file.torch.version, "torch.version", path)?;
    if let Ok(version) = Version::from_str(&version) {
        check_store(&version).doing(|| path.display().to_string())?;
    }
    let recipe = Recipe {
        name,
        normal,
        description: file.description.unwrap_or_default(),
        system: file.system.unwrap_or_default(),
        torch: model::Torch {
            version,
            commit: need(file.torch.commit, "torch.commit", path)?,
            local: file.torch.local.unwrap_or_default(),
            epoch: need(file.torch.epoch, "torch.epoch", path)?,
            tch: file.torch.tch,
            backend: file.torch.backend.unwrap_or(model::Backend::Setuptools),
            cxx11_abi: file.torch.cxx11_abi.unwrap_or(true),
            status: file.torch.status.unwrap_or(model::Status::NotYetBuiltHere),
        },
        python: model::Python {
            requires: need(file.python.requires, "python.requires", path)?,
            versions: need(file.python.versions, "python.versions", path)?,
            machines: file.python.machines.unwrap_or_else(|| vec!["x86_64".into()]),
            build: file.python.build.unwrap_or_default(),
            verify: file.python.verify.unwrap_or_default(),
        },
        toolchain: file.toolchain,
        features: file.features,
        settings: file.settings,
        cmake: file.cmake,
        unity: file.unity.into_iter().filter(|(_, unity)| unity.is_on()).collect(),
        libuv: model::Libuv {
            version: need(file.libuv.version, "libuv.version", path)?,
            source: need(file.libuv.source, "libuv.source", path)?,
            folder: file.libuv.folder,
        },
        cuda,
        limits: model::limits(&file.limits),
        machine: file.machine,
        validation: file.validation,
        source: file.source,
        patch: file.patch,
    };
    if !recipe.source.iter().any(|s| s.name == recipe.libuv.source) {
        return Err(Error::misuse(
            "recipe",
            format!(
                "{}: libuv.source names '{}', which is no source of the recipe",
                path.display(),
                recipe.libuv.source
            ),
        ));
    }
    if !recipe.torch.cxx11_abi && recipe.system != model::System::Linux {
        return Err(Error::misuse(
            "recipe",
            format!(
                "{}: torch.cxx11-abi is false, and on {} there is but one ABI of strings: two are in GNU's C++ library, \
                 on Linux",
                path.display(),
                recipe.system.name()
            ),
        )
        .next("leave torch.cxx11-abi out"));
    }
    if !recipe.features.get("USE_DISTRIBUTED").copied().unwrap_or(false) {
        return Err(Error::misuse(
            "recipe",
            format!(
                "{}: USE_DISTRIBUTED is not on: without it there is no TCPStore, and nothing for libuv to do",
                path.display()
            ),
        )
        .next("write `USE_DISTRIBUTED = true` under [features]"));
    }
    Ok(recipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_feature_is_found() {
        assert_eq!(nearest("USE_LIBVU", features::KNOWN.iter().copied()), Some("USE_LIBUV"));
        assert_eq!(nearest("COMPLETELY_DIFFERENT_THING", features::KNOWN.iter().copied()), None);
    }

    #[test]
    fn the_table_of_features_is_sorted_and_has_no_twins() {
        assert!(features::KNOWN.windows(2).all(|w| w[0] < w[1]));
    }
}
