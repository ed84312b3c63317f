//! Requirements (PEP 508): the one place that reads them.

use std::str::FromStr;

use pep508_rs::{MarkerWarningKind, VerbatimUrl};

use crate::error::without_secrets;

/// A requirement as METADATA and requirement files write it (PEP 508).
pub type Requirement = pep508_rs::Requirement<VerbatimUrl>;

/// Longest requirement that is read, in bytes.
const LONGEST: usize = 8 << 10;
/// Most comparisons of one marker: what the library makes of them doubles with each pair.
const MOST_COMPARISONS: u32 = 24;
/// Deepest parentheses: the library goes into them by recursion.
const DEEPEST: usize = 16;
/// Most that all markers of one METADATA may weigh ([`weight`]).
pub const MOST_WEIGHT: u64 = 4 << (MOST_COMPARISONS / 2);

/// What a requirement's marker costs to understand, in the worst case: it doubles with each pair of comparisons.
pub fn weight(text: &str) -> u64 {
    1 << (comparisons(text).min(2 * 30) / 2)
}

/// Comparisons of a requirement's marker, at the most.
fn comparisons(text: &str) -> u32 {
    let marker = text.split_once(';').map_or("", |(_, marker)| marker);
    let joins = marker.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| matches!(*word, "and" | "or")).count();
    u32::try_from(joins).unwrap_or(u32::MAX).saturating_add(u32::from(!marker.is_empty()))
}

/// Whether it can be read within bounds, and means the same to all readers.
fn bounded(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("it has {} bytes; up to {LONGEST} are read", text.len()));
    }
    // Blanks and letters of other alphabets mean other things to other readers, and the library panics over one where an
    // operator should be.
    if let Some(c) = text.chars().find(|c| !c.is_ascii()) {
        return Err(format!("it holds {c:?}; a requirement is ASCII (PEP 508)"));
    }
    // The library puts the variable's value there, and an error would repeat it.
    if text.contains("${") {
        return Err("it names a variable of the environment (${…}), which not every reader fills in".into());
    }
    let mut depth = 0_usize;
    for c in text.bytes() {
        depth = match c {
            b'(' => depth + 1,
            b')' => depth.saturating_sub(1),
            _ => depth,
        };
        if depth > DEEPEST {
            return Err(format!("its parentheses are deeper than {DEEPEST}"));
        }
    }
    if comparisons(text) > MOST_COMPARISONS {
        return Err(format!("its marker has {} comparisons; up to {MOST_COMPARISONS} are read", comparisons(text)));
    }
    Ok(())
}

/// Reads a requirement: all that comes from outside goes through here. A name that ends with a separator (`a-`) is refused before the library sees it, which panics
/// there.
///
/// # Errors
/// What is wrong with it, or which bound it passes.
pub fn requirement(text: &str) -> Result<Requirement, String> {
    bounded(text)?;
    let name = text.split(['<', '>', '=', '!', '~', ';', '@', '(']).next().unwrap_or(text);
    let separator = |c: char| matches!(c, '-' | '_' | '.');
    let mut following = name.chars().skip(1).chain([' ']);
    if name
        .chars()
        .any(|c| following.next().is_some_and(|n| separator(c) && !separator(n) && !n.is_ascii_alphanumeric()))
    {
        return Err(format!("a name ends with a letter or a digit, and '{}' does not", name.trim()));
    }
    Requirement::from_str(text).map_err(|e| e.message.to_string())
}

/// Whether a requirement's marker has no comparison that makes no sense (two texts, two variables, `~=` for what is no
/// version): the library and uv pass over it or take it for false, and pip compares the texts, or gives up. The order of
/// texts and a version among others (`python_version in '2.7, 3.4'`) are taken: packages use them.
///
/// # Errors
/// There is such a comparison.
pub fn compared_alike(text: &str) -> Result<(), String> {
    let taken = [MarkerWarningKind::DeprecatedMarkerName, MarkerWarningKind::Pep440Error];
    let mut is_one = false;
    let mut told = |kind: MarkerWarningKind, _: String| is_one |= !taken.contains(&kind);
    // Whether it can be read at all, `requirement` says; no folder counts for what is asked here.
    let _ = Requirement::parse_reporter(text, "/", &mut told);
    if is_one {
        return Err(
            "its condition has a comparison that makes no sense, of which installers make different things".into()
        );
    }
    Ok(())
}

/// What is wrong, without the lines after it that draw an arrow under the place: an error of ours is one line.
pub(crate) fn first_line(e: &impl std::fmt::Display) -> String {
    e.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A requirement for people: without its condition, and without what nobody is told of an address.
pub fn shown(requirement: &Requirement) -> String {
    let bare = Requirement { marker: pep508_rs::MarkerTree::TRUE, ..requirement.clone() };
    without_secrets(&bare.to_string())
}

/// The version that a requirement pins with `==`, if it does.
pub fn pinned(requirement: &Requirement) -> Option<String> {
    match &requirement.version_or_url {
        Some(pep508_rs::VersionOrUrl::VersionSpecifier(s)) if s.len() == 1 => {
            let s = s.iter().next()?;
            (*s.operator() == pep440_rs::Operator::Equal).then(|| s.version().to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_is_shown_without_its_condition_and_without_what_nobody_is_told() {
        let said = |text: &str| shown(&requirement(text).unwrap());
        let secret = "other @ https://me:pass@host.example/o.whl?token=abcdef ; python_version > '3'";
        assert_eq!(said(secret), "other @ https://…@host.example/o.whl?token=…");
        assert_eq!(said("torch>=2.6; extra == 'x'"), "torch>=2.6");
    }

    #[test]
    fn a_comparison_that_readers_understand_differently_is_found() {
        for good in [
            "x",
            "x>=1; python_version >= '3.8' and os_name != 'nt'",
            "x; extra == 'a-b'",
            "x; 'linux' in sys_platform",
            "x; python_version in '3.8 3.9'",
            "x; os.name == 'posix'",
            "x; os_name == 'a' or python_version in '2.7, 3.9'",
            "x @ https://h/x.zip ; os_name > 'a'",
        ] {
            assert_eq!(compared_alike(good), Ok(()), "{good}");
        }
        for bad in ["x; 'a' == 'a'", "x; os_name != sys_platform", "x; os_name ~= 'a'", "x; extra in 'a b'"] {
            assert!(requirement(bad).is_ok(), "{bad} is no requirement: {:?}", requirement(bad));
            assert!(compared_alike(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_marker_costs_no_more_than_its_bounds() {
        let pairs = |n: usize| {
            let pair = |i| format!("(extra == \"e{i}\" and extra == \"f{i}\")");
            format!("x ; {}", (0..n).map(pair).collect::<Vec<_>>().join(" or "))
        };
        assert!(requirement(&pairs(12)).is_ok() && requirement(&pairs(13)).unwrap_err().contains("26 comparisons"));
        let deep = |n: usize| format!("x;{}os_name == \"a\"{}", "(".repeat(n), ")".repeat(n));
        assert!(requirement(&deep(16)).is_ok() && requirement(&deep(5000)).unwrap_err().contains("8192"));
        assert!(requirement(&deep(17)).unwrap_err().contains("deeper than 16"));
        assert!(requirement("x @ https://h/${HOME}.whl").unwrap_err().contains("a variable of the environment"));
        assert!(requirement("numpy\u{a0}>=1").unwrap_err().contains("a requirement is ASCII"));
        // The library would panic here.
        assert!(requirement("x==1 ; python_version < \"3.13\" \\\u{fffd}").unwrap_err().contains("is ASCII"));
        assert_eq!((weight("x"), weight("x; a == 'b' and c == 'd'"), weight(&pairs(12))), (1, 2, 1 << 12));
    }
}
