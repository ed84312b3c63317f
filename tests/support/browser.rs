//! What a headless Chromium makes of a page.

use std::path::Path;
use std::process::Command;

/// A script for a copy of a page: it puts what it finds into the title, as JSON.
pub const PROBE: &str = r#"<script>
  const s = getComputedStyle(document.body);
  const wide = [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);
  document.title = JSON.stringify({ width: innerWidth, overflow: document.documentElement.scrollWidth > innerWidth, wide, ground: s.backgroundColor, ink: s.color, drawn: [...document.querySelectorAll('svg path.line')].filter(p => p.getTotalLength() > 10).length, lines: document.querySelectorAll('svg path.line').length });
</script>"#;

/// The address of a file.
pub fn file(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// The document at `url` after its scripts ran.
pub fn dump_dom(url: &str, window: &str, dark: bool) -> String {
    let program = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find_map(|name| std::env::split_paths(&std::env::var_os("PATH")?).map(|d| d.join(name)).find(|p| p.is_file()));
    let program = program.expect("Chromium (Debian: apt-get install chromium)");
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--window-size={window}"))
        .arg(format!("--user-data-dir={}", profile.path().display()));
    if dark {
        command.arg("--blink-settings=preferredColorScheme=0");
    }
    let out = command.arg(url).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// What [`PROBE`] found.
#[track_caller]
pub fn answer(dom: &str) -> serde_json::Value {
    let title = dom.split("<title>").nth(1).and_then(|t| t.split("</title>").next()).unwrap_or_default();
    serde_json::from_str(title).unwrap_or_else(|e| panic!("{e} in {title}"))
}
