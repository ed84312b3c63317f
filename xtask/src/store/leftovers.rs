//! What runs that were killed left in the store: found by whether anybody still holds it, and by age.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sessions::{self, begins_with, entries};
use crate::platform::scratch::{is_held, is_older};

/// A download that nobody went on with for so long is not gone on with.
const OLD_PART: Duration = Duration::from_secs(14 * 86_400);
/// What was set aside is looked at within that time, or never.
const OLD_ASIDE: Duration = Duration::from_secs(30 * 86_400);
/// A temporary file that nobody gave its name for so long.
const OLD_TEMPORARY: Duration = Duration::from_secs(86_400);

/// Removes what killed runs left in the folder `dir`, under names that begin with `prefix`, of files that were to get
/// another one: for a day nobody wrote to it, and nobody holds it. Whoever writes such a file locks it. What cannot be
/// removed stays for the next run.
pub fn sweep_beside(dir: &Path, prefix: &str) {
    let old = entries(dir).into_iter().filter(|p| begins_with(p, prefix) && is_older(p, OLD_TEMPORARY));
    let is_left = |path: &PathBuf| {
        let file = File::options().read(true).write(true).open(path);
        file.is_ok_and(|file| file.try_lock().is_ok())
    };
    for path in old.filter(is_left) {
        let _ = std::fs::remove_file(path);
    }
}

/// What killed runs left in the store at `root`, and nobody uses.
pub(super) fn find(root: &Path) -> Vec<PathBuf> {
    let under_way = entries(&root.join("stages"))
        .into_iter()
        .flat_map(|stage| entries(&stage))
        .filter(|p| begins_with(p, ".") && p.is_dir() && !is_held(p));
    let old = |folder: &str, age: Duration| entries(&root.join(folder)).into_iter().filter(move |p| is_older(p, age));
    let temporary = ["cache", "locks", ""].into_iter().flat_map(|folder| {
        let all = entries(&root.join(folder)).into_iter();
        all.filter(|p| begins_with(p, ".torchmill-") && is_older(p, OLD_TEMPORARY))
    });
    let mut found: Vec<PathBuf> = under_way.chain(temporary).collect();
    found.extend(old("parts", OLD_PART));
    found.extend(old("quarantine", OLD_ASIDE));
    found.extend(sessions::left(&root.join("locks")));
    found.sort();
    found
}
