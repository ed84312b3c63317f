//! `doctor` and `--explain`, from the outside: what people paste, and torches of every kind of trouble. The torches are
//! packages made here, whose Python part does what the real one does where it counts; none is installed.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::support::{Ran, python_environment, root};
use serde_json::Value;

const KNOWN: &str = "use_libuv was requested but PyTorch was build without libuv support";

fn xtask() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.env("NO_COLOR", "1").current_dir(root());
    for variable in ["USE_LIBUV", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME"] {
        command.env_remove(variable);
    }
    command
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e} in\n{}\n{}", ran.stdout, ran.stderr))
}

// ------------------------------------------------------------------------------------------- --explain

fn explain(args: &[&str], input: &[u8]) -> Ran {
    let mut child = xtask()
        .args(["doctor", "--explain"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses at once reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    let out = child.wait_with_output().unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Ran { code: out.status.code(), stdout: text(&out.stdout), stderr: text(&out.stderr) }
}

#[test]
fn a_log_is_explained_from_a_file_and_from_standard_input_with_the_line_it_was_read_from() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("a log.txt");
    let text = format!("epoch 1\n  File \"x/torch/distributed/run.py\", line 918, in main\nRuntimeError: {KNOWN}\n");
    std::fs::write(&log, &text).unwrap();
    let by_file = explain(&[log.to_str().unwrap(), "--json"], b"").exits(0);
    let by_input = explain(&["--json"], text.as_bytes()).exits(0);
    assert_eq!(by_file.stdout, by_input.stdout);
    let found = &json(&by_file)["explanation"];
    assert_eq!(found["case"], "no-libuv-torchrun");
    assert_eq!(found["line"]["number"], 3);
    assert_eq!(found["sign"]["number"], 2);
    assert!(found["next"].as_str().unwrap().contains("pip install uvstore"), "{found}");
    explain(&[log.to_str().unwrap()], b"").exits(0).says("read from line 3: RuntimeError");
}

#[test]
fn what_powershell_wrote_is_read_in_utf_16() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.txt");
    let text = format!("PS D:\\m> torchrun chat.py\r\nDistStoreError: {KNOWN}\r\n");
    let bytes: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    std::fs::write(&log, bytes).unwrap();
    let ran = explain(&[log.to_str().unwrap(), "--json"], b"").exits(0);
    assert_eq!(json(&ran)["explanation"]["case"], "no-libuv-torchrun");
    assert_eq!(json(&ran)["explanation"]["line"]["text"], format!("DistStoreError: {KNOWN}"));
}

#[test]
fn what_is_not_the_rendezvous_is_told_so_and_the_answer_is_no() {
    let text = "  File \"/v/lib/python3.11/site-packages/uvicorn/server.py\", line 160\nOSError: [Errno 98] Address already in use\n";
    let ran = explain(&["--json"], text.as_bytes()).exits(1);
    let found = &json(&ran)["explanation"];
    assert_eq!((&found["case"], &found["ours"]), (&Value::from("not-ours-web-server"), &Value::from(false)));
    explain(&[], text.as_bytes()).exits(1).says("NOT the rendezvous");
    explain(&[], b"Epoch 1: loss 0.3\n").exits(1).says("none of the known cases");
}

#[test]
fn the_first_cause_comes_first_and_what_followed_after_it() {
    let text = "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n\
                [rank0]: torch.distributed.DistNetworkError: Failed to recv, got 0 bytes. Connection was likely closed.\n";
    let ran = explain(&["--json"], text.as_bytes()).exits(0);
    assert_eq!(json(&ran)["explanation"]["case"], "cuda-memory");
    assert_eq!(json(&ran)["others"][0]["case"], "peer-left");
    explain(&[], text.as_bytes()).exits(0).says("which had this consequence: peer-left");
}

#[test]
fn bad_input_is_answered_or_refused_in_time_and_never_ends_in_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let noise: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut large = "2026-11-25 12:00:00 INFO step 1 loss 0.25 \x1b[32mok\x1b[0m\n".repeat(1_900_000).into_bytes();
    large.extend(format!("RuntimeError: {KNOWN}\n").into_bytes());
    assert!(large.len() > 90 << 20);
    let one_line = vec![b'x'; 30 << 20];
    let cases: [(&str, Vec<u8>, i32, &str); 7] = [
        ("empty", Vec::new(), 2, "the text is empty"),
        ("blank", b" \n\t\r\n".to_vec(), 2, "the text is empty"),
        ("noise", noise, 2, "this is not a text"),
        ("zeros", vec![0; 1 << 20], 2, "this is not a text"),
        ("large", large, 0, "read from line 1900001"),
        ("one line", one_line, 1, "none of the known cases"),
        ("cut", b"\xff\xfe\x00".to_vec(), 1, "none of the known cases"),
    ];
    for (name, bytes, code, says) in cases {
        std::fs::write(path(name), bytes).unwrap();
        let started = Instant::now();
        let ran = explain(&[&path(name)], b"").exits(code).says(says);
        let took = started.elapsed();
        assert!(!ran.stderr.contains("panicked"), "{name}: {}", ran.stderr);
        // Machines are busy, and this is a build without optimizations.
        assert!(took < Duration::from_secs(30), "{name}: {took:?}");
    }
    explain(&[&path("absent")], b"").exits(2).says("there is no");
    explain(&[dir.path().to_str().unwrap()], b"").exits(2).says("is no file");
    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    explain(&[&path("pipe")], b"").exits(2).says("pipe is no file");
}

#[test]
fn an_answer_shows_no_commands_for_a_terminal() {
    let text = format!("\x1b]0;gone\x07\x1b[2JRuntimeError: {KNOWN}\x1b[8m\n");
    let ran = explain(&[], text.as_bytes()).exits(0);
    assert!(!ran.stdout.contains('\x1b'), "{:?}", ran.stdout);
}

// ----------------------------------------------------------------------------------- the torch of a Python

/// Whether a library of this kind has a Gloo with a transport, and the text of the error.
fn library(dir: &Path, transport: bool) -> Vec<u8> {
    let transport = if transport { "\"N4gloo9transport3tcp6DeviceE\"," } else { "" };
    let source = format!(
        "extern \"C\" {{ const char* const table[] = {{\"N4c10d16ProcessGroupGlooE\", {transport} \"{KNOWN}\"}};\n\
         const char* const* get() {{ return table; }} }}\n\
         extern \"C\" double cos(double); double use(double x) {{ return cos(x); }}\n"
    );
    let (code, out) = (dir.join("lib.cpp"), dir.join("lib.so"));
    std::fs::write(&code, source).unwrap();
    let status = Command::new("c++").args(["-shared", "-fPIC", "-o"]).arg(&out).arg(&code).arg("-lm").status();
    assert!(status.unwrap().success());
    std::fs::read(out).unwrap()
}

/// A package called torch: its library, its version, and a Python part that does as the real one.
struct Fake {
    dir: tempfile::TempDir,
}

const INIT: &str = r#"
class Tensor:
    def __mul__(self, other): return self
def ones(n): return Tensor()
def full(shape, value): return Tensor()
def equal(a, b): return True
class cuda:
    @staticmethod
    def device_count(): return 0
"#;

const DISTRIBUTED: &str = r#"
import os, sys, types
ERROR = "use_libuv was requested but PyTorch was build without libuv support"
class TCPStore:
    libuvBackend = False
    port = 1
    def __init__(self, *args, use_libuv=True, **kwargs):
        if use_libuv: raise RuntimeError(ERROR)
    def set(self, *a): pass
    def get(self, *a): return b"v"
def is_available(): return AVAILABLE
def init_process_group(*args, **kwargs):
    TCPStore(use_libuv=os.environ.get("USE_LIBUV", "1") == "1")
    if not TRANSPORT: raise RuntimeError("makeDeviceForHostname(): unsupported gloo device")
def get_rank(): return 0
def all_reduce(t): pass
def barrier(): pass
def destroy_process_group(): pass
distributed_c10d = types.SimpleNamespace(_get_default_store=lambda: TCPStore(use_libuv=False))
"#;

const STATIC: &str = r#"
from torch.distributed import TCPStore
class Handler:
    def next_rendezvous(self): self._store = TCPStore()
def create_rdzv_handler(p): return Handler()
"#;

const RENDEZVOUS: &str = "def _get_use_libuv_from_query_dict(query_dict):\n    return query_dict.get(\"use_libuv\", os.environ.get(\"USE_LIBUV\", \"1\")) == \"1\"\n";

impl Fake {
    fn new(transport: bool, available: bool, before: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let distributed = DISTRIBUTED
            .replace("AVAILABLE", if available { "True" } else { "False" })
            .replace("TRANSPORT", if transport { "True" } else { "False" });
        let elastic = "torch/distributed/elastic/rendezvous";
        for (name, text) in [
            ("torch/__init__.py", format!("{before}\n{INIT}")),
            ("torch/version.py", "__version__ = '2.6.0'\n".into()),
            ("torch/distributed/__init__.py", distributed),
            ("torch/distributed/rendezvous.py", RENDEZVOUS.into()),
            ("torch/distributed/elastic/__init__.py", String::new()),
            (&format!("{elastic}/__init__.py"), "def RendezvousParameters(*a, **k): pass\n".into()),
            (&format!("{elastic}/static_tcp_rendezvous.py"), STATIC.into()),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::create_dir_all(dir.path().join("torch/lib")).unwrap();
        let library = library(dir.path(), transport);
        std::fs::write(dir.path().join("torch/lib/libtorch_cpu.so"), library).unwrap();
        Self { dir }
    }

    fn doctor(&self, args: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = xtask();
        command.args(["doctor", "--json"]).args(args).env("PYTHONPATH", self.dir.path());
        command.envs(environment.iter().copied());
        Ran::of(&mut command, self.dir.path())
    }

    /// Gives it the libuv store, and so nothing is wrong with it but what else is.
    fn with_libuv(&self) {
        const GLOO: &str = r#"
extern "C" {
const char* const table[] = {"N4c10d16ProcessGroupGlooE", "N4gloo9transport3tcp6DeviceE"};
const char* const* get() { return table; }
}
"#;
        let source = [crate::inspect::WITH, GLOO].concat();
        crate::inspect::compile(&self.dir.path().join("torch/lib"), &source, &[]);
    }

    /// A driver's tool that shows one GPU.
    fn with_gpu(&self, capability: &str) -> String {
        self.with_gpu_and_driver(capability, "550.54")
    }

    /// What answers as a Python of Windows does that has this torch.
    fn python_of_windows(&self) -> String {
        self.python_of("win32", "AMD64")
    }

    /// What answers as a Python of another system or machine does that has this torch.
    fn python_of(&self, platform: &str, machine: &str) -> String {
        let torch = self.dir.path().join("torch");
        let answer = serde_json::json!({
            "executable": "python.exe", "version": "3.11.7", "platform": platform, "machine": machine, "torch": torch,
        });
        let python = self.dir.path().join("python-of-elsewhere");
        std::fs::write(&python, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        python.display().to_string()
    }

    fn with_gpu_and_driver(&self, capability: &str, driver: &str) -> String {
        let bin = self.dir.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let tool = bin.join("nvidia-smi");
        std::fs::write(&tool, format!("#!/bin/sh\necho 'NVIDIA T, {driver}, 24564 MiB, {capability}'\n")).unwrap();
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
    }
}

fn remedies(diagnosis: &Value) -> Vec<String> {
    diagnosis["remedies"].as_array().unwrap().iter().map(Value::to_string).collect()
}

#[test]
fn without_libuv_the_finding_is_the_crash_and_uvstore_is_the_first_remedy() {
    let diagnosis = json(&Fake::new(true, true, "").doctor(&[], &[]).exits(1));
    let finding = diagnosis["finding"].as_str().unwrap();
    assert!(finding.contains("has no libuv store") && finding.contains(KNOWN), "{finding}");
    let remedies = remedies(&diagnosis);
    assert!(remedies[0].contains("pip install uvstore"), "{remedies:#?}");
    let all = remedies.join("\n");
    for line in ["cargo xtask build-torch --recipe torch-2.6.0-cpu ", "env://?use_libuv=False", "export USE_LIBUV=0"] {
        assert!(all.contains(line), "{line} in {all}");
    }
    // A recipe says whether it was built.
    assert!(all.contains("\"state\":\"built here\""), "{all}");
}

#[test]
fn use_libuv_0_with_a_process_group_that_works_is_told_that_it_works() {
    let diagnosis = json(&Fake::new(true, true, "").doctor(&[], &[("USE_LIBUV", "0")]).exits(0));
    assert_eq!(diagnosis["healthy"], true);
    let finding = diagnosis["finding"].as_str().unwrap();
    assert!(finding.contains("init_process_group() works, on the legacy store"), "{finding}");
    assert!(finding.contains("torchrun will crash"), "{finding}");
    let all = remedies(&diagnosis).join("\n");
    assert!(!all.contains("export USE_LIBUV=0") && !all.contains("?use_libuv=False"), "a cure that is in force: {all}");
    assert!(diagnosis["judged"][0].as_str().unwrap().contains("turns libuv off"), "{diagnosis}");
}

#[test]
fn a_torch_that_does_not_import_is_told_what_is_missing_and_nothing_of_libuv() {
    let raises = "raise ImportError('libgomp.so.1: cannot open shared object file: No such file or directory')";
    let diagnosis = json(&Fake::new(true, true, raises).doctor(&[], &[]).exits(1));
    let finding = diagnosis["finding"].as_str().unwrap();
    assert!(finding.contains("cannot be imported") && finding.contains("libgomp.so.1"), "{finding}");
    let all = remedies(&diagnosis).join("\n");
    assert!(all.contains("apt-get install libgomp1"), "{all}");
    assert!(!all.contains("uvstore") && !all.contains("libuv"), "{all}");
}

#[test]
fn a_gloo_without_a_transport_is_named_and_no_setting_of_the_store_is_advised() {
    for args in [&["--dry-run"][..], &[]] {
        let diagnosis = json(&Fake::new(false, true, "").doctor(args, &[("USE_LIBUV", "0")]).exits(1));
        let finding = diagnosis["finding"].as_str().unwrap();
        assert!(finding.contains("Gloo has no transport"), "{finding}");
        assert_eq!(diagnosis["report"]["backends"]["gloo_can_start"], false);
        let all = remedies(&diagnosis).join("\n");
        assert!(!all.contains("pip install uvstore") && !all.contains("USE_LIBUV"), "{all}");
    }
}

#[test]
fn a_torch_without_distributed_is_told_so() {
    let diagnosis = json(&Fake::new(true, false, "").doctor(&[], &[]).exits(1));
    assert!(diagnosis["finding"].as_str().unwrap().contains("no torch.distributed"), "{diagnosis}");
    let all = remedies(&diagnosis).join("\n");
    assert!(!all.contains("uvstore") && !all.contains("USE_LIBUV"), "{all}");
}

#[test]
fn with_one_gpu_starting_without_the_launcher_comes_after_uvstore_and_no_build_without_cuda_is_named() {
    let fake = Fake::new(true, true, "");
    let path = fake.with_gpu("9.0");
    let diagnosis = json(&fake.doctor(&["--dry-run"], &[("PATH", &path)]).exits(1));
    let named = remedies(&diagnosis);
    assert!(named[0].contains("pip install uvstore") && named[1].contains("without the launcher"), "{named:#?}");
    let all = named.join("\n");
    assert!(!all.contains("torch-2.6.0-cpu"), "a build without CUDA for a machine with a GPU: {all}");
    assert!(all.contains("--recipe torch-2.6.0-cu124"), "{all}");
    // A recipe for one architecture is not for a GPU of another.
    let path = fake.with_gpu("6.1");
    let diagnosis = json(&fake.doctor(&["--dry-run"], &[("PATH", &path)]).exits(1));
    assert!(!remedies(&diagnosis).join("\n").contains("sm90"), "{diagnosis}");
    // A card that CUDA 13 knows no more, and a torch that has no other wheels: the newest recipe that is for it.
    std::fs::write(fake.dir.path().join("torch/version.py"), "__version__ = '2.15.0'\n").unwrap();
    let diagnosis = json(&fake.doctor(&["--dry-run"], &[("PATH", &path)]).exits(1));
    let all = remedies(&diagnosis).join("\n");
    assert!(all.contains("--recipe torch-2.12.1-cu126") && !all.contains("cu130"), "{all}");
    assert!(all.contains(" --cuda-home /usr/local/cuda-12.6"), "{all}");
}

/// The lines of the remedy that says `what`.
fn lines(diagnosis: &Value, what: &str) -> Vec<String> {
    let all = diagnosis["remedies"].as_array().unwrap();
    let remedy = all.iter().find(|r| r["what"].as_str().unwrap().contains(what));
    let remedy = remedy.unwrap_or_else(|| panic!("no '{what}' in {diagnosis}"));
    remedy["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// In PowerShell `set USE_LIBUV=0` sets nothing and says nothing, and in cmd.exe nothing begins with `$env:`.
#[test]
fn on_windows_a_variable_is_set_in_cmd_and_in_powershell_and_each_line_says_whose_it_is() {
    let fake = Fake::new(true, true, "");
    let python = fake.python_of_windows();
    let args = ["--dry-run", "--python", python.as_str()];
    let path = fake.with_gpu("8.6");
    let diagnosis = json(&fake.doctor(&args, &[("PATH", &path)]).exits(1));
    assert_eq!(
        lines(&diagnosis, "tell all calls of a process"),
        ["set \"USE_LIBUV=0\"   & rem in cmd.exe", "$env:USE_LIBUV = \"0\"   # in PowerShell"]
    );
    let asked = json(&fake.doctor(&args, &[("USE_LIBUV", "1")]).exits(1));
    assert_eq!(
        lines(&asked, "take USE_LIBUV=1 out"),
        ["set \"USE_LIBUV=\"   & rem in cmd.exe", "$env:USE_LIBUV = $null   # in PowerShell"]
    );
    // In cmd.exe # begins no remark: the program would be given all that stands behind it.
    let all = diagnosis["remedies"].as_array().unwrap().iter().flat_map(|r| r["lines"].as_array().unwrap());
    let all: Vec<&str> = all.map(|line| line.as_str().unwrap()).collect();
    for program in ["python -m pip ", "python train.py", "accelerate "] {
        let line = all.iter().find(|line| line.starts_with(program)).unwrap_or_else(|| panic!("no {program}: {all:?}"));
        assert!(!line.contains('#'), "{line}");
    }
    let mut command = xtask();
    command.arg("doctor").args(args).env("PYTHONPATH", fake.dir.path());
    Ran::of(&mut command, fake.dir.path()).exits(1).says("set \"USE_LIBUV=0\"   & rem in cmd.exe");
}

/// What was compiled for another machine does not run.
#[test]
fn a_recipe_is_named_only_where_its_lock_covers_the_machine() {
    let fake = Fake::new(true, true, "");
    for (platform, machine, named) in [
        ("linux", "x86_64", true),
        ("linux", "aarch64", true),
        ("linux", "riscv64", false),
        ("win32", "AMD64", true),
        ("win32", "ARM64", false),
    ] {
        let python = fake.python_of(platform, machine);
        let diagnosis = json(&fake.doctor(&["--dry-run", "--python", &python], &[]).exits(1));
        let remedies = diagnosis["remedies"].to_string();
        assert_eq!(remedies.contains("cargo xtask build-torch"), named, "{platform} {machine}: {remedies}");
    }
}

#[test]
fn on_windows_a_driver_is_held_against_windows_oldest_and_an_installed_toolkit_is_where_it_is_put_there() {
    let fake = Fake::new(true, true, "");
    std::fs::write(fake.dir.path().join("torch/version.py"), "__version__ = '2.6.0+cu124'\ncuda = '12.4'\n").unwrap();
    let python = fake.python_of_windows();
    let with = |driver: &str| {
        let path = fake.with_gpu_and_driver("8.6", driver);
        json(&fake.doctor(&["--dry-run", "--python", &python], &[("PATH", &path)]).exits(1))
    };
    let too_old = with("527.41");
    let finding = too_old["finding"].as_str().unwrap();
    assert!(finding.contains("driver is 527.41, and CUDA 12.4 needs 528.33 or newer"), "{finding}");
    let build = lines(&too_old, "a build of the same version");
    assert!(
        build[0].contains("--recipe torch-2.6.0-windows-cu124 ")
            && build[0].ends_with(r#" --cuda-home "C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v12.4""#),
        "{build:?}"
    );
    assert!(remedies(&too_old).join("\n").contains("a newer NVIDIA driver (528.33 or later)"), "{too_old}");
    let new_enough = with("528.33");
    assert!(!new_enough["finding"].as_str().unwrap().contains("cannot use the GPU"), "{new_enough}");
    assert!(!remedies(&new_enough).join("\n").contains("newer NVIDIA driver"), "{new_enough}");
}

#[test]
fn a_recipe_for_a_family_of_gpus_is_named_on_its_members_and_one_for_a_chip_on_that_alone() {
    let fake = Fake::new(true, true, "");
    let version = "__version__ = '2.12.1+cu130'\ncuda = '13.0'\n";
    std::fs::write(fake.dir.path().join("torch/version.py"), version).unwrap();
    let recipe = "torch-2.12.1-cu130-sm90";
    for (architecture, capability, is_for_it) in [
        ("10.0f", "10.0", true),
        ("10.0f", "10.3", true),
        ("10.0f", "12.0", false),
        ("10.0f+PTX", "12.0", false),
        ("10.3f", "10.0", false),
        ("10.0a", "10.0", true),
        ("10.0a", "10.3", false),
    ] {
        let w = crate::cuda::recipes_with(recipe, "[\"9.0\"]", &format!("[\"{architecture}\"]"));
        let mut command = xtask();
        command.args(["doctor", "--json", "--dry-run"]).current_dir(w.path()).env("PYTHONPATH", fake.dir.path());
        command.env("PATH", fake.with_gpu_and_driver(capability, "580.95.05"));
        let all = remedies(&json(&Ran::of(&mut command, fake.dir.path()).exits(1))).join("\n");
        assert!(all.contains("--recipe torch-2.12.1-cu130"), "{all}");
        assert_eq!(all.contains(&format!("--recipe {recipe} ")), is_for_it, "{architecture} on {capability}: {all}");
    }
}

/// A library with code for GPUs of these architectures: containers of a fat binary with an empty cubin each, and PTX for the
/// last one if `ptx`.
fn library_for_gpus(dir: &Path, architectures: &[u32], ptx: bool) -> Vec<u8> {
    let entry = |kind: u16, architecture: u32| {
        let mut e = [0u8; 64];
        e[..2].copy_from_slice(&kind.to_le_bytes());
        e[4..8].copy_from_slice(&64u32.to_le_bytes());
        e[28..32].copy_from_slice(&architecture.to_le_bytes());
        e
    };
    let mut entries: Vec<[u8; 64]> = architectures.iter().map(|a| entry(2, *a)).collect();
    entries.extend(architectures.last().filter(|_| ptx).map(|a| entry(1, *a)));
    let mut fat = 0xba55_ed50u32.to_le_bytes().to_vec();
    fat.extend([1, 0, 16, 0]);
    fat.extend((64 * entries.len() as u64).to_le_bytes());
    fat.extend(entries.concat());
    let bytes: Vec<String> = fat.iter().map(u8::to_string).collect();
    let source = format!(
        "__attribute__((section(\".nv_fatbin\"), aligned(8), used)) extern const unsigned char fat[] = {{{}}};",
        bytes.join(",")
    );
    let (code, out) = (dir.join("gpu.cpp"), dir.join("gpu.so"));
    std::fs::write(&code, source).unwrap();
    let status = Command::new("c++").args(["-w", "-shared", "-fPIC", "-o"]).arg(&out).arg(&code).status();
    assert!(status.unwrap().success());
    std::fs::read(out).unwrap()
}

#[test]
fn a_gpu_that_the_wheel_has_no_code_for_is_told_though_its_cuda_knows_it() {
    let fake = Fake::new(true, true, "");
    let version = "__version__ = '2.8.0+cu128'\ncuda = '12.8'\n";
    std::fs::write(fake.dir.path().join("torch/version.py"), version).unwrap();
    let library = |ptx| {
        let library = library_for_gpus(fake.dir.path(), &[70, 75, 80, 86, 90], ptx);
        std::fs::write(fake.dir.path().join("torch/lib/libtorch_cuda.so"), library).unwrap();
    };
    let finding = |capability: &str| {
        let path = fake.with_gpu_and_driver(capability, "580.95.05");
        let diagnosis = json(&fake.doctor(&["--dry-run"], &[("PATH", &path)]).exits(1));
        diagnosis["finding"].as_str().unwrap().to_owned()
    };
    library(false);
    for none in ["6.1", "12.0"] {
        let told = finding(none);
        assert!(told.contains("its GPU code is for 7.0, 7.5, 8.0, 8.6, 9.0, and nothing of it runs on"), "{told}");
        assert!(told.contains(&format!("NVIDIA T ({none})")), "{told}");
    }
    for some in ["7.0", "8.9", "9.0", "[N/A]"] {
        assert!(!finding(some).contains("cannot use the GPU"), "{some}");
    }
    // PTX is compiled for what came later, by the driver.
    library(true);
    assert!(!finding("12.0").contains("cannot use the GPU"));
    assert!(finding("6.1").contains("9.0, 9.0+PTX, and nothing of it runs on"));
}

#[test]
fn a_gpu_or_a_driver_that_cuda_13_is_too_new_for_is_told_and_what_helps() {
    let fake = Fake::new(true, true, "");
    let version = "__version__ = '2.12.1+cu130'\ncuda = '13.0'\n";
    std::fs::write(fake.dir.path().join("torch/version.py"), version).unwrap();
    let doctor = |path: &str| json(&fake.doctor(&["--dry-run"], &[("PATH", path)]).exits(1));
    let finding = |diagnosis: &Value| diagnosis["finding"].as_str().unwrap().to_owned();
    let old_card = doctor(&fake.with_gpu_and_driver("5.2", "580.95.05"));
    assert!(finding(&old_card).contains("CUDA 13.0 has no code for NVIDIA T (5.2)"), "{old_card}");
    assert!(remedies(&old_card).join("\n").contains("--recipe torch-2.12.1-cu126"), "{old_card}");
    let old_driver = finding(&doctor(&fake.with_gpu_and_driver("9.0", "550.54")));
    assert!(old_driver.contains("driver is 550.54, and CUDA 13.0 needs 580.65.06 or newer"), "{old_driver}");
    // What the driver's tool does not tell is not held against the GPU.
    for capability in ["9.0", "[N/A]"] {
        let fits = finding(&doctor(&fake.with_gpu_and_driver(capability, "580.95.05")));
        assert!(!fits.contains("cannot use the GPU"), "{fits}");
    }

    // Nothing is installed yet: what PyPI has would not serve this machine, and something else does.
    let python = python_environment("bare-env", &["six==1.17.0"]).join("bin/python");
    let bare = |path: String| {
        let mut command = xtask();
        command.args(["doctor", "--json", "--python", python.to_str().unwrap()]).env("PATH", path);
        json(&Ran::of(&mut command, fake.dir.path()).exits(1))
    };
    let old_card = bare(fake.with_gpu_and_driver("5.2", "580.95.05"));
    assert!(finding(&old_card).contains("PyPI's wheel cannot use the GPU here"), "{old_card}");
    // Upstream still has a wheel for either, which nobody has to build; for a GPU after Hopper it has no code.
    let named = remedies(&old_card);
    assert!(named[0].contains("pip install torch==2.14.1+cu126 "), "{old_card}");
    assert!(named[1].contains("--recipe torch-2.12.1-cu126"), "{old_card}");
    // A newer driver by itself does not help this card, and both together do.
    let both_old = bare(fake.with_gpu_and_driver("5.2", "470.256.02"));
    assert!(finding(&both_old).contains("CUDA 13.0 has no code for NVIDIA T (5.2): 12.9 is the last"), "{both_old}");
    let named = remedies(&both_old);
    assert!(named[0].contains("pip install torch==2.14.1+cu126 "), "{both_old}");
    assert!(named[1].contains("--recipe torch-2.12.1-cu126"), "{both_old}");
    for remedy in named {
        assert!(remedy.contains("; and a newer NVIDIA driver (525.60.13 or later)"), "{remedy}");
    }
    // For which nothing is made any more.
    let kepler = bare(fake.with_gpu_and_driver("3.5", "470.256.02"));
    assert!(finding(&kepler).contains("has no code for NVIDIA T (3.5): 11.8 is the last that has"), "{kepler}");
    assert!(remedies(&kepler).is_empty(), "{kepler}");
    let old_driver = bare(fake.with_gpu_and_driver("9.0", "550.54"));
    let named = remedies(&old_driver);
    assert!(named[0].contains("a newer NVIDIA driver: 580.65.06 or later"), "{old_driver}");
    assert!(named[1].contains("pip install torch==2.14.1+cu126 "), "{old_driver}");
    for (capability, driver) in [("12.0", "550.54"), ("9.0", "470.256.02")] {
        let diagnosis = bare(fake.with_gpu_and_driver(capability, driver));
        assert!(!remedies(&diagnosis).join("\n").contains("+cu126"), "{diagnosis}");
    }
    assert!(remedies(&bare(fake.with_gpu_and_driver("9.0", "580.95.05"))).is_empty());
}

/// The torch itself is sound, so all that is named is for its GPU.
#[test]
fn what_is_named_for_a_gpu_helps_it_and_is_there_to_be_had() {
    let fake = Fake::new(true, true, "");
    fake.with_libuv();
    let doctor = |version: &str, capability: &str, driver: &str| {
        let (_, cuda) = version.split_once("+cu").unwrap();
        let (major, minor) = cuda.split_at(2);
        let text = format!("__version__ = '{version}'\ncuda = '{major}.{minor}'\n");
        std::fs::write(fake.dir.path().join("torch/version.py"), text).unwrap();
        let path = fake.with_gpu_and_driver(capability, driver);
        let diagnosis = json(&fake.doctor(&["--dry-run"], &[("PATH", &path)]).exits(1));
        (diagnosis["finding"].as_str().unwrap().to_owned(), remedies(&diagnosis))
    };
    // With a newer driver this very torch would do: no build that needs one too, though it is of the same version.
    let (finding, named) = doctor("2.12.1+cu130", "9.0", "550.54");
    assert!(finding.contains("driver is 550.54, and CUDA 13.0 needs 580.65.06 or newer"), "{finding}");
    assert!(named[0].contains("a newer NVIDIA driver: 580.65.06"), "{named:?}");
    assert!(named[1].contains("pip install torch==2.12.1+cu126 "), "{named:?}");
    let builds = named[2..].join("\n");
    assert!(builds.contains("--recipe torch-2.6.0-cu124") && !builds.contains("cu130"), "{builds}");
    assert!(!builds.contains("a newer NVIDIA driver"), "{builds}");
    // Of a CUDA that no recipe is for it is known as well.
    let (finding, _) = doctor("2.12.1+cu131", "6.1", "580.95.05");
    assert!(finding.contains("CUDA 13.1 has no code for NVIDIA T (6.1): 12.9 is the last that has"), "{finding}");
    let (finding, _) = doctor("2.8.0+cu128", "3.7", "580.95.05");
    assert!(finding.contains("CUDA 12.8 has no code for NVIDIA T (3.7): 11.8 is the last that has"), "{finding}");
    // There is no wheel of this version for CUDA 12.6.
    let library = library_for_gpus(fake.dir.path(), &[90], false);
    std::fs::write(fake.dir.path().join("torch/lib/libtorch_cuda.so"), library).unwrap();
    let (finding, named) = doctor("2.5.1+cu124", "7.0", "550.54");
    assert!(finding.contains("its GPU code is for 9.0, and nothing of it runs on NVIDIA T (7.0)"), "{finding}");
    assert!(named[0].contains("pip install torch==2.6.0+cu126 "), "{named:?}");
    assert!(!named.join("\n").contains("2.5.1+cu126"), "{named:?}");
}

#[test]
fn of_what_lies_in_the_current_folder_a_torch_alone_counts_and_nothing_is_run() {
    let fake = Fake::new(true, true, "open('planted', 'w').close()");
    for name in ["json.py", "platform.py", "importlib.py", "re.py"] {
        std::fs::write(fake.dir.path().join(name), "open('planted', 'w').close()\n").unwrap();
    }
    let mut command = xtask();
    command.args(["doctor", "--dry-run", "--json"]).current_dir(fake.dir.path()).env_remove("PYTHONPATH");
    let diagnosis = json(&Ran::of(&mut command, fake.dir.path()).exits(1));
    assert!(!fake.dir.path().join("planted").exists());
    assert_eq!(diagnosis["report"]["torch"]["version"], "2.6.0", "{diagnosis}");
}

#[test]
fn a_python_that_hangs_or_is_none_is_refused_within_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let hangs = dir.path().join("python");
    std::fs::write(&hangs, "#!/bin/sh\nsleep 600\n").unwrap();
    std::fs::set_permissions(&hangs, std::fs::Permissions::from_mode(0o755)).unwrap();
    let started = Instant::now();
    let doctor = |python: &str| Ran::of(xtask().args(["doctor", "--python", python]), dir.path());
    doctor(hangs.to_str().unwrap()).exits(2).says("it said nothing within 4.5 s");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    doctor("/bin/true").exits(2).says("does not answer like a Python 3");
    doctor("no-such-python").exits(2).says("there is no no-such-python");
    doctor(dir.path().to_str().unwrap()).exits(2).says("there is no");
}
