//! How this program is put together: which module may know which, what is in keys, and that the pictures of the
//! stages are the table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::support::root;
use syn::visit::{self, Visit};
use torchmill::stage::graph::{STAGES, diagram};

/// Circles that are still there, as one edge each whose end would end them. This list may only become shorter.
const KNOWN: &[(&str, &str, &str)] = &[
    ("cli::man", "cli", "asks clap for the whole command line, itself included"),
    ("cli::inspect::survey", "cli::inspect", "prints as its parent does"),
    ("diff::binary", "diff", "reports in its parent's types"),
    ("doctor::remedy", "doctor", "reads its parent's findings"),
    ("doctor::trial", "doctor", "reports in its parent's types"),
    ("mirror::index", "mirror::lock", "an index is made again from its lock"),
    ("mirror::serve::guard", "mirror::serve", "the state that all requests share stands in serve.rs"),
    ("mirror::serve::upload", "mirror::serve", "the state that all requests share stands in serve.rs"),
    ("platform::unix", "platform", "a system's half of its parent"),
    ("platform::windows", "platform", "a system's half of its parent"),
    ("validate::bench", "validate", "takes its parent's effort"),
];

/// A module by its path below the crate: `stage::steps::tree`; the crate itself is empty.
type Name = String;

/// A name that a `use` brings into a module.
struct Import {
    /// Under which name; `*` for all.
    name: String,
    path: Vec<String>,
    public: bool,
}

#[derive(Default)]
struct Module {
    imports: Vec<Import>,
    items: BTreeSet<String>,
    /// Paths in the code, outside of `use`.
    paths: Vec<Vec<String>>,
}

fn join(parent: &str, child: &str) -> Name {
    if parent.is_empty() { child.to_owned() } else { format!("{parent}::{child}") }
}

fn parent(name: &str) -> Name {
    name.rsplit_once("::").map_or(String::new(), |(above, _)| above.to_owned())
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().flatten();
    entries.map(walkdir::DirEntry::into_path).filter(|p| p.extension().is_some_and(|x| x == "rs")).collect()
}

/// Every module of the crate, a file each.
fn modules() -> BTreeMap<Name, Module> {
    let source = root().join("xtask/src");
    let mut out = BTreeMap::new();
    for file in rust_files(&source).into_iter().filter(|f| !f.ends_with("src/main.rs")) {
        let parsed = syn::parse_file(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let below = file.strip_prefix(&source).unwrap().with_extension("");
        let parts: Vec<String> = below.iter().map(|p| p.to_str().unwrap().to_owned()).collect();
        let parts = match parts.last().map(String::as_str) {
            Some("mod" | "lib") => &parts[..parts.len() - 1],
            _ => &parts[..],
        };
        let mut reader = Reader::default();
        reader.visit_file(&parsed);
        out.insert(parts.join("::"), reader.0);
    }
    out
}

#[derive(Default)]
struct Reader(Module);

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let of_tests = |a: &syn::Attribute| a.parse_args::<syn::Meta>().is_ok_and(|what| asks_for_test(&what));
    attributes.iter().any(|a| a.path().is_ident("cfg") && of_tests(a))
}

/// Whether a condition holds in tests alone: `test`, or `all(…)` with it.
fn asks_for_test(condition: &syn::Meta) -> bool {
    type List = syn::punctuated::Punctuated<syn::Meta, syn::Token![,]>;
    match condition {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("all") => {
            list.parse_args_with(List::parse_terminated).is_ok_and(|all| all.iter().any(asks_for_test))
        }
        _ => false,
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a syn::Item) {
        use syn::Item;
        let name = match item {
            // Tests may know whatever they like.
            Item::Mod(m) if is_test(&m.attrs) => return,
            Item::Const(i) => Some(&i.ident),
            Item::Enum(i) => Some(&i.ident),
            Item::Fn(i) => Some(&i.sig.ident),
            Item::Static(i) => Some(&i.ident),
            Item::Struct(i) => Some(&i.ident),
            Item::Trait(i) => Some(&i.ident),
            Item::Type(i) => Some(&i.ident),
            Item::Union(i) => Some(&i.ident),
            _ => None,
        };
        self.0.items.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        let public = !matches!(item.vis, syn::Visibility::Inherited);
        flatten(&item.tree, &mut Vec::new(), public, &mut self.0.imports);
    }

    // `pub(super)` is no dependency.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.0.paths.push(path.segments.iter().map(|s| s.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        self.tokens(call.tokens.to_string());
        visit::visit_macro(self, call);
    }
}

impl Reader {
    /// Paths in what a macro is given, which is not parsed.
    fn tokens(&mut self, text: String) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut at = 0;
        while at < words.len() {
            let mut path = vec![words[at].to_owned()];
            while words.get(at + 1) == Some(&"::") && at + 2 < words.len() {
                path.push(words[at + 2].to_owned());
                at += 2;
            }
            at += 1;
            if path[0].chars().all(|c| c.is_alphanumeric() || c == '_') {
                self.0.paths.push(path);
            }
        }
    }
}

fn flatten(tree: &syn::UseTree, path: &mut Vec<String>, public: bool, out: &mut Vec<Import>) {
    use syn::UseTree;
    let mut import = |name: String, last: Option<String>| {
        let path = path.iter().cloned().chain(last).collect();
        out.push(Import { name, path, public });
    };
    match tree {
        UseTree::Path(p) => {
            path.push(p.ident.to_string());
            flatten(&p.tree, path, public, out);
            path.pop();
        }
        UseTree::Name(n) if n.ident == "self" => import(path.last().cloned().unwrap_or_default(), None),
        UseTree::Name(n) => import(n.ident.to_string(), Some(n.ident.to_string())),
        UseTree::Rename(r) => import(r.rename.to_string(), Some(r.ident.to_string())),
        UseTree::Glob(_) => import("*".into(), None),
        UseTree::Group(g) => g.items.iter().for_each(|tree| flatten(tree, path, public, out)),
    }
}

/// The module that a path leads to, through all that is passed on by `use`; `None` where it leads out of the crate.
fn resolve(all: &BTreeMap<Name, Module>, from: &str, path: &[String], depth: usize) -> Option<Name> {
    assert!(depth < 20, "{path:?} of {from} goes round in circles");
    let (first, mut rest) = path.split_first()?;
    let mut at = match first.as_str() {
        "crate" => String::new(),
        "self" => from.to_owned(),
        "super" => parent(from),
        name if all.contains_key(&join(from, name)) => join(from, name),
        _ => return None,
    };
    while let Some((name, more)) = rest.split_first() {
        if name == "super" {
            at = parent(&at);
        } else if all.contains_key(&join(&at, name)) {
            at = join(&at, name);
        } else {
            return Some(holder(all, &at, name, depth));
        }
        rest = more;
    }
    Some(at)
}

/// The module that defines `name`, which is found in the module `at`.
fn holder(all: &BTreeMap<Name, Module>, at: &str, name: &str, depth: usize) -> Name {
    let module = &all[at];
    if module.items.contains(name) {
        return at.to_owned();
    }
    if let Some(import) = module.imports.iter().find(|i| i.name == name) {
        return resolve(all, at, &import.path, depth + 1).unwrap_or_else(|| at.to_owned());
    }
    for import in module.imports.iter().filter(|i| i.name == "*") {
        if let Some(target) = resolve(all, at, &import.path, depth + 1)
            && target != at
        {
            let found = holder(all, &target, name, depth + 1);
            if all[&found].items.contains(name) {
                return found;
            }
        }
    }
    at.to_owned()
}

/// Which module needs which, both by where things are defined: a module that only passes something on is not in
/// between.
fn dependencies() -> BTreeMap<Name, BTreeSet<Name>> {
    let all = modules();
    let mut out = BTreeMap::new();
    for (name, module) in &all {
        let used: BTreeSet<&str> = module.paths.iter().filter_map(|p| p.first()).map(String::as_str).collect();
        let imports = module.imports.iter().filter(|i| !i.public || used.contains(i.name.as_str()));
        let paths = imports.map(|i| &i.path).chain(module.paths.iter().filter(|p| p.len() > 1));
        let needs: BTreeSet<Name> =
            paths.filter_map(|path| resolve(&all, name, path, 0)).filter(|target| target != name).collect();
        out.insert(name.clone(), needs);
    }
    out
}

/// The layers that `lib.rs` names, outermost first.
fn layers() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("xtask/src/lib.rs")).unwrap();
    let docs: String = text.lines().filter_map(|l| l.strip_prefix("//!")).collect();
    let (_, said) = docs.split_once("from the outside in:").expect("lib.rs names the layers");
    let (said, _) = said.split_once(". ").unwrap();
    let names = |layer: &str| layer.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    said.split('→').map(names).collect()
}

#[test]
fn lib_rs_gives_every_module_a_layer() {
    let named: BTreeSet<String> = layers().concat().into_iter().collect();
    let there: BTreeSet<String> = modules().into_keys().filter(|m| !m.is_empty() && !m.contains("::")).collect();
    assert_eq!(named, there);
}

#[test]
fn a_module_knows_only_its_own_layer_and_those_below_it() {
    let layers = layers();
    let layer = |module: &str| {
        let top = module.split("::").next().unwrap();
        layers.iter().position(|names| names.iter().any(|n| n == top)).unwrap_or(usize::MAX)
    };
    let mut wrong = Vec::new();
    for (module, needs) in dependencies().iter().filter(|(module, _)| !module.is_empty()) {
        wrong.extend(needs.iter().filter(|n| layer(n) < layer(module)).map(|n| format!("{module} knows {n}")));
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_modules_need_one_another_in_a_circle() {
    let mut needs = dependencies();
    for (from, to, _) in KNOWN {
        assert!(
            needs.get_mut(*from).is_some_and(|n| n.remove(*to)),
            "{from} does not need {to} any more: strike it out"
        );
    }
    let circles = circles(&needs);
    assert!(circles.is_empty(), "circles:\n{}", circles.join("\n"));
}

/// Groups of modules that all lead to one another, each with the edges inside of it.
fn circles(needs: &BTreeMap<Name, BTreeSet<Name>>) -> Vec<String> {
    let behind = |module: &Name| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![module]);
        while let Some(next) = open.pop() {
            open.extend(needs.get(next).into_iter().flatten().filter(|n| seen.insert((*n).clone())));
        }
        seen
    };
    let behind: BTreeMap<&Name, BTreeSet<Name>> = needs.keys().map(|module| (module, behind(module))).collect();
    let mut out = Vec::new();
    for (module, reached) in behind.iter().filter(|(module, reached)| reached.contains(**module)) {
        let with = |other: &Name| reached.contains(other) && behind.get(other).is_some_and(|b| b.contains(*module));
        let edges: Vec<&str> = needs[*module].iter().filter(|n| with(n)).map(String::as_str).collect();
        out.push(format!("{module} → {}", edges.join(", ")));
    }
    out
}

#[test]
fn a_circle_of_three_is_found_and_what_stands_on_it_is_not_blamed() {
    let of = |list: &[(&str, &[&str])]| {
        list.iter().map(|(m, n)| ((*m).to_owned(), n.iter().map(|n| (*n).to_owned()).collect())).collect()
    };
    let needs: BTreeMap<Name, BTreeSet<Name>> =
        of(&[("a", &["b"]), ("b", &["c"]), ("c", &["a", "d"]), ("d", &[]), ("e", &["a"])]);
    assert_eq!(circles(&needs), ["a → b", "b → c", "c → a"]);
}

#[test]
fn the_reader_of_modules_follows_what_is_passed_on() {
    let needs = dependencies();
    // `use crate::stage::Build` leads to where Build is, through stage's `pub use`.
    assert!(needs["validate"].contains("stage::build"), "{:?}", needs["validate"]);
    assert!(!needs["validate"].contains("stage"), "{:?}", needs["validate"]);
    // A path in the middle of the code.
    assert!(needs["stage::steps::configure"].contains("store"), "{:?}", needs["stage::steps::configure"]);
    assert!(needs.values().map(BTreeSet::len).sum::<usize>() > 300);
}

/// What programs are given from the files of this repository when they are compiled: file, and where it says so.
fn embedded(folder: &str) -> Vec<(PathBuf, PathBuf)> {
    struct Embeds(Vec<String>);
    impl<'a> Visit<'a> for Embeds {
        fn visit_macro(&mut self, call: &'a syn::Macro) {
            if ["include_str", "include_bytes"].iter().any(|name| call.path.is_ident(name)) {
                self.0.push(call.parse_body::<syn::LitStr>().unwrap().value());
            }
        }
    }
    let mut out = Vec::new();
    for file in rust_files(&root().join("xtask/src").join(folder)) {
        let mut embeds = Embeds(Vec::new());
        embeds.visit_file(&syn::parse_file(&std::fs::read_to_string(&file).unwrap()).unwrap());
        out.extend(embeds.0.into_iter().map(|name| (file.parent().unwrap().join(name), file.clone())));
    }
    out
}

/// What is embedded and decides nothing that comes out.
const NOT_IN_A_KEY: &[(&str, &str)] = &[
    ("advice.toml", "what is said of an error"),
    ("advice_samples.toml", "what the advice is tested with"),
    ("memory.json", "how many compilers run at a time"),
    ("pace.json", "how long a progress bar takes"),
];

#[test]
fn every_file_that_a_stage_or_a_toolchain_embeds_is_in_a_key() {
    let in_keys: BTreeSet<&str> = STAGES.iter().flat_map(|stage| stage.embeds).map(|(_, text)| *text).collect();
    let all: Vec<_> = ["stage", "toolchain"].iter().flat_map(|folder| embedded(folder)).collect();
    assert!(all.len() > 15, "{all:?}");
    for (file, by) in all {
        let free = NOT_IN_A_KEY.iter().any(|(name, _)| file.ends_with(name));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            free || in_keys.contains(text.as_str()),
            "{} embeds {}, which is in no key",
            by.display(),
            file.display()
        );
    }
}

#[test]
fn stages_reach_files_of_the_workspace_only_through_the_door_that_looks_into_the_key() {
    // step.rs is the door; origin.rs takes the patches' bytes into the wheel and into its key.
    let free = ["stage/step.rs", "stage/origin.rs"];
    for file in rust_files(&root().join("xtask/src/stage")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let reads = [".patches()", ".workspace.root.join", ".workspace.recipes()"].iter().any(|way| text.contains(way));
        assert!(!reads || free.iter().any(|name| file.ends_with(name)), "{} reads past the key", file.display());
    }
}

/// Places of `stage/` that read files by themselves (how often, if more than once), by what keeps a result true to its
/// key there. All others are given what they read: by the table, by `Cx`, or by a module below.
const READS_BY_ITSELF: &[(&str, &[&str])] = &[
    ("the door: looks into the key, or puts what it reads there", &["step.rs files_of", "origin.rs carried"]),
    ("file names alone, of a patch that is in the key of whoever uses it", &["step.rs changed_by"]),
    (
        "only what came through `Cx` or by a digest of the lock",
        &[
            "environment.rs wheel_folder ×2",
            "steps/bundle.rs write_tar",
            "steps/set.rs member",
            "steps/uvstore.rs overlay ×2",
            "steps/wheel.rs external_libraries",
        ],
    ),
    (
        "its own folder or scratch, which it filled from its inputs",
        &[
            "environment.rs relocate",
            "environment.rs with_torch",
            "objects/import.rs judge",
            "objects/import.rs one",
            "objects/import.rs read",
            "objects/import.rs usable",
            "steps/companion.rs make",
            "steps/companion.rs repair ×2",
            "steps/libuv.rs version_of",
            "steps/prefix.rs assemble",
            "steps/prefix.rs merge ×3",
            "steps/tree.rs files",
            "steps/tree.rs run",
            "steps/uvstore.rs licenses ×2",
            "steps/uvstore.rs make",
            "steps/verify.rs tch_consumer ×2",
            "steps/wheel.rs add_licenses",
            "steps/wheel.rs check_no_leaks",
            "steps/wheel.rs flatten ×2",
            "steps/wheel.rs make_cmake_files_relative ×3",
            "steps/wheel.rs state_facts",
        ],
    ),
    (
        "the work folder or a cache, each under the key of the configured build",
        &[
            "objects/audit.rs load",
            "shared/mod.rs listed",
            "work/pieces.rs doubled ×3",
            "work/remote.rs compiled",
            "work/remote.rs own",
            "steps/canary.rs check_has_libuv",
            "steps/configure.rs keep_checks",
            "steps/configure.rs read_back",
            "steps/configure.rs write_project_module ×2",
            "steps/wheel.rs forget_earlier_wheels",
            "work.rs done",
            "work.rs link",
        ],
    ),
    ("a library of the machine that is linked in: the key has its digest", &["steps/uvstore.rs glibc"]),
    (
        "the Python's headers: the key has the interpreter's digest and that of pyconfig.h",
        &["steps/configure.rs shown_headers ×3"],
    ),
    ("this program itself, as the launcher of compilers", &["work.rs install_launcher ×2"]),
    ("digests of files of registries, before there is a lock", &["lock.rs read"]),
    (
        "how long things take: decides what is said, and in which order",
        &["timing.rs table", "work/ninja.rs ninja_log", "work/ninja.rs table"],
    ),
    ("where objects came from: what a progress bar and a page say", &["work/ninja.rs now", "compiled.rs compiled"]),
    (
        "a finished result, on its way out of the store",
        &["publish.rs place", "publish.rs publish", "publish.rs publish_set ×2", "uvstore_pack.rs wheel ×2"],
    ),
];

/// Where a file's functions read files or folders with the standard library, `fs_err` or `walkdir`.
#[derive(Default)]
struct Reading {
    within: Vec<String>,
    found: BTreeMap<String, usize>,
}

impl Reading {
    /// Whether a path of code is one that reads.
    fn path(&mut self, path: &[&str]) {
        const READ: [&str; 6] = ["read", "read_to_string", "read_dir", "read_link", "copy", "hard_link"];
        let reads = match path {
            [.., "fs" | "fs_err" | "Path" | "PathBuf", name] => READ.contains(name),
            // The store's own, which keeps what is not there apart from what cannot be read.
            [.., "read_if_there"] => true,
            [.., "File", "open" | "options"] | [.., "OpenOptions" | "WalkDir", "new"] => true,
            _ => false,
        };
        if reads {
            *self.found.entry(self.within.last().cloned().unwrap_or_default()).or_default() += 1;
        }
    }

    fn inside(&mut self, function: &syn::Ident, visit: impl FnOnce(&mut Self)) {
        // A function inside of a function belongs to it.
        let outermost = self.within.first().cloned().unwrap_or_else(|| function.to_string());
        self.within.push(outermost);
        visit(self);
        self.within.pop();
    }
}

impl<'a> Visit<'a> for Reading {
    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.inside(&function.sig.ident, |this| visit::visit_item_fn(this, function));
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        self.inside(&function.sig.ident, |this| visit::visit_impl_item_fn(this, function));
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.path(&names.iter().map(String::as_str).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        if ["read_dir", "read_link"].iter().any(|name| call.method == name) {
            self.path(&["Path", &call.method.to_string()]);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        let mut reader = Reader::default();
        reader.tokens(call.tokens.to_string());
        for path in reader.0.paths {
            self.path(&path.iter().map(String::as_str).collect::<Vec<_>>());
        }
        visit::visit_macro(self, call);
    }

    /// A function of theirs under its bare name would not be seen.
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        let mut imports = Vec::new();
        flatten(&item.tree, &mut Vec::new(), false, &mut imports);
        for import in imports {
            let path: Vec<&str> = import.path.iter().map(String::as_str).collect();
            let hidden = match path[..] {
                ["std", "fs"] | ["fs_err"] => import.name == "*" || !["fs", "fs_err"].contains(&import.name.as_str()),
                ["std", "fs", name] | ["fs_err", name] => name.starts_with(char::is_lowercase) || import.name != name,
                ["walkdir", name] => import.name != name,
                _ => false,
            };
            if hidden {
                self.found.insert(format!("use {}", path.join("::")), 1);
            }
        }
    }
}

fn reading(text: &str) -> Vec<String> {
    let mut reading = Reading::default();
    reading.visit_file(&syn::parse_file(text).unwrap());
    let shown = |(place, times)| if times > 1 { format!("{place} ×{times}") } else { place };
    reading.found.into_iter().map(shown).collect()
}

#[test]
fn a_stage_reads_no_file_past_its_inputs() {
    let folder = root().join("xtask/src/stage");
    let mut found = BTreeSet::new();
    for file in rust_files(&folder) {
        let name =
            file.strip_prefix(&folder).unwrap().iter().map(|p| p.to_str().unwrap()).collect::<Vec<_>>().join("/");
        let places = reading(&std::fs::read_to_string(&file).unwrap());
        found.extend(places.into_iter().map(|place| format!("{name} {place}")));
    }
    let known: BTreeSet<String> =
        READS_BY_ITSELF.iter().flat_map(|(_, places)| *places).map(|p| (*p).to_owned()).collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(new.is_empty(), "these read past the key; take what they read through Cx, or say why they may: {new:#?}");
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "these are no longer so: strike them out: {gone:#?}");
}

#[test]
fn whoever_reads_a_file_is_found_however_it_is_written() {
    let found = |body: &str| reading(&format!("impl X {{ fn f() {{ {body} }} }}")) == ["f"];
    for body in [
        "let t = fs_err::read_to_string(p)?;",
        "std::fs::read(p)",
        "fs::read_dir(p)",
        "fs_err::File::open(p)",
        "let f = std::fs::OpenOptions::new().read(true).open(p);",
        "for e in walkdir::WalkDir::new(p) {}",
        "p.parent().unwrap().read_dir()",
        "paths.map(std::fs::read)",
        "format!(\"{}\", fs_err::read(p)?.len())",
        "fn inner() { std::fs::copy(a, b) }",
    ] {
        assert!(found(body), "{body}");
    }
    for body in ["cx.patch(p)", "fs_err::write(p, t)", "Path::new(p)", "fs_err::create_dir_all(p)", "read(p)"] {
        assert!(!found(body), "{body}");
    }
    assert_eq!(reading("use std::fs::read;").len(), 1);
    assert_eq!(reading("fn f() { std::fs::read(p); if x { fs_err::read(p) } }"), ["f ×2"]);
    assert_eq!(reading("use fs_err as fs; use std::fs::Metadata;").len(), 0);
    for of_tests in ["test", "all(test, unix)", "all(unix, all(feature = \"x\", test))"] {
        assert!(reading(&format!("#[cfg({of_tests})] mod tests {{ fn f() {{ std::fs::read(p) }} }}")).is_empty());
    }
    for not_alone in ["unix", "not(test)", "any(test, unix)", "all(unix, not(test))"] {
        let found = reading(&format!("#[cfg({not_alone})] mod more {{ fn f() {{ std::fs::read(p) }} }}"));
        assert_eq!(found, ["f"], "{not_alone}");
    }
}

#[test]
fn the_pictures_of_the_stages_are_the_table() {
    let picture = diagram();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&picture), "README.md does not have\n{picture}");
    let docs = std::fs::read_to_string(root().join("xtask/src/stage/mod.rs")).unwrap();
    let commented: String = picture.lines().map(|line| format!("//! {line}\n")).collect();
    assert!(docs.contains(&commented), "stage/mod.rs does not have\n{commented}");
}

/// Who looks for a file that was renamed stops trusting the page. Names in capitals are the reader's to fill in.
#[test]
fn every_file_that_the_guides_to_the_code_name_is_there() {
    for page in ["docs/architecture.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let is_path = |name: &&str| {
            (name.contains('/') || name.ends_with(".rs"))
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "./_-".contains(c))
        };
        let named: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_path).collect();
        assert!(named.len() >= 10, "{page}: {named:?}");
        let missing: Vec<&&str> =
            named.iter().filter(|n| !root().join(n).exists() && !root().join("xtask/src").join(n).exists()).collect();
        assert!(missing.is_empty(), "{page} names {missing:?}, which is not there");
    }
}

/// The table of promises is worth what its tests are.
#[test]
fn every_test_that_the_table_of_promises_names_is_there() {
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let sources = [rust_files(&root().join("tests")), rust_files(&root().join("xtask/src"))].concat();
    let sources: Vec<String> = sources.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    let is_there = |name: &str| {
        let module = name.replace("::", "/");
        let paths = [name.to_owned(), format!("tests/{module}.rs"), format!("xtask/src/{module}.rs")];
        paths.iter().any(|p| root().join(p).exists()) || sources.iter().any(|s| s.contains(&format!("fn {name}()")))
    };
    let mut promises = 0;
    for row in text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| promise ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [promise, _, tests] = cells[..] else { panic!("no three columns: {row}") };
        promises += 1;
        if tests.trim() == "the same" {
            continue;
        }
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).filter(|n| !n.contains([' ', '='])).collect();
        assert!(!named.is_empty(), "no test for '{promise}'");
        let missing: Vec<&&str> = named.iter().filter(|n| !is_there(n)).collect();
        assert!(missing.is_empty(), "'{promise}' names {missing:?}, which is not there");
    }
    assert!(promises >= 30, "{promises} promises");
}
