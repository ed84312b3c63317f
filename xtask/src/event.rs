//! What happens during a build, as data. Stages emit these; `ui` draws them, `--json` prints them.

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A stage begins to work.
    StageStarted {
        /// The stage's name.
        stage: &'static str,
    },
    /// A stage has nothing to do: its result is in the store.
    StageCached {
        /// The stage's name.
        stage: &'static str,
    },
    /// A stage is done.
    StageFinished {
        /// The stage's name.
        stage: &'static str,
        /// Wall time in seconds.
        seconds: f64,
        /// CPU time in seconds, of this process and its children.
        cpu_seconds: f64,
    },
    /// Bytes begin to arrive.
    DownloadStarted {
        /// File name, unique among the running downloads.
        file: String,
        /// Size in bytes, where known.
        size: Option<u64>,
    },
    /// More bytes are there.
    DownloadProgress {
        /// File name as in [`Event::DownloadStarted`].
        file: String,
        /// Bytes so far.
        bytes: u64,
    },
    /// A download is over, well or not.
    DownloadFinished {
        /// File name as in [`Event::DownloadStarted`].
        file: String,
    },
    /// The compiler finished some objects.
    CompileProgress {
        /// Finished steps, those of earlier runs included.
        done: u64,
        /// Steps in all, finished ones included.
        total: u64,
        /// Seconds left, where an estimate is possible.
        seconds_left: Option<f64>,
        /// What was finished last.
        current: String,
        /// Where the objects that were finished in this run came from.
        from: Whence,
    },
    /// A line for people.
    Note {
        /// One line, without markup.
        text: String,
    },
    /// A line that people should not miss.
    Warning {
        /// One line, without markup; `warning:` is put before it.
        text: String,
    },
}

/// Where objects came from, by their number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whence {
    /// Compiled on this machine.
    pub local: u64,
    /// Of the compiler cache, this machine's or a shared one.
    pub cache: u64,
    /// Of an archive that was taken in.
    pub archive: u64,
    /// Compiled by a farm.
    pub farm: u64,
}

impl Whence {
    /// All objects that were made.
    pub fn all(&self) -> u64 {
        self.local + self.cache + self.archive + self.farm
    }

    /// For people: nothing if all were compiled here.
    pub fn shown(&self) -> Option<String> {
        let parts = [("local", self.local), ("cache", self.cache), ("archive", self.archive), ("farm", self.farm)];
        let parts: Vec<String> = parts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}")).collect();
        (self.cache + self.archive + self.farm > 0).then(|| parts.join(", "))
    }
}

/// Something that listens to events.
pub trait Sink: Sync + Send {
    /// Takes one event. Must not block for long.
    fn emit(&self, event: Event);

    /// Shorthand for [`Event::Note`].
    fn note(&self, text: String) {
        self.emit(Event::Note { text });
    }

    /// Shorthand for [`Event::Warning`].
    fn warn(&self, text: String) {
        self.emit(Event::Warning { text: crate::error::without_secrets(&text) });
    }
}

/// Listens to nothing: for tests and library use.
pub struct Silent;

impl Sink for Silent {
    fn emit(&self, _event: Event) {}
}
