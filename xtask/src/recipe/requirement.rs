//! Requirements (PEP 508): the one place that reads them.

use std::str::FromStr;

use pep508_rs::VerbatimUrl;

/// A requirement as METADATA and requirement files write it (PEP 508).
pub type Requirement = pep508_rs::Requirement<VerbatimUrl>;

/// Reads a requirement. A name that ends with a separator (`a-`) is refused before the library sees it, which panics
/// there.
///
/// # Errors
/// What is wrong with it.
pub fn requirement(text: &str) -> Result<Requirement, String> {
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

/// What is wrong, without the lines after it that draw an arrow under the place: an error of ours is one line.
pub(crate) fn first_line(e: &impl std::fmt::Display) -> String {
    e.to_string().lines().next().unwrap_or_default().to_owned()
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
