//! Names of members: which ones mean one and the same file to every reader, on every system.

use std::path::Path;

use icu_normalizer::ComposingNormalizerBorrowed;

/// Longest name, bytes: what file systems take in a path.
const LONGEST: usize = 4096;
/// Longest segment, bytes.
const LONGEST_SEGMENT: usize = 255;

/// The name of `path` as a member of the folder `top`: the same on every system, with `/` between its parts. All of
/// `path` if it is not below.
pub fn below(top: &Path, path: &Path) -> String {
    let Ok(below) = path.strip_prefix(top) else { return path.to_string_lossy().into_owned() };
    below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// An error if some reader would take `name` for another file than it says.
///
/// # Errors
/// Why, in words that follow the name.
pub fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".into());
    }
    if name.len() > LONGEST {
        return Err(format!("has more than {LONGEST} bytes"));
    }
    // Nearly all names: nothing below can be found in them but what their parts are called.
    if name.bytes().all(|b| PLAIN[usize::from(b)]) && !name.starts_with('/') {
        return name.strip_suffix('/').unwrap_or(name).split('/').try_for_each(segment);
    }
    if let Some(c) = name.chars().find(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')) {
        return Err(format!("holds the control character {c:?}"));
    }
    if let Some(c) = name.chars().find(|c| is_passed_over(*c)) {
        return Err(format!("holds {c:?}, which some file systems and all readers pass over"));
    }
    if let Some(c) = name.chars().find(|c| matches!(c, '\\' | ':' | '<' | '>' | '"' | '|' | '?' | '*')) {
        return Err(format!("holds {c:?}, which means something else on Windows"));
    }
    if name.starts_with('/') {
        return Err("is an absolute path".into());
    }
    name.strip_suffix('/').unwrap_or(name).split('/').try_for_each(segment)
}

/// Characters that have no width or turn the text around: HFS+ takes two names that differ in them for one (TN1150,
/// "Case-Insensitive String Comparison Algorithm"), and so does whoever reads them.
fn is_passed_over(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        // What is nobody's letter: for private use, no character at all, tags.
        | '\u{e000}'..='\u{f8ff}' | '\u{fffe}'..='\u{ffff}' | '\u{e0000}'..='\u{e007f}')
}

/// Characters that mean themselves everywhere: letters, digits, and `_`, `-`, `+`, `.`, `/`.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut at = 0;
    while at < plain.len() {
        let byte = at as u8;
        plain[at] = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'.' | b'/');
        at += 1;
    }
    plain
};

fn segment(segment: &str) -> Result<(), String> {
    match segment {
        "" => return Err("has an empty part".into()),
        "." | ".." => return Err(format!("has the part '{segment}'")),
        _ => {}
    }
    if segment.len() > LONGEST_SEGMENT {
        return Err(format!("has a part of more than {LONGEST_SEGMENT} bytes"));
    }
    if segment.ends_with(['.', ' ']) {
        return Err(format!("has the part '{segment}', whose last character Windows drops"));
    }
    // "File names, paths and namespaces": a device whatever follows the first dot; none has more than seven
    // characters before it.
    let first = segment.split('.').next().unwrap_or_default().trim_end();
    if !(3..=7).contains(&first.len()) {
        return Ok(());
    }
    let stem = first.to_ascii_uppercase();
    let numbered = |device: &str| {
        stem.strip_prefix(device)
            .is_some_and(|n| matches!(n, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³"))
    };
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || numbered("COM")
        || numbered("LPT")
    {
        return Err(format!("has the part '{segment}', which is a device on Windows"));
    }
    Ok(())
}

/// Characters that are left out as well where names are looked up whatever their case, as Linux does in folders that
/// are told to (Unicode, "Default_Ignorable_Code_Point").
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0080}'..='\u{e0fff}')
}

/// What is the same for two names that some file system takes for one: case, the way in which accents and letters are
/// written (ZFS has "normalization=formKD"), and characters that are left out do not count.
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let compose = ComposingNormalizerBorrowed::new_nfkc();
    let left_out = |c: char| is_passed_over(c) || is_ignorable(c);
    // By way of upper case, where 'ß' and "ss", 'ſ' and 's' meet; of lower case before, for 'ẞ' is its own upper case;
    // and once more, for what only then is composed or taken apart.
    let mut folded = name.to_owned();
    for _ in 0..2 {
        let seen: String = compose.normalize(&folded).chars().filter(|c| !left_out(*c)).collect();
        let cased = seen.to_lowercase().to_uppercase().to_lowercase();
        folded = compose.normalize(&cased).into_owned();
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_below_a_folder_is_the_same_on_every_system() {
        let top = Path::new("top");
        assert_eq!(below(top, &top.join("a").join("b.cpp")), "a/b.cpp");
        assert_eq!(below(top, Path::new("/else/where")), "/else/where");
    }

    #[test]
    fn names_that_mean_another_file_somewhere_are_refused() {
        for bad in [
            "",
            "/a",
            "a//b",
            "../a",
            "a/../b",
            "./a",
            "a\\b",
            "C:a",
            "a\0b",
            "a\nb",
            "a.",
            "a /b",
            "a/b.",
            "nul",
            "lib/AUX.py",
            "com1.txt",
            "LPT\u{b9}",
            "a\u{2028}b",
            "a:stream",
            "what?",
            "a\u{85}b",
            "a\u{200d}b",
            "a\u{202e}yp.b",
            "a\u{ad}",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        for good in [
            "a",
            "a/b.py",
            "a/",
            "torch/lib/libc10.so",
            "größe/ñ.txt",
            "console.py",
            "com10",
            "nulls/a",
            ".hidden",
            "a..b",
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn names_that_a_file_system_takes_for_one_fold_to_one() {
        for (a, b) in [
            ("A.py", "a.py"),
            ("e\u{301}", "\u{e9}"),
            ("\u{c9}", "e\u{301}"),
            ("STRASSE", "straße"),
            ("ſ", "S"),
            ("ẞ", "ß"),
            ("ﬁle", "file"),
            ("\u{ff41}.py", "a.py"),
            ("x\u{fe0f}", "x"),
            ("a\u{34f}", "A"),
            ("\u{3164}b", "b"),
        ] {
            assert_eq!(fold(a), fold(b), "{a} {b}");
        }
        assert_ne!(fold("a"), fold("b"));
    }

    #[test]
    fn every_letter_folds_with_its_cases_and_its_parts() {
        let decompose = icu_normalizer::DecomposingNormalizerBorrowed::new_nfd();
        for c in (char::MIN..=char::MAX).filter(|c| !c.is_control()) {
            let one = c.to_string();
            let folded = fold(&one);
            assert_eq!(fold(&folded), folded, "{c:?} is folded once");
            for other in [one.to_lowercase(), one.to_uppercase(), decompose.normalize(&one).into_owned()] {
                assert_eq!(fold(&other), folded, "{c:?} and {other:?}");
            }
        }
    }
}
