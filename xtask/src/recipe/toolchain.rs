//! Where the toolchain of a recipe comes from: the machine, or packages that the lock holds by digest.

use std::path::Path;
use std::str::FromStr;

use pep440_rs::{Operator, Version, VersionSpecifiers};

use super::model::{Source, System, ToolchainFile, ToolchainFrom};
use crate::error::{Error, Result};

/// The prefix that a locked toolchain is made of, and the name of the stage that makes it.
pub const TOOLCHAIN: &str = "toolchain";

impl ToolchainFile {
    /// Whether the toolchain comes from locked packages.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.from == Some(ToolchainFrom::Locked)
    }

    /// Whether the recipe says which compilers it was tried with, and none of them is of the family (`GCC`) and the major
    /// version of this one.
    #[must_use]
    pub fn is_untried(&self, family: &str, version: &str) -> bool {
        let major = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
        let is_it = |tried: &String| {
            let named = tried.split_once(' ');
            named.is_some_and(|(name, its)| name.eq_ignore_ascii_case(family) && major(its) == major(version))
        };
        !self.tried.is_empty() && !self.tried.iter().any(is_it)
    }

    /// The one version of Clang that `clang` names with `==`; `None` if it names a range, or nothing.
    #[must_use]
    pub fn one_clang(&self) -> Option<String> {
        let range = VersionSpecifiers::from_str(self.clang.as_deref()?).ok()?;
        match &range[..] {
            [one] if *one.operator() == Operator::Equal => Some(one.version().to_string()),
            _ => None,
        }
    }
}

/// Holds what a recipe says of its toolchain against its sources.
///
/// # Errors
/// It is `from = "locked"`, and the recipe is not for Linux, has no packages for it, or does not say which version of
/// Clang they have.
pub(super) fn check(toolchain: &ToolchainFile, system: System, sources: &[Source], path: &Path) -> Result<()> {
    const FAMILIES: [&str; 3] = ["gcc", "clang", "msvc"];
    let is_named = |tried: &&String| {
        let named = tried.split_once(' ');
        named.is_some_and(|(name, version)| FAMILIES.contains(&name) && Version::from_str(version).is_ok())
    };
    if let Some(tried) = toolchain.tried.iter().find(|tried| !is_named(tried)) {
        let what = format!("{}: toolchain.tried: '{tried}' names no compiler and its version", path.display());
        return Err(Error::misuse("recipe", what).next("such as \"gcc 12.2\", \"clang 19.1.7\" or \"msvc 19.38\""));
    }
    if !toolchain.is_locked() {
        return Ok(());
    }
    let wrong =
        |what: &str| Error::misuse("recipe", format!("{}: toolchain.from is \"locked\", {what}", path.display()));
    if system != System::Linux {
        return Err(wrong(&format!("and the recipe is for {}: a locked toolchain is made for Linux", system.name()))
            .next("leave toolchain.from out: the compiler of the machine is used"));
    }
    if !sources.iter().any(|s| s.in_prefix(TOOLCHAIN).next().is_some()) {
        return Err(wrong("and no source goes into the prefix 'toolchain'").next(
            "extend a recipe that has the packages, such as torch-2.12.1-cpu-clang, or leave toolchain.from out",
        ));
    }
    if toolchain.one_clang().is_none() {
        let said = toolchain.clang.as_deref().map_or("nothing".to_owned(), |range| format!("'{range}'"));
        return Err(wrong(&format!("and toolchain.clang says {said}: its packages have one version"))
            .next("name that version, as in clang = \"==19.1.7\""));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_a_family_and_a_major_version() {
        let tried = |tried: &[&str]| {
            let tried = tried.iter().map(|&one| one.to_owned()).collect();
            ToolchainFile { tried, ..ToolchainFile::default() }
        };
        let recipe = tried(&["gcc 12.2", "clang 19.1.7"]);
        assert!(!recipe.is_untried("GCC", "12.3.0") && !recipe.is_untried("Clang", "19.1.0"));
        assert!(
            recipe.is_untried("GCC", "14.2.0") && recipe.is_untried("GCC", "1.2") && recipe.is_untried("MSVC", "19.38")
        );
        // What says nothing is not held to it.
        assert!(!tried(&[]).is_untried("GCC", "14.2.0"));
        for bad in ["gcc", "gcc-12", "icc 2021", "gcc twelve", ""] {
            let e = check(&tried(&[bad]), System::Linux, &[], Path::new("r.toml")).unwrap_err();
            assert!(e.what().contains(&format!("toolchain.tried: '{bad}'")), "{e}");
        }
        check(&recipe, System::Linux, &[], Path::new("r.toml")).unwrap();
    }

    #[test]
    fn one_version_is_told_from_a_range() {
        let of = |clang: Option<&str>| {
            ToolchainFile { clang: clang.map(str::to_owned), ..ToolchainFile::default() }.one_clang()
        };
        assert_eq!(of(Some("==19.1.7")).as_deref(), Some("19.1.7"));
        for none in [None, Some(">=16"), Some("==19.*"), Some("==19.1.7, <20"), Some("trunk")] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
