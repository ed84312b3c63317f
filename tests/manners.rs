//! How the program behaves at a terminal: it ends when it is told to, outlives a terminal that goes away, says
//! what it does when it is asked, and never says a secret.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Answer, Ran, Server, Workspace, recipe};

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// How `child` ends, at most `seconds` from now.
#[track_caller]
fn ends_within(mut child: Child, seconds: u64) -> Option<i32> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(seconds) {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    panic!("it still runs after {seconds} s");
}

#[track_caller]
fn until(what: &str, ready: impl Fn() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_ctrl_c_ends_inspect_that_waits_for_a_server() {
    let server = Server::start([("/torch.whl", Answer::Stall(b"PK".to_vec()))]);
    let w = Workspace::new();
    let url = format!("{}/torch.whl", server.url);
    let child = w.xtask(&["inspect", &url]).stderr(Stdio::null()).spawn().unwrap();
    until("a request", || !server.requests.lock().unwrap().is_empty());
    signal(child.id(), "INT");
    assert_eq!(ends_within(child, 2), Some(130));
}

#[test]
fn one_ctrl_c_ends_doctor_that_waits_for_a_traceback() {
    let w = Workspace::new();
    let child = w.xtask(&["doctor", "--explain"]).stdin(Stdio::piped()).spawn().unwrap();
    // Until it reads, it would end by the signal's own default: that is not what is tested.
    std::thread::sleep(Duration::from_millis(500));
    signal(child.id(), "INT");
    assert_eq!(ends_within(child, 2), Some(130));
}

#[test]
fn one_ctrl_c_ends_a_download_in_order() {
    let server = Server::start([("/f", Answer::Stall(b"some".to_vec()))]);
    let w = Workspace::new();
    w.write("recipes/x.toml", recipe("").replace("file:uv.tar", &format!("{}/f", server.url)));
    let child = w.xtask(&["lock", "--recipe", "x"]).stderr(Stdio::null()).spawn().unwrap();
    until("a request", || !server.requests.lock().unwrap().is_empty());
    signal(child.id(), "INT");
    assert_eq!(ends_within(child, 12), Some(130));
}

/// A server of an empty index, and where it listens.
fn serve(w: &Workspace) -> Command {
    let index = w.path().join("index");
    let mut command = w.xtask(&["mirror", "serve", "--port", "0", "--index", index.to_str().unwrap()]);
    command.env("TORCHMILL_UPLOAD_TOKEN", "0123456789abcdef");
    command
}

#[test]
fn a_server_that_is_told_to_end_ended_well() {
    for name in ["INT", "TERM"] {
        let w = Workspace::new();
        let mut child = serve(&w).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        signal(child.id(), name);
        assert_eq!(ends_within(child, 10), Some(0), "{name}");
    }
}

/// Runs `line` in a shell at a terminal of its own, which goes away when what comes back is killed.
fn at_a_terminal(dir: &Path, line: &str) -> Child {
    Command::new("script")
        .args(["-qfc", line, "/dev/null"])
        .current_dir(dir)
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("script (Debian: bsdutils)")
}

fn quoted(command: &Command) -> String {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|a| format!("'{}'", a.display()))
        .collect();
    words.join(" ")
}

#[test]
fn a_server_outlives_its_terminal_and_still_ends_when_told() {
    let w = Workspace::new();
    let (pid, said) = (w.path().join("pid"), w.path().join("said"));
    let line = format!("echo $$ > pid; TORCHMILL_UPLOAD_TOKEN=0123456789abcdef exec {} > said", quoted(&serve(&w)));
    let mut terminal = at_a_terminal(w.path(), &line);
    let address = || std::fs::read_to_string(&said).unwrap_or_default().trim().replace("http://", "").replace('/', "");
    until("an address", || !address().is_empty());
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    let get = || {
        let mut stream = std::net::TcpStream::connect(address()).ok()?;
        std::io::Write::write_all(&mut stream, b"GET /simple/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    };
    // It writes a line for each request, to a terminal that is gone.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(200));
        assert!(get().expect("the server is gone").starts_with("HTTP/1.1 200"));
    }
    let pid: u32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    signal(pid, "TERM");
    until("the end of the server", || std::net::TcpStream::connect(address()).is_err());
}

#[test]
fn a_download_outlives_its_terminal() {
    let server = Server::start([("/f", Answer::FailFirst(503, 3, b"some bytes".to_vec()))]);
    let w = Workspace::new();
    w.write("recipes/x.toml", recipe("").replace("file:uv.tar", &format!("{}/f", server.url)));
    let command = w.xtask(&["lock", "--recipe", "x"]);
    let store = w.store.display();
    // The shell alone would not outlive it, and has something to write afterwards.
    let line = format!("trap '' HUP; TORCHMILL_STORE='{store}' {}; echo $? > code", quoted(&command));
    let mut terminal = at_a_terminal(w.path(), &line);
    until("a request", || !server.requests.lock().unwrap().is_empty());
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    let code = w.path().join("code");
    until("its end", || std::fs::read_to_string(&code).is_ok_and(|c| c.ends_with('\n')));
    assert_eq!(std::fs::read_to_string(code).unwrap().trim(), "0");
    assert!(w.path().join("recipes/x.lock").is_file());
}

#[test]
fn asked_for_it_says_what_it_does_and_unasked_nothing() {
    let server = Server::start([("/f", Answer::Ok(b"some bytes".to_vec()))]);
    let w = Workspace::new();
    w.write("recipes/x.toml", recipe("").replace("file:uv.tar", &format!("{}/f", server.url)));
    let request = format!("GET {}/f", server.url);
    let quiet = w.run(&["lock", "--recipe", "x"]).exits(0);
    assert!(!quiet.stderr.contains("GET "), "{}", quiet.stderr);

    std::fs::remove_dir_all(&w.store).unwrap();
    w.run(&["lock", "--recipe", "x", "--update", "-v"]).exits(0).says(&request).says("200 OK");

    std::fs::remove_dir_all(&w.store).unwrap();
    let log = w.path().join("log");
    let ran = w.run(&["--log", log.to_str().unwrap(), "lock", "--recipe", "x", "--update"]).exits(0);
    assert!(!ran.stderr.contains("GET "), "{}", ran.stderr);
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.contains(&request) && text.contains("INFO http"), "{text}");

    std::fs::remove_dir_all(&w.store).unwrap();
    let by_variable = |value: &str| {
        let mut command = w.xtask(&["lock", "--recipe", "x", "--update"]);
        Ran::of(command.env("TORCHMILL_LOG", value), w.path())
    };
    by_variable("http=info").exits(0).says(&request);
    assert!(!by_variable("lock=info").exits(0).stderr.contains("GET "));
    by_variable("http=loud").exits(2).says("TORCHMILL_LOG='http=loud' cannot be read");
}

#[test]
fn the_log_holds_no_secret() {
    let server = Server::start([("/torch.whl", Answer::Status(404))]);
    let w = Workspace::new();
    let log = w.path().join("log");
    let url = format!("{}/torch.whl?signature=S3CRET-1", server.url.replace("http://", "http://me:S3CRET-2@"));
    w.run(&["-vv", "--log", log.to_str().unwrap(), "inspect", &url]).exits(3);
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.contains("/torch.whl?…"), "{text}");
    assert!(!text.contains("S3CRET"), "{text}");
}

#[test]
#[cfg(unix)]
fn clean_removes_what_is_deeper_than_any_path() {
    let w = Workspace::new();
    let room = w.store.join("v1/inner/room/v1");
    std::fs::create_dir_all(&room).unwrap();
    // From the innermost out: whoever goes down step by step can make what nobody can name.
    let folder = |level: u32| w.path().join(level.to_string());
    for level in 0..3000 {
        std::fs::create_dir(folder(level)).unwrap();
        if level > 0 {
            std::fs::rename(folder(level - 1), folder(level).join("d")).unwrap();
        }
    }
    std::fs::rename(folder(2999), room.join("deep")).unwrap();
    // With fewer open files than it is deep.
    let mut clean = Command::new("sh");
    clean.args(["-c", "ulimit -n 256 && exec \"$0\" clean --store \"$1\"", env!("CARGO_BIN_EXE_torchmill")]);
    Ran::of(clean.arg(&w.store).env("TMPDIR", w.path()), w.path()).exits(0);
    assert!(!w.store.join("v1/inner").exists());
}

#[test]
fn clean_says_what_it_would_remove_and_removes_nothing_until_asked() {
    let w = Workspace::new();
    let build = w.store.join("v1/work/compile-1/object.o");
    let download = w.store.join("v1/blobs/ab/cd");
    for file in [&build, &download] {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, vec![0; 2048]).unwrap();
    }
    // What killed runs left among temporary files goes too; what somebody works in does not, nor what only looks so.
    let temporary = w.path().join("temporary");
    let [left, held, named] =
        ["scratch-left", "scratch-held", "other"].map(|n| temporary.join(format!("torchmill-{n}")));
    for folder in [&left, &held, &named] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(".owner"), vec![0; 1024]).unwrap();
    }
    let owner = std::fs::File::open(held.join(".owner")).unwrap();
    owner.lock().unwrap();
    let clean = |args: &[&str]| {
        let mut clean = w.xtask(&[&["clean"], args].concat());
        Ran::of(clean.env("TMPDIR", &temporary), w.path())
    };
    let ran = clean(&["--dry-run"]).exits(0).says("1.0 KiB  [DIR]/temporary/torchmill-scratch-left");
    assert!(!ran.stdout.contains("scratch-held") && !ran.stdout.contains("other"), "{}", ran.stdout);
    clean(&[]).exits(0);
    assert!(!left.exists() && held.exists() && named.exists());
    std::fs::create_dir_all(build.parent().unwrap()).unwrap();
    std::fs::write(&build, vec![0; 2048]).unwrap();
    clean(&["--dry-run"]).exits(0).says("2.0 KiB  [DIR]/store/v1/work").says("2.0 KiB would be given back");
    assert!(build.is_file());
    let json = clean(&["--dry-run", "--all", "--json"]).exits(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["freed"], &json["would_free"]), (&0.into(), &4096.into()), "{json}");
    // While somebody builds, nothing is taken from under the build.
    let lock = std::fs::File::create(w.store.join("v1/locks/work-compile-1")).unwrap();
    lock.lock().unwrap();
    for args in [&[][..], &["--all"]] {
        clean(args).exits(3).says("works on work-compile-1").says("nothing is removed");
    }
    clean(&["--dry-run"]).exits(0).says("would be given back");
    drop(lock);
    clean(&[]).exits(0).says("2.0 KiB given back");
    assert!(!build.exists() && download.is_file());
}

#[test]
fn clean_and_whoever_uses_the_store_keep_out_of_each_others_way() {
    let server = Server::start([("/f", Answer::Stall(b"some".to_vec()))]);
    let w = Workspace::new();
    w.write("uv.tar", "some bytes");
    w.write("recipes/here.toml", recipe(""));
    w.write("recipes/there.toml", recipe("").replace("file:uv.tar", &format!("{}/f", server.url)));
    let mut child = w.xtask(&["lock", "--recipe", "there"]).stderr(Stdio::null()).spawn().unwrap();
    until("a request", || !server.requests.lock().unwrap().is_empty());
    let part = w.store.join("v1/parts/of-another");
    std::fs::write(&part, "some").unwrap();
    let in_use = format!("process {} ", child.id());
    for args in [&["clean"][..], &["clean", "--all"]] {
        w.run(args).exits(3).says(&in_use).says("nothing is removed");
    }
    w.run(&["clean", "--dry-run"]).exits(0);
    w.run(&["lock", "--recipe", "here"]).exits(0);
    assert!(part.is_file());
    // Killed, it is in nobody's way, though it could not take away what it had said of itself.
    child.kill().unwrap();
    child.wait().unwrap();
    w.run(&["clean"]).exits(0);
    assert!(!part.exists());

    // As long as somebody removes things, whoever comes waits; and nothing is removed while a room inside is in use.
    let hold = |store: &str| {
        let path = w.store.join(store).join("locks/store");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    };
    let removal = hold("v1");
    removal.lock().unwrap();
    let mut lock = w.xtask(&["lock", "--recipe", "here", "--update"]);
    let mut child = lock.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("it removes things from the store")));
    assert!(child.try_wait().unwrap().is_none());
    w.run(&["clean"]).exits(3).says("nothing is removed");
    drop(removal);
    assert_eq!(ends_within(child, 60), Some(0));
    let room = hold("v1/inner/x/v1");
    room.lock_shared().unwrap();
    w.run(&["clean"]).exits(3).says("another torchmill is at work");
    drop(room);
    w.run(&["clean"]).exits(0);
    assert!(!w.store.join("v1/inner").exists());
}

#[test]
fn the_name_of_a_file_of_others_does_nothing_to_a_terminal() {
    let w = Workspace::new();
    let name = "a\u{9b}31m\u{202e}\u{2066}b.whl";
    let artifact = w.write(name, "no wheel");
    let artifact = artifact.to_str().unwrap();
    let is_plain = |text: &str| !text.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{2066}']);
    let (shown, in_json) = (r"a\u{9b}31m\u{202e}\u{2066}b.whl", r"a\u009b31m\u202e\u2066b.whl");
    let ran = w.run(&["verify", artifact]).exits(2).says(shown);
    assert!(is_plain(&ran.stderr), "{:?}", ran.stderr);
    let ran = w.run(&["verify", artifact, "--json"]).exits(2);
    assert!(is_plain(&ran.stdout) && ran.stdout.contains(in_json), "{:?}", ran.stdout);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(json["error"]["message"].as_str().unwrap().contains(name), "{json}");
    // What the reader of the command line repeats, too.
    let ran = w.run(&["verify", "a.whl", "b\u{202e}c"]).exits(2).says(r"unexpected argument 'b\u{202e}c'");
    assert!(is_plain(&ran.stderr), "{:?}", ran.stderr);
}

#[test]
fn a_result_that_nobody_reads_is_no_panic() {
    let w = Workspace::new();
    w.write("uv.tar", "some bytes");
    w.write("recipes/x.toml", recipe(""));
    let mut lock = w.xtask(&["lock", "--recipe", "x"]);
    let mut child = lock.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(child.wait().unwrap().code(), Some(141), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn no_dump_of_memory_can_hold_a_key() {
    let w = Workspace::new();
    let (private, _) = crate::provenance::keys(&w, "signing");
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1", "predicate": {},
        "subject": [{ "name": "x", "digest": { "sha256": "0".repeat(64) } }],
        "predicateType": "https://slsa.dev/provenance/v1",
    });
    let statement = w.write("x.provenance.json", statement.to_string());
    let pipe = w.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut sign = w.xtask(&["sign", statement.to_str().unwrap(), "--key", pipe.to_str().unwrap()]);
    let mut child = sign.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let limits = format!("/proc/{}/limits", child.id());
    // While it waits for the key: afterwards it would be too late.
    until("a process that dumps nothing", || {
        let text = std::fs::read_to_string(&limits).unwrap_or_default();
        let core = text.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap_or_default();
        core.split_whitespace().take(2).eq(["0", "0"])
    });
    assert!(child.try_wait().unwrap().is_none(), "it did not wait for its key");
    std::fs::write(&pipe, std::fs::read(private).unwrap()).unwrap();
    assert_eq!(ends_within(child, 10), Some(0));
}
