//! Where the toolchain of a recipe comes from: the machine, or packages that the lock holds by digest.

use std::path::Path;
use std::str::FromStr;

use pep440_rs::{Operator, VersionSpecifiers};

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
