//! Who made this, from what, and does it come out the same again? Statement, signature, policy,
//! `verify`, `diff`, `repro`, `rebuild`, on a stand-in for PyTorch.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xshell::{Shell, cmd};

use crate::standin::{dist, files, fresh_files, workspace, workspace_with};
use crate::support::{Ran, Workspace, locked, sha256};
use torchmill::store::KeyBuilder;

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A key pair as people make it: `signing.pem` and `signing.pub`.
pub fn keys(w: &Workspace, name: &str) -> (PathBuf, PathBuf) {
    let (private, public) = (w.path().join(format!("{name}.pem")), w.path().join(format!("{name}.pub")));
    let sh = Shell::new().unwrap();
    let made = cmd!(sh, "openssl genpkey -algorithm ed25519 -out {private}").quiet().ignore_stderr().run();
    made.expect("an openssl that makes Ed25519 keys");
    cmd!(sh, "openssl pkey -in {private} -pubout -out {public}").quiet().run().unwrap();
    (private, public)
}

/// The wheel at `path` packed again by another program, each member as `edit` leaves it. More can be
/// added to what comes back.
fn repack(path: &Path, level: i64, edit: impl Fn(&str, &mut Vec<u8>)) -> zip::ZipWriter<std::io::Cursor<Vec<u8>>> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).unwrap();
        let name = entry.name().unwrap().into_owned();
        let options = zip::write::SimpleFileOptions::default().unix_permissions(entry.unix_mode().unwrap());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        edit(&name, &mut bytes);
        out.start_file(name.as_str(), options.compression_level(Some(level))).unwrap();
        out.write_all(&bytes).unwrap();
    }
    out
}

/// Runs `command` while the lock called `name` of the store of `w` is taken, until it says that it waits for that: it ends
/// well then.
fn waits_for(w: &Workspace, name: &str, mut command: Command) {
    let held = locked(&w.store.join("v1/locks").join(name));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let waited = said.by_ref().any(|line| line.contains(&format!("it works on the same thing ({name})")));
    drop(held);
    let rest: Vec<String> = said.collect();
    assert!(waited, "it did not wait");
    assert!(child.wait().unwrap().success(), "{rest:#?}");
}

fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    how(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_stands_beside_an_artifact_agrees_with_it() {
    let w = workspace(&files());
    let d = dist(&w);
    let (statement, manifest, sbom) = (json(&d.statement), json(&d.manifest), json(&d.sbom));
    // in-toto's and SLSA's own names.
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    for file in [&d.wheel, &d.bundle, &d.manifest, &d.sbom] {
        let name = file.file_name().unwrap().to_str().unwrap();
        let subject = statement["subject"].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap();
        assert_eq!(subject["digest"]["sha256"], sha256(&std::fs::read(file).unwrap()), "{name}");
    }
    let dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    assert!(dependencies.iter().any(|d| d["name"] == "libuv" && d["uri"].as_str().unwrap().starts_with("debian:")));
    assert!(dependencies.iter().any(|d| d["name"] == "patches/cmake/torchmill.cmake"));
    // Compiler, assembler, linker, libc, Python, cmake, ninja: versions and digests.
    let toolchain = &manifest["toolchain"];
    for file in ["cc1plus", "as", "ld", "libc.so.6", "crtbeginS.o"] {
        assert_eq!(toolchain["compiler"]["files"][file].as_str().unwrap().len(), 64, "{file}");
    }
    assert!(toolchain["compiler"]["libc"].as_str().unwrap().starts_with("GNU C Library ("));
    for tool in ["cmake", "ninja"] {
        assert_eq!(toolchain["tools"][tool]["sha256"].as_str().unwrap().len(), 64);
    }
    assert_eq!(toolchain["python"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    let libuv = sbom["components"].as_array().unwrap().iter().find(|c| c["name"] == "libuv").unwrap();
    assert_eq!(libuv["purl"], "pkg:deb/debian/libuv1@1.50.0?arch=source");
    assert_eq!(libuv["licenses"][0]["expression"], "MIT");
    // The same bill is in the wheel (PEP 770) and in the bundle, with recipe, lock and patches.
    let mut wheel = zip::ZipArchive::new(std::fs::File::open(&d.wheel).unwrap()).unwrap();
    let mut member = |name: &str| {
        let mut bytes = Vec::new();
        wheel.by_name(&format!("torch-2.6.0+standin.dist-info/{name}")).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(member("sboms/torchmill.cdx.json"), std::fs::read(&d.sbom).unwrap());
    assert_eq!(
        member("torchmill/patches/cmake/torchmill.cmake"),
        std::fs::read(crate::support::root().join("patches/cmake/torchmill.cmake")).unwrap()
    );
    assert!(String::from_utf8(member("torchmill/recipes/standin.toml")).unwrap().contains("USE_DISTRIBUTED = true"));
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&d.bundle).unwrap()));
    let names: Vec<String> = tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    for name in ["torchmill.cdx.json", "build.json", "recipes/standin.lock"] {
        assert!(names.contains(&format!("libtorch/share/torchmill/{name}")), "{names:?}");
    }
    // Every Python's build makes the same bundle: it names none, nor the packages of its environment, and is built again
    // by any.
    let of_bundle = |name: &str| -> serde_json::Value {
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&d.bundle).unwrap()));
        let is_it = |e: &tar::Entry<'_, _>| e.path().unwrap().ends_with(format!("share/torchmill/{name}"));
        let found = tar.entries().unwrap().map(Result::unwrap).find(is_it).expect("it is in the bundle");
        serde_json::from_reader(found).unwrap()
    };
    let of_wheel: serde_json::Value = serde_json::from_slice(&member("torchmill/build.json")).unwrap();
    let mut expected = of_wheel.clone();
    assert!(expected.as_object_mut().unwrap().remove("python").is_some());
    assert!(expected["toolchain"].as_object_mut().unwrap().remove("python").is_some());
    assert_eq!(of_bundle("build.json"), expected);
    let named = |bill: &serde_json::Value| {
        let parts = bill["components"].as_array().unwrap().clone();
        parts.iter().map(|part| part["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let in_wheel = named(&serde_json::from_slice(&std::fs::read(&d.sbom).unwrap()).unwrap());
    assert!(in_wheel.iter().any(|name| name.starts_with("build:")), "{in_wheel:?}");
    let without: Vec<String> = in_wheel.into_iter().filter(|name| !name.starts_with("build:")).collect();
    assert_eq!(named(&of_bundle("torchmill.cdx.json")), without);
    // Nothing that stands beside an artifact names this machine.
    for file in [&d.statement, &d.manifest, &d.sbom] {
        let bytes = std::fs::read_to_string(file).unwrap();
        assert!(!bytes.contains(text(w.path())) && !bytes.contains(text(&w.store)), "{}", file.display());
    }
}

#[test]
fn an_intact_artifact_passes_and_a_changed_one_is_named() {
    let w = workspace(&files());
    let d = dist(&w);
    w.run(&["verify", text(&d.wheel)]).exits(0).says("files are as RECORD says").says("not signed");
    w.run(&["verify", text(&d.bundle)]).exits(0);
    let whole = std::fs::read(&d.wheel).unwrap();
    // Bytes all over the file, the first and the last among them.
    for at in [0, 30, whole.len() / 3, whole.len() / 2, whole.len() - 30, whole.len() - 1] {
        change(&d.wheel, |b| b[at] ^= 1);
        let ran = w.run(&["verify", text(&d.wheel), "--json"]).exits(1);
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(json["checks"][0]["name"], "digest");
        assert_eq!(json["checks"][0]["ok"], false, "byte {at}");
        std::fs::write(&d.wheel, &whole).unwrap();
    }
    // The statement of another build.
    change(&d.statement, |b| {
        let text = String::from_utf8(b.clone()).unwrap();
        *b = text.replace(&sha256(&whole), &sha256(b"another")).into_bytes();
    });
    w.run(&["verify", text(&d.wheel)]).exits(1).says("tampered with, cut off, or another build");
}

#[test]
fn a_wheel_that_lies_in_record_is_named_whatever_its_statement_says() {
    let w = workspace(&files());
    let d = dist(&w);
    let before = sha256(&std::fs::read(&d.wheel).unwrap());
    // One byte of a member changes, another member is added, and RECORD stays as it was.
    let mut out = repack(&d.wheel, 6, |name, bytes| {
        if name == "torch/__init__.py" {
            bytes[0] ^= 1;
        }
    });
    out.start_file("torch/extra.py", zip::write::SimpleFileOptions::default()).unwrap();
    std::fs::write(&d.wheel, out.finish().unwrap().into_inner()).unwrap();
    let after = sha256(&std::fs::read(&d.wheel).unwrap());
    change(&d.statement, |b| *b = String::from_utf8(b.clone()).unwrap().replace(&before, &after).into_bytes());
    w.run(&["verify", text(&d.wheel)])
        .exits(1)
        .says("'torch/__init__.py' has the SHA-256")
        .says("'torch/extra.py' is in the wheel and not in RECORD");
}

#[test]
fn signatures_hold_break_and_agree_with_openssl() {
    let w = workspace(&files());
    let d = dist(&w);
    let ((private, public), (_, other)) = (keys(&w, "signing"), keys(&w, "other"));
    // Asked for a signature where there is none.
    w.run(&["verify", text(&d.wheel), "--key", text(&public)]).exits(1).says("is not signed");
    let ran = w.run(&["sign", text(&d.statement), "--key", text(&private)]).exits(0);
    let envelope = PathBuf::from(text(&d.statement).replace(".provenance.json", ".provenance.dsse.json"));
    w.run(&["verify", text(&d.wheel), "--key", text(&public)]).exits(0).says("by the key");
    w.run(&["verify", text(&d.bundle), "--key", text(&other), "--key", text(&public)]).exits(0);
    w.run(&["verify", text(&d.wheel), "--key", text(&other)]).exits(1).says("another key made it");

    // An implementation that has nothing in common with ours, on the same bytes.
    let signed = json(&envelope);
    use base64::Engine;
    let decode = |v: &serde_json::Value| base64::engine::general_purpose::STANDARD.decode(v.as_str().unwrap()).unwrap();
    let payload = decode(&signed["payload"]);
    assert_eq!(payload, std::fs::read(&d.statement).unwrap());
    let kind = signed["payloadType"].as_str().unwrap();
    let mut encoded = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    encoded.extend(&payload);
    let (message, signature) =
        (w.write("message", &encoded), w.write("signature", decode(&signed["signatures"][0]["sig"])));
    let openssl = |message: &Path| {
        let mut c = Command::new("openssl");
        c.args(["pkeyutl", "-verify", "-pubin", "-inkey", text(&public), "-rawin", "-in", text(message)]);
        c.args(["-sigfile", text(&signature)]).output().unwrap().status.success()
    };
    assert!(openssl(&message), "openssl does not agree with our signature");
    change(&message, |b| *b.last_mut().unwrap() ^= 1);
    assert!(!openssl(&message), "openssl takes anything");
    // The id is what openssl makes of the public key.
    let der =
        Command::new("openssl").args(["pkey", "-pubin", "-in", text(&public), "-outform", "DER"]).output().unwrap();
    assert_eq!(signed["signatures"][0]["keyid"], sha256(&der.stdout));
    assert!(ran.stdout.contains(&sha256(&der.stdout)));

    // Taken away, swapped, changed.
    let whole = std::fs::read(&envelope).unwrap();
    let with = |how: &dyn Fn(&mut serde_json::Value)| {
        let mut value: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        how(&mut value);
        std::fs::write(&envelope, value.to_string()).unwrap();
        w.run(&["verify", text(&d.wheel), "--key", text(&public)]).exits(1)
    };
    with(&|v| v["signatures"] = serde_json::json!([])).says("were taken away");
    with(&|v| v["signatures"][0]["sig"] = "AAAA".into()).says("another key made it, or the statement was changed");
    with(&|v| {
        let mut other: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        other["predicate"]["runDetails"]["builder"]["id"] = "https://example.com/mallory".into();
        v["payload"] = base64::engine::general_purpose::STANDARD.encode(other.to_string()).into();
    })
    .says("the statement was changed");
}

#[test]
fn a_key_is_never_taken_from_the_command_line_and_never_shown() {
    let w = workspace(&files());
    let d = dist(&w);
    let (private, public) = keys(&w, "signing");
    let secret = std::fs::read_to_string(&private).unwrap();
    let body = secret.lines().nth(1).unwrap().to_owned();
    let never = |ran: Ran| {
        assert!(!ran.stdout.contains(&body) && !ran.stderr.contains(&body), "{ran:?}");
        ran
    };
    never(w.run(&["sign", text(&d.statement), "--key", &secret]).exits(2)).says("looks like a key itself");
    never(w.run(&["sign", text(&d.statement), "--key", "env:NOT_SET"]).exits(2)).says("NOT_SET holds no key");
    // The private key where the public one belongs.
    never(w.run(&["verify", text(&d.wheel), "--key", text(&private)]).exits(2)).says("is a private key");
    never(w.run(&["sign", text(&d.statement), "--key", text(&public)]).exits(2)).says("openssl genpkey");
    let mut command = w.xtask(&["sign", text(&d.statement), "--key", "env:OUR_KEY"]);
    never(Ran::of(command.env("OUR_KEY", &secret), w.path())).exits(0);
    never(w.run(&["verify", text(&d.wheel), "--key", text(&public)])).exits(0);
}

#[test]
fn a_policy_says_who_what_and_with_which_toolchain() {
    let w = workspace(&files());
    let d = dist(&w);
    let (private, _) = keys(&w, "signing");
    w.run(&["sign", text(&d.statement), "--key", text(&private)]).exits(0);
    let predicate = &json(&d.statement)["predicate"];
    let recipe = predicate["buildDefinition"]["externalParameters"]["recipe"]["sha256"].as_str().unwrap();
    let toolchain = predicate["buildDefinition"]["internalParameters"]["toolchain"]["sha256"].as_str().unwrap();
    let builder = predicate["runDetails"]["builder"]["id"].as_str().unwrap();
    let policy = |recipe: &str, toolchain: &str, builder: &str| {
        let text = format!(
            "schema = 1\nkeys = [\"signing.pub\"]\nrecipes = [\"{recipe}\"]\ntoolchains = [\"{toolchain}\"]\nbuilders = [\"{builder}\"]\n"
        );
        let path = w.write("policy.toml", text);
        w.run(&["verify", text_of(&d.wheel), "--policy", text_of(&path)])
    };
    let other = sha256(b"other");
    policy(recipe, toolchain, builder).exits(0);
    policy(&other, toolchain, builder).exits(1).says("does not pass: policy: recipe");
    policy(recipe, &other, builder).exits(1).says("does not pass: policy: toolchain");
    policy(recipe, toolchain, "https://example.com/else").exits(1).says("does not pass: policy: builder");
    policy("abc", toolchain, builder).exits(2).says("'abc' is not a SHA-256");
    let path = w.write("policy.toml", "schema = 1\nkey = []\n");
    w.run(&["verify", text(&d.wheel), "--policy", text(&path)]).exits(2).says("unknown field `key`");
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn bad_input_exits_2_with_one_clear_sentence() {
    let w = workspace(&files());
    let d = dist(&w);
    let whole = std::fs::read(&d.wheel).unwrap();
    let alone = w.path().join("alone");
    std::fs::create_dir_all(&alone).unwrap();
    let copy = alone.join(d.wheel.file_name().unwrap());
    std::fs::write(&copy, &whole).unwrap();
    w.run(&["verify", text(&copy)]).exits(2).says("there is no statement about it");
    w.run(&["verify", text(&alone.join("none.whl"))]).exits(2).says("there is no such file");
    w.run(&["verify", text(&d.manifest)]).exits(2).says("neither a wheel (.whl) nor a libtorch bundle");
    // Cut off: to a rebuild, and to a comparison.
    std::fs::write(&copy, &whole[..whole.len() / 2]).unwrap();
    w.run(&["rebuild", text(&copy)]).exits(2).says("is no readable wheel");
    w.run(&["diff", text(&copy), text(&d.wheel)]).exits(2).says("is no readable zip archive");
    // Not ours.
    let mut foreign = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    foreign.start_file("torch-2.6.0.dist-info/METADATA", zip::write::SimpleFileOptions::default()).unwrap();
    std::fs::write(&copy, foreign.finish().unwrap().into_inner()).unwrap();
    w.run(&["rebuild", text(&copy)]).exits(2).says("carries no recipe");
    // A lock from a newer torchmill, and a recipe that its lock does not fit.
    for (from, to, says) in [
        ("recipes/standin.lock", "version = 99\n", "this program reads 1"),
        ("build.json", "{\"schema_version\": 99}", "update torchmill"),
        (
            "build.json",
            "{\"schema_version\": 1, \"torchmill\": \"1\", \"recipe\": \"../x\", \"python\": \"3.11\", \"machine\": \"x86_64\", \"toolchain\": {}}",
            "names a recipe '../x'",
        ),
        (
            "build.json",
            "{\"schema_version\": 1, \"torchmill\": \"1\", \"recipe\": \"standin\", \"python\": \"./python\", \"machine\": \"x86_64\", \"toolchain\": {}}",
            "names a Python './python'",
        ),
        (
            "build.json",
            "{\"schema_version\": 1, \"torchmill\": \"1\", \"recipe\": \"standin\", \"machine\": \"x86_64\", \"toolchain\": {}}",
            "does not say which Python it is for",
        ),
        ("recipes/standin.toml", "schema = 1\n[torch]\nlocal = 5\n", "recipes/standin.toml:3"),
    ] {
        let out = repack(&d.wheel, 6, |name, bytes| {
            if name.ends_with(&format!(".dist-info/torchmill/{from}")) {
                *bytes = to.as_bytes().to_vec();
            }
        });
        std::fs::write(&copy, out.finish().unwrap().into_inner()).unwrap();
        let ran = w.run(&["rebuild", "--trust", text(&copy)]).exits(2);
        assert!(ran.stderr.contains(says), "{from}: {}", ran.stderr);
    }
}

#[test]
fn a_bundle_is_held_against_the_statement_about_its_own_bytes() {
    let w = workspace(&fresh_files());
    let d = dist(&w);
    // As a build for another Python leaves it: about a bundle of the same name and other bytes.
    let own = std::fs::read_to_string(&d.statement).unwrap();
    let bundle = sha256(&std::fs::read(&d.bundle).unwrap());
    assert!(own.contains(&bundle));
    let other = d.dir.join(format!("a{}", d.statement.file_name().unwrap().to_string_lossy()));
    std::fs::write(other, own.replace(&bundle, &"0".repeat(64))).unwrap();
    w.run(&["verify", text(&d.bundle)]).exits(0);
    // Where none is, it is not what was stated.
    std::fs::remove_file(&d.statement).unwrap();
    w.run(&["verify", text(&d.bundle)]).exits(1).says("tampered with, cut off, or another build");
}

#[test]
fn an_artifact_is_built_again_from_itself_alone() {
    let w = workspace(&fresh_files());
    let d = dist(&w);
    // Neither recipe nor patches are at hand, nor any stage's result: only the downloads.
    let nowhere = tempfile::tempdir().unwrap();
    let command = |artifact: &Path| {
        let mut c = w.xtask(&["rebuild", "--trust", "--offline", text(artifact)]);
        c.current_dir(nowhere.path());
        c
    };
    let rebuild = |artifact: &Path| Ran::of(&mut command(artifact), w.path());
    for name in ["recipes", "patches"] {
        std::fs::rename(w.path().join(name), w.path().join(format!("gone-{name}"))).unwrap();
    }
    let ran = rebuild(&d.wheel).exits(0).says("same:").says("✓ canary");
    assert!(ran.stdout.contains(&sha256(&std::fs::read(&d.wheel).unwrap())));
    // It was built to the end, or it were not there.
    assert!(!ran.stderr.contains("is a draft"), "{}", ran.stderr);
    // Another run in the same room waits: it begins with a workspace that is made anew.
    let source = sha256(&std::fs::read(w.path().join("standin.tar")).unwrap());
    let is_its_room = |room: &PathBuf| {
        std::fs::read_to_string(room.join("workspace/recipes/standin.lock")).is_ok_and(|lock| lock.contains(&source))
    };
    let mut rooms = std::fs::read_dir(w.store.join("v1/inner")).unwrap().flatten().map(|entry| entry.path());
    let room = rooms.find(is_its_room).unwrap();
    let name = room.file_name().unwrap().to_str().unwrap();
    waits_for(&w, &format!("rebuild-{name}"), command(&d.wheel));
    rebuild(&d.bundle).exits(0).says("same:");
    // The same members, packed by another program.
    let out = repack(&d.wheel, 9, |_, _| {});
    std::fs::write(&d.wheel, out.finish().unwrap().into_inner()).unwrap();
    rebuild(&d.wheel).exits(1).says("differs, here:").says("likely cause: compression");
    assert!(d.dir.is_dir());
}

#[test]
fn what_a_statement_is_about_is_built_again_from_the_recipe_that_it_means() {
    let w = workspace(&fresh_files());
    let d = dist(&w);
    // Of the artifacts nothing is at hand.
    let elsewhere = tempfile::tempdir().unwrap();
    let statement = elsewhere.path().join(d.statement.file_name().unwrap());
    std::fs::copy(&d.statement, &statement).unwrap();
    let ran = w.run(&["rebuild", "--offline", text(&statement)]).exits(0).says("✓ canary");
    assert!(!ran.stderr.contains("is a draft"), "{}", ran.stderr);
    for file in [&d.wheel, &d.bundle, &d.manifest, &d.sbom] {
        let said = format!(
            "✓ {} sha256:{}",
            file.file_name().unwrap().to_string_lossy(),
            sha256(&std::fs::read(file).unwrap())
        );
        assert!(ran.stdout.contains(&said), "{said} in {}", ran.stdout);
    }
    // It is about another wheel.
    let about = std::fs::read_to_string(&statement).unwrap();
    let (wheel, other) = (sha256(&std::fs::read(&d.wheel).unwrap()), sha256(b"another"));
    std::fs::write(&statement, about.replace(&wheel, &other)).unwrap();
    let ran = w.run(&["rebuild", "--offline", "--json", text(&statement)]).exits(1);
    let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let differ: Vec<_> = said["files"].as_array().unwrap().iter().filter(|f| f["stated"] != f["rebuilt"]).collect();
    assert_eq!((said["same"].as_bool(), differ.len()), (Some(false), 1));
    assert_eq!(said["toolchain_differs"], serde_json::json!([]));
    assert_eq!((differ[0]["stated"].as_str(), differ[0]["rebuilt"].as_str()), (Some(&*other), Some(&*wheel)));
    // Whoever names a key wants it signed.
    let (_, public) = keys(&w, "signing");
    w.run(&["rebuild", "--offline", text(&statement), "--key", text(&public)]).exits(1).says("is not signed");
    // What it names is no recipe and no Python, but a file, which would be read or run.
    let marked = elsewhere.path().join("ran");
    let program = elsewhere.path().join("program");
    std::fs::write(&program, format!("#!/bin/sh\ntouch {}\n", text(&marked))).unwrap();
    torchmill::platform::mark_executable(&program, true).unwrap();
    let python = about.split("\"python\": \"").nth(1).unwrap().split('"').next().unwrap();
    let no_digest = format!("\"md5\": \"{wheel}\"");
    for (from, to, says) in [
        ("\"name\": \"standin\"", "\"name\": \"../standin\"", "names a recipe '../standin'"),
        ("\"name\": \"standin\"", "\"name\": \"standin.toml\"", "names a recipe 'standin.toml'"),
        (&format!("\"python\": \"{python}\""), &format!("\"python\": {:?}", text(&program)), "names a Python '"),
        ("-linux-x86_64.tar.gz\"", "-linux-x86_64.zip\"", "which a recipe does not make"),
        (&format!("\"sha256\": \"{wheel}\""), &no_digest, "does not say the SHA-256 of"),
    ] {
        assert!(about.contains(from), "{from}");
        std::fs::write(&statement, about.replace(from, to)).unwrap();
        w.run(&["rebuild", "--offline", text(&statement)]).exits(2).says(says);
    }
    assert!(!marked.exists());
    let mut nothing: serde_json::Value = serde_json::from_str(&about).unwrap();
    nothing["subject"] = serde_json::json!([]);
    std::fs::write(&statement, nothing.to_string()).unwrap();
    w.run(&["rebuild", "--offline", text(&statement)]).exits(2).says("is about no file");
    // The patches here are others than it means.
    std::fs::write(&statement, about).unwrap();
    change(&w.path().join("patches/cmake/torchmill.cmake"), |module| module.extend(b"# another one\n"));
    w.run(&["rebuild", "--offline", text(&statement)]).exits(2).says("is about the recipe standin of the digest");
}

#[cfg(target_os = "linux")]
/// The wheel with another CMake module in it, which writes down what it can see and reach, and a RECORD that is right.
fn with_code_in_it(w: &Workspace, wheel: &Path, module: &str) -> PathBuf {
    use base64::Engine;
    let digest =
        |b: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(<sha2::Sha256 as sha2::Digest>::digest(b));
    let mut archive = zip::ZipArchive::new(std::fs::File::open(wheel).unwrap()).unwrap();
    let mut files = Vec::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).unwrap();
        let (name, mut bytes) = (entry.name().unwrap().into_owned(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        if name.ends_with("torchmill/patches/cmake/torchmill.cmake") {
            bytes = [module.as_bytes(), &bytes].concat();
        }
        files.push((name, bytes));
    }
    let (record, _) = files.pop().unwrap();
    let mut text: String = files.iter().map(|(n, b)| format!("{n},sha256={},{}\n", digest(b), b.len())).collect();
    text.push_str(&format!("{record},,\n"));
    files.push((record, text.into_bytes()));
    let dir = w.path().join("theirs");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(wheel.file_name().unwrap());
    let mut out = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, bytes) in &files {
        out.start_file(name.as_str(), zip::write::SimpleFileOptions::default()).unwrap();
        out.write_all(bytes).unwrap();
    }
    out.finish().unwrap();
    path
}

#[test]
#[cfg(target_os = "linux")]
fn code_in_an_artifact_runs_only_when_it_is_trusted_and_then_in_a_closed_room() {
    let w = workspace(&fresh_files());
    let d = dist(&w);
    let outside = w.write("outside/secret", "SECRET-FILE");
    let reached = w.path().join("outside/reached");
    // What it sees goes to its own output, which the build's log has.
    let module = format!(
        "execute_process(COMMAND sh -c \"echo RAN; id -u; cat {secret}; ls {home}; env; for p in /proc/[0-9]*; do tr '\\\\0' ' ' < $p/environ; tr '\\\\0' ' ' < $p/cmdline; done; \\
ls /sys/class/net; touch {reached}; mount -t tmpfs none /usr && echo MOUNTED; cat /etc/shadow; echo x > /usr/here && echo WROTE\" OUTPUT_VARIABLE seen ERROR_VARIABLE seen)\nfile(WRITE \"${{CMAKE_BINARY_DIR}}/seen.txt\" \"${{seen}}\")\nmessage(FATAL_ERROR \"SEEN<<${{seen}}>>\")\n",
        secret = text(&outside),
        home = std::env::var("HOME").unwrap(),
        reached = text(&reached),
    );
    let theirs = with_code_in_it(&w, &d.wheel, &module);
    let temporary = w.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let run = |args: &[&str]| {
        let mut c = w.xtask(args);
        c.env("SIGNING_KEY", "SECRET-KEY").env("TORCHMILL_UPLOAD_TOKEN", "SECRET-TOKEN").env("TMPDIR", &temporary);
        Ran::of(&mut c, w.path())
    };
    // Nobody signed it: it is shown, and does not run.
    let ran = run(&["rebuild", "--offline", text(&theirs)]).exits(1).says("nobody whom you trust signed it");
    assert!(ran.stderr.contains("patches/cmake/torchmill.cmake") && !ran.stderr.contains("RAN"), "{ran:?}");
    let digest = ran.stderr.split("--trust=").nth(1).unwrap()[..64].to_owned();
    run(&["rebuild", "--offline", text(&theirs), &format!("--trust={}", sha256(b"other"))])
        .exits(1)
        .says("is not what --trust=");
    // A signature over another artifact's statement does not make it trusted.
    let (private, public) = keys(&w, "signing");
    w.run(&["sign", text(&d.statement), "--key", text(&private)]).exits(0);
    let stem = d.statement.to_str().unwrap().replace(".provenance.json", ".provenance.dsse.json");
    let beside = theirs.parent().unwrap().join(Path::new(&stem).file_name().unwrap());
    std::fs::copy(&stem, beside).unwrap();
    // What has no end is no key.
    let endless = run(&["rebuild", "--offline", text(&theirs), "--key", "/dev/zero"]).exits(2);
    assert!(endless.stderr.contains("cannot be read: it has more than"), "{endless:?}");
    let ran = run(&["rebuild", "--offline", text(&theirs), "--key", text(&public), "--trust"])
        .exits(1)
        .says("is not run: digest");
    assert!(!ran.stderr.contains("SEEN"), "{ran:?}");
    // Trusted, it runs, and sees nothing.
    let ran = run(&["rebuild", "--offline", text(&theirs), &format!("--trust={digest}")]).exits(3).says("SEEN<<RAN");
    let seen = ran.stderr.split("SEEN<<").nth(1).unwrap().split(">>").next().unwrap();
    for never in ["SECRET-FILE", "SECRET-KEY", "SECRET-TOKEN", "MOUNTED", "WROTE", "root:", "eth0"] {
        assert!(!seen.contains(never), "{never} in {seen}");
    }
    assert!(!reached.exists(), "it wrote outside of its room");
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.is_empty(), "nobody removes {left:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_recipe_from_elsewhere_is_shown_and_runs_with_trust_only() {
    let w = workspace(&files());
    let elsewhere = tempfile::tempdir().unwrap();
    let theirs = elsewhere.path().join("standin.toml");
    for ending in ["toml", "lock"] {
        std::fs::copy(w.path().join(format!("recipes/standin.{ending}")), theirs.with_extension(ending)).unwrap();
    }
    for command in ["tree", "shell", "build-torch"] {
        let ran = w.run(&[command, "--offline", "--recipe", text(&theirs)]).exits(1);
        assert!(ran.stderr.contains("standin from file:standin.tar") && ran.stderr.contains("--trust="), "{ran:?}");
    }
    // What has no room for it does not run it: a toolkit's compiler is of the recipe's packages, too.
    for command in [&["libuv"][..], &["canary"], &["uvstore"], &["repro"], &["cache", "export"], &["toolchain", "cuda"]]
    {
        let command = [command, &["--offline", "--recipe", text(&theirs)]].concat();
        w.run(&command).exits(1).says("came from elsewhere");
    }
    let ran = w.run(&["tree", "--recipe", text(&theirs), "--trust"]).exits(0).says("trusted because --trust was given");
    let tree = PathBuf::from(ran.stdout.trim().replace("[DIR]", text(w.path())));
    assert!(tree.join("setup.py").exists() && text(&tree).contains("/inner/"), "{}", tree.display());
    let ran =
        w.run(&["shell", "--recipe", text(&theirs), "--trust", "--", "sh", "-c", "ls -a $HOME /root /home; echo done"]);
    assert!(ran.exits(0).stdout.contains("done"));
    // What is run outside is not for it to write to.
    let out = |folder: &str| w.run(&["build-torch", "--recipe", text(&theirs), "--trust", "--out", folder]);
    for folder in [".", text(w.path().parent().unwrap()), text(&w.store)] {
        out(folder).exits(2).says("code of others would write to");
    }
    let ours = w.write("ours/ours-1.0-py3-none-any.whl", "ours");
    out("ours").exits(2).says("could replace ours-1.0-py3-none-any.whl").says("name an empty folder");
    assert_eq!(std::fs::read(ours).unwrap(), b"ours");
    // A report goes where something of what is written stays.
    let report = |file: &str| {
        w.run(&["build-torch", "--recipe", text(&theirs), "--trust", "--dry-run", "--out", "made", "--report", file])
    };
    for file in ["report.md", "made/../report.md"] {
        report(file).exits(2).says("which has no place for").says("--report made/report.md");
    }
    report("made/report.md").exits(0);
    // A path means in the room what it means where the command was given.
    let below = w.path().join("below");
    std::fs::create_dir(&below).unwrap();
    for ending in ["toml", "lock"] {
        std::fs::copy(theirs.with_extension(ending), below.join(format!("standin.{ending}"))).unwrap();
    }
    let mut near = w.xtask(&["tree", "--recipe", "standin.toml", "--trust"]);
    let ran = Ran::of(near.current_dir(&below), w.path()).exits(0);
    assert!(ran.stdout.contains("/inner/"), "{ran:?}");
    // One of the workspace's own is asked nothing.
    w.run(&["tree", "--recipe", "standin"]).exits(0);
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_recipe_from_elsewhere_extends_is_shown_with_it_and_runs_with_trust_only() {
    let w = workspace(&files());
    let elsewhere = tempfile::tempdir().unwrap();
    let (theirs, base) = (elsewhere.path().join("theirs.toml"), elsewhere.path().join("base.toml"));
    std::fs::copy(w.path().join("recipes/standin.toml"), &base).unwrap();
    std::fs::write(&theirs, "schema = 1\nextends = \"base\"\n").unwrap();
    let mine = w.write("recipes/mine.toml", format!("schema = 1\nextends = {:?}\n", text(&base.with_extension(""))));
    for recipe in [&theirs, &mine] {
        std::fs::copy(w.path().join("recipes/standin.lock"), recipe.with_extension("lock")).unwrap();
    }
    // Also where it is one of the workspace's own that extends it.
    w.run(&["libuv", "--offline", "--recipe", "mine"]).exits(1).says("came from elsewhere");
    for recipe in [text(&theirs), "mine"] {
        let tree = |more: &[&str]| w.run(&[&["tree", "--offline", "--recipe", recipe], more].concat());
        let shown = || {
            let ran = tree(&[]).exits(1).says("what it extends: ").says("base.toml");
            format!("--trust={}", &ran.stderr.split("--trust=").nth(1).unwrap()[..64])
        };
        let trust = shown();
        assert!(tree(&[&trust]).exits(0).stdout.contains("/inner/"));
        change(&base, |text| text.extend(b"# Another one.\n"));
        tree(&[&trust]).exits(1).says("this is not what --trust=");
        tree(&[&shown()]).exits(0);
    }
    // What cannot be read now may be when it is run.
    std::fs::write(&base, "[[[").unwrap();
    w.run(&["libuv", "--offline", "--recipe", "mine"]).exits(1).says("came from elsewhere");
    // One that builds on a recipe of the workspace finds it in the room, too.
    std::fs::write(&theirs, "schema = 1\nextends = \"standin\"\n").unwrap();
    let ran = w.run(&["tree", "--offline", "--recipe", text(&theirs), "--trust"]).exits(0).says("recipes/standin.toml");
    assert!(ran.stdout.contains("/inner/"), "{ran:?}");
}

#[test]
#[cfg(unix)]
fn a_patch_is_named_by_its_path_below_patches() {
    let w = workspace(&files());
    let outside = w.write("outside.patch", "");
    let recipe = std::fs::read_to_string(w.path().join("recipes/standin.toml")).unwrap();
    for file in ["../outside.patch", text(&outside), "cmake/../../outside.patch", ""] {
        let text = format!("{recipe}[[patch]]\nfile = {file:?}\nreason = \"a test\"\n");
        w.write("recipes/standin.toml", text);
        w.run(&["tree", "--offline", "--recipe", "standin"]).exits(2).says("is not named by its path below patches/");
    }
}

/// Tries what reaches out of a room, and says with which errno each call ended: 0 where it worked.
#[cfg(target_os = "linux")]
const REACHES_OUT: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static void say(const char *what, long done) { printf("%s=%d.\n", what, done < 0 ? errno : 0); }
int main(void) {
  char key = 'x';
  struct winsize size;
  say("size", ioctl(0, TIOCGWINSZ, &size));
  say("type", ioctl(0, TIOCSTI, &key));
  say("wide", syscall(SYS_ioctl, 0, (1UL << 32) | TIOCSTI, &key));
  say("paste", ioctl(0, TIOCLINUX, &key));
  say("keyctl", syscall(SYS_keyctl, 0, -3, 0));
  say("add", syscall(SYS_add_key, "user", "k", "v", 1, -3));
  say("request", syscall(SYS_request_key, "user", "k", 0, -3));
  int mine = open("/tmp/mine", O_CREAT | O_WRONLY, 0755);
  say("mine", mine);
  say("mode", chmod("/tmp/mine", 04755));
  say("mode-of-open", fchmod(mine, 04755));
  say("mode-at", fchmodat(AT_FDCWD, "/tmp/mine", 04755, 0));
  say("mode-at-2", syscall(452, AT_FDCWD, "/tmp/mine", 04755, 0));
  say("mode-of-new", open("/tmp/new", O_CREAT | O_WRONLY, 04755));
  say("mode-of-node", mknod("/tmp/node", S_IFREG | 04755, 0));
  say("mode-of-none", syscall(SYS_openat, AT_FDCWD, "/tmp/mine", O_RDONLY, 04755));
  say("unseen", syscall(437, AT_FDCWD, "/tmp/mine", 0, 0));
  say("ring", syscall(425, 1, 0));
#ifdef __x86_64__
  say("mode-of-old", syscall(SYS_open, "/tmp/old", O_CREAT | O_WRONLY, 04755));
  say("x32", syscall(0x40000000 + 514, 0, TIOCSTI, &key));
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    int number = 20;
    __asm__ volatile("int $0x80" : "+a"(number) : : "memory");
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  printf("i386=%s.\n", WIFSIGNALED(status) ? "ended" : "ran");
#endif
  return 0;
}
"#;

#[test]
#[cfg(target_os = "linux")]
fn nothing_in_a_closed_room_types_into_the_terminal_or_reaches_the_users_keys() {
    use torchmill::platform::{CLOSED_COMMAND, Room};
    // A terminal of its own, whose shell would go on after the program.
    const IN_A_TERMINAL: &str = "
import os, pty, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        said = os.read(terminal, 4096)
    except OSError:
        break
    if not said:
        break
    sys.stdout.buffer.write(said)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
";
    let dir = tempfile::tempdir().unwrap();
    let (at, source, program) = (dir.path().join("room"), dir.path().join("reaches.c"), dir.path().join("reaches"));
    std::fs::create_dir(&at).unwrap();
    std::fs::write(&source, REACHES_OUT).unwrap();
    assert!(Command::new("cc").args(["-o", text(&program), text(&source)]).status().unwrap().success());
    let me = PathBuf::from(env!("CARGO_BIN_EXE_torchmill"));
    let read = [&me, &program].map(|path| (path.clone(), path.clone())).to_vec();
    let room = serde_json::to_string(&Room { at, read, cwd: "/".into(), ..Room::default() }).unwrap();
    let mut terminal = Command::new("python3");
    terminal.args(["-c", IN_A_TERMINAL, text(&me), CLOSED_COMMAND, &room, text(&program)]);
    let said = Ran::of(&mut terminal, dir.path()).exits(0).stdout;
    for call in ["size", "mine", "mode-of-none"] {
        assert!(said.contains(&format!("{call}=0.")), "{call}: {said}");
    }
    let modes = ["mode", "mode-of-open", "mode-at", "mode-at-2", "mode-of-new", "mode-of-node"];
    for call in ["type", "wide", "paste", "keyctl", "add", "request"].into_iter().chain(modes) {
        assert!(said.contains(&format!("{call}={}.", libc::EPERM)), "{call}: {said}");
    }
    for call in ["unseen", "ring"] {
        assert!(said.contains(&format!("{call}={}.", libc::ENOSYS)), "{call}: {said}");
    }
    // Calls under the numbers of another machine, and one that newer machines do not have.
    if cfg!(target_arch = "x86_64") {
        assert!(said.contains(&format!("mode-of-old={}.", libc::EPERM)), "{said}");
        assert!(said.contains(&format!("x32={}.", libc::EPERM)) && said.contains("i386=ended."), "{said}");
    }
}

/// Says what of the outside it reaches that a folder left open leads to, and what of the kernel's it may set.
#[cfg(target_os = "linux")]
const STAYS_INSIDE: &str = "{
cat /proc/self/fd/9/secret
echo x > /proc/self/fd/9/reached && echo REACHED
value=$(cat /proc/sys/vm/swappiness) && echo $value > /proc/sys/vm/swappiness && echo SET
unshare --map-root-user true && echo OWN-USERS
} 2>/dev/null
echo done";

#[test]
#[cfg(target_os = "linux")]
fn no_folder_that_was_left_open_leads_out_of_a_closed_room_and_nothing_sets_the_kernel_there() {
    use torchmill::platform::{CLOSED_COMMAND, Room};
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("room");
    std::fs::create_dir(&at).unwrap();
    std::fs::write(dir.path().join("secret"), "SECRET-FILE").unwrap();
    let me = env!("CARGO_BIN_EXE_torchmill");
    // A folder of which nothing is shown is one to start in all the same.
    let room = serde_json::to_string(&Room { at, cwd: dir.path().into(), ..Room::default() }).unwrap();
    // Scripts leave open what they lock, for all that they start.
    let mut script = Command::new("sh");
    script.args(["-c", "exec 9<\"$0\"; exec \"$@\"", text(dir.path())]);
    script.args([me, CLOSED_COMMAND, &room, "/bin/sh", "-c", STAYS_INSIDE]);
    let said = Ran::of(&mut script, dir.path()).exits(0).stdout;
    assert!(said.contains("done") && said.contains("OWN-USERS"), "{said}");
    assert!(!said.contains("SECRET") && !said.contains("REACHED") && !said.contains("SET"), "{said}");
    assert!(!dir.path().join("reached").exists(), "it wrote outside of its room");
}

#[test]
fn a_policy_fails_closed() {
    let w = workspace(&files());
    let d = dist(&w);
    let verify = |policy: &str, more: &[&str]| {
        let path = w.write("policy.toml", policy);
        w.run(&[&["verify", text(&d.wheel), "--policy", text_of(&path)], more].concat())
    };
    let predicate = &json(&d.statement)["predicate"];
    let recipe = predicate["buildDefinition"]["externalParameters"]["recipe"]["sha256"].as_str().unwrap();
    // What an unsigned statement says of itself counts for nothing.
    verify(&format!("schema = 1\nrecipes = [\"{recipe}\"]\n"), &[])
        .exits(1)
        .says("is not signed")
        .says("it proves nothing");
    verify("schema = 1\n", &[]).exits(2).says("demands nothing");
    let (private, public) = keys(&w, "signing");
    let (_, other) = keys(&w, "other");
    w.run(&["sign", text(&d.statement), "--key", text(&private)]).exits(0);
    for list in ["keys", "recipes", "toolchains", "builders"] {
        let text_of_it = if list == "keys" {
            "schema = 1\nkeys = []\n".into()
        } else {
            format!("schema = 1\nkeys = [\"signing.pub\"]\n{list} = []\n")
        };
        verify(&text_of_it, &[]).exits(1).says(&format!("the list '{list}' is empty: it allows nothing"));
    }
    // A number that is none counts for the worst, also where a trusted key signed it.
    let own = "schema = 1\nkeys = [\"signing.pub\"]\nobjects = \"own\"\n";
    verify(own, &[]).exits(0);
    let intact = std::fs::read(&d.statement).unwrap();
    for (objects, holds) in [("{\"imported\": 0}", 0), ("{\"imported\": \"0\"}", 1), ("{\"shared\": -1}", 1), ("7", 1)]
    {
        let mut statement = json(&d.statement);
        let value: serde_json::Value = serde_json::from_str(objects).unwrap();
        statement["predicate"]["buildDefinition"]["internalParameters"]["objects"] = value;
        std::fs::write(&d.statement, statement.to_string()).unwrap();
        w.run(&["sign", text(&d.statement), "--key", text(&private)]).exits(0);
        verify(own, &[]).exits(holds).says(if holds == 0 { "all were compiled" } else { "policy: objects" });
    }
    std::fs::write(&d.statement, intact).unwrap();
    w.run(&["sign", text(&d.statement), "--key", text(&private)]).exits(0);
    // The policy's keys and those of the command line must both hold.
    let policy = "schema = 1\nkeys = [\"signing.pub\"]\n";
    verify(policy, &["--key", text(&public)]).exits(0);
    verify(policy, &["--key", text(&other)]).exits(1).says("no signature of");
    verify(&format!("schema = 1\nrecipes = [\"{recipe}\"]\n"), &["--key", text(&public)]).exits(0);
}

#[test]
fn two_builds_that_vary_in_all_else_give_the_same_bytes() {
    let w = workspace(&fresh_files());
    // Where another user can go, the second build is another user's.
    #[cfg(unix)]
    std::fs::set_permissions(w.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let second = w.path().join("elsewhere/second");
    let args = ["repro", "--recipe", "standin", "--second", text(&second), "--json"];
    let ran = w.run(&args).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let compared: Vec<&str> =
        json["compared"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(compared, ["wheel", "bundle", "manifest", "bill of materials", "statement"]);
    for what in ["HOME", "time zone", "locale", "umask", "clock", "host name", "folders", "user", "jobs", "store"] {
        assert!(json["changed"].as_array().unwrap().iter().any(|c| c[0] == what), "{what}");
    }
}

#[test]
fn a_build_that_writes_down_its_machine_is_caught() {
    let mut files = fresh_files();
    let setup = files.get_mut("setup.py").unwrap();
    // What real projects do: write down where they were built.
    let version = "git_version: Optional[str] = 'Unknown'";
    *setup = setup.replace(version, &format!("{version}\\nbuilt_on = '{{os.uname().nodename}}'"));
    let w = workspace(&files);
    let second = w.path().join("second");
    let ran = w.run(&["repro", "--recipe", "standin", "--until", "bundle", "--second", text(&second)]).exits(1);
    assert!(ran.stdout.contains("torch/version.py"), "{ran:?}");
    assert!(ran.stdout.contains("built_on = 'elsewhere'"), "{ran:?}");
}

#[test]
fn libuv_comes_out_the_same_wherever_it_is_built() {
    let w = workspace(&files());
    let second = w.path().join("second");
    let args = ["repro", "--recipe", "standin", "--until", "libuv", "--second", text(&second)];
    w.run(&args).exits(0).says("identical: ");
    // Another comparison with the same second store waits: it begins with a workspace and a program that are made anew.
    let key = KeyBuilder::new("repro", 1).text("second", text(&second)).finish();
    waits_for(&w, &format!("repro-{}", key.short()), w.xtask(&args));
}

#[test]
fn a_difference_is_told_with_its_place_and_cause() {
    let w = Workspace::new();
    let compile = |name: &str, source: &str, more: &[&str]| {
        let c = w.write(&format!("{name}.c"), source);
        let out = w.path().join(format!("{name}.so"));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o", text(&out), text(&c)]).args(more);
        assert!(cc.output().unwrap().status.success());
        out
    };
    let diff = |a: &Path, b: &Path| w.run(&["diff", text(a), text(b)]);
    let source = |path: &str, n: u32| {
        format!("const char* where(void) {{ return \"{path}\"; }}\nint answer(void) {{ return {n}; }}\n")
    };
    let id = ["-Wl,--build-id=none"];
    let one = compile("one", &source("/home/anna/src/x.c", 1), &id);
    diff(&one, &one).exits(0).says("identical: sha256:");
    let path = compile("path", &source("/data/ci99/src/x.c", 1), &id);
    diff(&one, &path)
        .exits(1)
        .says(".rodata")
        .says("'/home/anna/src/x.c' and '/data/ci99/src/x.c'")
        .says("likely cause: an embedded path");
    let code = compile("code", &source("/home/anna/src/x.c", 2), &id);
    diff(&one, &code).exits(1).says(".text").says("in answer").says("likely cause: code");
    let symbol = compile("symbol", &(source("/home/anna/src/x.c", 1) + "int more(void) { return 3; }\n"), &id);
    diff(&one, &symbol).exits(1).says("of the second file alone: more");
    let (x, y) = ("-Wl,--build-id=0x1111", "-Wl,--build-id=0x2222");
    let first = compile("first", &source("/a/b/c", 1), &[x]);
    diff(&first, &compile("second", &source("/a/b/c", 1), &[y])).exits(1).says("likely cause: a build id");
    let when = compile("when", "const char* when(void) { return \"built Jan 29 2025 12:00:00\"; }\n", &id);
    let later = compile("later", "const char* when(void) { return \"built Feb  1 2025 12:00:00\"; }\n", &id);
    diff(&when, &later).exits(1).says("likely cause: a time stamp");
    // Archives of the same members: order, times, compression.
    let zip = |name: &str, members: &[&str], time: (u16, u8, u8), level: i64| {
        let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let time = zip::DateTime::from_date_and_time(time.0, time.1, time.2, 0, 0, 0).unwrap();
        let options = zip::write::SimpleFileOptions::default().last_modified_time(time).compression_level(Some(level));
        for member in members {
            out.start_file(*member, options).unwrap();
            out.write_all(format!("{member} ").repeat(3000).as_bytes()).unwrap();
        }
        w.write(name, out.finish().unwrap().into_inner())
    };
    let base = zip("base.zip", &["a", "b"], (2025, 1, 29), 6);
    diff(&base, &zip("order.zip", &["b", "a"], (2025, 1, 29), 6)).exits(1).says("likely cause: the order of members");
    diff(&base, &zip("time.zip", &["a", "b"], (2026, 1, 29), 6)).exits(1).says("likely cause: a time stamp");
    diff(&base, &zip("level.zip", &["a", "b"], (2025, 1, 29), 1)).exits(1).says("likely cause: compression");
    diff(&base, &zip("more.zip", &["a", "b", "c"], (2025, 1, 29), 6)).exits(1).says("only in B: c");
}

#[test]
fn a_recipe_says_the_same_whatever_is_written_around_it() {
    // The artifact carries the recipe's normal form: a comment or a status does not change it.
    let plain = workspace(&files());
    let chatty =
        workspace_with(&files(), |r| format!("# a comment\n{}", r.replace("a stand-in", "another description")));
    let wheel = |w: &Workspace| sha256(&std::fs::read(dist(w).wheel).unwrap());
    assert_eq!(wheel(&plain), wheel(&chatty));
}
