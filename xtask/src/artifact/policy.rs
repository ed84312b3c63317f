//! Which manylinux level a set of libraries may claim (PEP 600), by the policy data of auditwheel,
//! which comes with the locked build environment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::inspect::Elf;

/// One level, as auditwheel's JSON has it.
#[derive(Debug, Clone, Deserialize)]
pub struct Policy {
    /// The platform tag without its machine (PEP 600): `manylinux_2_28`.
    pub name: String,
    /// Higher is older and runs in more places.
    pub priority: i64,
    /// Machine → symbol set → allowed versions.
    pub symbol_versions: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// Libraries that every system of this level has.
    pub lib_whitelist: BTreeSet<String>,
}

/// Reads the policies from auditwheel's installed data, oldest level first.
///
/// # Errors
/// The world: auditwheel's data is not there, or has another form.
pub fn load(site_packages: &Path) -> Result<Vec<Policy>> {
    let path = site_packages.join("auditwheel/policy/manylinux-policy.json");
    let text = fs_err::read(&path)?;
    let mut policies: Vec<Policy> =
        serde_json::from_slice(&text).map_err(|e| Error::world("policy", format!("{}: {e}", path.display())))?;
    policies.retain(|p| p.name.starts_with("manylinux_2_"));
    policies.sort_by_key(|p| -p.priority);
    Ok(policies)
}

/// Libraries that no level demands inside the wheel: the union of all whitelists.
pub fn system_libraries(policies: &[Policy]) -> BTreeSet<String> {
    policies.iter().flat_map(|p| p.lib_whitelist.iter().cloned()).collect()
}

/// The oldest level that all of `files` satisfy on `machine`, with what keeps it from an older one.
///
/// # Errors
/// The world: no level has all the symbol versions that the files need.
pub fn level<'p>(policies: &'p [Policy], files: &[(String, Elf)], machine: &str) -> Result<(&'p Policy, String)> {
    let mut reason = String::new();
    for policy in policies {
        let Some(allowed) = policy.symbol_versions.get(machine) else { continue };
        let broken = files.iter().find_map(|(name, elf)| {
            elf.versions.iter().find_map(|need| {
                let (set, version) = need.version.split_once('_')?;
                let known = allowed.get(set)?;
                (!known.contains(version)).then(|| format!("{name} needs {} of {}", need.version, need.library))
            })
        });
        match broken {
            None => return Ok((policy, reason)),
            Some(why) => reason = why,
        }
    }
    Err(Error::world("manylinux", format!("no manylinux level allows what this build needs: {reason}"))
        .next("build on an older distribution, or in the container of ci/containers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::VersionNeed;

    #[test]
    fn the_oldest_level_that_allows_all_symbols_is_claimed() {
        let policy = |name: &str, priority, glibc: &[&str]| Policy {
            name: name.into(),
            priority,
            symbol_versions: [(
                "x86_64".into(),
                [("GLIBC".into(), glibc.iter().map(ToString::to_string).collect())].into(),
            )]
            .into(),
            lib_whitelist: BTreeSet::new(),
        };
        let policies = [policy("manylinux_2_17", 100, &["2.17"]), policy("manylinux_2_34", 70, &["2.17", "2.34"])];
        let elf = Elf {
            versions: [VersionNeed { library: "libc.so.6".into(), version: "GLIBC_2.34".into() }].into(),
            ..Elf::default()
        };
        let (level, why) = level(&policies, &[("x.so".into(), elf)], "x86_64").unwrap();
        assert_eq!(level.name, "manylinux_2_34");
        assert!(why.contains("GLIBC_2.34"));
    }
}
