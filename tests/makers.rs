//! Who makes a TCPStore, and what it asks for: the table and the reader of `inspect` against the real thing. The Python
//! files of stock wheels come from the index that pip uses (some hundred KB of each wheel, by ranges), and are run with a
//! TCPStore that notes how it is called. Nothing compiled is fetched, and no torch is installed.

use std::io::{BufReader, Read};
use std::path::Path;
use std::process::Command;

use super::support::root;
use serde_json::Value;
use torchmill::inspect::makers::{self, Choice, Maker};
use torchmill::inspect::{Cursor, Files, Outcome, Remote, start_defaults};
use torchmill::source::choice::{self, Wanted};
use torchmill::source::{http_agent, pypi};

/// One of each row of the table, and of each platform where they differ.
const SAMPLE: &[(&str, &str)] = &[
    ("2.2.2", "win_amd64"),
    ("2.3.1", "linux_x86_64"),
    ("2.4.1", "win_amd64"),
    ("2.5.1", "linux_x86_64"),
    ("2.6.0", "win_amd64"),
    ("2.7.1", "win_amd64"),
    ("2.10.0", "win_amd64"),
    ("2.11.0", "linux_x86_64"),
    ("2.15.0", "win_amd64"),
    ("2.15.0", "linux_x86_64"),
];

#[test]
fn the_table_says_what_the_stock_wheels_do() {
    let files = pypi::files(&http_agent(), "torch").unwrap();
    for (version, platform) in SAMPLE {
        compare(&files, version, platform);
    }
}

#[test]
#[ignore = "every release and platform: minutes of small downloads"]
fn the_table_says_what_every_stock_wheel_does() {
    let files = pypi::files(&http_agent(), "torch").unwrap();
    let mut versions: Vec<&str> = files.iter().filter_map(|f| f.filename.split('-').nth(1)).collect();
    versions.sort_unstable_by_key(|v| makers::numbers(v));
    versions.dedup();
    for version in versions.into_iter().filter(|v| makers::numbers(v) >= [2, 2, 0]) {
        for platform in ["win_amd64", "linux_x86_64", "macosx_arm64"] {
            compare(&files, version, platform);
        }
    }
}

fn compare(files: &[pypi::IndexFile], version: &str, platform: &str) {
    let wanted = Wanted { name: "torch", version, platform: Some(platform), python: Some("3.11") };
    let wheel = choice::choose(files, wanted).unwrap().file;
    let dir = tempfile::tempdir().unwrap();
    unpack(&wheel.url, dir.path());
    let (name, windows) = match platform {
        "win_amd64" => ("win32", true),
        "macosx_arm64" => ("darwin", false),
        _ => ("linux", false),
    };
    let did = run(dir.path(), name);
    let at = format!("{version} {platform}: {did}");

    // The table.
    let era = makers::era(version).unwrap();
    for (scheme, choice) in [("env", era.env), ("tcp", era.tcp)] {
        for (set, asks) in asked(choice, windows) {
            assert_eq!(did[scheme][set], asks, "{scheme} {set} in {at}");
        }
    }
    for (store, maker) in
        [("static", era.r#static), ("c10d", era.c10d), ("dynamic", era.dynamic), ("worker", era.worker)]
    {
        let asks = match maker {
            Maker::Binding => Value::from("default"),
            Maker::RdzvConf => Value::from(false),
            Maker::None => Value::from("none"),
        };
        for way in did[store].as_array().unwrap() {
            assert_eq!(*way, asks, "{store} in {at}");
        }
    }
    let by_conf = if era.c10d == Maker::RdzvConf { Value::from(true) } else { Value::from("default") };
    assert_eq!(did["c10d_conf"], by_conf, "{at}");
    assert_eq!(did["shares"], serde_json::json!(era.shares), "{at}");
    let row = makers::table().lines.iter().find(|l| {
        makers::numbers(&l.from) <= makers::numbers(version) && makers::numbers(version) <= makers::numbers(&l.to)
    });
    let row = row.unwrap_or_else(|| panic!("no row of lines for {version}"));
    let lines = serde_json::json!({ "agent": row.agent, "own": row.own, "tcp": row.tcp, "env": row.env });
    assert_eq!(did["lines"], lines, "{at}");

    // The reader, for builds with libuv and without.
    let text = |name: &str| std::fs::read_to_string(dir.path().join("torch/distributed").join(name)).unwrap();
    let (rendezvous, elastic) = (text("rendezvous.py"), "elastic/rendezvous");
    let [agent, backend, dynamic] = ["static_tcp_rendezvous.py", "c10d_rendezvous_backend.py", "dynamic_rendezvous.py"]
        .map(|name| text(&format!("{elastic}/{name}")));
    let files = Files {
        rendezvous: &rendezvous,
        static_rendezvous: Some(&agent),
        c10d_backend: Some(&backend),
        dynamic_rendezvous: Some(&dynamic),
    };
    let asks = |value: &Value| value.as_bool().unwrap_or(era.binding);
    let ends = |stores: &[&Value], has: bool| {
        let outcomes: Vec<Outcome> = stores.iter().map(|s| Outcome::of(asks(s), has)).collect();
        outcomes.iter().find(|o| **o == Outcome::Crash).copied()
    };
    for has in [false, true] {
        let read = start_defaults(files, version, windows, has);
        assert_eq!(read.init_process_group, Outcome::of(asks(&did["env"]["default"]), has), "{at}");
        assert_eq!(read.agent_store_worker, Outcome::of(asks(&did["worker"][0]), has), "{at}");
        let crash = |outcome: Outcome| (outcome == Outcome::Crash).then_some(outcome);
        assert_eq!(crash(read.torchrun), ends(&[&did["static"][0], &did["worker"][0]], has), "{at}");
        let workers = if era.shares.iter().any(|s| s == "c10d") { &did["worker"][0] } else { &did["env"]["default"] };
        let mut stores = vec![&did["c10d"][0], workers];
        stores.extend(Some(&did["dynamic"][0]).filter(|d| **d != "none"));
        assert_eq!(crash(read.torchrun_c10d), ends(&stores, has), "{at}");
    }
}

/// What a process without an agent asks for, by what is set.
fn asked(choice: Choice, windows: bool) -> [(&'static str, bool); 5] {
    let default = choice.default_on(windows);
    [
        ("default", default),
        ("USE_LIBUV=0", if choice.variable { false } else { default }),
        ("USE_LIBUV=1", if choice.variable { true } else { default }),
        ("url=False", if choice.url { false } else { default }),
        ("url=1", if choice.url { true } else { default }),
    ]
}

/// The Python files of `torch.distributed` in the wheel at `url`.
fn unpack(url: &str, folder: &Path) {
    let remote = Remote::open(http_agent(), url).unwrap();
    let mut archive = zip::ZipArchive::new(BufReader::with_capacity(1 << 16, Cursor::new(&remote))).unwrap();
    for i in 0..archive.len() {
        let name = archive.by_index_data(i).unwrap().name().unwrap().into_owned();
        let wanted = name == "torch/distributed/rendezvous.py"
            || name == "torch/distributed/constants.py"
            || name.starts_with("torch/distributed/elastic/") && name.ends_with(".py");
        if wanted {
            let path = folder.join(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut text = Vec::new();
            archive.by_index(i).unwrap().read_to_end(&mut text).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }
}

fn run(folder: &Path, platform: &str) -> Value {
    let script = root().join("tests/scenarios/who_makes_the_store.py");
    let out = Command::new("python3").arg(script).arg(folder).arg(platform).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}
