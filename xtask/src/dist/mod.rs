//! `dist`: what a release hands out, made from one commit, the same bytes wherever it is made.
//!
//! ```text
//! commit ─► source/ (a checkout of its own) ─┬─► maturin ─► torchmill-….whl, torchmill-….tar.gz (source)
//!                                            ├─► the program with its licences ─► torchmill-…-SYSTEM-MACHINE.tar.gz
//!                                            └─► uvstore --wheel ─► uvstore-….whl, for Linux and for Windows
//!                                                all of them ─► SHA256SUMS
//! ```
//! maturin comes by digest (`ci/release/requirements.txt`). Nothing of this machine is in the files: folders are
//! mapped to names that are the same everywhere, and that is checked before a file is called done.

mod licenses;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::artifact::wheel::collect;
use crate::artifact::{Content, Member};
use crate::error::{Context, Error, Result};
use crate::event::Sink;
use crate::mirror::publish::wheels;
use crate::platform;
use crate::stage::environment;
use crate::stage::steps::bundle::write_tar;
use crate::store::write_atomically;
use crate::toolchain::mingw::Mingw;

/// What the checkout is called in debug information and panics.
const NAMED: &str = "/torchmill";

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// Its name, without a folder.
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Size of the file in bytes.
    pub size: u64,
}

/// What a release is made from.
#[derive(Debug, Clone, Serialize)]
pub struct From {
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// Its time, in seconds since 1970: SOURCE_DATE_EPOCH.
    pub epoch: i64,
}

/// The commit that is checked out in the clone `root`.
///
/// # Errors
/// Misuse: it is no clone.
pub fn head(root: &Path) -> Result<From> {
    let git = |e: git2::Error| {
        Error::misuse("no-clone", format!("{}: {}", root.display(), e.message()))
            .next("a release is made from a commit: run this in a git clone of torchmill")
    };
    let repository = git2::Repository::open(root).map_err(git)?;
    let commit = repository.head().and_then(|head| head.peel_to_commit()).map_err(git)?;
    Ok(From { commit: commit.id().to_string(), epoch: commit.time().seconds() })
}

/// Makes all files of a release in `out`, working in `work`, and names them, sorted.
///
/// # Errors
/// The world: a compiler, maturin or the index fails. Also: a file would hold this machine's folders.
pub fn make(root: &Path, from: &From, work: &Path, out: &Path, events: &dyn Sink) -> Result<Vec<Made>> {
    let source = work.join("source");
    check_out(root, from, &source).doing(|| format!("checking out {} to {}", from.commit, source.display()))?;
    fs_err::create_dir_all(out)?;
    let shell = Shell::new().map_err(failed)?;
    shell.change_dir(&source);
    events.note("licences of what is linked".into());
    carry_licenses(&shell, &source)?;
    let tools = work.join("maturin");
    let program = work.join("target/release").join(format!("torchmill{}", std::env::consts::EXE_SUFFIX));

    events.note("maturin, by digest".into());
    let python = environment::python(&tools);
    let base = if cfg!(windows) { "python" } else { "python3" };
    if !python.is_file() {
        cmd!(shell, "{base} -m venv {tools}").quiet().run().map_err(failed)?;
    }
    let requirements = source.join("ci/release/requirements.txt");
    cmd!(shell, "{python} -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps -r {requirements}")
        .quiet()
        .run()
        .map_err(failed)?;

    events.note("torchmill: the wheel".into());
    let made = work.join("made");
    if made.exists() {
        fs_err::remove_dir_all(&made)?;
    }
    let _epoch = shell.push_env("SOURCE_DATE_EPOCH", from.epoch.to_string());
    let _commit = shell.push_env("TORCHMILL_COMMIT", &from.commit);
    let _target = shell.push_env("CARGO_TARGET_DIR", work.join("target"));
    let _cargo = shell.push_env("CARGO_INCREMENTAL", "0");
    let named = named(&source, work)?;
    let rust: Vec<String> = named.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    let _rust = shell.push_env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}"));
    let c = named.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect::<Vec<_>>().join(" ");
    let _c = shell.push_env("CFLAGS", c);
    cmd!(shell, "{python} -m maturin build --release --quiet --out {made}").quiet().run().map_err(failed)?;
    check_clean(&program.display().to_string(), &fs_err::read(&program)?, &named)?;

    events.note("torchmill: the source".into());
    shell.write_file("COMMIT", format!("{}\n", from.commit)).map_err(failed)?;
    cmd!(shell, "{python} -m maturin sdist --out {made}").quiet().run().map_err(failed)?;

    events.note("torchmill: the program alone".into());
    archive(&source, &program, from, &made)?;

    events.note("uvstore".into());
    // By the program that was just made: the one that runs may hold what is not in the commit.
    let uvstore = |target: &str| {
        cmd!(shell, "{program} uvstore --quiet --wheel --target {target} --out {made}").quiet().ignore_stdout().run()
    };
    if cfg!(target_os = "linux") {
        uvstore("host").map_err(failed)?;
        match Mingw::find() {
            Ok(_) => uvstore("windows").map_err(failed)?,
            Err(e) => events.warn(format!("no uvstore for Windows: {}", e.what())),
        }
    }
    for wheel in wheels(std::slice::from_ref(&made))? {
        each_member(&wheel, &mut |name, bytes| check_clean(&format!("{}: {name}", wheel.display()), &bytes, &named))?;
    }
    publish(&made, out)
}

/// Hands every member of a wheel that was made here to `each`: its name and its bytes.
fn each_member(wheel: &Path, each: &mut dyn FnMut(&str, Vec<u8>) -> Result<()>) -> Result<()> {
    let broken = |e: zip::result::ZipError| Error::world("zip", format!("{}: {e}", wheel.display()));
    let mut zip = zip::ZipArchive::new(fs_err::File::open(wheel)?).map_err(broken)?;
    for i in 0..zip.len() {
        let mut member = zip.by_index(i).map_err(broken)?;
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes)?;
        let name = member.name().map_err(broken)?.into_owned();
        each(&name, bytes)?;
    }
    Ok(())
}

/// The tree of the commit, and nothing else, in `to`.
fn check_out(root: &Path, from: &From, to: &Path) -> Result<()> {
    if to.exists() {
        fs_err::remove_dir_all(to)?;
    }
    fs_err::create_dir_all(to)?;
    let git = |e: git2::Error| Error::world("git", e.message().to_owned());
    let repository = git2::Repository::open(root).map_err(git)?;
    let tree = repository.revparse_single(&from.commit).map_err(git)?;
    let mut options = git2::build::CheckoutBuilder::new();
    options.target_dir(to).force().recreate_missing(true).update_index(false);
    repository.checkout_tree(&tree, Some(&mut options)).map_err(git)
}

/// Has the package of the checkout carry the licences of what this machine's system links into the program; a clone has
/// no such files, and needs none.
fn carry_licenses(shell: &Shell, source: &Path) -> Result<()> {
    let version = cmd!(shell, "rustc -vV").quiet().read().map_err(failed)?;
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).unwrap_or_default();
    let manifest = source.join("xtask/Cargo.toml");
    let metadata =
        cmd!(shell, "cargo metadata --format-version 1 --locked --filter-platform {host} --manifest-path {manifest}")
            .quiet()
            .read()
            .map_err(failed)?;
    let toolchain = cmd!(shell, "rustc --print sysroot").quiet().read().map_err(failed)?;
    licenses::write(source, &metadata, Path::new(&toolchain))?;
    const NAMED_THERE: &str = r#"license-files = ["LICENSE-MIT", "LICENSE-APACHE"]"#;
    let file = source.join("pyproject.toml");
    let text = fs_err::read_to_string(&file)?;
    if !text.contains(NAMED_THERE) {
        return Err(Error::world("license", format!("{} does not say {NAMED_THERE}", file.display())));
    }
    let named = NAMED_THERE.replace(']', &format!(r#", "{}", "{}"]"#, licenses::OF_CRATES, licenses::OF_RUST));
    Ok(fs_err::write(file, text.replace(NAMED_THERE, &named))?)
}

/// Folders of this machine, and what they are called instead.
fn named(source: &Path, work: &Path) -> Result<Vec<(String, String)>> {
    let home = platform::home_dir();
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".cargo")));
    let mut all = vec![(work.join("target"), "/target".to_owned()), (source.to_owned(), NAMED.to_owned())];
    all.extend(cargo.map(|cargo| (cargo, "/cargo".to_owned())));
    all.into_iter()
        .map(|(folder, name)| match folder.to_str() {
            Some(folder) if !folder.contains([' ', '=']) => Ok((folder.to_owned(), name)),
            _ => Err(Error::misuse("folder", format!("compilers cannot be told of the folder {}", folder.display()))
                .next("use a folder without spaces and equals signs: --work DIR")),
        })
        .collect()
}

/// No folder of this machine is in a file.
fn check_clean(file: &str, bytes: &[u8], named: &[(String, String)]) -> Result<()> {
    match named.iter().find(|(folder, _)| memchr::memmem::find(bytes, folder.as_bytes()).is_some()) {
        None => Ok(()),
        Some((folder, _)) => Err(Error::world("leak", format!("{file} holds a folder of this machine: {folder}"))),
    }
}

/// The program with its licences, for those who have no pip.
fn archive(source: &Path, program: &Path, from: &From, to: &Path) -> Result<()> {
    let stem = format!("torchmill-{}-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    // maturin strips what it packs: the program is taken from the wheel, so that there is one.
    let file = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let place = format!("torchmill-{}.data/scripts/{file}", env!("CARGO_PKG_VERSION"));
    let mut members = Vec::new();
    for wheel in wheels(&[to.to_owned()])? {
        each_member(&wheel, &mut |name, bytes| {
            if name == place {
                let (name, content) = (format!("{stem}/{file}"), Content::Bytes(bytes));
                members.push(Member { name, content, executable: true });
            }
            Ok(())
        })?;
    }
    if members.is_empty() {
        return Err(Error::world("maturin", format!("no wheel in {} holds {place}", to.display())));
    }
    for text in ["LICENSE-APACHE", "LICENSE-MIT", licenses::OF_CRATES, licenses::OF_RUST, "README.md"] {
        let content = Content::File(source.join(text));
        members.push(Member { name: format!("{stem}/{text}"), content, executable: false });
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    write_tar(&members, fs_err::File::create(to.join(format!("{stem}.tar.gz")))?.into_parts().0, from.epoch)
}

/// Moves what was made to `out`, with its digests.
fn publish(made: &Path, out: &Path) -> Result<Vec<Made>> {
    let mut files = Vec::new();
    for member in collect(made)? {
        let bytes = fs_err::read(made.join(&member.name))?;
        write_atomically(&out.join(&member.name), &bytes)?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        files.push(Made { file: member.name, sha256, size: bytes.len() as u64 });
    }
    let sums: String = files.iter().map(|f| format!("{}  {}\n", f.sha256, f.file)).collect();
    write_atomically(&out.join("SHA256SUMS"), sums.as_bytes())?;
    Ok(files)
}

fn failed(e: xshell::Error) -> Error {
    Error::world("dist", e.to_string())
}
