//! Promotion: releases of one index into another, all of them or none.

use rayon::prelude::*;

use super::index::{Added, Index, Project};
use super::page::File;
use super::wheel::Wheel;
use crate::error::{Answer, Error, Result};
use crate::event::Sink;

/// Whether `pattern` (a project, `PROJECT==VERSION`, a file name) means the file.
fn means(pattern: &str, project: &str, file: &File) -> bool {
    match pattern.split_once("==") {
        Some((name, version)) => {
            crate::wheel::normalize(name) == project && super::index::same_version(version, &file.version)
        }
        None => pattern == file.filename || crate::wheel::normalize(pattern) == project,
    }
}

/// Copies what `which` means (everything, if it is empty) from one index to another. What is yanked stays behind. The
/// answer is no, and nothing is copied, where a file is not what its page says, or is yanked meanwhile.
///
/// # Errors
/// As [`Index::at_rest`]. Bad input: nothing by such a name, one that is yanked, or is taken by other bytes there.
pub fn copy(from: &Index, to: &Index, which: &[String], events: &dyn Sink) -> Result<Result<Vec<Added>, Answer>> {
    // Of a set that is being published there all or nothing.
    let (chosen, behind) = from.at_rest(|| choose(from, which), events)?;
    for name in behind {
        events.warn(format!("{name} is yanked, and stays behind"));
    }
    let wheels: Vec<Result<Wheel, Answer>> = chosen
        .par_iter()
        .map(|(project, file)| {
            let wheel = Wheel::examine(&from.files(project).join(&file.filename))?;
            let said = file.hashes.get("sha256").map_or("", String::as_str);
            let wrong = if wheel.sha256 != said {
                Some(format!("{} has the SHA-256 {}; its page says {said}", file.filename, wheel.sha256))
            } else {
                // What tells of its making is promoted with it, and must be what was published.
                let other = wheel.beside_differs(&file.beside);
                other.map(|name| format!("'{name}' beside {} is not what its page says", file.filename))
            };
            Ok(match wrong {
                None => Ok(wheel),
                Some(what) => {
                    let no = Answer::no("changed", what);
                    Err(no.next("nothing was promoted: `mirror check` says what else is wrong"))
                }
            })
        })
        .collect::<Result<_>>()?;
    let wheels = match wheels.into_iter().collect::<Result<Vec<_>, Answer>>() {
        Ok(wheels) => wheels,
        Err(no) => return Ok(Err(no)),
    };
    // To look at them took long.
    if let Some(name) = no_longer_there(from, &chosen)? {
        let no = Answer::no("changed", format!("'{name}' was yanked or removed while the files were looked at"));
        return Ok(Err(no.next("nothing was promoted: the same command looks again")));
    }
    Ok(Ok(to.add(&wheels, events)?))
}

/// Files by the projects that they are of.
type Files = Vec<(String, File)>;

/// The files of an index that `which` means; and the names of those that stay behind.
fn choose(from: &Index, which: &[String]) -> Result<(Files, Vec<String>)> {
    let (mut chosen, mut behind) = (Vec::new(), Vec::new());
    let (mut found, mut yanked) = (vec![false; which.len()], vec![false; which.len()]);
    for project in from.projects()? {
        for file in from.project(&project)?.files {
            let by: Vec<usize> = (0..which.len()).filter(|&i| means(&which[i], &project, &file)).collect();
            if by.is_empty() && !which.is_empty() {
                continue;
            }
            if let Some(reason) = file.yanked.reason() {
                if which.contains(&file.filename) {
                    let what = format!("'{}' is yanked ({reason:?}): it is not promoted", file.filename);
                    return Err(Error::misuse("yanked", what).next("take the yank back, or promote another file"));
                }
                by.into_iter().for_each(|i| yanked[i] = true);
                behind.push(file.filename);
                continue;
            }
            by.into_iter().for_each(|i| found[i] = true);
            chosen.push((project.clone(), file));
        }
    }
    if let Some(at) = found.iter().position(|f| !f) {
        if yanked[at] {
            let what =
                format!("all that {} has of '{}' is yanked: it is not promoted", from.root().display(), which[at]);
            return Err(Error::misuse("yanked", what).next("take the yank back, or promote another release"));
        }
        let what = format!("{} has nothing by the name '{}'", from.root().display(), which[at]);
        return Err(Error::misuse("not-published", what)
            .next("name a project, PROJECT==VERSION or a file name; `mirror list` shows them"));
    }
    Ok((chosen, behind))
}

/// One of these files that the index does not have any more, or does not have as it was.
fn no_longer_there(index: &Index, files: &[(String, File)]) -> Result<Option<String>> {
    let mut page: Option<Project> = None;
    for (project, file) in files {
        // Those of a project stand together.
        if page.as_ref().is_none_or(|page| page.name != *project) {
            page = Some(index.project(project)?);
        }
        if !page.as_ref().is_some_and(|page| page.files.contains(file)) {
            return Ok(Some(file.filename.clone()));
        }
    }
    Ok(None)
}
