//! `entry_points.txt`: what installers make programs of (the entry points specification, "File format"). pip reads it
//! with importlib.metadata, uv with a reader of its own; what they read differently, or one of them refuses, is refused.

use std::collections::BTreeSet;

use super::names;

/// Sections whose entries become programs.
const PROGRAMS: [&str; 2] = ["console_scripts", "gui_scripts"];
/// Names that belong to an interpreter, whatever version follows.
const INTERPRETERS: [&str; 3] = ["python", "pypy", "graalpy"];

/// The programs that installers make, by name.
///
/// # Errors
/// What readers would differ in, as words that follow the file's name.
pub fn programs(bytes: &[u8]) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let (mut sections, mut keys, mut programs) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut section: Option<&str> = None;
    for (at, line) in text.split('\n').enumerate() {
        let bad = |what: &str| format!("cannot be read: line {} {what}", at + 1);
        let line = line.strip_suffix('\r').unwrap_or(line);
        // Where a line ends is another place to other readers.
        if line.chars().any(|c| c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')) {
            return Err(bad("holds a control character"));
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.strip_suffix(']').ok_or_else(|| bad("begins a section and does not end it"))?;
            if name.is_empty() || name.trim() != name || name.contains(['[', ']']) || names::fold(name) == "default" {
                return Err(bad(&format!("begins a section '{}', which readers differ in", name.escape_debug())));
            }
            if !sections.insert(name) {
                return Err(bad(&format!("begins the section '{}' again", name.escape_debug())));
            }
            (section, keys) = (Some(name), BTreeSet::new());
            continue;
        }
        let section = section.ok_or_else(|| bad("stands in no section"))?;
        let entry = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        let (key, value) = entry.filter(|(key, _)| !key.is_empty()).ok_or_else(|| bad("is no 'name = value'"))?;
        if !keys.insert(key) {
            return Err(bad(&format!("names '{}' again", key.escape_debug())));
        }
        if PROGRAMS.contains(&section) {
            program(key).map_err(|what| bad(&what))?;
            if !is_function(value) {
                return Err(bad(&format!("names '{}', which is no function of a module", value.escape_debug())));
            }
            programs.push(key.to_owned());
        }
    }
    Ok(programs)
}

/// Whether `name` may be that of a program, in words that follow a line's number or a member's name.
///
/// # Errors
/// It is no plain file name, or an interpreter's.
pub fn program(name: &str) -> Result<(), String> {
    let shown = name.escape_debug();
    let fits = |c: char| c.is_alphanumeric() || "._+-".contains(c);
    if !name.chars().all(fits) || name.starts_with('.') || names::check(name).is_err() {
        return Err(format!("makes a program '{shown}', which is not the plain name of a file"));
    }
    let folded = names::fold(name);
    let stem = folded.strip_suffix(".exe").unwrap_or(&folded);
    // pip makes more programs of these than the one that is named.
    if ["pip", "easy_install"].contains(&stem) {
        return Err(format!("makes a program '{shown}', which some installers make others beside"));
    }
    let version = INTERPRETERS.iter().find_map(|of| stem.strip_prefix(of));
    if version.is_some_and(|v| v.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'w' | 't'))) {
        return Err(format!("makes a program '{shown}', which is the name of an interpreter"));
    }
    Ok(())
}

/// `module.sub:function.attribute`, with extras behind it if need be.
fn is_function(value: &str) -> bool {
    let (object, is_whole) = match value.split_once('[') {
        Some((object, extras)) => (object.trim_end(), extras.strip_suffix(']').is_some_and(are_extras)),
        None => (value, true),
    };
    let identifier = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let dotted = |path: &str| path.split('.').all(identifier);
    is_whole && object.split_once(':').is_some_and(|(module, function)| dotted(module) && dotted(function))
}

/// Names of extras as pip reads them there, which breaks off at others (distlib's `ENTRY_RE`): one at least, none but
/// the first with a dash, and no blank before a comma.
fn are_extras(text: &str) -> bool {
    let fits = |name: &str, more: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || more.contains(c))
    };
    let (first, others) = match text.trim_matches(' ').split_once(',') {
        Some((first, others)) => (first, Some(others)),
        None => (text.trim_matches(' '), None),
    };
    fits(first, "-") && others.is_none_or(|others| others.split(',').all(|name| fits(name.trim_start_matches(' '), "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_packers_write_is_read() {
        let text = "# ours\r\n[console_scripts]\r\nhello = demo.cli:main\ndemo-x=demo:App.run [fast, slow]\n\n\
                    [gui_scripts]\n  window = demo:show\n[pytest11]\nx.y = anything ; at all # here\n";
        assert_eq!(programs(text.as_bytes()).unwrap(), ["hello", "demo-x", "window"]);
        assert_eq!(programs(b"").unwrap(), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(\\[|\\]|console_scripts|=|:|[a-z]|\\PC|\n| ){0,40}") {
            for program in programs(text.as_bytes()).unwrap_or_default() {
                proptest::prop_assert!(!program.contains(['/', '\\']));
            }
        }
    }
}
