//! What happens during a build, as data. Stages emit these; `ui` draws them, `--json` prints them.

use serde::{Deserialize, Serialize};

use crate::error::told;

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

impl Event {
    /// The same, its texts without what must not stand in a message, and no longer than one.
    fn discreet(mut self) -> Self {
        match &mut self {
            Self::DownloadStarted { file: text, .. }
            | Self::DownloadProgress { file: text, .. }
            | Self::DownloadFinished { file: text }
            | Self::CompileProgress { current: text, .. }
            | Self::Note { text }
            | Self::Warning { text } => *text = told(text),
            Self::StageStarted { .. } | Self::StageCached { .. } | Self::StageFinished { .. } => {}
        }
        self
    }
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
    /// Takes one event, which holds no secret any more. Must not block for long.
    fn take(&self, event: Event);

    /// Tells it what happened, without the secrets that its texts may hold.
    fn emit(&self, event: Event) {
        self.take(event.discreet());
    }

    /// Shorthand for [`Event::Note`].
    fn note(&self, text: String) {
        self.emit(Event::Note { text });
    }

    /// Shorthand for [`Event::Warning`].
    fn warn(&self, text: String) {
        self.emit(Event::Warning { text });
    }
}

/// Listens to nothing: for tests and library use.
pub struct Silent;

impl Sink for Silent {
    fn take(&self, _event: Event) {}
}

/// What tests listen with: the texts of warnings.
#[cfg(test)]
#[derive(Default)]
pub struct Heard(std::sync::Mutex<Vec<String>>);

#[cfg(test)]
impl Heard {
    /// What was heard since this was asked last.
    pub fn take_all(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[cfg(test)]
impl Sink for Heard {
    fn take(&self, event: Event) {
        if let Event::Warning { text } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Writes down what it is told, as `--json` prints it.
    struct Told(Mutex<String>);

    impl Sink for Told {
        fn take(&self, event: Event) {
            self.0.lock().unwrap().push_str(&serde_json::to_string(&event).unwrap());
        }
    }

    #[test]
    fn no_event_tells_a_secret() {
        let told = Told(Mutex::default());
        let text = || String::from("fetching http://bob:s3cret@h/x and bob:s3cret@h");
        told.note(text());
        told.warn(text());
        told.emit(Event::DownloadStarted { file: text(), size: None });
        told.emit(Event::DownloadProgress { file: text(), bytes: 1 });
        told.emit(Event::DownloadFinished { file: text() });
        let (seconds_left, current, from) = (None, text(), Whence::default());
        told.emit(Event::CompileProgress { done: 1, total: 2, seconds_left, current, from });
        let told = told.0.into_inner().unwrap();
        assert_eq!(told.matches("http://…@h/x and …@h").count(), 6, "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
}
