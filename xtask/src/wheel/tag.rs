//! Tags: which interpreters and machines a wheel is for (PEP 425, PEP 600).

use super::Name;
use crate::recipe::System;

/// The newest systems that a wheel may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// Minor version of glibc 2.
    pub glibc: u32,
    /// Major version of macOS.
    pub macos: u32,
}

impl Newest {
    /// What build machines have: above the C library of Debian 11 one may be too old, and the official wheels run
    /// on macOS 14.
    pub const FOR_BUILDING: Self = Self { glibc: 31, macos: 14 };
    /// Whatever there is, wheels that name no C library at all (`linux_x86_64`) included.
    pub const ANY: Self = Self { glibc: u32::MAX, macos: u32::MAX };
}

/// How well a wheel fits CPython `python` (`3.11`, or `3.13t` for one that is free-threaded) on a system and a machine (`x86_64`, `aarch64`) that builds:
/// smaller is better, `None` is not at all. PEP 425, PEP 600.
pub fn fit(filename: &str, python: &str, system: System, machine: &str) -> Option<u32> {
    fit_within(filename, python, system, machine, Newest::FOR_BUILDING)
}

/// The same for a machine whose system is as new as `newest` says.
pub fn fit_within(filename: &str, python: &str, system: System, machine: &str, newest: Newest) -> Option<u32> {
    let name: Name = filename.parse().ok()?;
    let (pythons, abis, platforms) = (&name.python, &name.abi, &name.platform);
    let plain = python.strip_suffix('t').unwrap_or(python);
    let free_threaded = plain != python;
    let minor: u32 = plain.strip_prefix("3.")?.parse().ok()?;
    let exact = format!("cp3{minor}");
    // Before 3.8, the memory allocator had a letter of its own.
    let exact_abi = format!(
        "{exact}{}",
        if free_threaded {
            "t"
        } else if minor < 8 {
            "m"
        } else {
            ""
        }
    );
    let abi_rank = abis
        .split('.')
        .filter_map(|abi| match abi {
            a if a == exact_abi => Some(0),
            // Its layout of objects is another one (PEP 703).
            "abi3" if !free_threaded => Some(1),
            "none" => Some(2),
            _ => None,
        })
        .min()?;
    let at_most = |m: &str| m.parse::<u32>().is_ok_and(|m| m <= minor);
    let python_fits = pythons.split('.').any(|p| match p {
        "py3" => true,
        p if p == exact => true,
        // `py39` is any Python from 3.9 on; `cp39` only where the ABI is the stable one.
        p => p.strip_prefix("py3").is_some_and(at_most) || abi_rank == 1 && p.strip_prefix("cp3").is_some_and(at_most),
    });
    if !python_fits {
        return None;
    }
    // Of several manylinux levels the lowest runs in most places.
    let platform_rank = platforms
        .split('.')
        .filter_map(|p| {
            if p == "any" {
                return Some(1000);
            }
            match system {
                System::Linux => manylinux(p, machine, newest.glibc),
                System::Windows => {
                    let tag = if machine == "aarch64" { "win_arm64" } else { "win_amd64" };
                    (p == tag).then_some(0)
                }
                System::Macos => macos(p, machine, newest.macos),
            }
        })
        .min()?;
    Some(abi_rank * 10_000 + platform_rank)
}

/// Rank of a manylinux tag: the minor version of its C library.
fn manylinux(tag: &str, machine: &str, newest: u32) -> Option<u32> {
    let rank = match tag.strip_suffix(machine)?.trim_end_matches('_') {
        "linux" if newest == u32::MAX => 999,
        "manylinux1" => 5,
        "manylinux2010" => 12,
        "manylinux2014" => 17,
        l => l.strip_prefix("manylinux_2_")?.parse().ok()?,
    };
    (rank <= newest).then_some(rank)
}

/// Rank of a macOS tag: its version, and one more where it is for both kinds of machine.
fn macos(tag: &str, machine: &str, newest: u32) -> Option<u32> {
    let rest = tag.strip_prefix("macosx_")?;
    let (version, kind) = rest.rsplit_once("_universal2").map(|(v, _)| (v, 1)).or_else(|| {
        let own = if machine == "aarch64" { "arm64" } else { machine };
        Some((rest.strip_suffix(own)?.strip_suffix('_')?, 0))
    })?;
    let (major, minor) = version.split_once('_')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    (major <= newest).then_some(major.saturating_mul(40).saturating_add(minor.saturating_mul(2)).saturating_add(kind))
}

/// Whether a wheel's platform tag is `wanted`, or of the same system and machine where `wanted` is
/// just that (`linux_x86_64`).
pub fn fits_platform(name: &Name, wanted: &str) -> bool {
    name.platform.split('.').any(|p| {
        p == wanted
            || wanted.strip_prefix("linux_").is_some_and(|machine| p.contains("linux") && p.ends_with(machine))
            || wanted.strip_prefix("macosx_").is_some_and(|machine| p.starts_with("macosx") && p.ends_with(machine))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_threaded_python_takes_wheels_of_its_own_or_without_abi() {
        let f = |n: &str, python: &str| fit(n, python, System::Linux, "x86_64").is_some();
        let free = "x-1-cp313-cp313t-manylinux_2_28_x86_64.whl";
        assert!(f(free, "3.13t") && !f(free, "3.13") && !f(free, "3.14t"));
        assert!(!f("x-1-cp313-cp313-manylinux_2_28_x86_64.whl", "3.13t"));
        assert!(!f("x-1-cp38-abi3-manylinux_2_28_x86_64.whl", "3.13t"));
        assert!(f("x-1-py3-none-any.whl", "3.13t") && f("x-1-py39-none-any.whl", "3.13t"));
    }

    #[test]
    fn before_3_8_an_abi_has_a_letter_more() {
        let f = |n: &str, python: &str| fit(n, python, System::Linux, "x86_64").is_some();
        assert!(f("torch-1.12.1-cp37-cp37m-manylinux1_x86_64.whl", "3.7"));
        assert!(!f("torch-1.12.1-cp38-cp38m-manylinux1_x86_64.whl", "3.8"));
    }

    #[test]
    fn the_exact_wheel_is_better_than_the_stable_abi_than_pure() {
        let f = |n| fit(n, "3.11", System::Linux, "x86_64");
        let exact = f("x-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl");
        let stable = f("x-1-cp38-abi3-manylinux_2_17_x86_64.whl");
        let tool = f("ninja-1.13.0-py3-none-manylinux_2_12_x86_64.manylinux2010_x86_64.whl");
        let pure = f("x-1-py2.py3-none-any.whl");
        assert!(exact < stable && stable < tool && tool < pure, "{exact:?} {stable:?} {tool:?} {pure:?}");
        assert!(f("x-1-py39-none-any.whl").is_some() && f("x-1-py311-none-manylinux_2_28_x86_64.whl").is_some());
        assert_eq!(f("x-1-py312-none-any.whl"), None);
        assert_eq!(f("x-1-cp39-none-any.whl"), None);
        assert_eq!(f("x-1-cp312-cp312-manylinux_2_17_x86_64.whl"), None);
        assert_eq!(f("x-1-cp311-cp311-musllinux_1_2_x86_64.whl"), None);
        assert_eq!(f("x-1-cp311-cp311-manylinux_2_17_aarch64.whl"), None);
        assert_eq!(f("x-1-cp311-cp311-win_amd64.whl"), None);
    }

    #[test]
    fn windows_and_macos_have_tags_of_their_own() {
        let w = |n| fit(n, "3.11", System::Windows, "x86_64");
        assert!(w("x-1-cp311-cp311-win_amd64.whl").is_some());
        assert_eq!(w("x-1-cp311-cp311-win32.whl"), None);
        assert_eq!(w("x-1-cp311-cp311-manylinux_2_17_x86_64.whl"), None);
        let m = |n| fit(n, "3.11", System::Macos, "aarch64");
        let own = m("x-1-cp311-cp311-macosx_11_0_arm64.whl");
        assert!(own < m("x-1-cp311-cp311-macosx_11_0_universal2.whl"));
        assert!(own < m("x-1-cp311-cp311-macosx_14_0_arm64.whl"));
        assert_eq!(m("x-1-cp311-cp311-macosx_11_0_x86_64.whl"), None);
        assert_eq!(m("x-1-cp311-cp311-macosx_15_0_arm64.whl"), None);
    }
}
