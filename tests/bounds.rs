//! What reads files of others stays below 500 MB of memory whatever it is given, and ends with the bound's name.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Answer, Ran, Server, Workspace, recipe, zips};

/// Runs the command in `w` with more variables; how it ended, and the most memory that it had, bytes.
fn measured(w: &Workspace, args: &[&str], more: &[(&str, &str)]) -> (Ran, u64) {
    const MEASURE: &str = "import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)";
    let peak = w.path().join("peak");
    let mut command = Command::new("python3");
    command.args(["-c", MEASURE]).arg(&peak).arg(env!("CARGO_BIN_EXE_torchmill")).args(args);
    command.current_dir(w.path()).env("TORCHMILL_STORE", &w.store).env("NO_COLOR", "1").env("HOME", w.path());
    command.envs(more.iter().copied());
    let ran = Ran::of(&mut command, w.path());
    let peak: u64 = std::fs::read_to_string(peak).unwrap().parse().unwrap();
    (ran, peak * if cfg!(target_os = "macos") { 1 } else { 1024 })
}

/// The same, which must stay below 500 MB.
#[track_caller]
fn bounded(w: &Workspace, args: &[&str]) -> Ran {
    bounded_with(w, args, &[])
}

#[track_caller]
fn bounded_with(w: &Workspace, args: &[&str], more: &[(&str, &str)]) -> Ran {
    let (ran, peak) = measured(w, args, more);
    assert!(peak < 500_000_000, "{args:?} had {peak} bytes\n{}\n{}", ran.stdout, ran.stderr);
    ran
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A library of 300 MB whose functions and data are as `answer` says.
fn large_library(w: &Workspace, name: &str, answer: u8) -> PathBuf {
    let source = w.write(
        &format!("{name}.s"),
        format!(
            ".data\n.globl table\n.type table, %object\n.size table, 300000000\ntable: .zero 299999999\n.byte {answer}\n\
             .section .rodata\n.globl word\n.type word, %object\n.size word, 4\nword: .byte {answer}, 1, 2, 3\n\
             .section .note.GNU-stack,\"\",%progbits\n"
        ),
    );
    let out = w.path().join(format!("{name}/libtorch_cpu.so"));
    std::fs::create_dir_all(out.parent().unwrap()).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-nostdlib", "-Wl,--build-id=none", "-o"]).arg(&out).arg(source);
    assert!(cc.status().unwrap().success());
    out
}

#[test]
fn libraries_of_300_megabytes_are_compared_by_section_and_symbol() {
    let w = Workspace::new();
    let (a, b) = (large_library(&w, "a", 7), large_library(&w, "b", 8));
    let zip = |name: &str, library: &Path| {
        let mut out = zip::ZipWriter::new(File::create(w.path().join(name)).unwrap());
        let options = zip::write::SimpleFileOptions::default().compression_level(Some(1));
        out.start_file("torch/lib/libtorch_cpu.so", options).unwrap();
        std::io::copy(&mut File::open(library).unwrap(), &mut out).unwrap();
        out.finish().unwrap();
        w.path().join(name)
    };
    let (x, y) = (zip("a.zip", &a), zip("b.zip", &b));
    for (a, b) in [(&a, &b), (&x, &y)] {
        bounded(&w, &["diff", text(a), text(b)])
            .exits(1)
            .says(".data: 1 of 300000000 bytes differ, the first at 0x11e1a2ff; in table")
            .says(".rodata: 1 of 4 bytes differ, the first at 0x0; in word");
    }
}

/// A library of 1 GB, most of which is a table of symbols.
fn library_of_symbols(w: &Workspace, name: &str, last: u8) -> PathBuf {
    const SYMBOLS: u64 = 900_000_000 / 24 * 24;
    const NAMES: u64 = 90_000_000;
    let section = |name: u32, kind: u32, offset: u64, size: u64, link: u32, entry: u64| {
        let mut out = [name.to_le_bytes(), kind.to_le_bytes()].concat();
        for v in [0, 0, offset, size] {
            out.extend(u64::to_le_bytes(v));
        }
        out.extend(link.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        for v in [8, entry] {
            out.extend(u64::to_le_bytes(v));
        }
        out
    };
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    for v in [0u64, 0, 64] {
        header.extend(v.to_le_bytes());
    }
    header.extend(0u32.to_le_bytes());
    for v in [64u16, 56, 0, 64, 3, 2] {
        header.extend(v.to_le_bytes());
    }
    header.extend(section(0, 0, 0, 0, 0, 0));
    header.extend(section(1, 2, 4096, SYMBOLS, 2, 24));
    header.extend(section(9, 3, 4096 + SYMBOLS, NAMES, 0, 0));
    let path = w.path().join(name).join("libtorch_cpu.so");
    std::fs::create_dir(w.path().join(name)).unwrap();
    let mut file = File::create(&path).unwrap();
    file.write_all(&header).unwrap();
    file.write_all(b"N4c10d6detail16LibUVStoreDaemonE\0").unwrap();
    file.seek(SeekFrom::Start(4096 + SYMBOLS)).unwrap();
    file.write_all(b"\0.symtab\0.strtab\0").unwrap();
    file.seek(SeekFrom::Start(4096 + SYMBOLS + NAMES - 2)).unwrap();
    file.write_all(&[last, 0]).unwrap();
    path
}

#[test]
fn a_table_of_symbols_that_is_larger_than_memory_is_not_read() {
    let w = Workspace::new();
    let (a, b) = (library_of_symbols(&w, "a", 1), library_of_symbols(&w, "b", 2));
    bounded(&w, &["diff", text(&a), text(&b)])
        .exits(1)
        .says("bytes: 1 of 990004096 bytes differ, the first at 0x3b02437e")
        .says("tables: not all were looked into: of more than 100663296 bytes");
    bounded(&w, &["inspect", text(&a)]).exits(1).says("libuv TCPStore   no");
}

/// A tar.gz whose members have names of a megabyte.
fn archive_of_names(w: &Workspace, name: &str, members: usize) -> PathBuf {
    let path = w.path().join(name);
    let packer = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(packer);
    let long = "n".repeat((1 << 20) - 10);
    for i in 0..members {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{long}{i:06}"), &b"x"[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    path
}

#[test]
fn names_that_are_larger_than_memory_in_sum_are_not_kept() {
    let w = Workspace::new();
    let (a, b) = (archive_of_names(&w, "a.tar.gz", 600), archive_of_names(&w, "b.tar.gz", 599));
    bounded(&w, &["diff", text(&a), text(&b)]).exits(2).says("50331648 bytes of names and headers");
    bounded(&w, &["inspect", text(&a)]).exits(2).says("the names of its members have more than 33554432 bytes");
    // The same in a zip archive: names of 60 kB, in a directory of 120 MB.
    let zip = |name: &str, last: u8| {
        let long = "n".repeat(60_000);
        let mut parts: Vec<zips::Part> = (0..2000).map(|i| zips::stored(&format!("{long}{i:05}"), b"")).collect();
        parts.push(zips::stored("last", &[last]));
        w.write(name, zips::archive(&parts, |_, _| {}))
    };
    let (a, b) = (zip("a.zip", 1), zip("b.zip", 2));
    bounded(&w, &["diff", text(&a), text(&b)]).exits(2).says("its directory has more than 20971520 bytes");
    bounded(&w, &["inspect", text(&a)]).exits(2).says("its directory has more than 33554432 bytes");
}

#[test]
fn as_many_members_as_may_be_compared_fit() {
    let w = Workspace::new();
    let zip = |name: &str, folder: &str| {
        let mut out = zip::ZipWriter::new(File::create(w.path().join(name)).unwrap());
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for i in 0..150_000 {
            out.start_file(format!("{folder}/{i}"), options).unwrap();
        }
        out.finish().unwrap();
        w.path().join(name)
    };
    let (a, b) = (zip("a.zip", "a"), zip("b.zip", "b"));
    bounded(&w, &["diff", text(&a), text(&b)]).exits(1).says("149980 more");
}

#[test]
fn what_asks_for_gigabytes_to_be_unpacked_is_refused() {
    let w = Workspace::new();
    let mut packer = liblzma::write::XzEncoder::new(Vec::new(), 1);
    packer.write_all(&crate::support::tar("t", &[("a".to_owned(), "a".to_owned())].into())).unwrap();
    let mut xz = packer.finish().unwrap();
    // The header of its only block asks for a dictionary of 4 GiB.
    let end = 12 + usize::from(xz[12]) * 4;
    xz[16] = 40;
    let crc = crc32fast::hash(&xz[12..end]).to_le_bytes();
    xz[end..end + 4].copy_from_slice(&crc);
    let path = w.write("a.tar.xz", &xz);
    let says = "takes more memory than the 134217728 bytes that xz may have";
    bounded(&w, &["inspect", text(&path)]).exits(2).says(says);
    let out = w.path().join("out");
    let bounds = torchmill::source::unpack::Bounds { bytes: 1 << 20, members: 10 };
    let target = torchmill::source::unpack::Target::all(&out);
    let e = torchmill::source::unpack::unpack(&path, "a", &[target], bounds, 0).unwrap_err();
    assert!(e.what().contains(says), "{e}");
}

#[test]
fn a_debian_package_that_announces_gigabytes_of_names_is_refused() {
    let w = Workspace::new();
    // The table of names of an ar archive, a name that stands behind its header, and one in a table that is none.
    for (name, size, says) in [
        ("//", "9999999999", "it is cut off"),
        ("#1/9999999999", "9999999999", "it is cut off"),
        ("/9", "0", "without data.tar"),
    ] {
        let package = format!("!<arch>\n{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644);
        let path = w.write("a.deb", package);
        bounded(&w, &["inspect", text(&path)]).exits(2).says(says);
    }
}

/// A wheel of so many empty files, with more lines in its RECORD.
fn wheel_of_files(w: &Workspace, files: usize, more: &str) -> PathBuf {
    let name = "demo-1.0-py3-none-any.whl";
    let mut out = zip::ZipWriter::new(File::create(w.path().join(name)).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut record = String::new();
    for i in 0..files {
        let name = format!("demo/{i:060}");
        out.start_file(&name, options).unwrap();
        record.push_str(&format!("{name},sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"));
    }
    let metadata = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n";
    let wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    for (file, text) in [("METADATA", metadata), ("WHEEL", wheel)] {
        let name = format!("demo-1.0.dist-info/{file}");
        out.start_file(&name, options).unwrap();
        out.write_all(text.as_bytes()).unwrap();
        use base64::Engine;
        let digest = hex::decode(crate::support::sha256(text.as_bytes())).unwrap();
        let digest = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
        record.push_str(&format!("{name},sha256={digest},{}\n", text.len()));
    }
    record.push_str("demo-1.0.dist-info/RECORD,,\n");
    record.push_str(more);
    out.start_file("demo-1.0.dist-info/RECORD", options).unwrap();
    out.write_all(record.as_bytes()).unwrap();
    out.finish().unwrap();
    w.path().join(name)
}

#[test]
fn a_wheel_of_as_many_files_as_may_be_is_read() {
    let w = Workspace::new();
    let wheel = wheel_of_files(&w, 390_000, "");
    bounded(&w, &["inspect", text(&wheel)]).exits(2).says("is not a torch");
    state(&w, &wheel);
    bounded(&w, &["verify", text(&wheel)]).says("390002 files are as RECORD says");
    bounded(&w, &["rebuild", text(&wheel), "--trust"]).exits(2).says("carries no recipe");
    bounded(&w, &["mirror", "add", "--index", "index", text(&wheel)]).exits(0);
}

#[test]
fn a_record_of_more_than_a_wheel_can_have_is_refused() {
    let w = Workspace::new();
    let missing: String = (0..150).map(|i| format!("gone/{i},,\n")).collect();
    for (more, says) in [
        ("a,,\n".repeat(16_500_000), "RECORD has more than 500000 lines"),
        (",".repeat(60 << 20) + "\n", "RECORD has more than 2000000 commas"),
        ("\u{1}".repeat(60 << 20) + ",,\n", "it says more than 131072 bytes"),
        ("a,,\n".repeat(100_000), "RECORD lists 'a' twice"),
        (missing, "and 92 more"),
    ] {
        let wheel = wheel_of_files(&w, 3, &more);
        state(&w, &wheel);
        bounded(&w, &["verify", text(&wheel)]).exits(1).says(says);
        bounded(&w, &["mirror", "add", "--index", "index", text(&wheel)]).exits(2).says(says);
    }
}

/// JSON of so many objects, each of which takes much more memory than its text.
fn objects(count: usize) -> String {
    format!("[{}0]", "{\"\":0},".repeat(count))
}

#[test]
fn json_of_more_values_than_torchmill_writes_is_not_read() {
    use base64::Engine;
    let w = Workspace::new();
    let says = "it has more than 200000 brackets, commas and colons";
    let wheel = wheel_of_files(&w, 3, "");
    let statement = |count| {
        format!(
            "{{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":[],\
             \"predicateType\":\"https://slsa.dev/provenance/v1\",\"predicate\":{}}}",
            objects(count)
        )
    };
    let plain = w.write("plain.json", statement(2_300_000));
    let payload = base64::engine::general_purpose::STANDARD.encode(statement(1_500_000));
    let signed = w.write(
        "signed.json",
        format!("{{\"payload\":\"{payload}\",\"payloadType\":\"application/vnd.in-toto+json\",\"signatures\":[]}}"),
    );
    for statement in [plain, signed] {
        bounded(&w, &["verify", text(&wheel), "--statement", text(&statement)]).exits(2).says(says);
    }
    let carries = |name: &str, bytes: &[u8]| {
        let mut zip = zip::ZipWriter::new(File::create(&wheel).unwrap());
        let file = format!("demo-1.0.dist-info/torchmill/{name}");
        zip.start_file(file, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
        zip.finish().unwrap();
        bounded(&w, &["rebuild", text(&wheel), "--trust"])
    };
    carries("build.json", objects(2_300_000).as_bytes()).exits(2).says(says);
    let says = "its 'recipes/x.lock' has more than 1048576 bytes";
    carries("recipes/x.lock", "#".repeat((1 << 20) + 1).as_bytes()).exits(2).says(says);
}

#[test]
fn a_page_of_an_index_is_kept_as_far_as_it_tells_of_files_and_these_have_a_bound() {
    let w = Workspace::new();
    let json = "application/vnd.pypi.simple.v1+json";
    let yanked = format!("{{\"filename\":\"x\",\"url\":\"x\",\"yanked\":[{}0]}}", "[],".repeat(20_000_000));
    let many = "{\"filename\":\"\",\"url\":\"\"},".repeat(300_000);
    let braces = format!("{{\"filename\":\"x\",\"url\":\"x\",\"yanked\":{}}}", objects(8_000_000));
    let page =
        |files: &str| Answer::Typed(json, format!("{{\"files\":[{}]}}", files.trim_end_matches(',')).into_bytes());
    let html = "<a href=x>x</a>".repeat(300_000);
    let server = Server::start([
        ("/yanked/torch/", page(&yanked)),
        ("/many/torch/", page(&many)),
        ("/braces/torch/", page(&braces)),
        ("/html/torch/", Answer::Typed("text/html", html.into_bytes())),
    ]);
    let inspect = |index: &str| {
        let url = format!("{}/{index}", server.url);
        bounded_with(&w, &["inspect", "pypi:torch==2.9.1"], &[("PIP_INDEX_URL", &url)])
    };
    inspect("yanked").exits(2).says("the package index has no wheel of torch 2.9.1");
    for index in ["many", "braces", "html"] {
        inspect(index).exits(3).says("it names more than 200000 files");
    }
}

/// Puts a statement beside an artifact that nobody signed.
fn state(w: &Workspace, artifact: &Path) {
    let name = artifact.file_name().unwrap().to_str().unwrap();
    let digest = torchmill::store::digest_file(artifact).unwrap().0;
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": name, "digest": { "sha256": digest } }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {},
    });
    w.write(&format!("{name}.provenance.json"), statement.to_string());
}

#[test]
fn what_an_artifact_carries_of_its_making_has_a_bound() {
    let w = Workspace::new();
    let zeros = vec![0; 16 << 20];
    let name = |folder: &str, i: usize| format!("{folder}/torchmill/patches/{i}");
    let (wheel, bundle) = (w.path().join("demo-1.0-py3-none-any.whl"), w.path().join("libtorch-1.tar.gz"));
    let mut zip = zip::ZipWriter::new(File::create(&wheel).unwrap());
    let packer = flate2::write::GzEncoder::new(File::create(&bundle).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(packer);
    for i in 0..60 {
        zip.start_file(name("demo-1.0.dist-info", i), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&zeros).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(zeros.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name("libtorch/share", i), &zeros[..]).unwrap();
    }
    zip.finish().unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    for artifact in [&wheel, &bundle] {
        let says = "more than torchmill writes";
        bounded(&w, &["rebuild", text(artifact), "--trust"]).exits(2).says(says);
        state(&w, artifact);
        bounded(&w, &["verify", text(artifact)]).exits(2);
    }
}

#[test]
fn git_repositories_with_large_files_are_packed_within_the_bounds() {
    let w = Workspace::new();
    let repo = w.path().join("repo");
    std::fs::create_dir(&repo).unwrap();
    let git = |args: &[&str]| {
        let out = Command::new("git").args(args).current_dir(&repo).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "-q"]);
    let commit = |size: u64| {
        File::create(repo.join("large")).unwrap().set_len(size).unwrap();
        git(&["add", "large"]);
        git(&["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "large"]);
        git(&["rev-parse", "HEAD"])
    };
    let lock = |commit: &str| {
        let source = format!("git+file://{}#{commit}", repo.display());
        w.write("recipes/large.toml", recipe("").replace("file:uv.tar", &source));
        bounded(&w, &["lock", "--recipe", "large"])
    };
    lock(&commit(120 << 20)).exits(0);
    lock(&commit(300 << 20)).says("'large' has 314572800 bytes; at most");
}
