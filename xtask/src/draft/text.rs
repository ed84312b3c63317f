//! The draft as text: what is known as keys, what is not as comments where it would stand.

use std::fmt::Write;

use pep440_rs::Version;

use super::known::Known;
use super::pins::Pins;
use super::stock::cuda_of;
use crate::artifact::civil_date;
use crate::error::{Error, Result};
use crate::platform::toml_text;
use crate::recipe::{Backend, Source};
use crate::ui::visible;

/// A recipe's text, and what it leaves open.
#[derive(Debug)]
pub struct Draft {
    /// Name of the recipe.
    pub name: String,
    /// The recipe's TOML, with comments.
    pub text: String,
    /// What nobody could tell, a line each.
    pub open: Vec<String>,
}

/// Text that grows line by line, with what it leaves open.
#[derive(Default)]
struct Page {
    text: String,
    open: Vec<String>,
}

impl Page {
    fn line(&mut self, line: impl std::fmt::Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn comment(&mut self, words: impl std::fmt::Display) {
        for line in folded(&shown(&words.to_string())) {
            self.line(format_args!("# {line}"));
        }
    }

    /// A thing that was not found out: a comment, and a line for whoever ran the command.
    fn open(&mut self, what: impl std::fmt::Display) {
        let what = shown(&what.to_string());
        self.comment(format_args!("NOT FOUND OUT: {what}"));
        self.open.push(what);
    }

    fn table(&mut self, name: &str, table: &toml::Table) {
        if !table.is_empty() {
            self.line(format_args!("\n[{name}]"));
            for (key, value) in table {
                self.line(format_args!("{key} = {value}"));
            }
        }
    }

    fn list(&mut self, key: &str, items: &[impl AsRef<str>]) {
        self.line(format_args!("{key} = ["));
        for item in items {
            self.line(format_args!("    {},", toml_text(item.as_ref())));
        }
        self.line("]");
    }
}

/// A TOML array of strings, on one line.
fn array(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|item| toml_text(item)).collect::<Vec<_>>().join(", "))
}

/// Words of others as a comment may have them, and a terminal: on one line, and control characters visible.
fn shown(words: &str) -> String {
    visible(&words.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

/// Lines of at most 116 characters.
fn folded(words: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let full = lines.last().is_some_and(|l| !l.is_empty() && l.len() + 1 + word.len() > 116);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// The recipe for CPUs.
pub fn cpu(known: &Known, pins: &Pins, git: &str) -> Draft {
    let (version, upstream, nearest) = (&known.version, &known.upstream, &known.nearest);
    let mut p = Page::default();
    p.line("#:schema recipe.schema.json");
    p.comment(format_args!(
        "A draft, written by `cargo xtask recipe new {version}` from upstream's tree, the stock wheel and {}. It was \
         never locked and never built: look at every line, above all at what says NOT FOUND OUT.",
        nearest.recipe.name
    ));
    p.line("schema = 1");
    p.line(format_args!("extends = {}", toml_text(nearest.file.extends.as_deref().unwrap_or(&nearest.recipe.name))));
    p.line(format_args!(
        "description = {}",
        toml_text(&format!("PyTorch {version} from upstream git, CPU, libuv TCPStore"))
    ));
    if !nearest.file.without.is_empty() {
        p.list("without", &nearest.file.without);
    }
    torch(&mut p, known);
    python(&mut p, known);
    packages(&mut p, known, pins);
    toolchain(&mut p, known);
    features(&mut p, known);
    submodules(&mut p, known);
    sources(&mut p, known);
    p.line("\n[[source]]");
    p.line("name = \"pytorch\"");
    p.line(format_args!("coordinates = [{}]", toml_text(&format!("git+{git}#{}", upstream.commit))));
    p.line("into = [{ tree = \".\" }]");
    p.line("license = \"BSD-3-Clause\"");
    p.line("license-files = [\"LICENSE\", \"NOTICE\"]");
    Draft { name: format!("torch-{version}-cpu"), text: p.text, open: p.open }
}

fn torch(p: &mut Page, known: &Known) {
    let (version, upstream) = (&known.version, &known.upstream);
    p.line("\n[torch]");
    p.line(format_args!("version = \"{version}\""));
    let tag = &upstream.tag;
    match known.stock.as_ref().and_then(|s| s.commit.as_ref()) {
        Some(stock) if *stock == upstream.commit => {
            p.comment(format_args!("What the tag {tag} leads to, and torch/version.py of the stock wheel states."));
        }
        Some(stock) => p.open(format_args!(
            "why torch/version.py of the stock wheel states the commit {stock}: this is what the tag {tag} leads to"
        )),
        None => p.open(format_args!(
            "whether the stock wheel is of this commit, to which the tag {tag} leads: its torch/version.py was not read"
        )),
    }
    p.line(format_args!("commit = \"{}\"", upstream.commit));
    match known.stock.as_ref().and_then(|s| s.day.as_ref()) {
        Some((epoch, day)) => {
            p.line(format_args!("epoch = {epoch}               # {day}, the day of the first upload, at midnight UTC"));
        }
        None => {
            let days = upstream.time.div_euclid(86_400);
            let (y, m, d) = civil_date(days);
            p.open(format_args!("the day of the release: {y}-{m:02}-{d:02} is the day of the commit"));
            p.line(format_args!("epoch = {}", days * 86_400));
        }
    }
    p.open(format_args!("which tch fits {version}: `tch = \"…\"`, once one is published and was tried"));
    let backend = match upstream.backend {
        Backend::Setuptools => "setuptools",
        Backend::ScikitBuildCore => "scikit-build-core",
    };
    p.line(format_args!(
        "backend = \"{backend}\" # pyproject.toml: {}; CMake's project: {}",
        upstream.backend_name, upstream.project
    ));
    p.line("status = \"not-yet-built-here\"");
}

fn python(p: &mut Page, known: &Known) {
    let nearest = &known.nearest;
    let of_wheels = known.stock.as_ref().map(|s| s.pythons.as_slice()).filter(|v| !v.is_empty());
    let versions = of_wheels.unwrap_or(&known.upstream.pythons);
    let minors: Vec<u32> = versions.iter().filter_map(|v| v.strip_prefix("3.")?.parse().ok()).collect();
    p.line("\n[python]");
    if let (Some(first), Some(last)) = (minors.iter().min(), minors.iter().max()) {
        if of_wheels.is_none() {
            p.open("for which Pythons the stock wheels are: these are the classifiers of pyproject.toml");
        }
        p.line(format_args!("requires = \">=3.{first},<3.{}\"", last + 1));
        p.line(format_args!("versions = {}", array(versions)));
    } else {
        // Up to 2.7 pyproject.toml has no classifiers (pytorch#153055); what the draft extends names no Pythons.
        p.open(format_args!("for which Pythons it is: these are those of {}", nearest.recipe.name));
        p.line(format_args!("requires = {}", toml_text(&nearest.recipe.python.requires)));
        p.line(format_args!("versions = {}", array(&nearest.recipe.python.versions)));
    }
    if let Some(machines) = &nearest.file.python.machines {
        p.line(format_args!("machines = {}", array(machines)));
    }
    if let Some(stock) = known.stock.as_ref().filter(|s| !s.free_threaded.is_empty()) {
        p.comment(format_args!(
            "Stock also has wheels for Python without its global lock ({}): not built by this program.",
            stock.free_threaded.join(", ")
        ));
    }
    let known_before = &nearest.recipe.python.versions;
    let new: Vec<&str> = versions.iter().filter(|v| !known_before.contains(v)).map(String::as_str).collect();
    if !new.is_empty() {
        p.open(format_args!(
            "whether every pin has a wheel for Python {}: `cargo xtask lock` names the first that has none",
            new.join(", ")
        ));
    }
}

/// What the build is made with, and what the wheel is tried with. Lists that the nearest recipe has of its own are not
/// in what the draft extends.
fn packages(p: &mut Page, known: &Known, pins: &Pins) {
    let nearest = &known.nearest;
    for (requirement, why) in &pins.unmet {
        p.open(format_args!("what meets '{requirement}' of upstream: {why}"));
    }
    if !pins.missing.is_empty() {
        p.open(format_args!(
            "whether the build needs {}: upstream asks for it, and the list here has none",
            pins.missing.join(", ")
        ));
    }
    if let Some(build) = &pins.build {
        for (name, requirement) in &pins.changed {
            p.comment(format_args!("{name} is pinned anew: upstream asks for {requirement}."));
        }
        p.list("build", build);
    } else {
        let whose = if nearest.file.python.build.is_some() { nearest.recipe.name.as_str() } else { "the base" };
        if pins.unmet.is_empty() {
            let met = "their pins meet what pyproject.toml asks for";
            p.comment(format_args!("The build's packages are {whose}'s: {met}."));
        }
        if let Some(build) = &nearest.file.python.build {
            p.list("build", build);
        }
    }
    if let Some(verify) = &nearest.file.python.verify {
        p.list("verify", verify);
    }
}

fn toolchain(p: &mut Page, known: &Known) {
    let (upstream, inherited) = (&known.upstream, &known.nearest.recipe.toolchain);
    let mut table = toml::Table::try_from(&known.nearest.file.toolchain).unwrap_or_default();
    // Another version was built with these.
    table.remove("tried");
    let families = [("clang", &upstream.clang, &inherited.clang), ("gcc", &upstream.gcc, &inherited.gcc)];
    for (family, oldest, inherited) in families {
        let inherited = inherited.as_deref().unwrap_or_default();
        let range = oldest.as_ref().map(|oldest| with_oldest(oldest, inherited)).filter(|range| range != inherited);
        if let Some(range) = range {
            table.insert(family.into(), toml::Value::String(range));
        }
    }
    if upstream.gcc.is_none() {
        let inherited = inherited.gcc.as_deref().unwrap_or_default();
        p.open(format_args!("the oldest GCC: CMakeLists.txt names none; the base says '{inherited}'"));
    }
    p.table("toolchain", &table);
    p.comment(format_args!(
        "CMakeLists.txt: GCC {}, Clang {}, C++{}, CMake {}.",
        upstream.gcc.as_deref().unwrap_or("?"),
        upstream.clang.as_deref().unwrap_or("?"),
        upstream.standard.as_deref().unwrap_or("?"),
        upstream.cmake.as_deref().unwrap_or("?")
    ));
    let unknown = match &upstream.clang {
        Some(_) => "MSVC".to_owned(),
        None => format!("Clang and MSVC (the base says Clang '{}')", inherited.clang.as_deref().unwrap_or("any")),
    };
    p.open(format_args!("the oldest {unknown}, and the newest compilers: write an upper end once one fails"));
}

/// The range `inherited` with another lower end.
fn with_oldest(oldest: &str, inherited: &str) -> String {
    // One version alone is that of the packages that it comes from.
    if inherited.trim_start().starts_with("==") {
        return inherited.to_owned();
    }
    let rest = inherited.split(',').map(str::trim).filter(|s| !s.is_empty() && !s.starts_with('>'));
    std::iter::once(format!(">={oldest}")).chain(rest.map(str::to_owned)).collect::<Vec<_>>().join(", ")
}

fn features(p: &mut Page, known: &Known) {
    let file = &known.nearest.file;
    p.table("features", &toml::Table::try_from(&file.features).unwrap_or_default());
    p.table("settings", &toml::Table::try_from(&file.settings).unwrap_or_default());
    p.table("cmake", &toml::Table::try_from(&file.cmake).unwrap_or_default());
    for (machine, own) in &file.machine {
        p.table(&format!("machine.{machine}.features"), &toml::Table::try_from(&own.features).unwrap_or_default());
        p.table(&format!("machine.{machine}.settings"), &toml::Table::try_from(&own.settings).unwrap_or_default());
    }
    p.table("libuv", &toml::Table::try_from(&file.libuv).unwrap_or_default());
    p.table("limits", &toml::Table::try_from(&file.limits).unwrap_or_default());
    p.line("");
    p.comment(format_args!("Features are those of {}.", known.nearest.recipe.name));
    let gone = known.gone();
    if !gone.is_empty() {
        p.open(format_args!("what became of {}: CMakeLists.txt no longer declares them", gone.join(", ")));
    }
    let new = known.new_switches();
    if !new.is_empty() {
        p.open(format_args!(
            "what these switches do, which are new: {} (they stay as upstream has them)",
            new.join(", ")
        ));
    }
}

fn submodules(p: &mut Page, known: &Known) {
    let submodules = &known.upstream.submodules;
    let paths: Vec<&str> = submodules.iter().map(|s| s.path.as_str()).collect();
    if paths.is_empty() {
        p.open("where what stands in third_party comes from: the tree has no submodules");
    } else {
        p.comment(format_args!("Submodules of its tree ({}), which come with it: {}.", paths.len(), paths.join(", ")));
    }
    let elsewhere: Vec<String> = submodules
        .iter()
        .filter(|s| !s.url.starts_with("https://"))
        .map(|s| format!("{} ({})", s.path, s.url))
        .collect();
    if !elsewhere.is_empty() {
        p.open(format_args!("whether these submodules can be had, whose URLs are not https: {}", elsewhere.join(", ")));
    }
}

/// Sources that the nearest recipe has of its own beside the tree, which its libuv and its settings may name. Its
/// patches are those of another version.
fn sources(p: &mut Page, known: &Known) {
    #[derive(serde::Serialize)]
    struct Sources<'s> {
        source: Vec<&'s Source>,
    }

    let (name, file) = (&known.nearest.recipe.name, &known.nearest.file);
    if !file.patch.is_empty() {
        let patches: Vec<&str> = file.patch.iter().map(|patch| patch.file.as_str()).collect();
        p.open(format_args!("whether the patches of {name} are needed here too: {}", patches.join(", ")));
    }
    let is_tree = |s: &Source| s.into.iter().any(|place| place.tree.as_deref() == Some("."));
    let source: Vec<&Source> = file.source.iter().filter(|s| !is_tree(s)).collect();
    if source.is_empty() {
        return;
    }
    match toml::to_string(&Sources { source }) {
        Ok(text) => p.line(format_args!("\n{}", text.trim_end())),
        Err(why) => p.open(format_args!("the sources of {name} are not here, for they cannot be written: {why}")),
    }
}

/// The recipe for the CUDA of the stock wheel, on top of the one for CPUs called `base`.
///
/// # Errors
/// Misuse: the stock wheel was not read. Otherwise as [`cuda_of`].
pub fn cuda(known: &Known, base: &str) -> Result<Draft> {
    let version = &known.version;
    let stock = known.stock.as_ref().ok_or_else(|| {
        Error::misuse("no-cuda", "the stock wheel says which CUDA it is for, and --without-wheel does without it")
            .next("choose one of --cuda and --without-wheel")
    })?;
    let release = cuda_of(stock, version)?;
    let short = format!("cu{}", release.version.replace('.', ""));
    let mut p = Page::default();
    p.line("#:schema recipe.schema.json");
    p.comment(format_args!(
        "A draft, written by `cargo xtask recipe new {version} --cuda` from the Requires-Dist of the stock wheel. It was \
         never locked and never built. The toolkit is an installed one (--cuda-home): no sources of it stand here."
    ));
    p.line("schema = 1");
    p.line(format_args!("extends = {}", toml_text(base)));
    let description =
        format!("PyTorch {version} from upstream git, CUDA {} (--cuda-home), libuv TCPStore", release.version);
    p.line(format_args!("description = {}", toml_text(&description)));
    p.line("\n[torch]");
    p.line(format_args!("local = \"{short}.libuv\""));
    p.line("status = \"not-yet-built-here\"");
    p.line("\n[python]\nmachines = [\"x86_64\"]");
    p.open("the packages of the verify environment for what the wheel depends on: python.verify is the base's");
    p.line("\n[cuda]");
    p.line(format_args!("version = \"{}\"", release.version));
    let (of, architectures) = architectures(known, release);
    p.open(format_args!("for which GPUs stock is compiled: no METADATA says it; these are {of}"));
    let list: Vec<String> = architectures.iter().map(|a| toml_text(a)).collect();
    p.line(format_args!("architectures = [{}]", list.join(", ")));
    let (taken, any) = stock.cuda_requires();
    for requirement in &any {
        p.open(format_args!("which version of '{requirement}': stock takes any, and a recipe names one, or a range"));
    }
    p.list("requires", &taken);
    p.line("nvcc-threads = 2");
    let has = |name: &str| stock.requires.iter().flatten().any(|r| r.starts_with("nvidia-") && r.contains(name));
    let toolkit_has =
        |part: &str| stock.requires.iter().flatten().any(|r| r.starts_with("cuda-toolkit") && r.contains(part));
    p.line("\n[features]");
    p.line("USE_CUDA = true");
    for (switch, on) in [
        ("USE_CUDNN", has("cudnn")),
        ("USE_NCCL", has("nccl")),
        ("USE_SYSTEM_NCCL", has("nccl")),
        ("USE_CUSPARSELT", has("cusparselt")),
        ("USE_NVSHMEM", has("nvshmem")),
        ("USE_CUFILE", has("cufile") || toolkit_has("cufile")),
        ("USE_CUDSS", has("cudss") || toolkit_has("cudss")),
    ] {
        p.line(format_args!("{switch} = {on}"));
    }
    p.comment("From what the wheel depends on. USE_SYSTEM_NCCL: without it, configure would clone NCCL.");
    p.open(
        "USE_FLASH_ATTENTION, USE_MEM_EFF_ATTENTION, USE_MSLK: METADATA does not tell; they are as upstream has them",
    );
    p.line("\n[settings]\nCUDNN_ROOT = \"{prefix:cuda}\"");
    p.line("\n[limits]\ndisk = 61440");
    Ok(Draft { name: format!("torch-{version}-{short}"), text: p.text, open: p.open })
}

/// Architectures to begin with: those of the newest recipe for the same CUDA, else all that the release knows but what is
/// for one chip, or one family, alone.
fn architectures(known: &Known, release: &'static crate::recipe::cuda::Release) -> (String, Vec<String>) {
    let same = known
        .cuda_recipes
        .iter()
        .filter(|r| r.cuda.as_ref().is_some_and(|c| c.version == release.version))
        // One for small machines leaves some out.
        .max_by_key(|r| (r.torch.version.parse::<Version>().ok(), r.cuda.as_ref().map(|c| c.architectures.len())));
    match same.and_then(|r| Some((r, r.cuda.as_ref()?))) {
        Some((recipe, cuda)) => (format!("those of {}", recipe.name), cuda.architectures.clone()),
        None => {
            let plain = release.architectures.iter().filter(|a| a.ends_with(|c: char| c.is_ascii_digit()));
            (format!("all that CUDA {} knows", release.version), plain.map(|a| (*a).to_owned()).collect())
        }
    }
}
