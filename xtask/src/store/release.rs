//! The recipes and patches that a release carries in itself, so that it builds in any folder.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::{lock_at, write_atomically};
use crate::error::{Context, Result};
use crate::recipe::Workspace;

/// Each with its path from the root; empty in a development build.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/release.rs"));

/// Writes what this program carries below `folder`, where it is not there yet, and returns the folder. `None`: it
/// carries nothing.
///
/// # Errors
/// The folder cannot be written.
pub fn unpacked(folder: &Path) -> Result<Option<Workspace>> {
    if FILES.is_empty() { Ok(None) } else { unpack(FILES, folder).map(Some) }
}

/// Every file is held against what is carried: one that was altered is written again, one that is not ours goes.
fn unpack(files: &[(&str, &[u8])], folder: &Path) -> Result<Workspace> {
    // A file that another run is about to give its name is not one of ours, either: nobody removes it from under that run.
    let _alone = alone_with(folder);
    let mark = (Workspace::RELEASE_MARK, b"Written by torchmill from its own release; edits do not stay.\n".as_slice());
    for (name, bytes) in files.iter().copied().chain([mark]) {
        let path = folder.join(name);
        if !std::fs::read(&path).is_ok_and(|there| there == bytes) {
            write_atomically(&path, bytes).doing(|| format!("writing the release's {name}"))?;
        }
    }
    for entry in walkdir::WalkDir::new(folder).into_iter().flatten().filter(|e| !e.file_type().is_dir()) {
        let name = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        if !files.iter().chain([&mark]).any(|(ours, _)| Path::new(ours) == name) {
            fs_err::remove_file(entry.path())?;
        }
    }
    Ok(Workspace { root: folder.to_owned() })
}

/// Waits for whoever unpacks to `folder`, and keeps others from it until what comes back goes. Where nothing can be locked
/// beside it, nobody is waited for.
fn alone_with(folder: &Path) -> Option<File> {
    let mut name = folder.file_name()?.to_owned();
    name.push(".lock");
    let path = folder.with_file_name(name);
    std::fs::create_dir_all(path.parent()?).ok()?;
    lock_at(&path, Duration::from_millis(20), || {}).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_unpack_at_once_remove_nothing_from_under_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..10).map(|i| format!("patches/{i}.patch")).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
        for round in 0..10 {
            let folder = dir.path().join(format!("release-{round}"));
            let failed: Vec<String> = std::thread::scope(|scope| {
                let run = || unpack(&files, &folder).err().map(|e| e.to_string());
                let all = [0; 4].map(|_| scope.spawn(run));
                all.into_iter().filter_map(|one| one.join().unwrap()).collect()
            });
            assert_eq!(failed, Vec::<String>::new());
            for name in &names {
                assert_eq!(std::fs::read(folder.join(name)).unwrap(), name.as_bytes());
            }
        }
    }

    #[test]
    fn what_a_release_carries_comes_back_whatever_was_done_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("release");
        let files: &[(&str, &[u8])] = &[("recipes/a.toml", b"schema = 1\n"), ("patches/x/y.patch", b"--- a\n")];
        let workspace = unpack(files, &folder).unwrap();
        assert!(workspace.is_released());
        assert_eq!(workspace.recipe_names(), ["a"]);
        assert!(!Workspace { root: dir.path().to_owned() }.is_released());
        std::fs::write(folder.join("recipes/a.toml"), "schema = 2\n").unwrap();
        std::fs::write(folder.join("recipes/b.toml"), "schema = 1\n").unwrap();
        std::fs::remove_file(folder.join("patches/x/y.patch")).unwrap();
        unpack(files, &folder).unwrap();
        assert_eq!(std::fs::read(folder.join("recipes/a.toml")).unwrap(), b"schema = 1\n");
        assert_eq!(std::fs::read(folder.join("patches/x/y.patch")).unwrap(), b"--- a\n");
        assert!(!folder.join("recipes/b.toml").exists());
    }

    #[test]
    fn a_development_build_carries_nothing() {
        assert_eq!(FILES.is_empty(), cfg!(debug_assertions) && option_env!("TORCHMILL_EMBED").is_none());
    }
}
