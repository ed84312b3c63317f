//! mingw-w64, which makes Windows programs here, and Wine, which runs them: how the store is tried on
//! Windows without Windows. No product of the Windows recipes is made with it: those take MSVC.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::Process;
use crate::error::{Error, Result};
use crate::platform;
use crate::store::{digest_file, lock_at};

/// A C and C++ compiler for x86-64 Windows.
#[derive(Debug, Clone)]
pub struct Mingw {
    /// Path of the C compiler.
    pub cc: PathBuf,
    /// Path of the C++ compiler.
    pub cxx: PathBuf,
    /// The compiler of resource files, which CMake wants for Windows.
    pub rc: PathBuf,
}

impl Mingw {
    /// Finds it on `PATH`: the build with POSIX threads, which `std::thread` needs.
    ///
    /// # Errors
    /// It is not installed.
    pub fn find() -> Result<Self> {
        let find = |tool: &str| {
            [format!("x86_64-w64-mingw32-{tool}-posix"), format!("x86_64-w64-mingw32-{tool}")]
                .iter()
                .find_map(|name| platform::which(name))
        };
        match (find("gcc"), find("g++"), find("windres")) {
            (Some(cc), Some(cxx), Some(rc)) => Ok(Self { cc, cxx, rc }),
            _ => Err(Error::world("no-mingw", "no mingw-w64 compiler for Windows was found on this machine")
                .next("install one: `apt-get install g++-mingw-w64-x86-64-posix` (Debian, Ubuntu), `dnf install mingw64-gcc-c++` (Fedora)")),
        }
    }

    /// What decides which program comes out.
    ///
    /// # Errors
    /// The compiler cannot be read or run.
    pub fn identity(&self) -> Result<String> {
        let digest = digest_file(&fs_err::canonicalize(&self.cxx)?)?.0;
        Ok(format!("{} {digest}", self.banner()?))
    }

    /// The first line of what it says of itself.
    ///
    /// # Errors
    /// The compiler does not run.
    pub fn banner(&self) -> Result<String> {
        let said = Process::new(&self.cxx).arg("--version").env("LC_ALL", "C").check("mingw", None)?.text;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }
}

/// Wine, with a folder of its own for what it believes to be drive C.
#[derive(Debug, Clone)]
pub struct Wine {
    program: PathBuf,
    drive: PathBuf,
}

/// One run's turn with a [`Wine`]: with this ends what Wine left running for its drive, and that is nobody else's.
#[derive(Debug)]
pub struct Turn<'w> {
    wine: &'w Wine,
    _held: File,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.wine.stop();
    }
}

impl Wine {
    /// Finds it on `PATH`; `drive` is where it keeps its files.
    ///
    /// # Errors
    /// It is not installed.
    pub fn find(drive: &Path) -> Result<Self> {
        let program = ["wine64", "wine"].iter().find_map(|name| platform::which(name)).ok_or_else(|| {
            Error::world("no-wine", "no Wine was found on this machine: Windows programs cannot be run")
                .next("install it: `apt-get install wine wine64` (Debian, Ubuntu), `dnf install wine-core` (Fedora)")
        })?;
        fs_err::create_dir_all(drive)?;
        Ok(Self { program, drive: drive.to_owned() })
    }

    /// Name and version.
    ///
    /// # Errors
    /// It does not run.
    pub fn version(&self) -> Result<String> {
        let said = Process::new(&self.program).arg("--version").envs(self.env()).check("wine", None)?.text;
        Ok(said.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// The program to start, before the Windows program's own path.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Waits for the runs that use its drive at this moment, and keeps others from it until what comes back goes: what ends
    /// the services of a drive ends all programs that run there ([`Wine::stop`]), whoever started them.
    ///
    /// # Errors
    /// The world: nothing can be locked beside the drive. Somebody stopped the wait.
    pub fn turn(&self) -> Result<Turn<'_>> {
        let mut path = self.drive.clone().into_os_string();
        path.push(".lock");
        Ok(Turn { wine: self, _held: lock_at(Path::new(&path), Duration::from_millis(200), || {})? })
    }

    /// Ends what Wine left running for its drive. Its services outlive the programs that they were started
    /// for, and hold open what those had open: whoever reads the output of this program would wait for them.
    pub fn stop(&self) {
        let names = ["wineserver", "wineserver-stable", "/usr/lib/wine/wineserver64", "/usr/lib/wine/wineserver"];
        if let Some(server) = names.iter().find_map(|name| platform::which(name)) {
            let mut command = std::process::Command::new(server);
            command.arg("-k").envs(self.env()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let _ = command.status();
        }
    }

    /// Its environment: nothing of the user's own Wine is read or changed.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let drive = self.drive.display().to_string();
        [
            ("WINEPREFIX", drive.as_str()),
            ("WINEDEBUG", "-all"),
            // No questions about browsers and .NET.
            ("WINEDLLOVERRIDES", "mscoree=;mshtml="),
            ("HOME", drive.as_str()),
            ("PATH", "/usr/bin:/bin"),
            ("LC_ALL", "C.UTF-8"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn nobody_ends_what_runs_in_another_ones_turn() {
        let dir = tempfile::tempdir().unwrap();
        let wine = Wine { program: "wine".into(), drive: dir.path().join("drive") };
        let (first, over) = (wine.turn().unwrap(), AtomicBool::new(false));
        let waited = std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let _turn = wine.turn().unwrap();
                over.load(Ordering::SeqCst)
            });
            std::thread::sleep(Duration::from_millis(100));
            over.store(true, Ordering::SeqCst);
            drop(first);
            second.join().unwrap()
        });
        assert!(waited);
    }
}
