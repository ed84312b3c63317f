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
    attributes.iter().any(|a| a.path().is_ident("cfg") && a.parse_args::<syn::Ident>().is_ok_and(|what| what == "test"))
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

#[test]
fn the_pictures_of_the_stages_are_the_table() {
    let picture = diagram();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&picture), "README.md does not have\n{picture}");
    let docs = std::fs::read_to_string(root().join("xtask/src/stage/mod.rs")).unwrap();
    let commented: String = picture.lines().map(|line| format!("//! {line}\n")).collect();
    assert!(docs.contains(&commented), "stage/mod.rs does not have\n{commented}");
}
