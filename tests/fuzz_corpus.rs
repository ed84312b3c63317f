//! What fuzzing found, once and for all: every file of `tests/fuzz/TARGET` goes through what that
//! target of `xtask/fuzz` calls, and must end without a panic.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)] // a test that cannot go on panics

mod support;

use std::collections::BTreeMap;

use xtask::artifact::{dsse::Envelope, provenance::Statement};
use xtask::inspect::{self, Depth, record};

/// The files of `tests/fuzz/TARGET`.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = support::root().join("tests/fuzz").join(target);
    std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| std::fs::read(e.path()).unwrap()).collect()
}

#[test]
fn texts() {
    let files = corpus("text");
    assert!(!files.is_empty(), "the corpus is gone");
    for data in files {
        let text = String::from_utf8_lossy(&data);
        for windows in [false, true] {
            let _ = inspect::start_defaults(&text, Some(&text), "2.6.0", windows, true);
        }
        let _ = xtask::doctor::explain(&text);
        let _ = record::parse(&text);
        let _ = Statement::parse(&data, "corpus");
        let _ = Envelope::parse(&data, "corpus").map(|e| e.payload("corpus"));
        for aarch64 in [false, true] {
            let _ = inspect::uv_version_in_code(&data, aarch64);
        }
    }
}

#[test]
fn binaries_and_archives() {
    for target in ["elf", "pe", "macho", "archive", "fatbin"] {
        for data in corpus(target) {
            let _ = inspect::library(&data);
            let _ = inspect::inspect("corpus", &data, Depth::Full);
            inspect::gpu_images(&data, &mut BTreeMap::new());
        }
    }
}

#[test]
fn pages_of_an_index() {
    use xtask::mirror::{ProjectPage, lock::IndexLock, requirements, serve::Form};
    let base = "https://h/simple/x/".parse().unwrap();
    let files = corpus("pages");
    assert!(!files.is_empty(), "the corpus is gone");
    for data in files {
        let text = String::from_utf8_lossy(&data);
        for json in [false, true] {
            let _ = xtask::source::pypi::parse_page(&text, json, &base);
        }
        let _ = serde_json::from_str::<ProjectPage>(&text).map(|p| p.html());
        let _ = IndexLock::parse(&text).map(|l| l.render());
        let _ = requirements::parse(&text);
        let _ = Form::wanted(&text);
    }
}
