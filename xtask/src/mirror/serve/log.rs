//! The access log, written by a thread of its own: a reader that is slow, gone or on a full disk costs lines, and no
//! client an answer.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that wait to be written.
const MOST_WAITING: usize = 4096;
/// Bytes that are written at once.
const MOST_AT_ONCE: usize = 64 << 10;
/// How long the last lines may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Takes lines; never waits.
#[derive(Debug)]
pub struct Log {
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
}

/// The thread that writes.
#[derive(Debug)]
pub struct Writer(Receiver<()>);

impl Log {
    /// Begins to write to standard error.
    pub fn start() -> (Self, Writer) {
        let (lines, waiting) = sync_channel(MOST_WAITING);
        let (done, ended) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let log = Self { lines, lost: Arc::clone(&lost) };
        std::thread::spawn(move || {
            write(&waiting, &lost);
            let _ = done.send(());
        });
        (log, Writer(ended))
    }

    /// A line, without its end. It is lost where too many wait already.
    pub fn line(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Writer {
    /// Waits for the last lines, but not for ever: whoever reads them may have stopped.
    pub fn finish(self) {
        let _ = self.0.recv_timeout(PATIENCE);
    }
}

fn write(waiting: &Receiver<String>, lost: &AtomicU64) {
    while let Ok(line) = waiting.recv() {
        let mut text = line + "\n";
        while text.len() < MOST_AT_ONCE
            && let Ok(line) = waiting.try_recv()
        {
            text.push_str(&line);
            text.push('\n');
        }
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            text.push_str(&format!("{missing} lines of this log were lost: it was not read fast enough\n"));
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
