//! `inspect` and `doctor`: what a torch is, told from files that are made here, real in what counts:
//! compiled by this machine's compiler, packed like wheels, served like an index serves them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Answer, Ran, Server, fat};

const NAME: &str = "N4c10d6detail16LibUVStoreDaemonE";

/// A class as c10d has it: virtual functions, so type info.
pub const WITH: &str = r#"
namespace c10d { namespace detail {
struct BackgroundThread { virtual ~BackgroundThread(); virtual int run(); };
BackgroundThread::~BackgroundThread() {}
int BackgroundThread::run() { return 0; }
struct LibUVStoreDaemon : BackgroundThread { ~LibUVStoreDaemon() override; int run() override; };
LibUVStoreDaemon::~LibUVStoreDaemon() {}
int LibUVStoreDaemon::run() { return 1; }
BackgroundThread* make() { return new LibUVStoreDaemon(); }
} }
extern "C" unsigned uv_version(void) { return 0x013200; }
"#;

/// The same name as a text that something points at, and the error's text: what must not fool us.
const WITHOUT: &str = r#"
extern "C" {
const char* text = "use_libuv was requested but PyTorch was build without libuv support";
const char* name = "N4c10d6detail16LibUVStoreDaemonE";
const char* const table[] = {"x", "N4c10d6detail16LibUVStoreDaemonE", "_ZTIN4c10d6detail16LibUVStoreDaemonE"};
const char* const* get() { return table; }
}
"#;

fn xtask(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    Ran::of(command.args(args).env("NO_COLOR", "1"), Path::new("/nowhere"))
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e} in\n{}\n{}", ran.stdout, ran.stderr))
}

/// Compiles `source` to a shared library called libtorch_cpu.so in `dir`.
pub fn compile(dir: &Path, source: &str, flags: &[&str]) -> PathBuf {
    let code = dir.join("lib.cpp");
    std::fs::write(&code, source).unwrap();
    let out = dir.join("libtorch_cpu.so");
    let status =
        Command::new("c++").args(["-shared", "-fPIC", "-O2"]).args(flags).arg("-o").arg(&out).arg(&code).status();
    assert!(status.unwrap().success());
    out
}

fn inspect(path: &Path, more: &[&str]) -> Ran {
    xtask(&[&["inspect", path.to_str().unwrap(), "--json"], more].concat())
}

#[test]
fn a_compiled_store_is_proved_by_its_symbols() {
    let dir = tempfile::tempdir().unwrap();
    let ran = inspect(&compile(dir.path(), WITH, &[]), &[]).exits(0);
    let report = json(&ran);
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["libuv"], true);
    assert_eq!(report["evidence"][0]["by"], "symbol");
    assert_eq!(report["uv"]["version"], "1.50.0");
    assert_eq!(report["uv"]["linkage"], "static");
}

#[test]
fn a_library_that_newer_systems_do_not_load_for_its_stack_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let asks = |flag| json(&inspect(&compile(dir.path(), WITH, &[flag]), &[]).exits(0))["notes"].to_string();
    assert!(asks("-Wl,-z,execstack").contains("libtorch_cpu.so asks for an executable stack"));
    assert!(!asks("-Wl,-z,noexecstack").contains("executable stack"));
}

#[test]
fn a_store_whose_symbols_are_hidden_and_stripped_is_proved_by_its_type_info() {
    let dir = tempfile::tempdir().unwrap();
    let library = compile(dir.path(), WITH, &["-fvisibility=hidden", "-s"]);
    let report = json(&inspect(&library, &[]).exits(0));
    assert_eq!(report["evidence"][0]["by"], "type-info");
}

#[test]
fn a_text_is_no_proof_even_where_something_points_at_it() {
    let dir = tempfile::tempdir().unwrap();
    let library = compile(dir.path(), WITHOUT, &[]);
    assert!(memchr::memmem::find(&std::fs::read(&library).unwrap(), NAME.as_bytes()).is_some());
    let report = json(&inspect(&library, &[]).exits(1));
    assert_eq!(report["libuv"], false);
    assert_eq!(report["name_without_proof"], true);
    assert_eq!(report["evidence"], serde_json::json!([]));
}

/// A 64-bit PE with one section of constants, as far as loaders and we read it. With MSVC's type
/// descriptor and locator of the store's class, with the descriptor's name alone, or with neither.
fn pe(name: bool, locator: bool) -> Vec<u8> {
    const BASE: u64 = 0x1_8000_0000;
    const RVA: u32 = 0x1000;
    const FILE: usize = 0x400;
    let mut section = vec![0u8; 0x400];
    if name {
        // vftable of type_info, spare, name
        section[0x100..0x108].copy_from_slice(&(BASE + 0x1010).to_le_bytes());
        let text = b".?AVLibUVStoreDaemon@detail@c10d@@\0";
        section[0x110..0x110 + text.len()].copy_from_slice(text);
    }
    if locator {
        let fields = [1u32, 0, 0, RVA + 0x100, RVA + 0x300, RVA + 0x200];
        for (i, f) in fields.iter().enumerate() {
            section[0x200 + 4 * i..0x204 + 4 * i].copy_from_slice(&f.to_le_bytes());
        }
    }
    let mut file = vec![0u8; FILE];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c..0x40].copy_from_slice(&0x80u32.to_le_bytes());
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x80, b"PE\0\0");
    put(0x84, &0x8664u16.to_le_bytes()); // machine
    put(0x86, &1u16.to_le_bytes()); // sections
    put(0x94, &240u16.to_le_bytes()); // size of the optional header
    put(0x96, &0x2022u16.to_le_bytes()); // a DLL
    let optional = 0x98;
    put(optional, &0x20bu16.to_le_bytes());
    put(optional + 24, &BASE.to_le_bytes());
    put(optional + 32, &0x1000u32.to_le_bytes()); // alignment in memory
    put(optional + 36, &0x200u32.to_le_bytes()); // and in the file
    put(optional + 56, &0x4000u32.to_le_bytes()); // size of the image
    put(optional + 60, &(FILE as u32).to_le_bytes()); // size of the headers
    put(optional + 108, &16u32.to_le_bytes()); // directories
    let header = optional + 240;
    put(header, b".rdata\0\0");
    put(header + 8, &0x400u32.to_le_bytes());
    put(header + 12, &RVA.to_le_bytes());
    put(header + 16, &0x400u32.to_le_bytes());
    put(header + 20, &(FILE as u32).to_le_bytes());
    put(header + 36, &0x4000_0040u32.to_le_bytes());
    file.extend(section);
    file
}

#[test]
fn a_windows_library_is_proved_by_its_object_locator_and_not_by_its_descriptor_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torch_cpu.dll");
    for (bytes, code, named) in [(pe(true, true), 0, false), (pe(true, false), 1, true), (pe(false, false), 1, false)] {
        std::fs::write(&path, bytes).unwrap();
        let report = json(&inspect(&path, &[]).exits(code));
        assert_eq!(report["name_without_proof"], named);
        assert_eq!(report["libraries"][0]["format"], "pe");
        assert_eq!(report["libraries"][0]["machine"], "x86_64");
    }
}

/// A 64-bit Mach-O library with one symbol, defined or not, and the class' name as a constant.
fn macho(cpu: u32, symbol: &str, defined: bool) -> Vec<u8> {
    let strings = format!("\0{symbol}\0");
    let name = format!("{NAME}\0");
    let commands = 72 + 24 + 24;
    let data = 32 + commands;
    let symbols = (data + name.len()).next_multiple_of(8);
    let mut out = Vec::new();
    let mut put = |values: &[u32]| values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    put(&[0xfeed_facf, cpu, 0, 6, 3, commands as u32, 0, 0]); // a dylib with three load commands
    put(&[0x19, 72]); // LC_SEGMENT_64
    out.extend(b"__TEXT\0\0\0\0\0\0\0\0\0\0");
    let end = symbols + 16 + strings.len();
    [0u64, 0x4000, 0, end as u64].iter().for_each(|v| out.extend(v.to_le_bytes()));
    let mut put = |values: &[u32]| values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    put(&[5, 5, 0, 0]);
    put(&[0x2, 24, symbols as u32, 1, symbols as u32 + 16, strings.len() as u32]); // LC_SYMTAB
    put(&[0x32, 24, 1, 11 << 16, 14 << 16, 0]); // LC_BUILD_VERSION: macOS 11.0
    assert_eq!(out.len(), data);
    out.extend(name.as_bytes());
    out.resize(symbols, 0);
    out.extend(1u32.to_le_bytes());
    out.extend([if defined { 0x0f } else { 0x01 }, u8::from(defined), 0, 0]);
    out.extend((data as u64).to_le_bytes());
    out.extend(strings.as_bytes());
    out
}

const X86_64: u32 = 0x0100_0007;
const ARM64: u32 = 0x0100_000c;

#[test]
fn a_macos_library_is_proved_by_a_defined_symbol_and_a_fat_one_in_every_architecture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libtorch_cpu.dylib");
    let symbol = format!("__ZTI{NAME}");
    let with = |cpu| (cpu, macho(cpu, &symbol, true));
    let without = |cpu| (cpu, macho(cpu, &symbol, false));
    let cases = [
        (with(ARM64).1, 0, vec!["aarch64"]),
        (without(ARM64).1, 1, vec!["aarch64"]),
        (macho(ARM64, "_elsewhere", true), 1, vec!["aarch64"]),
        (fat(&[with(X86_64), with(ARM64)]), 0, vec!["x86_64", "aarch64"]),
        (fat(&[with(X86_64), without(ARM64)]), 1, vec!["x86_64", "aarch64"]),
    ];
    for (bytes, code, machines) in cases {
        std::fs::write(&path, bytes).unwrap();
        let report = json(&inspect(&path, &[]).exits(code));
        let found: Vec<&str> =
            report["libraries"].as_array().unwrap().iter().map(|l| l["machine"].as_str().unwrap()).collect();
        assert_eq!(found, machines);
        assert_eq!(report["floor"]["macos"][0], "11.0");
        assert_eq!(report["name_without_proof"], code == 1);
    }
}

const RENDEZVOUS_26: &str = "def _get_use_libuv_from_query_dict(query_dict):\n    return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"1\")) == \"1\"\n";
const RENDEZVOUS_27: &str = "def _get_use_libuv_from_query_dict(query_dict):\n    if sys.platform == \"win32\":\n        return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"0\")) == \"1\"\n    return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"1\")) == \"1\"\n";

/// A wheel with this store library.
fn wheel(version: &str, tag: &str, rendezvous: &str, library: (&str, &[u8])) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    let texts = [
        (
            "torch/version.py".to_owned(),
            format!("__version__ = '{version}'\ncuda: Optional[str] = None\ngit_version = '0123abc'\n"),
        ),
        ("torch/distributed/rendezvous.py".to_owned(), rendezvous.to_owned()),
        (format!("torch-{version}.dist-info/WHEEL"), format!("Wheel-Version: 1.0\nGenerator: a test\nTag: {tag}\n")),
    ];
    for (name, text) in texts {
        zip.start_file(name, options).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.start_file(format!("torch/lib/{}", library.0), options).unwrap();
    zip.write_all(library.1).unwrap();
    // Something large that a verdict has no business with.
    zip.start_file("torch/lib/libtorch_cuda.so", options.compression_method(zip::CompressionMethod::Stored)).unwrap();
    zip.write_all(&vec![0x5a; 3 << 20]).unwrap();
    zip.finish().unwrap().into_inner()
}

fn linux_wheel(source: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let library = std::fs::read(compile(dir.path(), source, &[])).unwrap();
    wheel("2.6.0", "cp311-cp311-manylinux_2_28_x86_64", RENDEZVOUS_26, ("libtorch_cpu.so", &library))
}

#[test]
fn a_wheel_tells_what_starting_does_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torch.whl");
    let cases = [
        (linux_wheel(WITH), 0, "libuv", "libuv"),
        (linux_wheel(WITHOUT), 1, "crash", "crash"),
        (
            wheel("2.6.0", "cp311-cp311-win_amd64", RENDEZVOUS_26, ("torch_cpu.dll", &pe(false, false))),
            1,
            "crash",
            "crash",
        ),
        (
            wheel("2.15.0", "cp311-cp311-win_amd64", RENDEZVOUS_27, ("torch_cpu.dll", &pe(false, false))),
            1,
            "legacy",
            "crash",
        ),
        (
            wheel("2.15.0", "cp311-cp311-win_amd64", RENDEZVOUS_27, ("torch_cpu.dll", &pe(true, true))),
            0,
            "legacy",
            "libuv",
        ),
    ];
    for (bytes, code, init, torchrun) in cases {
        std::fs::write(&path, bytes).unwrap();
        let report = json(&inspect(&path, &["--verdict"]).exits(code));
        assert_eq!(report["kind"], "wheel");
        assert_eq!(report["defaults"]["init_process_group"], init);
        assert_eq!(report["defaults"]["torchrun"], torchrun);
        assert_eq!(report["torch"]["commit"], "0123abc");
    }
}

#[test]
fn a_wheel_that_lies_in_record_is_refused() {
    use base64::Engine;
    use sha2::Digest;
    let dir = tempfile::tempdir().unwrap();
    let library = std::fs::read(compile(dir.path(), WITH, &[])).unwrap();
    let digest = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(bytes));
    let (right, other) = (digest(&library), digest(b"other"));
    let name = "torch/lib/libtorch_cpu.so";
    let path = dir.path().join("torch.whl");
    let size = library.len();
    for (record, code, says) in [
        (format!("{name},sha256={right},{size}\ntorch-2.6.0.dist-info/RECORD,,\n"), 0, ""),
        (format!("{name},sha256={other},{size}\n"), 2, "has the SHA-256"),
        (format!("{name},sha256={right},{}\n", size + 1), 2, "bytes; it has"),
        ("torch/gone.py,,\n".to_owned(), 2, "which is not in the wheel"),
        ("torch/x\n".to_owned(), 2, "not three fields"),
    ] {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        for (name, bytes) in [(name, &library[..]), ("torch-2.6.0.dist-info/RECORD", record.as_bytes())] {
            zip.start_file(name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        std::fs::write(&path, zip.finish().unwrap().into_inner()).unwrap();
        let ran = inspect(&path, &[]).exits(code);
        assert!(ran.stdout.contains(says), "{record}: {}", ran.stdout);
    }
}

#[test]
fn what_no_two_installers_take_for_one_wheel_is_said_of_a_wheel_at_hand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torch-2.6.0-cp311-cp311-manylinux_2_28_x86_64.whl");
    std::fs::write(&path, linux_wheel(WITH)).unwrap();
    let said = |how: &[&str]| json(&inspect(&path, how).exits(0))["notes"].to_string();
    assert!(said(&[]).contains("it is not one wheel to every installer: it has no METADATA"), "{}", said(&[]));
    // A verdict reads no more than it needs.
    assert!(!said(&["--verdict"]).contains("one wheel"));
}

#[test]
fn what_a_person_reads_says_it_in_one_screen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torch.whl");
    std::fs::write(&path, wheel("2.6.0", "cp311-cp311-win_amd64", RENDEZVOUS_26, ("torch_cpu.dll", &pe(true, true))))
        .unwrap();
    let ran = xtask(&["inspect", path.to_str().unwrap()]).exits(0);
    insta::assert_snapshot!(ran.stdout.replace(path.to_str().unwrap(), "torch.whl"));
}

#[test]
fn of_a_wheel_on_a_server_only_the_needed_bytes_are_read() {
    let bytes = linux_wheel(WITH);
    let size = bytes.len();
    let server =
        Server::start([("/torch.whl", Answer::Ok(bytes.clone())), ("/whole.whl", Answer::NoRanges(bytes.clone()))]);
    let ran = xtask(&["inspect", &format!("{}/torch.whl", server.url), "--verdict", "--json"]).exits(0);
    assert_eq!(json(&ran)["libuv"], true);
    let read = ran.stderr.lines().find(|l| l.starts_with("read ")).unwrap().to_owned();
    let asked: Vec<_> = server.ranges("/torch.whl");
    assert!(asked.iter().all(Option::is_some), "{asked:?}");
    // No more than the members that the verdict needs, packed, and 1 MB.
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&bytes)).unwrap();
    let mut needed = 0;
    for i in 0..archive.len() {
        let entry = archive.by_index(i).unwrap();
        if !entry.name().unwrap().ends_with("libtorch_cuda.so") {
            needed += entry.compressed_size();
        }
    }
    let sent: usize =
        asked.iter().flatten().filter_map(|r| crate::support::wanted(r, size)).map(|(from, to)| to - from).sum();
    assert!(sent as u64 <= needed + 1_000_000, "{sent} bytes asked for, {needed} needed");
    assert!(read.contains("KiB of 3.") && size > 3 << 20, "{read}");
    // A user and a password in the address are for the server, and for nobody who is shown the report.
    let address = format!("{}/torch.whl", server.url.replacen("http://", "http://bob:S3CRET@", 1));
    for how in ["--verdict", "--json"] {
        let ran = xtask(&["inspect", &address, how]).exits(0).says("http://…@127.0.0.1");
        assert!(!ran.stdout.contains("S3CRET") && !ran.stderr.contains("S3CRET"), "{ran:?}");
    }
    // A server that knows no ranges sends it whole, once.
    let ran = xtask(&["inspect", &format!("{}/whole.whl", server.url), "--verdict", "--json"]).exits(0);
    assert_eq!(json(&ran)["libuv"], true);
    assert_eq!(server.ranges("/whole.whl").len(), 1);
}

#[test]
fn what_stands_in_a_file_of_others_does_nothing_to_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torch.whl");
    let library = macho(ARM64, &format!("__ZTI{NAME}"), true);
    let files: [(&str, &[u8]); 3] = [
        ("torch/version.py", b"__version__ = '2.6.0\x1b[31m'\n"),
        ("torch-2.6.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nTag: cp311-cp311-macosx_11_0_arm64\x1b]0;named\x07\n"),
        ("torch/lib/libtorch_cpu.dylib", &library),
    ];
    std::fs::write(&path, archive(&files)).unwrap();
    let ran = xtask(&["inspect", path.to_str().unwrap()]).exits(0);
    assert!(!ran.stdout.contains(['\u{1b}', '\u{7}']), "{:?}", ran.stdout);
    ran.says("2.6.0\\u{1b}[31m").says("arm64\\u{1b}]0;named\\u{7}");
}

/// Bytes that nothing packs any smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(length)
    .collect()
}

/// `library`, which [`pe`] made, with a section `.data`, and after it one that has another use.
fn with_relocations(mut library: Vec<u8>, relocations: &[u8]) -> Vec<u8> {
    library[0x86] = 3; // sections
    let data = library.len() as u32;
    let sizes = [64 << 10, relocations.len() as u32];
    for (i, (name, at)) in [(&b".data\0\0\0"[..], data), (b".reloc\0\0", data + sizes[0])].into_iter().enumerate() {
        let header = 0x98 + 240 + 40 * (i + 1);
        library[header..header + 8].copy_from_slice(name);
        for (field, value) in [(8, sizes[i]), (12, 0x2000 + (i as u32) * 0x10_0000), (16, sizes[i]), (20, at)] {
            library[header + field..header + field + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    library.resize(library.len() + (64 << 10), 0);
    library.extend(relocations);
    library
}

#[test]
fn a_remote_verdict_leaves_the_end_of_a_library_where_it_is() {
    let end = noise(6 << 20);
    let dir = tempfile::tempdir().unwrap();
    let elf = |source: &str, flags: &[&str]| {
        let library = std::fs::read(compile(dir.path(), source, flags)).unwrap();
        // Where patchelf puts what has grown: behind the section headers.
        [&library[..], &end].concat()
    };
    let cases = [
        ("win_amd64", "torch_cpu.dll", with_relocations(pe(true, true), &end), 0, true),
        ("win_amd64", "torch_cpu.dll", with_relocations(pe(true, false), &end), 1, true),
        ("win_amd64", "torch_cpu.dll", with_relocations(pe(false, false), &end), 1, true),
        ("manylinux_2_28_x86_64", "libtorch_cpu.so", elf(WITH, &[]), 0, true),
        // Where the symbol table does not show all, the rest may.
        ("manylinux_2_28_x86_64", "libtorch_cpu.so", elf(WITH, &["-fvisibility=hidden", "-s"]), 0, false),
        ("manylinux_2_28_x86_64", "libtorch_cpu.so", elf(WITHOUT, &[]), 1, false),
    ];
    for (platform, name, library, code, saved) in cases {
        let bytes = wheel("2.6.0", &format!("cp311-cp311-{platform}"), RENDEZVOUS_26, (name, &library));
        let size = bytes.len();
        let server = Server::start([("/torch.whl", Answer::Ok(bytes))]);
        let ran = xtask(&["inspect", &format!("{}/torch.whl", server.url), "--verdict", "--json"]).exits(code);
        let report = json(&ran);
        assert_eq!(report["libuv"], code == 0);
        assert_eq!(report["libraries"][0]["size"], library.len());
        let asked = server.ranges("/torch.whl");
        let sent: usize =
            asked.iter().flatten().filter_map(|r| crate::support::wanted(r, size)).map(|(from, to)| to - from).sum();
        // Of the last 2 MiB a piece is asked for at a time.
        assert_eq!(sent < library.len() - (1 << 20), saved, "{name}, {code}: {sent} bytes of {}", library.len());
        // All of it, as ever, where it is at hand.
        let path = dir.path().join(name);
        std::fs::write(&path, &library).unwrap();
        inspect(&path, &["--verdict"]).exits(code);
    }
}

#[test]
fn a_server_that_cuts_its_answers_is_asked_for_the_rest() {
    let bytes = linux_wheel(WITH);
    let server = Server::start([("/torch.whl", Answer::CutAfter(bytes, 40_000))]);
    let ran = xtask(&["inspect", &format!("{}/torch.whl", server.url), "--verdict", "--json"]).exits(0);
    assert_eq!(json(&ran)["libuv"], true);
}

#[test]
fn what_is_no_torch_gets_one_clear_sentence_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let wheel = linux_wheel(WITH);
    let directory = memchr::memmem::rfind(&wheel, b"PK\x01\x02").unwrap();
    let with = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = wheel.clone();
        edit(&mut bytes);
        bytes
    };
    let first = memchr::memmem::find(&wheel, b"PK\x01\x02").unwrap();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty.whl", Vec::new(), "is empty"),
        ("notes.txt", b"hello, this is a text".to_vec(), "is no archive and no library"),
        ("page.whl", b"<!DOCTYPE html><html></html>".to_vec(), "this is a web page"),
        ("cut.whl", wheel[..wheel.len() / 2].to_vec(), "not a readable archive"),
        ("short.so", b"\x7fELF\x02\x01\x01".to_vec(), "not a readable 64-bit ELF file"),
        ("junk.dll", [b"MZ".as_slice(), &[0xff; 300]].concat(), "not a readable 64-bit PE file"),
        ("fat.dylib", [&[0xca, 0xfe, 0xba, 0xbe][..], &[0xff; 60]].concat(), "Mach-O"),
        // The last member's bytes are said to begin where the first one's do.
        ("overlap.whl", with(&|b| b[directory + 42..directory + 46].fill(0)), "overlap"),
        // Encrypted, as both headers of the first member say.
        (
            "locked.whl",
            with(&|b| {
                b[6] |= 1;
                b[first + 8] |= 1;
            }),
            "encrypted",
        ),
        // The directory says that the first member is larger than it is.
        ("lies.whl", with(&|b| b[first + 24] = b[first + 24].wrapping_add(7)), "unpacks to less"),
    ];
    for (name, bytes, says) in cases {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let ran = inspect(&path, &[]).exits(2);
        let said = json(&ran)["error"].to_string();
        assert!(said.contains(says), "{name}: {said}");
        assert!(!ran.stderr.contains("panicked"), "{name}: {}", ran.stderr);
    }
    // Of a device there is no end, and whoever opens a pipe waits.
    inspect(Path::new("/dev/zero"), &[]).exits(2).says("it is no regular file");
    let nothing = dir.path().join("nothing");
    std::fs::create_dir(&nothing).unwrap();
    inspect(&nothing, &[]).exits(2).says("is not a torch");
    inspect(&dir.path().join("absent"), &[]).exits(2).says("there is no");
    let server = Server::start([("/page", Answer::Typed("text/html; charset=utf-8", b"<html>".to_vec()))]);
    xtask(&["inspect", &format!("{}/page", server.url)]).exits(2).says("is a web page");
    xtask(&["inspect", &format!("{}/absent", server.url)]).exits(3).says("HTTP 404");
    xtask(&["inspect", "pypi:torch"]).exits(2).says("names no exact version");
}

#[test]
fn what_lies_in_the_current_folder_is_not_run_where_pip_is_asked_for_its_index() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("pip")).unwrap();
    for name in ["pip/__init__.py", "configparser.py", "json.py"] {
        std::fs::write(dir.path().join(name), "open('planted', 'w').close()\n").unwrap();
    }
    let server = Server::start([("/simple/torch/", Answer::Status(404))]);
    let config = dir.path().join("pip.conf");
    std::fs::write(&config, format!("[global]\nindex-url = {}/simple\n", server.url)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.args(["inspect", "pypi:torch==2.9.1"]).current_dir(dir.path()).env("NO_COLOR", "1");
    command.env("PIP_CONFIG_FILE", &config).env_remove("PIP_INDEX_URL");
    Ran::of(&mut command, dir.path()).exits(2).says("the package index has no 'torch'");
    assert_eq!(server.ranges("/simple/torch/").len(), 1);
    assert!(!dir.path().join("planted").exists());
}

#[test]
fn a_verdict_says_null_of_what_it_did_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torch.whl");
    std::fs::write(&path, linux_wheel(WITH)).unwrap();
    let report = json(&inspect(&path, &["--verdict"]).exits(0));
    for not_read in ["gpu", "cudnn", "floor", "missing"] {
        assert!(report[not_read].is_null(), "{not_read}: {}", report[not_read]);
        assert!(report["not_read"].as_array().unwrap().contains(&not_read.into()), "{not_read}");
    }
    assert!(report["backends"]["nccl"].is_null() && report["backends"]["ucc"].is_null(), "{}", report["backends"]);
    assert_eq!(report["backends"]["gloo"], false);
    // All was looked at; the library for GPUs is no library here, and might have held NCCL.
    let report = json(&inspect(&path, &[]).exits(0));
    assert_eq!(report["not_read"], serde_json::json!(["nccl", "ucc"]));
    assert!(report["gpu"].is_object() && report["floor"].is_object());
    // All was read: what is not there is not there.
    let library = std::fs::read(compile(dir.path(), WITH, &[])).unwrap();
    std::fs::write(&path, archive(&[("torch/lib/libtorch_cpu.so", &library)])).unwrap();
    let report = json(&inspect(&path, &[]).exits(0));
    assert_eq!(report["not_read"], serde_json::json!([]));
    assert_eq!(report["backends"]["nccl"], false);
    std::fs::write(&path, linux_wheel(WITH)).unwrap();
    let ran = xtask(&["inspect", path.to_str().unwrap(), "--verdict"]).exits(0);
    assert!(ran.stdout.contains("NCCL not read"), "{}", ran.stdout);
}

#[test]
fn what_holds_nothing_of_c10d_is_no_torch_and_a_part_is_named_as_one() {
    inspect(Path::new("/bin/ls"), &[]).exits(2).says("nothing of c10d is in it");
    let dir = tempfile::tempdir().unwrap();
    for part in ["libc10.so", "libtorch_python.so", "libtorch_cuda.so", "libtorch.so"] {
        let library = compile(dir.path(), WITHOUT, &[]);
        let path = dir.path().join(part);
        std::fs::rename(library, &path).unwrap();
        inspect(&path, &[]).exits(2).says("is a part of torch, and not the one with the TCPStore");
    }
    // Whatever its name: one that holds c10d's store is judged.
    let path = dir.path().join("monolith.so");
    std::fs::rename(compile(dir.path(), WITH, &[]), &path).unwrap();
    inspect(&path, &[]).exits(0);
}

/// A zip archive of these files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_torch_before_libtorch_cpu_is_a_torch_and_python_parts_alone_are_named_for_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torch-1.4.0-cp37-cp37m-linux_x86_64.whl");
    let old = |version: &str| format!("__version__ = '{version}'\n").into_bytes();
    std::fs::write(
        &path,
        archive(&[
            ("torch/version.py", &old("1.4.0")),
            ("torch/lib/libtorch.so", b"\x7fELF"),
            ("torch/lib/libc10.so", b""),
        ]),
    )
    .unwrap();
    let report = json(&inspect(&path, &["--verdict"]).exits(1));
    assert!(report["store_library"].is_null() && report["backends"]["gloo"].is_null(), "{report}");
    assert!(report["notes"][0].as_str().unwrap().contains("older than libtorch_cpu (1.5)"), "{report}");

    let mut data = tar::Builder::new(Vec::new());
    let version = old("2.6.0+debian");
    let mut header = tar::Header::new_gnu();
    header.set_size(version.len() as u64);
    header.set_mode(0o644);
    data.append_data(&mut header, "./usr/lib/python3/dist-packages/torch/version.py", &version[..]).unwrap();
    let packed = zstd::encode_all(&data.into_inner().unwrap()[..], 3).unwrap();
    let mut deb = ar::Builder::new(Vec::new());
    deb.append(&ar::Header::new(b"data.tar.zst".to_vec(), packed.len() as u64), &packed[..]).unwrap();
    let path = dir.path().join("python3-torch.deb");
    std::fs::write(&path, deb.into_inner().unwrap()).unwrap();
    inspect(&path, &[]).exits(2).says("holds the Python parts of torch 2.6.0+debian alone").says("libtorch2.6");
}

#[test]
fn a_library_beside_torch_that_cannot_be_read_is_a_note_and_not_the_end_of_the_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let store = std::fs::read(compile(dir.path(), WITH, &[])).unwrap();
    let path = dir.path().join("torch.whl");
    std::fs::write(
        &path,
        archive(&[
            ("torch/version.py", b"__version__ = '2.6.0'\n"),
            ("torch/lib/libtorch_cpu.so", &store),
            ("torch/lib/libcut.so", &store[..2000]),
            ("torch/lib/libtorch_cpu.so.orig", &store[..100]),
            ("torch/lib/libscript.so", b"INPUT(libreal.so.1)\n"),
            ("torch-2.6.0.dist-info/WHEEL", b"Wheel-Version: 1.0\n"),
        ]),
    )
    .unwrap();
    let report = json(&inspect(&path, &[]).exits(0));
    let notes = report["notes"].to_string();
    assert!(notes.contains("libcut.so is not read") && notes.contains("libscript.so is not read"), "{notes}");
}

/// A 32-bit Mach-O header, as old universal libraries have for i386.
const I386: u32 = 7;

#[test]
fn a_universal_library_with_an_image_for_i386_is_judged_by_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libtorch_cpu.dylib");
    let mut image = macho(X86_64, &format!("__ZTI{NAME}"), true);
    std::fs::write(
        &path,
        fat(&[(I386, [&0xfeed_face_u32.to_le_bytes()[..], &[0; 60]].concat()), (X86_64, image.clone())]),
    )
    .unwrap();
    let report = json(&inspect(&path, &[]).exits(0));
    assert_eq!(report["libraries"].as_array().unwrap().len(), 1);
    assert!(report["notes"][0].as_str().unwrap().contains("i386"), "{report}");
    image[0] = 0xce; // all of it is 32-bit
    std::fs::write(&path, fat(&[(I386, image)])).unwrap();
    inspect(&path, &[]).exits(2).says("32-bit");
}

#[test]
fn the_transport_of_gloo_is_part_of_the_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torch.whl");
    let names = |names: &[&str]| {
        let mut library = pe(false, false);
        for (i, name) in names.iter().enumerate() {
            let at = 0x400 + 0x180 + 0x60 * i;
            library[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
        wheel("2.8.0", "cp311-cp311-win_amd64", RENDEZVOUS_27, ("torch_cpu.dll", &library))
    };
    let gloo = ".?AVProcessGroupGloo@c10d@@";
    std::fs::write(&path, names(&[gloo])).unwrap();
    let report = json(&inspect(&path, &["--verdict"]).exits(1));
    assert_eq!(report["backends"]["gloo"], true);
    assert_eq!(report["backends"]["gloo_can_start"], false);
    let ran = xtask(&["inspect", path.to_str().unwrap(), "--verdict"]).exits(1);
    assert!(ran.stdout.contains("cannot start with gloo, which has no transport"), "{}", ran.stdout);
    std::fs::write(&path, names(&[gloo, ".?AVDevice@uv@transport@gloo@@"])).unwrap();
    let report = json(&inspect(&path, &["--verdict"]).exits(1));
    assert_eq!(report["backends"]["gloo_can_start"], true);
    let ran = xtask(&["inspect", path.to_str().unwrap(), "--verdict"]).exits(1);
    assert!(ran.stdout.contains("init_process_group() runs on the legacy store"), "{}", ran.stdout);
}

#[test]
fn a_folder_a_debian_package_and_a_conda_package_are_read_like_a_wheel() {
    let dir = tempfile::tempdir().unwrap();
    let library = std::fs::read(compile(dir.path(), WITHOUT, &[])).unwrap();
    let site = dir.path().join("env/lib/python3.11/site-packages");
    std::fs::create_dir_all(site.join("torch/lib")).unwrap();
    std::fs::create_dir_all(site.join("torch/distributed")).unwrap();
    std::fs::write(site.join("torch/lib/libtorch_cpu.so"), &library).unwrap();
    std::fs::write(site.join("torch/version.py"), "__version__ = '2.6.0'\n").unwrap();
    std::fs::write(site.join("torch/distributed/rendezvous.py"), RENDEZVOUS_26).unwrap();
    // The environment, its site-packages, and the package itself are the same thing.
    for folder in [dir.path().join("env"), site.clone(), site.join("torch")] {
        let report = json(&inspect(&folder, &[]).exits(1));
        assert_eq!(report["torch"]["version"], "2.6.0", "{}", folder.display());
        assert_eq!(report["defaults"]["init_process_group"], "crash");
    }

    let mut data = tar::Builder::new(Vec::new());
    data.append_path_with_name(
        site.join("torch/lib/libtorch_cpu.so"),
        "./usr/lib/x86_64-linux-gnu/libtorch_cpu.so.2.6",
    )
    .unwrap();
    let data = data.into_inner().unwrap();
    let mut deb = ar::Builder::new(Vec::new());
    deb.append(&ar::Header::new(b"debian-binary".to_vec(), 4), &b"2.0\n"[..]).unwrap();
    let packed = zstd::encode_all(&data[..], 3).unwrap();
    deb.append(&ar::Header::new(b"data.tar.zst".to_vec(), packed.len() as u64), &packed[..]).unwrap();
    let path = dir.path().join("libtorch2.6.deb");
    std::fs::write(&path, deb.into_inner().unwrap()).unwrap();
    let report = json(&inspect(&path, &[]).exits(1));
    assert_eq!(report["kind"], "debian-package");
    assert_eq!(report["name_without_proof"], true);

    let mut conda = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    conda.start_file("pkg-pytorch-2.6.0.tar.zst", stored).unwrap();
    conda.write_all(&packed).unwrap();
    let path = dir.path().join("pytorch-2.6.0.conda");
    std::fs::write(&path, conda.finish().unwrap().into_inner()).unwrap();
    assert_eq!(json(&inspect(&path, &[]).exits(1))["kind"], "conda-package");
}

#[test]
fn the_doctor_explains_a_pasted_traceback() {
    let explain = |text: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_torchmill"))
            .args(["doctor", "--explain", "--json"])
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned());
        Ran { code: out.status.code(), stdout, stderr }
    };
    let known = "Traceback (most recent call last):\n  File \"x.py\", line 3\nRuntimeError: use_libuv was requested but PyTorch was build without libuv support\n";
    assert_eq!(json(&explain(known).exits(0))["explanation"]["case"], "no-libuv");
    explain("nothing is wrong").exits(1).says("none of the known cases");
}

#[test]
fn the_doctor_finds_a_torch_that_will_crash_and_names_the_remedies() {
    // A package called torch that is enough to be found and inspected, and never imported here.
    let dir = tempfile::tempdir().unwrap();
    let library = std::fs::read(compile(dir.path(), WITHOUT, &[])).unwrap();
    for folder in ["torch/lib", "torch/distributed"] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    std::fs::write(dir.path().join("torch/lib/libtorch_cpu.so"), &library).unwrap();
    std::fs::write(dir.path().join("torch/__init__.py"), "raise SystemExit('it was imported')\n").unwrap();
    std::fs::write(dir.path().join("torch/version.py"), "__version__ = '2.6.0'\n").unwrap();
    std::fs::write(dir.path().join("torch/distributed/rendezvous.py"), RENDEZVOUS_26).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.args(["doctor", "--dry-run", "--json"]).env("PYTHONPATH", dir.path()).env("USE_LIBUV", "1");
    let ran = Ran::of(&mut command, dir.path()).exits(1);
    let diagnosis = json(&ran);
    assert_eq!(diagnosis["healthy"], false);
    assert_eq!(diagnosis["environment"]["USE_LIBUV"], "1");
    let remedies = diagnosis["remedies"].to_string();
    for line in ["unset USE_LIBUV", "cargo xtask build-torch", "env://?use_libuv=False", "export USE_LIBUV=0"] {
        assert!(remedies.contains(line), "{line} in {remedies}");
    }
}
