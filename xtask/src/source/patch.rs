//! Applying patches: exactly, or not at all. No fuzz, no offset; only a file whose lines all end as Windows ends them
//! (CRLF: upstream's own checkout there) takes a patch of plain lines, and keeps its ends. A tree in which a patch is
//! already there, or half there, is told apart from one that it does not fit.

use std::path::{Path, PathBuf};

use diffy::patch_set::{FileOperation, ParseOptions, PatchSet};
use diffy::{Hunk, Line};

use crate::error::{Context, Error, Result};

/// Applies the patch file at `patch` to the tree at `root`, dropping `strip` leading segments from
/// its file names. Either every hunk of every file fits and is written, or nothing is.
///
/// # Errors
/// A hunk does not fit, with patch, file and hunk; or the tree cannot be written.
pub fn apply(patch: &Path, root: &Path, strip: usize) -> Result<()> {
    let name = patch.file_name().map_or_else(|| patch.display().to_string(), |n| n.to_string_lossy().into_owned());
    let text = fs_err::read(patch)?;
    let changes = plan(&name, &text, root, strip)?;
    for change in changes {
        match change.after {
            Some(bytes) => {
                if let Some(parent) = change.path.parent() {
                    fs_err::create_dir_all(parent)?;
                }
                fs_err::write(&change.path, bytes).doing(|| format!("applying {name}"))?;
            }
            None => fs_err::remove_file(&change.path).doing(|| format!("applying {name}"))?,
        }
    }
    Ok(())
}

struct Change {
    path: PathBuf,
    after: Option<Vec<u8>>,
}

enum Fit {
    Applies(Vec<u8>),
    Already,
    Not { hunk: usize, total: usize, why: String },
}

fn plan(name: &str, text: &[u8], root: &Path, strip: usize) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut already = Vec::new();
    let mut misfits = Vec::new();
    let mut fits = Vec::new();
    let git = text.windows(11).any(|w| w == b"diff --git ");
    let options = if git { ParseOptions::gitdiff() } else { ParseOptions::unidiff() };
    for file in PatchSet::parse_bytes(text, options) {
        let file = file.map_err(|e| Error::misuse("patch-syntax", format!("{name} is no unified diff: {e}")))?;
        let (old, new) = match file.operation() {
            FileOperation::Modify { original, modified } => (Some(original.as_ref()), Some(modified.as_ref())),
            FileOperation::Create(p) => (None, Some(p.as_ref())),
            FileOperation::Delete(p) => (Some(p.as_ref()), None),
            FileOperation::Rename { from, to } | FileOperation::Copy { from, to } => {
                (Some(from.as_ref()), Some(to.as_ref()))
            }
        };
        let stripped = |p: &[u8]| {
            strip_path(&String::from_utf8_lossy(p), strip).ok_or_else(|| {
                Error::misuse(
                    "patch-path",
                    format!(
                        "{name}: the file name '{}' does not have {strip} leading segments, or leaves the tree",
                        String::from_utf8_lossy(p)
                    ),
                )
            })
        };
        let shown = stripped(new.or(old).unwrap_or(b""))?;
        let Some(patch) = file.patch().as_text() else {
            return Err(Error::misuse(
                "patch-binary",
                format!("{name}: {} is a binary patch, which is not applied", shown.display()),
            ));
        };
        let before = match old {
            Some(p) => match std::fs::read(root.join(stripped(p)?)) {
                Ok(bytes) => bytes,
                Err(e) => {
                    let gone = new.is_none() && e.kind() == std::io::ErrorKind::NotFound;
                    if gone {
                        already.push(shown)
                    } else {
                        misfits.push(format!("{}: {e}", shown.display()))
                    }
                    continue;
                }
            },
            None => match std::fs::read(root.join(&shown)) {
                Ok(bytes) => {
                    // The file that the patch would make exists: made by it, or by something else.
                    match fit(patch.reverse().hunks(), &bytes) {
                        Fit::Applies(rest) if rest.is_empty() => already.push(shown),
                        _ => misfits
                            .push(format!("{}: the patch makes this file, but another one is there", shown.display())),
                    }
                    continue;
                }
                Err(_) => Vec::new(),
            },
        };
        match fit(patch.hunks(), &before) {
            Fit::Applies(after) => {
                let path = root.join(&shown);
                if let (Some(old), Some(_)) = (old, new) {
                    let old = root.join(stripped(old)?);
                    if old != path && matches!(file.operation(), FileOperation::Rename { .. }) {
                        changes.push(Change { path: old, after: None });
                    }
                }
                changes.push(Change { path, after: new.map(|_| after) });
                fits.push(shown);
            }
            Fit::Already => already.push(shown),
            Fit::Not { hunk, total, why } => {
                misfits.push(format!("{}: hunk {hunk} of {total}: {why}", shown.display()))
            }
        }
    }
    let list = |paths: &[PathBuf]| paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    if !misfits.is_empty() {
        let mut e =
            Error::misuse("patch-does-not-apply", format!("{name} does not apply:\n    {}", misfits.join("\n    ")));
        if text.windows(2).any(|w| w == b"\r\n") {
            e = e.next(format!(
                "{name} has the line ends of Windows (CRLF): git wrote it so; `git config core.autocrlf false`, and check it out again"
            ));
        }
        if !already.is_empty() {
            e = e.next(format!("the tree is partly patched already: {} has this change", list(&already)));
        }
        return Err(e.next(
            "nothing was written; refresh the patch for this version of the source, or drop it from the recipe",
        ));
    }
    if !already.is_empty() && !fits.is_empty() {
        return Err(Error::misuse(
            "patch-partly-applied",
            format!("{name} is already applied to {}, but not to {}", list(&already), list(&fits)),
        )
        .next("nothing was written; the source has taken over a part of this patch: drop that part from it"));
    }
    if !already.is_empty() {
        return Err(Error::misuse("patch-already-applied", format!("{name} is already applied to {}", list(&already)))
            .next("the source has this change itself: drop the patch from the recipe"));
    }
    if fits.is_empty() {
        return Err(Error::misuse("patch-empty", format!("{name} changes nothing")));
    }
    Ok(changes)
}

fn strip_path(path: &str, strip: usize) -> Option<PathBuf> {
    let mut segments: Vec<&str> = path.trim().split('/').filter(|s| !s.is_empty() && *s != ".").collect();
    if segments.len() <= strip || segments.contains(&"..") || (path.starts_with('/') && strip == 0) {
        return None;
    }
    segments.drain(..strip);
    Some(segments.iter().collect())
}

/// `before` with plain line ends, if all of its lines end as Windows ends them.
fn without_carriage_returns(before: &[u8]) -> Option<Vec<u8>> {
    let mut lines = before.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n")).peekable();
    lines.peek()?;
    lines.all(|l| l.ends_with(b"\r\n")).then(|| {
        let plain = |(i, b): (usize, &u8)| (*b != b'\r' || before.get(i + 1) != Some(&b'\n')).then_some(*b);
        before.iter().enumerate().filter_map(plain).collect()
    })
}

/// How the hunks fit a file: as it is, or, where only its line ends are Windows', with those ends put aside.
fn fit(hunks: &[Hunk<'_, [u8]>], before: &[u8]) -> Fit {
    let patch_has_returns = hunks.iter().flat_map(|h| h.lines()).any(|line| {
        let (Line::Insert(text) | Line::Context(text) | Line::Delete(text)) = line;
        text.ends_with(b"\r\n")
    });
    let Some(plain) = without_carriage_returns(before).filter(|_| !patch_has_returns) else {
        return fit_exactly(hunks, before);
    };
    match fit_exactly(hunks, &plain) {
        Fit::Applies(after) => {
            let mut out = Vec::with_capacity(after.len() + after.len() / 32);
            for line in after.split_inclusive(|b| *b == b'\n') {
                match line.strip_suffix(b"\n") {
                    Some(text) => out.extend([text, b"\r\n"].concat()),
                    None => out.extend_from_slice(line),
                }
            }
            Fit::Applies(out)
        }
        other => other,
    }
}

fn fit_exactly(hunks: &[Hunk<'_, [u8]>], before: &[u8]) -> Fit {
    match apply_hunks(hunks, before) {
        Ok(after) => Fit::Applies(after),
        Err((hunk, why)) => {
            let reversed: Vec<Hunk<'_, [u8]>> = hunks.iter().map(Hunk::reverse).collect();
            if apply_hunks(&reversed, before).is_ok() {
                return Fit::Already;
            }
            Fit::Not { hunk, total: hunks.len(), why }
        }
    }
}

fn apply_hunks(hunks: &[Hunk<'_, [u8]>], before: &[u8]) -> std::result::Result<Vec<u8>, (usize, String)> {
    let lines: Vec<&[u8]> = before.split_inclusive(|b| *b == b'\n').collect();
    let mut out = Vec::with_capacity(before.len());
    let mut at = 0;
    for (i, hunk) in hunks.iter().enumerate() {
        let range = hunk.old_range();
        // An empty old range names the line before it; any other counts lines from 1.
        let start = if range.is_empty() { range.start() } else { range.start().saturating_sub(1) };
        if start < at || start > lines.len() {
            return Err((
                i + 1,
                format!("line {} is not where it can be in a file of {} lines", range.start(), lines.len()),
            ));
        }
        for line in &lines[at..start] {
            out.extend_from_slice(line);
        }
        at = start;
        for line in hunk.lines() {
            match line {
                Line::Insert(text) => out.extend_from_slice(text),
                Line::Context(text) | Line::Delete(text) => {
                    let found = lines.get(at).copied().unwrap_or(b"");
                    if found != *text {
                        let show = |b: &[u8]| String::from_utf8_lossy(b).trim_end().to_owned();
                        let elsewhere = lines
                            .iter()
                            .position(|l| l == text)
                            .map_or(String::new(), |n| format!(" (that line stands at {})", n + 1));
                        return Err((
                            i + 1,
                            format!("line {}: expected '{}', found '{}'{elsewhere}", at + 1, show(text), show(found)),
                        ));
                    }
                    if matches!(line, Line::Context(_)) {
                        out.extend_from_slice(found);
                    }
                    at += 1;
                }
            }
        }
    }
    for line in &lines[at..] {
        out.extend_from_slice(line);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "--- a/f.txt\n+++ b/f.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n--- a/g.txt\n+++ b/g.txt\n@@ -1 +1 @@\n-x\n+y\n";

    fn tree(f: &str, g: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f.txt"), f).unwrap();
        std::fs::write(dir.path().join("g.txt"), g).unwrap();
        std::fs::write(dir.path().join("p.patch"), PATCH).unwrap();
        dir
    }

    fn run(f: &str, g: &str) -> (Result<()>, String) {
        let dir = tree(f, g);
        let result = apply(&dir.path().join("p.patch"), dir.path(), 1);
        (result, std::fs::read_to_string(dir.path().join("f.txt")).unwrap())
    }

    #[test]
    fn a_patch_that_fits_is_applied() {
        let (result, f) = run("one\ntwo\nthree\n", "x\n");
        result.unwrap();
        assert_eq!(f, "one\nTWO\nthree\n");
    }

    #[test]
    fn a_file_with_the_line_ends_of_windows_takes_a_plain_patch_and_keeps_its_ends() {
        let (result, f) = run("one\r\ntwo\r\nthree\r\n", "x\n");
        result.unwrap();
        assert_eq!(f, "one\r\nTWO\r\nthree\r\n");
        assert_eq!(run("one\r\nTWO\r\nthree\r\n", "y\r\n").0.unwrap_err().code(), "patch-already-applied");
        // Ends of both kinds are no habit of a checkout: the patch does not fit such a file.
        let (result, f) = run("one\r\ntwo\nthree\r\n", "x\n");
        assert_eq!(result.unwrap_err().code(), "patch-does-not-apply");
        assert_eq!(f, "one\r\ntwo\nthree\r\n");
    }

    #[test]
    fn a_misfit_names_patch_file_and_hunk_and_writes_nothing() {
        let (result, f) = run("one\n2\nthree\n", "x\n");
        let e = result.unwrap_err();
        assert_eq!(e.code(), "patch-does-not-apply");
        assert!(e.what().contains("p.patch") && e.what().contains("f.txt: hunk 1 of 1"), "{e}");
        assert_eq!(f, "one\n2\nthree\n");
    }

    #[test]
    fn an_offset_of_one_line_is_a_misfit() {
        assert_eq!(run("zero\none\ntwo\nthree\n", "x\n").0.unwrap_err().code(), "patch-does-not-apply");
    }

    #[test]
    fn already_and_partly_applied_are_told_apart() {
        assert_eq!(run("one\nTWO\nthree\n", "y\n").0.unwrap_err().code(), "patch-already-applied");
        let (result, f) = run("one\ntwo\nthree\n", "y\n");
        assert_eq!(result.unwrap_err().code(), "patch-partly-applied");
        assert_eq!(f, "one\ntwo\nthree\n");
    }

    #[test]
    fn a_patch_cannot_leave_the_tree() {
        assert!(strip_path("a/../../etc/passwd", 1).is_none());
        assert!(strip_path("f.txt", 1).is_none());
    }
}
