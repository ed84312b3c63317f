//! Folders of the cache whose files are run, as cargo's target folders are: what an earlier run left there is used only if
//! every file has the digest that it had then. Whoever uses one holds a lock of the store meanwhile.

use std::path::{Path, PathBuf};

use torchmill_bytes::listing::{Extent, Listing};

use super::{read, remove_tree, stands, write_atomically};
use crate::error::{Context, Result};
use crate::event::Sink;
use crate::platform;

/// Where the digests of what stands in `folder` are kept: beside it.
fn digests(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".files.json");
    folder.with_file_name(name)
}

/// Makes `folder` what [`seal`] was told of it last, or else empty: if it is not that, `events` are told why.
///
/// # Errors
/// The world: it cannot be read, or neither be emptied nor made.
pub fn judged(folder: &Path, events: &dyn Sink) -> Result<()> {
    if let Some(why) = fault(folder).doing(|| format!("judging {}", folder.display()))? {
        events.warn(format!("{} is not what an earlier run left there ({why}): it is made anew", folder.display()));
        if platform::is_own_folder(folder) {
            remove_tree(folder)?;
        } else {
            platform::remove_link(folder)?;
        }
        fs_err::create_dir_all(folder)?;
        // Nothing is left of what was told.
        return seal(folder);
    }
    Ok(fs_err::create_dir_all(folder)?)
}

/// In what it is not what it was; nothing where nothing is there.
fn fault(folder: &Path) -> Result<Option<String>> {
    if !stands(folder)? {
        return Ok(None);
    }
    if !fs_err::symlink_metadata(folder)?.is_dir() {
        return Ok(Some("it is no folder".into()));
    }
    let Some(text) = read(&digests(folder))? else { return Ok(Some("nothing says what it was".into())) };
    let Some(listing) = Listing::of_json(&text) else { return Ok(Some("what says so is no list of files".into())) };
    Ok(listing.differs(folder, Extent::Whole)?)
}

/// Keeps the digests of what stands in `folder`, all of which this run made or judged.
///
/// # Errors
/// The world: it cannot be read, or they cannot be written. Somebody stopped it.
pub fn seal(folder: &Path) -> Result<()> {
    platform::check_cancelled()?;
    let listing = Listing::of(folder).doing(|| format!("hashing {}", folder.display()))?;
    write_atomically(&digests(folder), &listing.to_json()?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Heard;

    #[test]
    fn what_is_run_out_of_the_cache_is_what_was_left_there_or_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("cache/benchmark");
        let program = folder.join("release/build/x/build-script-build");
        let heard = Heard::default();
        let said = || heard.take_all();
        // As a run that used it and ended well.
        let made = || {
            judged(&folder, &heard).unwrap();
            std::fs::create_dir_all(program.parent().unwrap()).unwrap();
            std::fs::write(&program, "a program").unwrap();
            seal(&folder).unwrap();
        };
        made();
        assert_eq!(said(), Vec::<String>::new());
        judged(&folder, &heard).unwrap();
        assert!(program.is_file() && said().is_empty());
        type Harm = fn(&Path, &Path);
        let harms: [(&str, Harm); 6] = [
            ("build-script-build' was changed", |_, program| std::fs::write(program, "another program").unwrap()),
            ("'release/more' was put there", |folder, _| std::fs::write(folder.join("release/more"), "x").unwrap()),
            ("build-script-build' is gone", |_, program| std::fs::remove_file(program).unwrap()),
            ("nothing says what it was", |folder, _| std::fs::remove_file(digests(folder)).unwrap()),
            ("no list of files", |folder, _| std::fs::write(digests(folder), "").unwrap()),
            ("it is no folder", |folder, _| {
                std::fs::remove_dir_all(folder).unwrap();
                std::fs::write(folder, "x").unwrap();
            }),
        ];
        for (why, harm) in harms {
            harm(&folder, &program);
            judged(&folder, &heard).unwrap();
            let said = said();
            assert!(said.len() == 1 && said[0].contains(why), "{why}: {said:?}");
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{why}");
            made();
        }
    }
}
