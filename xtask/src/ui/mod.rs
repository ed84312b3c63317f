//! Drawing: progress bars on a terminal, plain lines elsewhere, errors. The only place beside `cli`
//! that prints. Messages go to standard error; results are printed by the commands, to standard
//! output.

#![allow(clippy::print_stderr)] // this is the module that prints

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::error::Error;
use crate::event::{Event, Sink};
use crate::platform;

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
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    if terminal && wanted() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
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
    last_line: Instant,
}

impl Reporter {
    /// A reporter; with `quiet` only warnings are shown.
    pub fn new(quiet: bool) -> Self {
        let bars = (platform::stderr_is_terminal() && !quiet).then(MultiProgress::new);
        Self {
            inner: Mutex::new(Inner { bars, downloads: HashMap::new(), compile: None, last_line: Instant::now() }),
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
            None => eprintln!("{text}"),
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
        bar.set_message(file.clone());
        if let Some(old) = self.downloads.insert(file, bar) {
            old.finish_and_clear();
        }
    }

    fn compile(&mut self, done: u64, total: u64, left: Option<f64>, current: &str) {
        let left_text = left.map_or_else(String::new, |s| format!("{} left", duration(s)));
        if let Some(bars) = &self.bars {
            let bar = self.compile.get_or_insert_with(|| {
                bars.add(ProgressBar::new(total))
                    .with_style(style("  compile {bar:32.green} {pos}/{len} {prefix:14} {msg}"))
            });
            bar.set_length(total);
            bar.set_position(done);
            bar.set_prefix(left_text);
            bar.set_message(current.rsplit('/').next().unwrap_or(current).chars().take(40).collect::<String>());
            if done == total {
                bar.finish_and_clear();
                self.compile = None;
            }
        } else if self.last_line.elapsed() >= QUIET || done == total {
            let percent = (done * 100).checked_div(total).unwrap_or(100);
            self.line(&format!("  compile {done}/{total} ({percent} %) {left_text}"));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏ ")
}

impl Sink for Reporter {
    fn emit(&self, event: Event) {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.quiet && !matches!(event, Event::Warning { .. }) {
            return;
        }
        match event {
            Event::StageStarted { stage } => inner.line(&format!("{} {stage}", paint("1;36", "»"))),
            Event::StageCached { stage } => {
                inner.line(&format!("{} {stage} {}", paint("32", "✓"), paint("2", "(in the store)")))
            }
            Event::StageFinished { stage, seconds, .. } => {
                inner.compile = None;
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
            Event::CompileProgress { done, total, seconds_left, current } => {
                inner.compile(done, total, seconds_left, &current)
            }
            Event::Note { text } => inner.line(&format!("  {}", visible(&text))),
            Event::Warning { text } => inner.line(&format!("{} {}", paint("33", "warning:"), visible(&text))),
        }
    }
}

/// Prints each event as a line of JSON on standard error.
pub struct JsonEvents;

impl Sink for JsonEvents {
    fn emit(&self, event: Event) {
        // Bytes trickle in by the thousand; a log wants stages and steps.
        if matches!(event, Event::DownloadProgress { .. }) {
            return;
        }
        if let Ok(line) = serde_json::to_string(&event) {
            eprintln!("{line}");
        }
    }
}

/// Shows an error to a person.
pub fn error(e: &Error) {
    eprintln!("{} {}", paint("1;31", "error:"), visible(e.what()));
    for doing in e.context() {
        eprintln!("  while {}", visible(doing));
    }
    for next in e.next_steps() {
        eprintln!("  {} {}", paint("36", "next:"), visible(next));
    }
}

/// Text of others as a terminal may show it: control characters are visible, and do nothing. Lines stay.
pub fn visible(text: &str) -> std::borrow::Cow<'_, str> {
    let harmless = |c: char| c == '\n' || c == '\t' || !c.is_control();
    if text.chars().all(harmless) {
        return text.into();
    }
    text.chars()
        .map(|c| if harmless(c) { c.to_string() } else { c.escape_default().to_string() })
        .collect::<String>()
        .into()
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
}
