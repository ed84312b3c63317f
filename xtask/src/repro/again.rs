//! The command line of a second build.

use std::ffi::OsString;

use crate::stage::Build;

/// How the recipe of a build is built once more, by this program in a process of its own.
pub(super) struct Again<'a> {
    /// The last stage.
    pub until: &'a str,
    /// Compiler processes.
    pub jobs: usize,
    /// Whether it may not fetch.
    pub offline: bool,
    /// Whether everything is compiled anew.
    pub no_compiler_cache: bool,
}

impl Again<'_> {
    /// The command line.
    pub fn arguments(&self, build: &Build<'_>) -> Vec<OsString> {
        let mut out: Vec<OsString> =
            ["build-torch", "--recipe", &build.recipe.name, "--until", self.until].map(OsString::from).into();
        out.extend(["--python".into(), build.python.executable.clone().into_os_string()]);
        out.extend(["--jobs".into(), self.jobs.to_string().into()]);
        out.extend(self.offline.then(|| OsString::from("--offline")));
        out.extend(self.no_compiler_cache.then(|| OsString::from("--no-compiler-cache")));
        out
    }
}
