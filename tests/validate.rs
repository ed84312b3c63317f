//! `validate` and the benchmark of `tests/allreduce`: reports made of figures that this file makes up,
//! and the benchmark itself on the stock libtorch of the package index.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::figures::measured;
use crate::support::standin::{files, workspace};
use crate::support::{Answer, Ran, Server, alone_with, browser, root, sha256, shared_store};
use serde_json::{Value, json};

fn xtask(dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.args(args).current_dir(root()).env("TORCHMILL_STORE", dir.join("store")).env("NO_COLOR", "1");
    Ran::of(&mut command, dir)
}

fn write(dir: &Path, value: &Value) -> String {
    let path = dir.join("raw.json");
    std::fs::write(&path, value.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn what_was_measured_is_judged_again_by_the_recipes_thresholds() {
    let dir = tempfile::tempdir().unwrap();
    let raw = write(dir.path(), &measured(1.0, 0));
    let markdown = dir.path().join("report.md");
    let ran =
        xtask(dir.path(), &["validate", "--from", &raw, "--markdown", markdown.to_str().unwrap(), "--json"]).exits(0);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["passed"], true);
    assert_eq!(json["schema_version"], 1);
    insta::assert_snapshot!(std::fs::read_to_string(markdown).unwrap());
}

#[test]
fn a_slower_candidate_is_told_which_thresholds_it_misses() {
    let dir = tempfile::tempdir().unwrap();
    let raw = write(dir.path(), &measured(1.3, 0));
    let ran = xtask(dir.path(), &["validate", "--from", &raw]).exits(1);
    insta::assert_snapshot!(format!("{}\n{}", ran.stdout, ran.stderr));
}

#[test]
fn a_kernel_that_the_candidate_is_built_without_is_named_and_misses_no_bar() {
    let dir = tempfile::tempdir().unwrap();
    let mut value = measured(1.0, 0);
    for rounds in value["raw"].as_array_mut().unwrap() {
        for (side, base) in [(0, 3.4e-4), (1, 1e-4)] {
            let seconds: Vec<f64> = (0..5).map(|i| base * (1.0 + 0.01 * f64::from(i))).collect();
            let row = json!({ "name": "embedding_bag", "shape": "10000x256", "type": "float32", "seconds": seconds });
            rounds[side]["operators"]["rows"].as_array_mut().unwrap().push(row);
        }
    }
    let slow = "embedding_bag float32 10000x256: 3.40";
    // What was not read excuses nothing.
    xtask(dir.path(), &["validate", "--from", &write(dir.path(), &value)]).exits(1).says(slow).says("operator-time");
    value["candidate"]["cxx_flags"] = "-O2 -DUSE_XNNPACK".into();
    value["baseline"]["cxx_flags"] = "-O2 -DUSE_FBGEMM -DUSE_XNNPACK".into();
    let raw = write(dir.path(), &value);
    let [html, markdown] = ["report.html", "report.md"].map(|name| dir.path().join(name).display().to_string());
    xtask(dir.path(), &["validate", "--from", &raw, "--html", &html, "--markdown", &markdown])
        .exits(0)
        .says(slow)
        .says("the candidate is built without USE_FBGEMM, the baseline with it");
    let headline = "Every bar is met, but by one operator whose kernel the candidate is built without.";
    for report in [html, markdown] {
        let report = std::fs::read_to_string(report).unwrap();
        assert!(report.contains(headline) && report.contains("without USE_FBGEMM"), "{report}");
    }
}

#[test]
fn a_version_that_the_index_lacks_is_told_before_anything_is_made() {
    let page = format!(
        "<a href=\"torch-2.6.0-cp311-cp311-linux_{0}.whl\">torch-2.6.0-cp311-cp311-linux_{0}.whl</a>",
        std::env::consts::ARCH
    );
    let server = Server::start([("/simple/torch/", Answer::Typed("text/html", page.into_bytes()))]);
    let w = workspace(&files());
    let subjects = ["--candidate", "pypi:torch==2.99.0", "--baseline", "pypi:torch==2.6.0"];
    let mut command = w.xtask(&[&["validate", "--recipe", "standin"], &subjects[..]].concat());
    let ran = Ran::of(command.env("PIP_INDEX_URL", format!("{}/simple", server.url)), w.path());
    ran.exits(2).says("no wheel of torch 2.99.0").says("there is no wheel of torch 2.99.0 at all");
}

#[test]
fn one_wrong_sum_is_an_answer_of_no() {
    let dir = tempfile::tempdir().unwrap();
    let raw = write(dir.path(), &measured(0.8, 3));
    xtask(dir.path(), &["validate", "--from", &raw]).exits(1).says("72 elements of the candidate's sums were wrong");
}

#[test]
fn what_others_wrote_is_text_in_a_report_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let report = |value: &Value| {
        let raw = write(dir.path(), value);
        let markdown = dir.path().join("report.md");
        let ran = xtask(dir.path(), &["validate", "--from", &raw, "--markdown", markdown.to_str().unwrap()]).exits(0);
        (std::fs::read_to_string(markdown).unwrap(), ran.stdout)
    };
    let mut value = measured(1.0, 0);
    let (good, _) = report(&value);
    value["candidate"]["version"] = "2.6.0|<img src=x>\n# no [a](b) `c`\\\u{202e}\u{9b}31m".into();
    value["scenarios"][0]["baseline"]["failed"]["why"] = "first |\n| second | <script> |".into();
    value["machine"]["system"] = "a\n\n<script>".into();
    value["commands"] = json!(["one\n```\n<script>", "two"]);
    let (bad, stdout) = report(&value);
    let version = r"2.6.0\|\<img src=x> # no \[a](b) \`c\`\\\\u{202e}\\u{9b}31m";
    assert!(bad.starts_with(&format!("# torch {version} against ")), "{bad}");
    assert!(bad.contains(r"**failed**: first \| \| second \| \<script> \|"), "{bad}");
    assert!(bad.contains("\none ` ` ` <script>\ntwo\n```\n"), "{bad}");
    assert_eq!(bad.lines().count(), good.lines().count(), "{bad}");
    assert!(!bad.contains(['\u{202e}', '\u{9b}']) && !stdout.contains(['\u{202e}', '\u{9b}']), "{stdout}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let from = |text: &str| {
        let path = dir.path().join("raw.json");
        std::fs::write(&path, text).unwrap();
        xtask(dir.path(), &["validate", "--from", path.to_str().unwrap()]).exits(2)
    };
    from("{").says("this is no JSON");
    from("{\"schema_version\": 1}").says("this is no measurement");
    from("{\"schema_version\": 99}").says("its schema_version is 99");
    xtask(dir.path(), &["validate", "--from", "/no/such/file"]).exits(2).says("/no/such/file");
    if cfg!(unix) {
        xtask(dir.path(), &["validate", "--from", "/dev/zero"])
            .exits(2)
            .says("/dev/zero cannot be read: it has more than");
    }
    xtask(dir.path(), &["validate", "--candidate", "x"]).exits(2).says("--baseline");
    let none = ["validate", "--candidate", "no-such.whl", "--baseline", "pypi:torch==2.6.0"];
    xtask(dir.path(), &none).exits(2).says("there is no 'no-such.whl'");
    let inexact = ["validate", "--candidate", "pypi:torch>=2", "--baseline", "pypi:torch==2.6.0"];
    xtask(dir.path(), &inexact).exits(2).says("no exact version of torch");
    let on_a_gpu = [&none[..], &["--gpu"]].concat();
    let missing =
        if Path::new("/dev/nvidia0").exists() { "there is no 'no-such.whl'" } else { "this machine has no GPU" };
    xtask(dir.path(), &on_a_gpu).exits(2).says(missing);
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let folder = ["validate", "--candidate", empty.to_str().unwrap(), "--baseline", "pypi:torch==2.6.0"];
    xtask(dir.path(), &folder).exits(2).says("holds no libtorch");
}

#[test]
#[ignore = "needs Chromium"]
fn the_page_is_one_file_that_fits_a_phone_and_the_dark() {
    let dir = tempfile::tempdir().unwrap();
    let raw = write(dir.path(), &measured(1.3, 0));
    let page = dir.path().join("report.html");
    xtask(dir.path(), &["validate", "--from", &raw, "--html", page.to_str().unwrap()]).exits(1);
    let html = std::fs::read_to_string(&page).unwrap();
    // Nothing is loaded, and what a build is called is text.
    for outside in ["src=", "href=", "url(", "@import", "<script>alert"] {
        assert!(!html.contains(outside), "{outside} in the page");
    }
    // Every picture has a title for those who do not see it, and every table its heads.
    assert_eq!(html.matches("<svg").count(), html.matches("role=\"img\" aria-labelledby=").count());
    assert_eq!(html.matches("<table").count(), html.matches("<thead").count());
    assert!(html.matches("<svg").count() >= 5, "{} pictures", html.matches("<svg").count());

    // What the browser makes of it, asked by a script that only this copy has.
    let copy = dir.path().join("probe.html");
    std::fs::write(&copy, html.replace("</body>", &format!("{}</body>", browser::PROBE))).unwrap();
    let phone = browser::dump_dom(&browser::file(&copy), "500,900", false);
    let phone = browser::answer(&phone);
    assert_eq!(phone["overflow"], false, "{phone}");
    assert_eq!(phone["wide"], json!([]), "{phone}");
    assert_eq!(phone["drawn"], phone["lines"], "{phone}");
    let dark = browser::answer(&browser::dump_dom(&browser::file(&copy), "1200,900", true));
    assert_ne!(phone["ground"], dark["ground"], "{phone} {dark}");
    assert_ne!(phone["ink"], dark["ink"], "{phone} {dark}");
}

/// The wheels of the stock build that its CPU part loads, with what is taken of them: not its CUDA part,
/// which would need gigabytes of libraries more. Requirement, file, SHA-256, members.
type Part = (&'static str, &'static str, &'static str, fn(&str) -> bool);
const STOCK: [Part; 3] = [
    (
        "nvidia-cuda-cupti-cu12==12.4.127",
        "nvidia_cuda_cupti_cu12-12.4.127-py3-none-manylinux2014_x86_64.whl",
        "9dec60f5ac126f7bb551c055072b69d85392b13311fcc1bcda2202d172df30fb",
        |name| name.starts_with("nvidia/cuda_cupti/lib/"),
    ),
    (
        "nvidia-cuda-runtime-cu12==12.4.127",
        "nvidia_cuda_runtime_cu12-12.4.127-py3-none-manylinux2014_x86_64.whl",
        "64403288fa2136ee8e467cdc9c9427e0434110899d07c779f25b5c068934faa5",
        |name| name.starts_with("nvidia/cuda_runtime/lib/"),
    ),
    (
        "torch==2.6.0",
        "torch-2.6.0-cp311-cp311-manylinux1_x86_64.whl",
        "7979834102cd5b7a43cc64e87f2f3b14bd0e1458f06e9f88ffa386d07c7446e1",
        |name| {
            let library = name.starts_with("torch/lib/") && !name.contains("cuda") && !name.contains("nvrtc");
            library || name.starts_with("torch/include/") || name == "torch/version.py"
        },
    ),
];

/// Unpacks the stock libtorch to `target/`, once; `None` where it cannot be downloaded.
fn stock_libtorch() -> PathBuf {
    let _one = alone_with("test-libtorch");
    let folder = root().join("target/test-libtorch");
    let done = folder.join("complete");
    if done.is_file() {
        return folder;
    }
    let download = folder.join("download");
    std::fs::create_dir_all(&download).unwrap();
    for (requirement, file, digest, wanted) in STOCK {
        let wheel = download.join(file);
        for _ in 0..3 {
            if wheel.is_file() {
                break;
            }
            let pip = Command::new("python3")
                .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.11"])
                .args(["--platform=manylinux1_x86_64", "--platform=manylinux2014_x86_64", requirement, "--dest"])
                .arg(&download)
                .status();
            eprintln!("pip download {requirement}: {pip:?}");
        }
        let bytes = std::fs::read(&wheel).expect("a download of the stock build");
        assert_eq!(sha256(&bytes), digest, "the index gave other bytes of {file} than it once did");
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        let names: Vec<String> = archive.file_names().flatten().map(|n| n.into_owned()).collect();
        for name in names.iter().filter(|n| wanted(n) && !n.ends_with('/')) {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::copy(&mut archive.by_name(name).unwrap(), &mut std::fs::File::create(path).unwrap()).unwrap();
        }
    }
    std::fs::remove_dir_all(download).unwrap();
    std::fs::write(done, "").unwrap();
    folder
}

/// A second build that differs from the first in one byte, which nothing reads.
fn twin(of: &Path) -> PathBuf {
    let _one = alone_with("test-libtorch-twin");
    let folder = of.with_file_name("test-libtorch-twin");
    let library = folder.join("torch/lib/libtorch_cpu.so");
    if !library.is_file() {
        let copied = Command::new("cp").arg("-al").arg(of).arg(&folder).status().unwrap();
        assert!(copied.success());
        let mut bytes = std::fs::read(&library).unwrap();
        bytes.push(0);
        std::fs::remove_file(&library).unwrap();
        std::fs::write(&library, bytes).unwrap();
    }
    folder
}

#[test]
#[ignore = "takes too much: downloads 767 MB and compiles for minutes"]
fn the_benchmark_holds_the_stock_build_against_itself() {
    let stock = stock_libtorch();
    let twin = twin(&stock);
    let (a, b) = (stock.to_str().unwrap(), twin.to_str().unwrap());
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
        command.arg("validate").args(args).current_dir(root()).env("NO_COLOR", "1");
        Ran::of(command.env("TORCHMILL_STORE", shared_store()), &root())
    };
    run(&["--candidate", a, "--baseline", a]).exits(2).says("are the same build");
    let small = ["--quick", "--rounds", "1", "--max-bytes", "4096", "--clients", "16,1024", "--json"];
    let ran = run(&[&["--candidate", a, "--baseline", b], &small[..]].concat());
    // On a busy machine a bar may be missed by chance; what was measured is there all the same.
    assert!(matches!(ran.code, Some(0 | 1)), "{ran:?}");
    let json: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    let verdict = |criterion: &str| {
        json["verdicts"].as_array().unwrap().iter().find(|v| v["criterion"] == criterion).unwrap().clone()
    };
    assert_eq!(verdict("correct-sums")["passed"], true);
    for bar in ["allreduce-busbw", "store-rate", "store-startup", "libuv-over-legacy", "operator-time"] {
        assert!(verdict(bar)["value"]["value"].as_f64().is_some_and(|v| v > 0.0), "{bar}: {}", verdict(bar));
    }
    // Folders without Python run no scripts, and say so.
    assert!(json["scenarios"][0]["candidate"]["not-available"]["why"].is_string(), "{}", json["scenarios"]);

    // The program itself, as a user runs it.
    let program = std::fs::read_dir(shared_store().join("v1/stages/benchmark"))
        .unwrap()
        .flatten()
        .map(|e| e.path().join("out/allreduce"))
        .find(|p| p.is_file())
        .unwrap();
    let allreduce = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(&program);
        command.args(args).envs(env.iter().copied()).env("LD_LIBRARY_PATH", stock.join("torch/lib"));
        Ran::of(&mut command, &root())
    };
    let tiny = ["run", "--ranks", "3", "--max-bytes", "4096", "--factor", "512", "--time", "0.01", "--warmup", "0.01"];
    allreduce(&tiny, &[]).exits(0).says("# Out of bounds values : 0 OK").says("#wrong");
    // A flipped bit is noticed, in every type.
    for kind in ["float", "half", "bfloat16"] {
        let one = [&tiny[..], &["--types", kind]].concat();
        allreduce(&one, &[("ALLREDUCE_INJECT", "2:4096:77")]).exits(1).says("2 elements had a wrong sum");
    }
    // A rank that dies takes the others down at once; one that hangs is found by the limit.
    let started = std::time::Instant::now();
    allreduce(&tiny, &[("ALLREDUCE_FAULT", "1:die")]).exits(3).says("rank 1 died");
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    let hang = [&tiny[..], &["--limit", "5"]].concat();
    allreduce(&hang, &[("ALLREDUCE_FAULT", "1:hang")]).exits(3).says("had not ended (--limit)");
    let left = Command::new("pgrep").arg("-f").arg(&program).output().unwrap();
    assert!(left.stdout.is_empty(), "left behind: {}", String::from_utf8_lossy(&left.stdout));
    // A whole `validate` that is stopped, or killed, leaves neither processes nor half a report.
    let running = || !Command::new("pgrep").arg("-f").arg(&program).output().unwrap().stdout.is_empty();
    let soon = |what: bool| {
        (0..600).any(|_| {
            (running() == what) || {
                std::thread::sleep(Duration::from_millis(100));
                false
            }
        })
    };
    for signal in ["TERM", "KILL"] {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("report.html");
        let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
        command.args(["validate", "--candidate", a, "--baseline", b, "--only", "benchmark", "--html"]).arg(&report);
        command.current_dir(root()).env("TORCHMILL_STORE", shared_store()).stderr(std::process::Stdio::null());
        let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        assert!(soon(true), "the benchmark did not begin");
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(signal == "KILL" || status.code() == Some(3), "{status}");
        assert!(soon(false), "SIG{signal} left ranks behind");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "SIG{signal} left half a report");
    }
    // Misuse.
    allreduce(&["run", "--backend", "nccl"], &[]).exits(2).says("built without nccl");
    allreduce(&["run", "--device", "cuda"], &[]).exits(2).says("sees no GPU");
    allreduce(&["run", "--min-bytes", "2M", "--max-bytes", "1M"], &[]).exits(2).says("is more than");
    allreduce(&["store", "--connect", "nonsense"], &[]).exits(2).says("HOST:PORT");
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    allreduce(&[&tiny[..], &["--port", &port]].concat(), &[]).exits(3).says(&port);
    // Ranks that somebody else starts are joined.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = free.to_string();
    let ranks: Vec<_> = ["0", "1"]
        .map(|rank| {
            let mut command = Command::new(&program);
            command
                .args(["run", "--json", "--max-bytes", "8", "--time", "0.01", "--address", "127.0.0.1"])
                .envs([("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank), ("MASTER_ADDR", "127.0.0.1")])
                .env("MASTER_PORT", &port)
                .env("LD_LIBRARY_PATH", stock.join("torch/lib"))
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    assert!(ranks.iter().all(|r| r.status.success()), "{ranks:?}");
    let said: Value = serde_json::from_slice(&ranks[0].stdout).unwrap();
    assert_eq!((said["launcher"].as_str(), said["ranks"].as_u64()), (Some("torchrun"), Some(2)));
}

#[test]
fn every_release_of_tch_pins_both_projects_and_back() {
    use torchmill::toolchain::tch::Release;
    for project in ["tests/consumers/tch", "tests/allreduce"] {
        let read = |name: &str| std::fs::read_to_string(root().join(project).join(name)).unwrap();
        let (manifest, lock) = (read("Cargo.toml"), read("Cargo.lock"));
        let written = manifest.split("\"=").nth(1).unwrap().split('"').next().unwrap();
        for release in Release::all() {
            let (pinned, pinned_lock) = release.pin(&manifest, &lock).unwrap();
            assert!(pinned.contains(&format!("\"={}\"", release.version)), "{pinned}");
            // Exactly the two crates are others.
            let others = |a: &str, b: &str| a.lines().zip(b.lines()).filter(|(a, b)| a != b).count();
            assert_eq!(others(&lock, &pinned_lock), if release.version == written { 0 } else { 4 });
            let back = Release::named(written).unwrap().pin(&pinned, &pinned_lock).unwrap();
            assert_eq!(back, (manifest.clone(), lock.clone()));
        }
    }
    assert!(Release::named("0.21.0").unwrap_err().to_string().contains("0.21.0"));
}

#[test]
fn what_was_left_out_for_want_of_a_tch_stands_in_both_reports() {
    let dir = tempfile::tempdir().unwrap();
    let mut value = measured(1.0, 0);
    let note = "The benchmark was left out: no recipe names a tch for torch 2.14, which ours.whl is.";
    value["notes"] = json!([note]);
    value["commands"] = json!([]);
    value["raw"] = json!([]);
    let raw = write(dir.path(), &value);
    let [html, markdown] = ["report.html", "report.md"].map(|name| dir.path().join(name).display().to_string());
    let args = ["validate", "--from", &raw, "--html", &html, "--markdown", &markdown, "--json"];
    let ran = xtask(dir.path(), &args).exits(0);
    for report in [html, markdown] {
        let report = std::fs::read_to_string(report).unwrap();
        assert!(report.contains(note), "{report}");
    }
    // Nothing is said of what was not measured.
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let judged: Vec<&str> =
        json["verdicts"].as_array().unwrap().iter().map(|v| v["criterion"].as_str().unwrap()).collect();
    assert_eq!(judged, ["scenarios"]);
}
