//! Drawing: progress bars on a terminal, plain lines elsewhere, errors. The only place beside `cli`
//! that prints. Messages go to standard error; results are printed by the commands, to standard
//! output.

pub mod name;
pub mod page;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::{LazyLock, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use torchmill_bytes::text::is_direction;

use crate::error::Error;
use crate::event::{Event, Sink, Whence};
use crate::{logging, platform};

/// How long a non-terminal goes without a line while something compiles.
const QUIET: Duration = Duration::from_secs(30);

/// Colours are used where standard error is a terminal, unless `NO_COLOR` is set (no-color.org) or
/// the terminal is dumb.
pub fn colours() -> bool {
    platform::stderr_is_terminal() && wanted()
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

fn paint(code: &str, text: &str) -> String {
    if colours() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Colours a part of a result, where results go to a terminal that wants colours.
pub fn paint_result(code: &str, text: &str) -> String {
    if colours_of_results() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// The same as [`colours`], of standard output.
pub fn colours_of_results() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdout()) && wanted()
}

/// ✓, ✗, or - for what nobody asked about: in a result, in colour where results are.
pub fn mark(ok: Option<bool>) -> String {
    match ok {
        Some(true) => paint_result("32", "✓"),
        Some(false) => paint_result("31", "✗"),
        None => paint_result("2", "-"),
    }
}

/// Shows events to people.
pub struct Reporter {
    inner: Mutex<Inner>,
    quiet: bool,
}

struct Inner {
    bars: Option<MultiProgress>,
    downloads: HashMap<String, ProgressBar>,
    compile: Option<ProgressBar>,
    /// The stage that runs, and for how long.
    stage: Option<ProgressBar>,
    last_line: Instant,
}

impl Reporter {
    /// A reporter; with `quiet` only warnings are shown.
    pub fn new(quiet: bool) -> Self {
        let bars = (platform::stderr_is_terminal() && !quiet).then(|| BARS.clone());
        Self {
            inner: Mutex::new(Inner {
                bars,
                downloads: HashMap::new(),
                compile: None,
                stage: None,
                last_line: Instant::now(),
            }),
            quiet,
        }
    }
}

impl Inner {
    fn line(&mut self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(text);
            }
            None => say(text),
        }
        self.last_line = Instant::now();
    }

    fn download(&mut self, file: String, size: Option<u64>) {
        let Some(bars) = &self.bars else { return };
        let bar = match size {
            Some(size) => bars
                .add(ProgressBar::new(size))
                .with_style(style("  {msg:40!} {bar:24} {bytes:>10} of {total_bytes:<10} {eta:>4}")),
            None => bars.add(ProgressBar::new_spinner()).with_style(style("  {msg:40!} {spinner} {bytes}")),
        };
        bar.set_message(visible(&file).into_owned());
        if let Some(old) = self.downloads.insert(file, bar) {
            old.finish_and_clear();
        }
    }

    fn compile(&mut self, done: u64, total: u64, left: Option<f64>, current: &str, from: &Whence) {
        // The bar says more than that the stage runs.
        self.stage = None;
        let left_text = left.map_or_else(String::new, |s| format!("{} left", duration(s)));
        let from = from.shown();
        if let Some(bars) = &self.bars {
            let bar = self.compile.get_or_insert_with(|| {
                bars.add(ProgressBar::new(total))
                    .with_style(style("  compile {bar:32.green} {pos}/{len} {prefix:14} {msg}"))
            });
            bar.set_length(total);
            bar.set_position(done);
            bar.set_prefix(left_text);
            let current = visible(current.rsplit('/').next().unwrap_or(current)).chars().take(40).collect::<String>();
            bar.set_message(from.map_or(current.clone(), |from| format!("{from}  {current}")));
            if done == total {
                bar.finish_and_clear();
                self.compile = None;
            }
        } else if self.last_line.elapsed() >= QUIET || done == total {
            let percent = (done * 100).checked_div(total).unwrap_or(100);
            let from = from.map_or_else(String::new, |from| format!(" ({from})"));
            self.line(&format!("  compile {done}/{total} ({percent} %){from} {left_text}"));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏ ")
}

impl Sink for Reporter {
    fn take(&self, event: Event) {
        logging::event(&event);
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.quiet && !matches!(event, Event::Warning { .. }) {
            return;
        }
        match event {
            Event::StageStarted { stage } => {
                inner.line(&format!("{} {stage}", paint("1;36", "»")));
                inner.stage = inner.bars.as_ref().map(|bars| spinner(bars, stage));
            }
            Event::StageCached { stage } => {
                inner.line(&format!("{} {stage} {}", paint("32", "✓"), paint("2", "(in the store)")))
            }
            Event::StageFinished { stage, seconds, .. } => {
                inner.compile = None;
                inner.stage = None;
                inner.line(&format!(
                    "{} {stage} {}",
                    paint("32", "✓"),
                    paint("2", &format!("({})", duration(seconds)))
                ));
            }
            Event::DownloadStarted { file, size } => inner.download(file, size),
            Event::DownloadProgress { file, bytes } => {
                if let Some(bar) = inner.downloads.get(&file) {
                    bar.set_position(bytes);
                }
            }
            Event::DownloadFinished { file } => {
                if let Some(bar) = inner.downloads.remove(&file) {
                    bar.finish_and_clear();
                }
            }
            Event::CompileProgress { done, total, seconds_left, current, from } => {
                inner.compile(done, total, seconds_left, &current, &from)
            }
            Event::Note { text } => inner.line(&format!("  {}", said(&text))),
            Event::Warning { text } => inner.line(&format!("{} {}", paint("33", "warning:"), said(&text))),
        }
    }
}

/// Prints each event as a line of JSON on standard error.
pub struct JsonEvents;

impl Sink for JsonEvents {
    fn take(&self, event: Event) {
        logging::event(&event);
        // Bytes trickle in by the thousand; a log wants stages and steps.
        if matches!(event, Event::DownloadProgress { .. }) {
            return;
        }
        if let Ok(line) = serde_json::to_string(&event) {
            say(&visible_json(&line));
        }
    }
}

/// Shows an error to a person.
pub fn error(e: &Error) {
    say(&format!("{} {}", paint("1;31", "error:"), said(e.what())));
    for doing in e.context() {
        say(&format!("  while {}", visible(doing)));
    }
    next_steps(e.next_steps());
}

/// Shows an answer of no to a person.
pub fn no(what: &str, next: &[String]) {
    say(&format!("{} {}", paint("1;31", "no:"), said(what)));
    next_steps(next);
}

fn next_steps(next: &[String]) {
    for next in next {
        say(&format!("  {} {}", paint("36", "next:"), said(next)));
    }
}

/// All progress bars of this process: who prints beside them has to know them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Prints a line on standard error. A terminal that went away is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Standard error for those who print beside progress bars.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        BARS.suspend(|| std::io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

fn spinner(bars: &MultiProgress, what: &str) -> ProgressBar {
    let bar = bars.add(ProgressBar::new_spinner()).with_style(style("  {spinner} {msg} {elapsed}"));
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Says what is waited for, from the first second on, until dropped; on a terminal only.
pub struct Waiting {
    over: Option<mpsc::Sender<()>>,
    shower: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Begins; `what` is asked again and again, so it may say how far things are.
    pub fn new(what: impl Fn() -> String + Send + 'static) -> Self {
        const PATIENCE: Duration = Duration::from_secs(1);
        const STEP: Duration = Duration::from_millis(200);
        if !platform::stderr_is_terminal() {
            return Self { over: None, shower: None };
        }
        let (over, ended) = mpsc::channel::<()>();
        let shower = std::thread::spawn(move || {
            let waits = |time| ended.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout);
            if !waits(PATIENCE) {
                return;
            }
            let bar = spinner(&BARS, &what());
            while waits(STEP) {
                bar.set_message(what());
            }
            bar.finish_and_clear();
        });
        Self { over: Some(over), shower: Some(shower) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.over = None;
        if let Some(shower) = self.shower.take() {
            let _ = shower.join();
        }
    }
}

/// Whether a terminal shows `c` where it stands, and does nothing else for it.
fn is_harmless(c: char) -> bool {
    c == '\n' || c == '\t' || !c.is_control() && !is_direction(c)
}

/// Text of others as a terminal may show it: control characters, and those that turn what is beside them, are visible and
/// do nothing. Lines stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        return text.into();
    }
    text.chars()
        .map(|c| if is_harmless(c) { c.to_string() } else { c.escape_default().to_string() })
        .collect::<String>()
        .into()
}

/// A path as a terminal may show it: others may have named what it leads to.
pub fn path(path: &Path) -> String {
    visible(&path.display().to_string()).into_owned()
}

/// JSON as a terminal may show it. Its writer escapes what JSON demands, and leaves DEL, C1 and the controls of direction
/// as they are; these can stand in its strings alone, where an escape means the same.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    if json.chars().all(is_harmless) {
        return json.into();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_harmless(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out.into()
}

/// Text of this program's, which may hold text of others.
fn said(text: &str) -> String {
    visible(&name::as_typed(text)).into_owned()
}

/// `75` as `1 min 15 s`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0 if seconds < 0.95 => format!("{:.1} s", seconds),
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

/// Today's date in UTC, as `2026-11-24`.
pub fn today() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = crate::artifact::civil_date(i64::try_from(now / 86_400).unwrap_or(0));
    format!("{year:04}-{month:02}-{day:02}")
}

/// `1536` as `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_like_a_person_says_them() {
        assert_eq!(
            [duration(0.3), duration(59.6), duration(75.0), duration(5400.0)],
            ["0.3 s", "1 min 00 s", "1 min 15 s", "1 h 30 min"]
        );
        assert_eq!([bytes(12), bytes(1536), bytes(3 << 30)], ["12 B", "1.5 KiB", "3.0 GiB"]);
    }

    #[test]
    fn what_turns_or_hides_text_is_visible_and_json_means_the_same() {
        let text = "a\u{1b}[31m\u{7f}\u{9b}b\u{202e}c\u{2066}\u{2028}\u{61c}\u{e0041}\n\té";
        let shown = "a\\u{1b}[31m\\u{7f}\\u{9b}b\\u{202e}c\\u{2066}\\u{2028}\\u{61c}\\u{e0041}\n\té";
        assert_eq!(visible(text), shown);
        assert!(matches!(visible("plain\n\té"), Cow::Borrowed(_)));
        assert_eq!(path(Path::new("a\u{202e}b")), "a\\u{202e}b");
        let json = serde_json::json!({ text: [text] }).to_string();
        let shown = visible_json(&json);
        assert!(shown.chars().all(is_harmless) && shown.contains("\\u009b") && shown.contains("é"), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), serde_json::json!({ text: [text] }));
    }
}
