//! Whether a build has room: a path that compilers can carry, and a disk that holds it.

use super::Work;
use crate::error::{Error, Result};
use crate::platform;
use crate::stage::build::Build;

/// Characters that flags of compilers, lists of CMake or ninja's files give a meaning of their own.
const NO_PATH: &[char] = &[';', '=', ':', ',', '"', '\'', '$', '`', '#', '|', '&', '<', '>', '(', ')', '*', '?'];

/// Characters of the longest path of a build's own below the store: a work folder's, and an object file's in it.
const DEEPEST: usize = 34 + 140;

/// An error if the store's path has characters that a build cannot carry: PyTorch's own list files do not
/// quote what they hand on; or if it is so long that Windows' compilers would not find their files.
///
/// # Errors
/// Misuse, with the character or the length.
pub fn check_path(build: &Build<'_>) -> Result<()> {
    check_path_of(&build.store.root().display().to_string(), cfg!(windows))
}

fn check_path_of(root: &str, windows: bool) -> Result<()> {
    // MAX_PATH counts the zero at the end. This program does without that limit, compilers do not.
    let most = 259 - DEEPEST;
    if windows && root.chars().count() > most {
        return Err(Error::misuse(
            "store-path",
            format!("the store's path '{root}' has more than {most} characters: compilers would meet paths of more than 260, which they cannot open"),
        )
        .next(r"put the store where its path is short: --store C:\tw, or TORCHMILL_STORE"));
    }
    // A drive of Windows has its colon.
    let rest = if windows { root.get(2..).unwrap_or_default() } else { root };
    match rest.chars().find(|c| c.is_whitespace() || c.is_control() || NO_PATH.contains(c)) {
        None => Ok(()),
        Some(c) => Err(Error::misuse(
            "store-path",
            format!("the store's path '{root}' has the character {c:?}, which flags of compilers cannot carry"),
        )
        .next("put the store where no folder's name has one: --store DIR, or TORCHMILL_STORE")),
    }
}

/// Share of the recipe's disk that everything before compile takes: sources, tree, tools, canary. A third is
/// more than was seen (2.4 of 8 GiB for torch-2.6.0-cpu).
const BEFORE_COMPILE: u64 = 3;

/// Both [`check_hiding`] and [`check_space`]: what a stage asks for that runs compilers in the work folder.
///
/// # Errors
/// As theirs.
pub fn check(build: &Build<'_>, work: Option<&Work>, compiles: bool) -> Result<()> {
    check_hiding(build)?;
    check_space(build, work, compiles)
}

/// An error if the disk has less room than a build takes from here on: what the recipe says, less what its
/// work folder has already, and only a share where the build stops before compile.
///
/// # Errors
/// As [`check_room`].
pub fn check_space(build: &Build<'_>, work: Option<&Work>, compiles: bool) -> Result<()> {
    let whole = build.recipe.limits.disk;
    let need = if compiles { whole } else { whole / BEFORE_COMPILE };
    let need = need.saturating_sub(work.map_or(0, |begun| crate::store::size_of_tree(&begun.dir)));
    check_room(build, need, &format!("a build of {}", build.recipe.name))
}

/// An error if the disk has less room than the `need` bytes of `what`.
///
/// # Errors
/// The world, with what is free and what is needed.
pub fn check_room(build: &Build<'_>, need: u64, what: &str) -> Result<()> {
    let Some(free) = platform::free_space(build.store.root()) else { return Ok(()) };
    if free >= need {
        return Ok(());
    }
    let root = build.store.root().display();
    Err(Error::world(
        "disk-space",
        format!("the store {root} has {} MiB free; {what} needs about {} MiB", free >> 20, need >> 20),
    )
    .next("free disk space, run `cargo xtask clean`, or put the store elsewhere with --store DIR"))
}

/// An error if this kernel cannot hide what the machine has of compilers from a build that brings its own.
///
/// # Errors
/// It cannot.
pub fn check_hiding(build: &Build<'_>) -> Result<()> {
    if build.compiler.locked.is_none() {
        return Ok(());
    }
    platform::hiding_supported().map_err(|why| {
        Error::world(
            "no-namespaces",
            format!(
                "the recipe {} is built without the headers of this machine, and this kernel cannot hide them: {why}",
                build.recipe.name
            ),
        )
        .next("allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0), or build as root")
        .next("or choose a recipe that is built with the machine's compiler")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_compilers_cannot_reach_into_is_refused() {
        check_path_of(r"C:\tw", true).unwrap();
        check_path_of("/home/someone/.cache/torchmill", false).unwrap();
        check_path_of(&format!("/{}", "d/".repeat(100)), false).unwrap();
        let deep = check_path_of(&format!(r"C:\{}", r"d\".repeat(50)), true).unwrap_err();
        assert!(deep.what().contains("more than 85 characters"), "{}", deep.what());
        let spaced = check_path_of(r"C:\Program Files\tw", true).unwrap_err();
        assert!(spaced.what().contains("' '"), "{}", spaced.what());
        assert!(check_path_of("/a=b", false).is_err());
    }
}
