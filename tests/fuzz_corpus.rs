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

/// A target, what it is fed, and what is right to begin with.
type Target = (&'static str, fn(&[u8]), &'static [&'static str]);

const TARGETS: [Target; 9] = [
    ("wheel", targets::wheel, &["\u{1}", "\u{1}abcdef", "\u{1}\u{0}\u{0}P"]),
    (
        "record",
        |d| targets::record(&String::from_utf8_lossy(d)),
        &["a,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n\"b,c\",,\nx/RECORD,,\n"],
    ),
    (
        "metadata",
        targets::metadata,
        &[
            "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n  x\n\nText\n",
            "demo-1.0-1a-py2.py3-none-manylinux_2_17_x86_64.whl",
            "demo-1.0.data/data/bin/x",
            "[console_scripts]\nhello = demo.a:main [x, y]\n\n# z\n[plug]\na.b = c\n",
        ],
    ),
    (
        "dsse",
        targets::dsse,
        &[
            "{\"payload\":\"e30=\",\"payloadType\":\"application/vnd.in-toto+json\",\"signatures\":[{\"keyid\":\"a\",\"sig\":\"AAAA\"}]}",
            "{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":[],\"predicateType\":\"https://slsa.dev/provenance/v1\",\"predicate\":{}}",
        ],
    ),
    (
        "policy",
        |d| targets::policy(&String::from_utf8_lossy(d)),
        &["schema = 1\nkeys = []\nrecipes = [\"aa\"]\nbuilders = [\"b\"]\n"],
    ),
    (
        "lock",
        |d| targets::lock(&String::from_utf8_lossy(d)),
        &[
            "version = 1\nrecipe = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n[source.x]\nsha256 = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\nsize = 5\n",
        ],
    ),
    (
        "objects",
        targets::objects,
        &[
            "{\"output\":\"a/b.o\",\"command\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"reads\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"inputs\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"object\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"size\":1}",
            "{\"schema_version\":1,\"recipe\":\"r\",\"version\":\"2\",\"python\":\"3.11\",\"machine\":\"m\",\"compiler\":\"c\",\"compiler_sha256\":\"a\",\"objects\":1,\"bytes\":1,\"left_out\":{},\"headers\":{}}",
            "*2\r\n$3\r\nGET\r\n$8\r\nccache:k\r\n",
        ],
    ),
    (
        "recipe",
        targets::recipe,
        &[
            "schema = 1\ndescription = \"x\"\n[torch]\nversion = \"2.6.0\"\ncommit = \"0123456789012345678901234567890123456789\"\nepoch = 5\n[[source]]\nname = \"a\"\n",
        ],
    ),
    (
        "pages",
        |d| targets::pages(&String::from_utf8_lossy(d)),
        &[
            include_str!("fuzz/pages/a-page-as-json"),
            include_str!("fuzz/pages/a-page-as-html"),
            include_str!("fuzz/pages/a-lock"),
            include_str!("fuzz/pages/requirements"),
            include_str!("fuzz/pages/what-a-client-takes"),
        ],
    ),
];

#[test]
fn what_was_found_before_and_changes_in_what_is_right_do_no_harm() {
    // An hour each where somebody asks for it; a moment in every run. Without the guidance of `cargo fuzz`.
    let seconds: f64 = std::env::var("TORCHMILL_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0.3);
    for (name, target, right) in TARGETS {
        corpus(name).iter().for_each(|data| target(data));
        right.iter().for_each(|data| target(data.as_bytes()));
        let mut random = fastrand::Rng::with_seed(7);
        let started = std::time::Instant::now();
        while started.elapsed().as_secs_f64() < seconds {
            let mut data = right[random.usize(..right.len())].as_bytes().to_vec();
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
