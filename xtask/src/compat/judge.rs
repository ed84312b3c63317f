//! Symbols against symbols: will the loader of that system find what a package's libraries ask for?
//!
//! The rules are the loaders' own. ELF: a name is looked for in the needs of the library that was asked for, theirs and
//! so on (for all that is loaded with it alike), and in what the program itself has; a version that a library was
//! linked against must be defined there. What Python code loaded before for all (`RTLD_GLOBAL`) counts too, and no file
//! says so: a name that another library of the package has is a gap. PE: a name is looked
//! for in the DLL that it was linked from. Mach-O: in the dylib of its number and in what that one gives out as its
//! own; or, where it has none, in all. Weak symbols may stay undefined.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr;
use std::sync::Arc;

use pep440_rs::{Version, VersionSpecifiers};

use super::demangle::demangle;
use super::package::{Own, Package};
use super::target::{Requirement, Target, satisfied_by};
use super::torch::{Torch, cuda_library, cudart_major, file_name, is_torchs, stem};
use super::verdict::{Cause, Fit, Gap, Judged, Reason, Verdict};
use crate::error::{Result, without_secrets};
use crate::inspect::{Format, Import, Symbols, on_every_system};
use crate::recipe::{System, shown};

/// Names of missing symbols that are told, and requirements that cannot be read.
const FIRST: usize = 3;
/// Characters that are shown of what cannot be read.
const LONGEST: usize = 200;

/// Libraries of the driver: on every machine that has one, and on no other.
const DRIVER: &[&str] = &["cuda", "nvidia-ml", "nvcuda", "nvml"];
/// What GCC's programs have beside them nearly everywhere, but not on every small container.
const USUAL: &[&str] = &["libgomp.so.1", "libz.so.1"];

impl Target {
    /// The format of its libraries.
    pub fn format(&self) -> Format {
        match self.system {
            System::Linux => Format::Elf,
            System::Windows => Format::Pe,
            System::Macos => Format::MachO,
        }
    }
}

/// Judges `package` against `torch`.
///
/// # Errors
/// If a library of the torch cannot be read.
pub fn judge(torch: &Torch, subject: &str, package: &Package) -> Result<Verdict> {
    let Pins { broken, open } = pins(torch, package)?;
    let (owns, mut reasons) = for_this_torch(torch, package);
    let mut libraries = Vec::new();
    for own in owns {
        libraries.push(Library { torch, package, own }.judge_in_company()?);
    }
    let mut remarks = Vec::new();
    excuse_variants(&mut libraries, &mut remarks);
    remarks.extend(without_cuda(torch, &libraries));
    reasons.extend(libraries.iter().flat_map(|l| l.reasons.clone()));
    if package.libraries.is_empty() && package.foreign > 0 && broken.is_empty() {
        reasons.push(Reason::Foreign { torch: torch.target.words() });
    }
    let cause = cause(torch, package, &reasons);
    let loads = loads(&libraries, &reasons);
    let mut gaps: Vec<Gap> = libraries
        .iter()
        .filter(|l| !l.gaps.is_empty())
        .map(|l| Gap { by: l.path.clone(), needs: l.gaps.clone() })
        .collect();
    let pins_hold = broken.is_empty();
    let verdict = match loads {
        _ if !pins_hold => Fit::DoesNotFit,
        Some(false) => Fit::DoesNotFit,
        Some(true) if open.is_empty() => Fit::Fits,
        Some(true) | None => Fit::CannotBeTold,
    };
    if verdict == Fit::DoesNotFit {
        remarks.extend(open.iter().map(|o| format!("whether its pins hold cannot be told without {o}")));
    } else if !open.is_empty() {
        gaps.insert(0, Gap { by: package.metadata.name.clone(), needs: open });
    }
    remarks.extend(unreadable(package));
    if package.libraries.is_empty() && package.foreign == 0 {
        remarks.push("it has no compiled part".into());
    } else if libraries.iter().any(|l| l.uses_torch) && libraries.iter().filter(|l| l.uses_torch).all(|l| l.stable_abi)
    {
        remarks.push("all that it takes of torch is the stable ABI".into());
    }
    if package.libraries.iter().any(|o| o.symbols.needed.iter().any(|n| DRIVER.contains(&stem(&file_name(n))))) {
        remarks.push("it needs a machine with NVIDIA's driver".into());
    }
    Ok(Verdict {
        subject: subject.to_owned(),
        package: package.metadata.name.clone(),
        version: package.metadata.version.clone(),
        verdict,
        loads,
        pins_hold,
        reasons: broken.into_iter().chain(reasons).collect(),
        cause,
        gaps,
        remarks,
        libraries,
    })
}

/// The libraries of a package that count for this torch. Some bring one for each version of torch, which its name ends
/// with (DGL: `libgraphbolt_pytorch_2.1.0.so`), and load the one of the torch at hand.
fn for_this_torch<'a>(torch: &Torch, package: &'a Package) -> (Vec<&'a Own>, Vec<Reason>) {
    let Some(version) = &torch.version else { return (package.libraries.iter().collect(), Vec::new()) };
    let (mut owns, mut groups) = (Vec::new(), BTreeMap::<String, Vec<(Version, &Own)>>::new());
    for own in &package.libraries {
        match torch_in_name(&own.path) {
            Some((beginning, of)) => groups.entry(beginning.to_owned()).or_default().push((of, own)),
            None => owns.push(own),
        }
    }
    let mut reasons = Vec::new();
    for (beginning, mut members) in groups {
        members.sort_by(|a, b| a.0.cmp(&b.0));
        match members.iter().find(|(of, _)| of.release() == version.release()) {
            Some((_, own)) => owns.push(own),
            None => reasons.push(Reason::OtherTorchs {
                libraries: file_name(&beginning),
                versions: members.iter().map(|(of, _)| of.to_string()).collect(),
                torch: version.to_string(),
            }),
        }
    }
    (owns, reasons)
}

/// `p/libx_pytorch_` and 2.1.0 of `p/libx_pytorch_2.1.0.so`.
fn torch_in_name(path: &str) -> Option<(&str, Version)> {
    let stem = [".so", ".dll", ".dylib"].iter().find_map(|end| path.strip_suffix(end))?;
    let at = stem.rfind('_')? + 1;
    let (beginning, version) = stem.split_at(at);
    let named = version.split('.').count() == 3 && file_name(beginning).contains("torch");
    Some((beginning, Version::from_str(version).ok().filter(|_| named)?))
}

/// What became of tags, Requires-Python, and the requirements on torch.
struct Pins {
    /// Those that do not hold.
    broken: Vec<Reason>,
    /// What must be known to judge the others.
    open: Vec<String>,
}

/// What must be known to judge a requirement on a torch of unknown version.
pub fn known_version(requirement: &Requirement) -> String {
    format!("a torch of known version to hold {} against", shown(requirement))
}

fn pins(torch: &Torch, package: &Package) -> Result<Pins> {
    let (target, metadata) = (&torch.target, &package.metadata);
    let (mut out, mut open) = (Vec::new(), Vec::new());
    let fits = |t: &String| target.rank(&format!("x-1-{t}.whl")).is_some();
    if target.python.is_some() && !package.tags.is_empty() && !package.tags.iter().any(fits) {
        out.push(Reason::Tags { tags: package.tags.clone(), torch: target.words() });
    }
    if let (Some(requirement), Some(python)) = (&metadata.requires_python, target.minor())
        && let (Ok(wanted), Ok(version)) = (VersionSpecifiers::from_str(requirement), Version::from_str(python))
        // `>=3.11.2` rules no 3.11 out that is not known to be older.
        && !wanted.contains(&version)
        && !Version::from_str(&format!("{python}.99")).is_ok_and(|v| wanted.contains(&v))
    {
        out.push(Reason::Python { requirement: requirement.clone(), python: python.to_owned() });
    }
    let version = torch.version.as_ref();
    for requirement in metadata.on("torch", target)? {
        match satisfied_by(requirement, version) {
            Some(true) => {}
            Some(false) => {
                let torch = version.map(ToString::to_string).unwrap_or_default();
                out.push(Reason::Pin { requirement: shown(requirement), torch });
            }
            None => open.push(known_version(requirement)),
        }
    }
    if !metadata.unreadable_on("torch", target)?.is_empty() {
        open.push("a requirement on torch that can be read".to_owned());
    }
    Ok(Pins { broken: out, open })
}

/// What METADATA says in words that no rule knows: told, and taken for neither good nor bad.
fn unreadable(package: &Package) -> Vec<String> {
    let metadata = &package.metadata;
    let all = &metadata.unreadable;
    let said = |text: &String| format!("a requirement of it cannot be read: {}", in_a_line(text));
    let mut out: Vec<String> = all.iter().take(FIRST).map(said).collect();
    if all.len() > FIRST {
        out.push(format!("requirements of it that cannot be read, in all: {}", all.len()));
    }
    if let Some(python) = &metadata.requires_python
        && VersionSpecifiers::from_str(python).is_err()
    {
        out.push(format!("its Requires-Python cannot be read: {}", in_a_line(python)));
    }
    out
}

/// A text of others as it may stand in a line of ours.
fn in_a_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    without_secrets(text).chars().take(LONGEST).map(plain).collect()
}

/// Whether the compiled part loads: no, where one library does not; yes, where at least one that uses torch (or any,
/// where none does) has all that it needs; else nobody can say.
fn loads(libraries: &[Judged], reasons: &[Reason]) -> Option<bool> {
    if !reasons.is_empty() {
        return Some(false);
    }
    let users: Vec<&Judged> = libraries.iter().filter(|l| l.uses_torch).collect();
    let counted: Vec<&Judged> = if users.is_empty() { libraries.iter().collect() } else { users };
    (counted.is_empty() || counted.iter().any(|l| l.gaps.is_empty())).then_some(true)
}

/// Some packages bring one library in several variants, of which they load the one that works: `…_cuda118.so` and
/// `…_cuda124.so`, `…_core4.so` and `…_core6.so`. Where one loads, what the others lack of the system or of another
/// CUDA counts for nothing. Symbols of torch that are missing count in each.
fn excuse_variants(libraries: &mut [Judged], remarks: &mut Vec<String>) {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, library) in libraries.iter().enumerate() {
        if let Some(key) = variant_of(&library.path) {
            groups.entry(key).or_default().push(i);
        }
    }
    for members in groups.into_values().filter(|m| m.len() > 1) {
        let works = |i: &&usize| libraries[**i].gaps.is_empty() && libraries[**i].reasons.is_empty();
        let Some(one) = members.iter().find(works).map(|&i| file_name(&libraries[i].path)) else { continue };
        for &i in &members {
            let library = &mut libraries[i];
            library.gaps.clear();
            library.reasons.retain(|r| !matches!(r, Reason::Library { needs, .. } if cuda_library(needs).is_some()));
        }
        remarks.push(format!("it brings {} variants of one library, of which {one} loads", members.len()));
    }
}

/// A word on libraries for CUDA none of which loads beside a torch that has CUDA, where the package goes on without.
fn without_cuda(torch: &Torch, libraries: &[Judged]) -> Option<String> {
    let version = torch.cuda.as_ref()?;
    let is_runtime = |g: &&String| cuda_library(g) == Some("cudart");
    let lacks = |l: &&Judged| l.gaps.iter().any(|g| is_runtime(&g));
    // The last is the one for the newest CUDA.
    let one = libraries.iter().rfind(lacks)?;
    let file = file_name(&one.path);
    let needs = one.gaps.iter().find(is_runtime)?;
    Some(format!("its part for GPUs does not load: {file} needs {needs}, and this torch has CUDA {version}"))
}

/// The path without the number at the end of the name; `None` where there is none.
fn variant_of(path: &str) -> Option<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.split('.').next().unwrap_or(file);
    let plain = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    (plain != stem).then(|| format!("{folder}/{plain}"))
}

/// The likely cause, where one is clear.
fn cause(torch: &Torch, package: &Package, reasons: &[Reason]) -> Option<Cause> {
    let lacks =
        |is: &dyn Fn(&str) -> bool| reasons.iter().any(|r| matches!(r, Reason::Library { needs, .. } if is(needs)));
    if lacks(&of_cuda) {
        return Some(match &torch.cuda {
            None => Cause::NoCuda,
            Some(_) if lacks(&|needs| cuda_library(needs).is_some()) => Cause::OtherCuda,
            // Torch has cut its part for CUDA in other pieces from version to version (`libtorch_cuda_cu.so`).
            Some(_) => Cause::OtherVersion,
        });
    }
    let missing: Vec<&str> = reasons
        .iter()
        .filter_map(|r| match r {
            Reason::Symbols { first, .. } => Some(first),
            _ => None,
        })
        .flatten()
        .map(String::as_str)
        .filter(|n| torch_like(n))
        .collect();
    if missing.is_empty() {
        return None;
    }
    // Which strings the package's calls to torch have, the found ones included.
    let (new, old) =
        (package.libraries.iter().any(|l| l.has_strings(true)), package.libraries.iter().any(|l| l.has_strings(false)));
    match torch.cxx11_abi {
        Some(false) if new && !old => Some(Cause::NewStrings),
        Some(true) if old && !new => Some(Cause::OldStrings),
        _ if missing.iter().all(|n| is_stable(n)) => Some(Cause::NewerStableAbi),
        _ => Some(Cause::OtherVersion),
    }
}

fn has_new_strings(name: &str) -> bool {
    name.contains("St7__cxx1112basic_string") || name.contains("B5cxx11")
}

/// `Ss` is `std::string` where it is no part of a longer word, such as a class called `Ssd`.
fn has_old_strings(name: &str) -> bool {
    name.starts_with("_Z") && ["RKSs", "ESs", "RSs", "ISs", "KSs"].iter().any(|s| name.contains(s))
}

/// Whether a symbol of this name can be torch's.
fn torch_like(name: &str) -> bool {
    let mangled = name.starts_with("_Z") || name.starts_with('?');
    let spaces = ["2at", "3c10", "5torch", "6caffe2", "4c10d", "N2at", "@at@@", "@c10@@", "@torch@@", "@c10d@@"];
    mangled && spaces.iter().any(|s| name.contains(s)) || is_stable(name) || name.starts_with("THP")
}

/// Whether it is a function of torch's stable ABI (`torch/csrc/inductor/aoti_torch/c/shim.h`, and from torch 2.9 on
/// `torch/csrc/stable/c/shim.h`).
fn is_stable(name: &str) -> bool {
    name.starts_with("aoti_torch_") || name.starts_with("torch_")
}

/// Whether Python itself has it.
fn of_python(name: &str) -> bool {
    name.starts_with("Py") || name.starts_with("_Py")
}

impl Own {
    /// Whether it needs torch's own libraries.
    pub fn uses_torch(&self) -> bool {
        self.symbols.needed.iter().any(|n| is_torchs(&file_name(n)))
    }

    /// Whether it needs a library that only a torch with CUDA brings.
    pub fn needs_cuda(&self) -> bool {
        self.symbols.needed.iter().any(|n| of_cuda(&file_name(n)))
    }

    /// The major version of the CUDA whose run time it needs.
    pub fn cuda_major(&self) -> Option<u32> {
        self.symbols.needed.iter().find_map(|n| cudart_major(&file_name(n)))
    }

    /// Whether it calls functions of torch with strings of the C++11 ABI (`new`), or of the one before.
    pub fn has_strings(&self, new: bool) -> bool {
        let names = || self.symbols.imports.iter().map(|i| i.name.as_str()).filter(|n| torch_like(n));
        if new { names().any(has_new_strings) } else { names().any(has_old_strings) }
    }
}

impl Package {
    /// Whether its own requirements bring NVIDIA's libraries.
    pub fn brings_cuda(&self) -> bool {
        self.metadata.requires.iter().any(|r| r.name.as_ref().starts_with("nvidia-"))
    }
}

fn of_cuda(file: &str) -> bool {
    cuda_library(file).is_some() || is_torchs(file) && file.contains("cuda")
}

/// Symbols that are nowhere, by the library that must have them where the format says so.
type Missing = BTreeMap<Option<String>, Vec<String>>;

/// One library of a package, to be judged.
struct Library<'a> {
    torch: &'a Torch,
    package: &'a Package,
    own: &'a Own,
}

/// Where a needed library is.
enum Home<'a> {
    /// In the package.
    Package(&'a Own),
    /// Torch's own, or readable beside it or on this machine.
    Read(Arc<Symbols>),
    /// There wherever torch is, or on every system, but not to be read here.
    Unread,
    /// Python's own DLL or library.
    Python,
    /// It is in none of these places: loading fails.
    Absent,
}

/// What a library's symbols may come from.
#[derive(Default)]
struct Scope<'a> {
    packages: Vec<&'a Own>,
    read: Vec<Arc<Symbols>>,
    /// Torch's libraries that were not read yet, because all was found before.
    waiting: VecDeque<String>,
    seen: BTreeSet<String>,
    unread: BTreeSet<String>,
    uses_torch: bool,
    reasons: Vec<Reason>,
    gaps: BTreeSet<String>,
    /// Whether a name is in nothing that it leads to, and in another library of the package.
    elsewhere: bool,
}

impl<'a> Library<'a> {
    /// Judges the library by itself; and, where symbols are missing, as another one of the package loads it, which may
    /// bring what has them.
    fn judge_in_company(&self) -> Result<Judged> {
        let (alone, lacks) = self.judge(None)?;
        if self.own.symbols.format != Format::Elf || !lacks {
            return Ok(alone);
        }
        for other in self.package.libraries.iter().filter(|o| o.file != self.own.file) {
            if self.is_loaded_by(other, &mut BTreeSet::new()) {
                let (together, lacks) = self.judge(Some(other))?;
                if !lacks {
                    return Ok(together);
                }
            }
        }
        Ok(alone)
    }

    /// Whether `other` needs this library, or needs one that does.
    fn is_loaded_by(&self, other: &Own, seen: &mut BTreeSet<String>) -> bool {
        other.symbols.needed.iter().map(|n| file_name(n)).any(|file| {
            let names_this = file == self.own.file || self.own.symbols.name.as_deref() == Some(&file);
            names_this
                || seen.insert(file.clone())
                    && self.package.libraries.iter().any(|o| o.file == file && self.is_loaded_by(o, seen))
        })
    }

    /// Judges the library as the loader meets it in what `root` needs, or by itself; and whether a symbol is in nothing
    /// that is loaded with it.
    fn judge(&self, root: Option<&'a Own>) -> Result<(Judged, bool)> {
        let mut scope = Scope::default();
        self.load(&self.own.symbols.needed, &mut scope)?;
        let uses_torch = scope.uses_torch;
        if let Some(root) = root {
            scope.packages.push(root);
            self.load(&root.symbols.needed, &mut scope)?;
        }
        let (missing, stable) = match self.own.symbols.format {
            Format::Elf => self.elf(&mut scope)?,
            Format::Pe | Format::MachO => self.two_level(&mut scope)?,
        };
        let by = file_name(&self.own.path);
        for (of, names) in missing {
            // What is not torch's business is told, but is no reason against this torch.
            let (torchs, others): (Vec<String>, Vec<String>) =
                names.into_iter().partition(|n| scope.uses_torch || torch_like(n));
            if let Some(first) = others.first() {
                scope.gaps.insert(format!("a library with {first}"));
            }
            if !torchs.is_empty() {
                let (count, mut first) = (torchs.len(), torchs);
                first.sort_by_key(|n| !torch_like(n));
                first.truncate(FIRST);
                scope.reasons.push(Reason::Symbols { by: by.clone(), of, first, count });
            }
        }
        self.versions(&mut scope)?;
        let lacks = scope.elsewhere || scope.reasons.iter().any(|r| matches!(r, Reason::Symbols { .. }));
        let judged = Judged {
            path: self.own.path.clone(),
            uses_torch,
            stable_abi: uses_torch && stable,
            reasons: scope.reasons,
            gaps: scope.gaps.into_iter().collect(),
        };
        Ok((judged, lacks))
    }

    /// Where the library is that is asked for as `name`, a file's name or (macOS) a path.
    fn home(&self, name: &str) -> Result<Home<'a>> {
        let file = &file_name(name);
        let named = |o: &&Own| o.file == *file || o.symbols.name.as_deref().map(file_name).as_ref() == Some(file);
        if let Some(own) = self.package.libraries.iter().find(named) {
            return Ok(Home::Package(own));
        }
        if let Some(symbols) = self.torch.table(file)? {
            return Ok(Home::Read(symbols));
        }
        // A library whose file has another name: `libtorch_cpu.so.2.6`, `libcudart-80664282.so.10.2`. What is loaded goes
        // by its soname.
        if is_torchs(file) || of_cuda(file) {
            for other in self.torch.library_names().iter().filter(|n| stem(n) == stem(file)) {
                if let Some(symbols) = self.torch.table(other)?.filter(|s| s.name.as_ref() == Some(file)) {
                    return Ok(Home::Read(symbols));
                }
            }
        }
        if is_torchs(file) {
            return Ok(Home::Absent);
        }
        let lower = file.to_ascii_lowercase();
        if lower.starts_with("python3") || lower.starts_with("libpython3") || file == "Python" {
            return Ok(Home::Python);
        }
        // Of macOS' own libraries the folder tells whose they are.
        if on_every_system(self.own.symbols.format, name) || self.torch.needs(file, of_cuda(file))? {
            return Ok(Home::Unread);
        }
        Ok(Home::Absent)
    }

    /// Takes the libraries `needed` into the scope, and what those of the package need.
    fn load(&self, needed: &[String], scope: &mut Scope<'a>) -> Result<()> {
        for name in needed {
            let file = file_name(name);
            if !scope.seen.insert(file.clone()) {
                continue;
            }
            scope.uses_torch |= is_torchs(&file);
            match self.home(name)? {
                Home::Package(own) => {
                    scope.packages.push(own);
                    self.load(&own.symbols.needed, scope)?;
                }
                Home::Read(symbols) => {
                    // What those need in turn is there, as torch itself loads; it is looked at where it is asked for.
                    scope.waiting.extend(symbols.needed.iter().map(|n| file_name(n)));
                    scope.read.push(symbols);
                }
                Home::Unread => {
                    scope.unread.insert(file);
                }
                Home::Python => self.python(&file, scope),
                Home::Absent => self.absent(file, scope)?,
            }
        }
        Ok(())
    }

    /// `python310.dll` is not there where Python is 3.11, nor `python313.dll` where it is free-threaded; `python3.dll`
    /// always is, or `python3t.dll`.
    fn python(&self, file: &str, scope: &mut Scope<'_>) {
        let wanted = file.strip_prefix("python3").and_then(|f| f.strip_suffix(".dll"));
        let same = |minor: &str, python: &str| match minor {
            "" | "t" => python.ends_with('t') == (minor == "t"),
            minor => python.strip_prefix("3.") == Some(minor),
        };
        if let (Some(minor), Some(python)) = (wanted, &self.torch.target.python)
            && !same(minor, python)
        {
            let (by, instead) = (file_name(&self.own.path), Some(format!("Python {python}")));
            scope.reasons.push(Reason::Library { by, needs: file.to_owned(), instead });
        } else {
            scope.unread.insert(file.to_owned());
        }
    }

    fn absent(&self, file: String, scope: &mut Scope<'_>) -> Result<()> {
        let by = || file_name(&self.own.path);
        if is_torchs(&file) {
            scope.reasons.push(Reason::Library { by: by(), needs: file, instead: None });
        } else if of_cuda(&file) && self.own.uses_torch() && !self.package.brings_cuda() {
            let instead = match cuda_library(&file) {
                Some(library) => self.torch.needed_like(library)?.pop_first(),
                None => None,
            };
            scope.reasons.push(Reason::Library { by: by(), needs: file, instead });
        } else if DRIVER.contains(&stem(&file)) || USUAL.contains(&file.as_str()) && !self.torch.knows_system() {
            scope.unread.insert(file);
        } else {
            scope.gaps.insert(file);
        }
        Ok(())
    }

    /// Symbols that are nowhere, and whether all that are torch's are its stable ABI.
    fn elf(&self, scope: &mut Scope<'a>) -> Result<(Missing, bool)> {
        let (mut of_torch, mut unstable) = (0, 0);
        // What else its libraries export (parts of GCC's that are linked in) is not torch's.
        let mut count = |name: &str| {
            of_torch += usize::from(torch_like(name));
            unstable += usize::from(torch_like(name) && !is_stable(name));
        };
        if self.torch.is_global() {
            scope.waiting.extend(self.torch.library_names().into_iter().filter(|n| is_torchs(n)));
        }
        let mut open: Vec<&Import> = Vec::new();
        for import in self.own.symbols.imports.iter().filter(|i| !of_python(&i.name)) {
            if scope.packages.iter().any(|o| o.symbols.exports.contains(&import.name)) {
                continue;
            }
            match scope.read.iter().find(|s| s.exports.contains(&import.name)) {
                Some(symbols) if symbols.name.as_deref().is_some_and(is_torchs) => count(&import.name),
                Some(_) => {}
                None => open.push(import),
            }
        }
        // The version says which library has it: one that is there and was not read is taken at its word.
        open.retain(|i| !i.from.as_ref().is_some_and(|f| scope.unread.contains(f) || scope.gaps.contains(f)));
        // What is not among the direct needs may be among theirs.
        while let Some(file) = scope.waiting.pop_front() {
            if open.is_empty() {
                break;
            }
            if !scope.seen.insert(file.clone()) {
                continue;
            }
            match self.torch.table(&file)? {
                Some(symbols) => {
                    let own = symbols.name.as_deref().is_some_and(is_torchs);
                    open.retain(|i| {
                        let found = symbols.exports.contains(&i.name);
                        if found && own {
                            count(&i.name);
                        }
                        !found
                    });
                    scope.waiting.extend(symbols.needed.iter().map(|n| file_name(n)));
                }
                None => {
                    scope.unread.insert(file);
                }
            }
        }
        // A name without a version that is not torch's may be in any library that was not read; those that every
        // system has give all their symbols versions.
        let unread = |f: &String| !on_every_system(Format::Elf, f);
        let unknown = scope.unread.iter().chain(&scope.gaps).any(unread) || !scope.reasons.is_empty();
        open.retain(|i| torch_like(&i.name) || !(unknown || of_process(&i.name)));
        // Where a library of torch's is not there at all, what it would have had is no second reason.
        let without = scope.reasons.iter().any(|r| matches!(r, Reason::Library { needs, .. } if is_torchs(needs)));
        if without {
            open.clear();
        }
        self.take_elsewhere(&mut open, scope);
        unstable += open.iter().filter(|i| torch_like(&i.name) && !is_stable(&i.name)).count();
        of_torch += open.len();
        let names: Vec<String> = open.into_iter().map(|i| i.name.clone()).collect();
        let missing = if names.is_empty() { BTreeMap::new() } else { BTreeMap::from([(None, names)]) };
        Ok((missing, of_torch > 0 && unstable == 0))
    }

    /// The same where a symbol says whose it is (PE, Mach-O).
    fn two_level(&self, scope: &mut Scope<'a>) -> Result<(Missing, bool)> {
        let mut missing: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
        let (mut of_torch, mut unstable) = (0, 0);
        for import in self.own.symbols.imports.iter().filter(|i| !of_python(&i.name)) {
            let from = import.from.as_deref().map(file_name);
            let found = match &import.from {
                Some(library) => self.gives(library, &import.name, 0)?,
                // Looked for everywhere: only what sounds like torch's can be missed here.
                None => {
                    let package = scope.packages.iter().any(|o| o.symbols.exports.contains(&import.name));
                    let read = scope.read.iter().any(|s| s.exports.contains(&import.name));
                    package || read || !torch_like(&import.name)
                }
            };
            if from.as_deref().is_some_and(is_torchs) {
                of_torch += 1;
                unstable += usize::from(!is_stable(&import.name));
            }
            if !found {
                missing.entry(from).or_default().push(import.name.clone());
            }
        }
        Ok((missing, of_torch > 0 && unstable == 0))
    }

    /// Whether `library` has `name`, or gives it out of another one. What is not to be read is taken at its
    /// word; that it is not there was told already.
    fn gives(&self, library: &str, name: &str, depth: u32) -> Result<bool> {
        let has =
            |symbols: &Symbols| Ok(symbols.exports.contains(name) || self.reexports(&symbols.reexported, name, depth)?);
        match self.home(library)? {
            Home::Package(own) => has(&own.symbols),
            Home::Read(symbols) => has(&symbols),
            Home::Unread | Home::Python | Home::Absent => Ok(true),
        }
    }

    fn reexports(&self, libraries: &[String], name: &str, depth: u32) -> Result<bool> {
        // A chain that goes round in a circle ends.
        if depth > 8 {
            return Ok(false);
        }
        for library in libraries {
            if self.gives(library, name, depth + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes those names out of `open` that are not torch's and that another library of the package has. Nothing leads
    /// to that one: the package's Python code may load it first, for all that comes after it, which no file says.
    fn take_elsewhere(&self, open: &mut Vec<&Import>, scope: &mut Scope<'_>) {
        let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        open.retain(|i| {
            // What is torch's is missing whoever else has it, and where the torch does not fit these may be thousands.
            if torch_like(&i.name) {
                return true;
            }
            let has = |o: &&Own| o.file != self.own.file && o.symbols.exports.contains(&i.name);
            let Some(other) = self.package.libraries.iter().find(has) else { return true };
            found.entry(&other.file).or_default().push(&i.name);
            false
        });
        for (other, names) in &found {
            let first = names.first().map(|n| demangle(n)).unwrap_or_default();
            let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
            scope.gaps.insert(format!("an earlier load of {other} for all (RTLD_GLOBAL), which has {first}{more}"));
        }
        scope.elsewhere = !found.is_empty();
    }

    /// Versions that the library was linked against, and that a library that was read does not define.
    fn versions(&self, scope: &mut Scope<'_>) -> Result<()> {
        for need in &self.own.symbols.versions {
            let Home::Read(symbols) = self.home(&need.library)? else { continue };
            // A library without versions is taken for what it is by the loader, with a warning.
            if !symbols.defines.is_empty() && !symbols.defines.contains(&need.version) {
                scope.reasons.push(Reason::Version {
                    by: file_name(&self.own.path),
                    of: need.library.clone(),
                    version: need.version.clone(),
                });
            }
        }
        Ok(())
    }
}

/// Whether a name is of the C library's parts that every Python process has loaded: what was linked without naming them
/// asks for it without a version.
fn of_process(name: &str) -> bool {
    ["dlopen", "dlsym", "dlclose", "dlerror", "dladdr", "shm_open", "shm_unlink"].contains(&name)
        || name.starts_with("pthread_")
        || name.starts_with("sem_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_told_by_the_number_at_the_end_of_their_names() {
        assert_eq!(variant_of("p/libx_cuda118.so").as_deref(), Some("p/libx_cuda"));
        assert_eq!(variant_of("p/_core4.so"), variant_of("p/_core6.so"));
        assert_eq!(variant_of("p/libx.so.4"), None);
    }

    #[test]
    fn a_library_for_one_torch_says_so_at_the_end_of_its_name() {
        let of = |path: &str| torch_in_name(path).map(|(beginning, v)| (beginning.to_owned(), v.to_string()));
        assert_eq!(of("p/libx_pytorch_2.1.0.so"), Some(("p/libx_pytorch_".into(), "2.1.0".into())));
        assert_eq!(of("p/x_torch_2.1.0.dll"), Some(("p/x_torch_".into(), "2.1.0".into())));
        for none in ["p/libtorchcodec_core4.so", "p/libx_2.1.0.so", "p/libtorch_cpu.so", "libx_torch_2.so"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn strings_of_both_abis_are_told_apart() {
        let (new, old) = ("_ZN3c103fooERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", "_ZN3c103fooERKSs");
        assert!(has_new_strings(new) && !has_old_strings(new));
        assert!(has_old_strings(old) && !has_new_strings(old));
        assert!(!has_old_strings("_ZN3Ssd3fooEv"));
    }
}
