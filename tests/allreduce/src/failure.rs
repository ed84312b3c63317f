//! The one error type: what happened, and the exit code that it leads to.

use std::fmt;

/// Short form.
pub type Result<T> = std::result::Result<T, Failure>;

/// What ended a run.
#[derive(Debug)]
pub struct Failure {
    /// 1: a result was wrong. 2: misuse. 3: the world failed.
    pub exit: u8,
    text: String,
}

impl Failure {
    /// Exit code 1: the answer is no.
    pub fn no(text: impl Into<String>) -> Self {
        Self { exit: 1, text: text.into() }
    }

    /// Exit code 2: misuse.
    pub fn misuse(text: impl Into<String>) -> Self {
        Self { exit: 2, text: text.into() }
    }

    /// Exit code 3: the world failed.
    pub fn world(text: impl Into<String>) -> Self {
        Self { exit: 3, text: text.into() }
    }

    /// Says what was being done.
    pub fn doing(mut self, doing: impl fmt::Display) -> Self {
        self.text = format!("{doing}: {}", self.text);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::world(e.to_string())
    }
}

impl From<tch::TchError> for Failure {
    fn from(e: tch::TchError) -> Self {
        // The first line says what; a C++ backtrace follows.
        let text = e.to_string();
        Self::world(text.lines().next().unwrap_or_default().trim())
    }
}
