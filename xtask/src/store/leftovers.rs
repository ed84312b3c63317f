//! What runs that were killed left in the store: found by whether anybody still holds it, and by age.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::platform::scratch::{is_held, is_older};

/// A download that nobody went on with for so long is not gone on with.
const OLD_PART: Duration = Duration::from_secs(14 * 86_400);
/// What was set aside is looked at within that time, or never.
const OLD_ASIDE: Duration = Duration::from_secs(30 * 86_400);
/// A temporary file that nobody gave its name for so long.
const OLD_TEMPORARY: Duration = Duration::from_secs(86_400);

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

fn begins_with(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix))
}

/// Who works in the store at `root`, or in one of the closed rooms inside, and on what; `None` where nobody does.
pub(super) fn in_use(root: &Path) -> Option<String> {
    let rooms = entries(&root.join("inner")).into_iter().flat_map(|room| entries(&room));
    let locks = std::iter::once(root.to_owned()).chain(rooms).flat_map(|store| entries(&store.join("locks")));
    locks.into_iter().find_map(|path| {
        let mut file = File::options().read(true).write(true).open(&path).ok()?;
        let held = matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock));
        held.then(|| {
            let mut holder = String::new();
            let _ = std::io::Read::read_to_string(&mut file, &mut holder);
            let what = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{} works on {what}", if holder.trim().is_empty() { "another torchmill" } else { holder.trim() })
        })
    })
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
    found.sort();
    found
}
