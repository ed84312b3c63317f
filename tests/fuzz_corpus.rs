//! What fuzzing found, once and for all, and what it begins with: every file of `tests/fuzz/TARGET` goes through what that
//! target of `xtask/fuzz` calls, and must end without a panic.

/// What the targets of `xtask/fuzz` call.
#[path = "../xtask/fuzz/src/lib.rs"]
#[allow(dead_code)] // each target uses its part
mod targets;

use std::collections::BTreeMap;
use std::path::Path;

use torchmill::artifact::{dsse::Envelope, provenance::Statement, trust::Policy};
use torchmill::inspect::{self, Depth, Files};
use torchmill::recipe::Lock;
use torchmill::wheel::{Archive, Metadata, record};

/// The files of `tests/fuzz/TARGET`.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = crate::support::root().join("tests/fuzz").join(target);
    std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| std::fs::read(e.path()).unwrap()).collect()
}

#[test]
fn texts() {
    let files = corpus("text");
    assert!(!files.is_empty(), "the corpus is gone");
    for data in files {
        let text = String::from_utf8_lossy(&data);
        for windows in [false, true] {
            let files = Files {
                rendezvous: &text,
                static_rendezvous: Some(&text),
                c10d_backend: Some(&text),
                dynamic_rendezvous: Some(&text),
            };
            let _ = inspect::start_defaults(files, "2.6.0", windows, true);
        }
        let _ = torchmill::doctor::explain(&data);
        let _ = record::parse(&text);
        let _ = Metadata::parse(&data);
        let _ = Policy::parse(&text, Path::new("/nonexistent"), "corpus");
        let _ = Lock::parse(&text, Path::new("corpus.lock"), "lock");
        let _ = Statement::parse(&data, "corpus");
        let _ = Envelope::parse(&data, "corpus").map(|e| e.payload("corpus"));
        for aarch64 in [false, true] {
            let _ = inspect::uv_version_in_code(&data, aarch64);
        }
    }
}

#[test]
fn binaries_and_archives() {
    for target in ["elf", "pe", "macho", "archive", "fatbin", "wheel"] {
        let files = corpus(target);
        assert!(!files.is_empty(), "the corpus of {target} is gone");
        for data in files {
            let _ = Archive::open(&data).map(|a| a.members().len());
            let _ = inspect::library(&data);
            let _ = inspect::symbols(&data);
            let _ = inspect::inspect("corpus", &data, Depth::Full);
            inspect::gpu_images(&data, &mut BTreeMap::new());
        }
    }
}

#[test]
fn pages_of_an_index() {
    use torchmill::mirror::{ProjectPage, lock::IndexLock, requirements, serve::Form};
    let base = "https://h/simple/x/".parse().unwrap();
    let files = corpus("pages");
    assert!(!files.is_empty(), "the corpus is gone");
    for data in files {
        let text = String::from_utf8_lossy(&data);
        for json in [false, true] {
            let _ = torchmill::source::pypi::parse_page(&text, json, &base);
        }
        let _ = serde_json::from_str::<ProjectPage>(&text).map(|p| p.html());
        let _ = IndexLock::parse(&text).map(|l| l.render());
        let _ = requirements::parse(&text);
        let _ = Form::wanted(&text);
    }
}

/// A target, and what it is fed.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 9] = [
    ("wheel", targets::wheel),
    ("record", |d| targets::record(&String::from_utf8_lossy(d))),
    ("metadata", targets::metadata),
    ("dsse", targets::dsse),
    ("policy", |d| targets::policy(&String::from_utf8_lossy(d))),
    ("lock", |d| targets::lock(&String::from_utf8_lossy(d))),
    ("objects", targets::objects),
    ("recipe", targets::recipe),
    ("pages", |d| targets::pages(&String::from_utf8_lossy(d))),
];

#[test]
fn what_was_found_before_and_changes_in_what_is_right_do_no_harm() {
    // An hour each where somebody asks for it; a moment in every run. Without the guidance of `cargo fuzz`.
    let seconds: f64 = std::env::var("TORCHMILL_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0.3);
    for (name, target) in TARGETS {
        let right = corpus(name);
        assert!(!right.is_empty(), "the corpus of {name} is gone");
        right.iter().for_each(|data| target(data));
        let mut random = fastrand::Rng::with_seed(7);
        let started = std::time::Instant::now();
        while started.elapsed().as_secs_f64() < seconds {
            let mut data = right[random.usize(..right.len())].clone();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..data.len() + 1);
                match random.u8(..4) {
                    0 if at < data.len() => data[at] = random.u8(..),
                    1 if at < data.len() => drop(data.remove(at)),
                    2 => data.insert(at, *random.choice(b"\"\n\r,=[]{}:.-/\\ a0\0").unwrap()),
                    _ => data.extend(std::iter::repeat_with(|| random.u8(..)).take(6).collect::<Vec<u8>>()),
                }
            }
            target(&data);
        }
    }
}
