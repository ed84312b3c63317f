//! `inspect --survey`: who lacks libuv? The stock builds over versions and platforms, each read from
//! where people get it, only the parts that tell.

use std::collections::{BTreeMap, BTreeSet};

use super::{print_json, remote_report};
use crate::error::{Error, Result};
use crate::inspect::{Depth, Outcome, Report};
use crate::platform;
use crate::source::{debian, http_agent, pypi};
use crate::ui;
use crate::wheel::Name;

/// Platforms, by what a wheel's platform tag holds.
const PLATFORMS: &[(&str, &str, &str)] = &[
    ("Windows x86-64", "win", "amd64"),
    ("macOS arm64", "macosx", "arm64"),
    ("Linux x86-64", "linux", "x86_64"),
    ("Linux aarch64", "linux", "aarch64"),
];

/// Debian's own builds (amd64), in the pool.
const DEBIAN: &[(&str, &str)] = &[
    ("2.6.0 (Debian 13)", "main/p/pytorch/libtorch2.6_2.6.0+dfsg-7_amd64.deb"),
    ("2.14.1 (Debian unstable)", "main/p/pytorch/libtorch2.14_2.14.1+dfsg-1_amd64.deb"),
];

/// First version that has the libuv backend's code at all.
const FIRST: (u32, u32) = (2, 1);

struct Row {
    version: String,
    platform: String,
    file: String,
    found: Result<Report>,
}

/// Runs the survey.
///
/// # Errors
/// The world: the index does not answer. Or somebody asked to stop. A build that cannot be read is no error: its row
/// says why.
pub fn run(json: bool) -> Result<()> {
    let files = pypi::files(&http_agent(), "torch")?;
    let mut rows = Vec::new();
    for (version, last) in releases(&files) {
        // On Windows what is in a wheel changed between patch releases too.
        for (platform, system, machine) in PLATFORMS.iter().filter(|(_, system, _)| last || *system == "win") {
            let fits = |f: &&pypi::IndexFile| {
                f.filename
                    .parse::<Name>()
                    .is_ok_and(|n| n.version == version && n.platform.contains(system) && n.platform.ends_with(machine))
            };
            let mut wheels: Vec<_> = files.iter().filter(fits).collect();
            // One Python for all, where there is one: the library is the same for each.
            wheels.sort_by_key(|f| (!f.filename.contains("-cp311-"), f.filename.clone()));
            let Some(wheel) = wheels.first() else { continue };
            platform::check_cancelled()?;
            eprintln!("{version}, {platform}");
            let found = remote_report(&wheel.filename, &wheel.url, Depth::Verdict);
            let (platform, file) = ((*platform).to_owned(), wheel.filename.clone());
            rows.push(Row { version: version.clone(), platform, file, found });
        }
    }
    for (version, path) in DEBIAN {
        eprintln!("{version}");
        rows.push(Row {
            version: (*version).to_owned(),
            platform: "Debian amd64".into(),
            file: path.rsplit('/').next().unwrap_or(path).to_owned(),
            found: debian_report(path),
        });
    }
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|r| {
                let error = r.found.as_ref().err().map(|e| e.what().to_owned());
                serde_json::json!({ "version": r.version, "platform": r.platform, "file": r.file, "report": r.found.as_ref().ok(), "error": error })
            })
            .collect();
        print_json(&serde_json::json!({ "schema_version": 1, "builds": rows }));
        return Ok(());
    }
    show(&rows);
    Ok(())
}

fn debian_report(path: &str) -> Result<Report> {
    let mut last = Error::world("no-debian-mirror", "no mirror has it");
    for mirror in debian::mirrors()? {
        // `+` and `~` stand as they are in a pool's URL or percent-encoded; both are the same path.
        let url = format!("{mirror}/pool/{}", path.replace('+', "%2B").replace('~', "%7E"));
        match remote_report(path, &url, Depth::Verdict) {
            Ok(report) => return Ok(report),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// All releases, oldest first; each with whether it is the last of its minor version.
fn releases(files: &[pypi::IndexFile]) -> Vec<(String, bool)> {
    let mut patches: BTreeMap<(u32, u32), BTreeSet<u32>> = BTreeMap::new();
    for file in files {
        let Ok(Name { version, .. }) = file.filename.parse() else { continue };
        let numbers: Vec<u32> = version.split('.').map_while(|n| n.parse().ok()).collect();
        if let [major, minor, patch] = numbers[..]
            && version.split('.').count() == 3
            && (major, minor) >= FIRST
        {
            patches.entry((major, minor)).or_default().insert(patch);
        }
    }
    let of = |((major, minor), patches): ((u32, u32), BTreeSet<u32>)| {
        let last = patches.last().copied();
        patches.into_iter().map(move |patch| (format!("{major}.{minor}.{patch}"), Some(patch) == last))
    };
    patches.into_iter().flat_map(of).collect()
}

fn show(rows: &[Row]) {
    println!(
        "| version | platform | libuv store | Gloo | `init_process_group(\"gloo\")` | `torchrun` | file |\n|---|---|---|---|---|---|---|"
    );
    for row in rows {
        let cells = match &row.found {
            Ok(report) => {
                let text = |outcome: Option<Outcome>| match outcome {
                    Some(outcome) if outcome != Outcome::Crash && report.gloo_is_dead() => "**cannot start**",
                    outcome => outcome.map_or("", Outcome::text),
                };
                let (init, run) = report.defaults.map(|d| (d.init_process_group, d.torchrun)).unzip();
                let libuv = if report.libuv { "yes" } else { "**no**" };
                format!("{libuv} | {} | {} | {}", gloo(report), text(init), text(run))
            }
            Err(e) => {
                let why = e.what().lines().next().unwrap_or_default();
                format!("not read: {} | | |", ui::visible(why).replace('|', "/"))
            }
        };
        println!("| {} | {} | {cells} | `{}` |", row.version, row.platform, row.file);
    }
    println!("\n{} builds, read on {}.", rows.len(), ui::today());
}

/// Gloo's transports, as a cell.
fn gloo(report: &Report) -> String {
    let b = &report.backends;
    match (b.gloo, b.gloo_can_start) {
        (None, _) => "not read".into(),
        (Some(false), _) => "no".into(),
        (Some(true), Some(true)) => b.gloo_transports.join(", "),
        (Some(true), Some(false)) => "**no transport**".into(),
        (Some(true), None) => "a library of its own, not read".into(),
    }
}
