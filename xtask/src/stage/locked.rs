//! The locked toolchain of a recipe: where it stands and what it is, known before it is made. Its key is made of the
//! recipe and the lock alone, so it is the same on every machine.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::recipe::{Lock, Recipe, Source, TOOLCHAIN};
use crate::store::{Parts, Store};
use crate::toolchain::{Compiler, locked};

/// The version of the code that makes a toolchain of its packages: raised when the code changes what comes out.
pub const VERSION: u32 = 1;

/// Files of this program that decide what comes out, as the stage has them.
pub const EMBEDS: &[(&str, &str)] = &[("toolchain/trial.cpp", locked::TRIAL)];

/// The variables that name the machine's compilers.
const NAMED: [&str; 2] = ["CC", "CXX"];

/// The sources that a recipe's toolchain is made of.
pub fn sources(recipe: &Recipe) -> impl Iterator<Item = &Source> {
    recipe.source.iter().filter(|source| source.in_prefix(TOOLCHAIN).next().is_some())
}

/// The machines that a recipe, as it is for all of them, has packages of a toolchain for.
pub fn machines(recipe: &Recipe) -> BTreeSet<String> {
    sources(recipe).filter_map(|source| source.machine.clone()).collect()
}

/// The inputs of the toolchain's key.
pub fn inputs(recipe: &Recipe, lock: &Lock, parts: &mut Parts) {
    parts.json("epoch", &recipe.torch.epoch);
    for source in sources(recipe) {
        for place in source.in_prefix(TOOLCHAIN) {
            parts.digest(format!("source {}", source.name), digest(lock, source));
            parts.json(format!("place of {}", source.name), place);
        }
    }
    parts.text("clang", version(recipe));
    parts.content("what is made of them", locked::made());
}

/// The compiler of the recipe's packages, for the machine called `machine` (`x86_64`); it has packages for `machines`.
///
/// # Errors
/// Bad input: a compiler of the machine is named as well, or the recipe has no packages for that machine.
pub fn compiler(
    recipe: &Recipe,
    lock: &Lock,
    store: &Store,
    machine: &str,
    machines: &BTreeSet<String>,
) -> Result<Compiler> {
    if let Some((name, value)) =
        NAMED.iter().find_map(|name| Some((name, std::env::var_os(name)?)).filter(|(_, v)| !v.is_empty()))
    {
        return Err(Error::misuse(
            "compiler-twice",
            format!(
                "{name}={} names a compiler, and the recipe {} brings its own (toolchain.from = \"locked\")",
                value.display(),
                recipe.name
            ),
        )
        .next(format!("run it without {}: env -u CC -u CXX cargo xtask …", NAMED.join(" and ")))
        .next("or choose a recipe that is built with the machine's compiler"));
    }
    if sources(recipe).next().is_none() {
        return Err(Error::misuse(
            "toolchain-machine",
            format!("the recipe {} brings its own compiler, and has no packages of it for {machine}", recipe.name),
        )
        .next(format!("build on one that it has them for: {}", machines.iter().cloned().collect::<Vec<_>>().join(", ")))
        .next("or choose a recipe that is built with the machine's compiler"));
    }
    let mut parts = Parts::new(TOOLCHAIN, VERSION);
    inputs(recipe, lock, &mut parts);
    for (name, text) in EMBEDS {
        parts.content(format!("file {name}"), text);
    }
    let key = parts.key();
    let packages = sources(recipe).map(|source| (source.name.clone(), digest(lock, source).to_owned()));
    let files: BTreeMap<String, String> = packages.chain([(TOOLCHAIN.to_owned(), key.to_string())]).collect();
    locked::compiler(&store.result(TOOLCHAIN, &key), machine, &version(recipe), files)
}

/// The version of Clang that the recipe says its packages have.
pub fn version(recipe: &Recipe) -> String {
    recipe.toolchain.one_clang().unwrap_or_default()
}

/// The digest that the lock has for a source; empty where it has none, which fetch will tell.
fn digest<'l>(lock: &'l Lock, source: &Source) -> &'l str {
    lock.source.get(&source.name).map_or("", |locked| &locked.sha256)
}
