//! Admission of compilers by the memory and the threads that they need: ninja starts as many launchers
//! as there are jobs, and each waits here until there is room for what it launches.
//!
//! One nvcc may need as much memory as ten C++ compilers, so a number of jobs that is right for the one
//! kind is wrong for the other. Every compiler that runs holds a locked file that says what it takes; the
//! kernel lets go of the lock when its process ends, however it ends, so nothing is ever left over.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::error::{Context, Error, Result};
use crate::platform;

/// Names the file with the [`Rules`]: read when a compile starts.
pub const RULES_VARIABLE: &str = "TORCHMILL_ADMISSION";

/// MiB that a compiler is taken to need if nobody knows better.
const UNKNOWN: u64 = 1024;

/// MiB that every compiler needs: where less was measured, a compiler cache answered for it, and the object's
/// next compile is as large as ever.
const LEAST: u64 = 48;

/// What there is, and what compiles need.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// MiB for all compilers together.
    pub memory: u64,
    /// Threads of all compilers together.
    pub threads: u32,
    /// Threads that one nvcc starts at most.
    pub nvcc_threads: u32,
    /// Output → peak MiB of its largest process, measured in earlier runs.
    pub measured: BTreeMap<String, u64>,
    /// The same by the beginning of an output's path: the longest that fits counts.
    pub kinds: BTreeMap<String, u64>,
    /// Where what is running, and what was measured, is written down.
    pub folder: PathBuf,
}

/// What one compile takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Memory that it is expected to need, in MiB.
    pub memory: u64,
    /// Threads that it keeps busy.
    pub threads: u32,
}

impl Rules {
    /// The rules of the build that this process belongs to, if it has any.
    pub fn of_environment() -> Option<Self> {
        let path = std::env::var_os(RULES_VARIABLE)?;
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// What compiling `output` takes: never more than there is, so that it can run alone.
    pub fn need(&self, output: &str, is_nvcc: bool) -> Need {
        let threads = if is_nvcc { self.nvcc_threads.max(1) } else { 1 };
        let by_kind = || {
            let fits = self.kinds.iter().filter(|(start, _)| output.starts_with(start.as_str()));
            fits.max_by_key(|(start, _)| start.len()).map(|(_, mib)| *mib)
        };
        let measured = self.measured.get(output).copied().filter(|mib| *mib >= LEAST);
        let one = measured.or_else(by_kind).unwrap_or(UNKNOWN);
        // The parts of one nvcc that run side by side are alike.
        Need {
            memory: one.saturating_mul(u64::from(threads)).min(self.memory),
            threads: threads.min(self.threads.max(1)),
        }
    }

    /// Waits until there is room for `need`, and takes it until the returned guard goes.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn enter(&self, need: Need) -> Result<Admitted> {
        let mut pause = Duration::from_millis(5);
        loop {
            if let Some(admitted) = self.try_enter(need)? {
                return Ok(admitted);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Takes room for `need` if there is some now, until the returned guard goes.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn try_enter(&self, need: Need) -> Result<Option<Admitted>> {
        let running = self.folder.join("running");
        fs_err::create_dir_all(&running)?;
        let gate = fs_err::File::create(self.folder.join("gate"))?.into_file();
        gate.lock().map_err(|e| Error::world("lock", format!("cannot lock {}: {e}", self.folder.display())))?;
        let taken = taken(&running)?;
        // Whatever is too large for the room that there is runs alone.
        let fits = taken.memory + need.memory <= self.memory && taken.threads + need.threads <= self.threads;
        if !fits && taken.threads > 0 {
            return Ok(None);
        }
        // A name of its own: whoever shares one, by the number of a process in another container, would wait for the other
        // here, and all with it.
        let prefix = format!("{}-{}-{}-", std::process::id(), need.memory, need.threads);
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .tempfile_in(&running)
            .doing(|| format!("writing to {}", running.display()))?;
        platform::make_readable(file.as_file())?;
        let locked = file.as_file().lock();
        locked.map_err(|e| Error::world("lock", format!("cannot lock {}: {e}", file.path().display())))?;
        // Closing the gate's file unlocks it.
        Ok(Some(Admitted { _file: file }))
    }

    /// Notes that compiling `output` needed `mib` at its peak.
    pub fn note(&self, output: &str, mib: u64) {
        use std::io::Write;
        let line = format!("{mib} {output}\n");
        let path = self.folder.join("measured");
        // One write of one line to a file that is only appended to. A build does not fail for want of it.
        let _ =
            fs_err::OpenOptions::new().create(true).append(true).open(path).map(|mut f| f.write_all(line.as_bytes()));
    }

    /// What was noted in `folder`: output → MiB, the largest of several.
    pub fn noted(folder: &Path) -> BTreeMap<String, u64> {
        let mut out = BTreeMap::new();
        for line in std::fs::read_to_string(folder.join("measured")).unwrap_or_default().lines() {
            if let Some((mib, output)) = line.split_once(' ')
                && let Ok(mib) = mib.parse::<u64>()
            {
                let entry = out.entry(output.to_owned()).or_insert(mib);
                *entry = mib.max(*entry);
            }
        }
        out
    }
}

/// Room that is taken, until this goes.
#[derive(Debug)]
pub struct Admitted {
    /// Locked, and removed with this.
    _file: NamedTempFile,
}

/// What those that run have taken. Files of dead processes are nobody's: they can be locked.
fn taken(running: &Path) -> Result<Need> {
    let mut sum = Need { memory: 0, threads: 0 };
    for entry in fs_err::read_dir(running)? {
        let path = entry?.path();
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            let _ = std::fs::remove_file(&path);
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut numbers = name.split('-').skip(1);
        sum.memory += numbers.next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        sum.threads += numbers.next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(1);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(folder: &Path) -> Rules {
        Rules {
            memory: 4096,
            threads: 4,
            nvcc_threads: 2,
            measured: BTreeMap::from([("a/big.cu.o".to_owned(), 1500), ("a/cached.cpp.o".to_owned(), 10)]),
            kinds: BTreeMap::from([("a/".to_owned(), 600), ("a/b/".to_owned(), 900)]),
            folder: folder.to_owned(),
        }
    }

    #[test]
    fn what_was_measured_counts_before_the_kind() {
        let r = rules(Path::new("x"));
        assert_eq!(r.need("a/big.cu.o", true), Need { memory: 3000, threads: 2 });
        assert_eq!(r.need("a/small.cpp.o", false), Need { memory: 600, threads: 1 });
        assert_eq!(r.need("a/b/x.cpp.o", false).memory, 900);
        // What came from a compiler cache tells nothing.
        assert_eq!(r.need("a/cached.cpp.o", false).memory, 600);
        assert_eq!(r.need("z.o", false).memory, UNKNOWN);
        // Never more than there is.
        assert_eq!(Rules { memory: 2000, ..r }.need("a/big.cu.o", true).memory, 2000);
    }

    #[test]
    fn who_is_too_large_waits_and_the_dead_hold_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let r = rules(dir.path());
        let large = r.enter(Need { memory: 3000, threads: 2 }).unwrap();
        let small = r.enter(Need { memory: 1000, threads: 1 }).unwrap();
        let running = dir.path().join("running");
        assert_eq!(taken(&running).unwrap(), Need { memory: 4000, threads: 3 });
        let waiting = std::thread::spawn({
            let r = r.clone();
            move || drop(r.enter(Need { memory: 1500, threads: 1 }).unwrap())
        });
        std::thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished(), "went in without room");
        drop(large);
        waiting.join().unwrap();
        drop(small);
        std::fs::write(running.join("999999-4096-4"), "").unwrap();
        assert_eq!(taken(&running).unwrap(), Need { memory: 0, threads: 0 });
    }

    #[test]
    fn two_of_one_process_that_need_the_same_are_two() {
        let dir = tempfile::tempdir().unwrap();
        let r = rules(dir.path());
        let need = Need { memory: 1000, threads: 1 };
        let running = dir.path().join("running");
        // As somebody of another container holds it.
        std::fs::create_dir(&running).unwrap();
        let of_another = running.join(format!("{}-1000-1", std::process::id()));
        let other = File::create(&of_another).unwrap();
        other.lock().unwrap();
        let both = std::thread::spawn({
            let r = r.clone();
            move || [0; 2].map(|_| r.try_enter(need).unwrap().unwrap())
        });
        let begun = std::time::Instant::now();
        while !both.is_finished() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it waits for who has the same number");
            std::thread::sleep(Duration::from_millis(10));
        }
        let both = both.join().unwrap();
        assert_eq!(taken(&running).unwrap(), Need { memory: 3000, threads: 3 });
        drop(both);
        assert_eq!(taken(&running).unwrap(), need);
        assert_eq!(std::fs::read_dir(&running).unwrap().count(), 1);
    }

    #[test]
    fn of_several_peaks_the_largest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let r = rules(dir.path());
        for (output, mib) in [("x.o", 5), ("x.o", 900), ("y.o", 1), ("x.o", 20)] {
            r.note(output, mib);
        }
        assert_eq!(Rules::noted(dir.path()), BTreeMap::from([("x.o".to_owned(), 900), ("y.o".to_owned(), 1)]));
    }
}
