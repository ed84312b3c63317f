//! What is handed out of uvstore: an archive with the program, for those who install nothing, and a wheel with program, hook and
//! launcher, for `pip install uvstore`. Both are the same bytes whenever they are packed.

use std::path::{Path, PathBuf};

use super::build::Build;
use super::steps::bundle;
use super::steps::uvstore::{SOURCES, Target, with_version};
use crate::artifact::wheel::{collect, pack, set_tag};
use crate::artifact::{Content, Member, ZipWriter};
use crate::error::{Error, Result};
use crate::platform::{self, scratch::Scratch};
use crate::store::digest_file;

const PRODUCT: &str = env!("CARGO_PKG_VERSION");

/// A file that was packed.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Path of the file.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Size of the file in bytes.
    pub size: u64,
}

/// Packs the program at `program` and its licences as an archive in the folder `to`.
///
/// # Errors
/// The archive cannot be written.
pub fn archive(build: &Build<'_>, target: &Target, program: &Path, to: &Path) -> Result<Packed> {
    let torch = &build.recipe.torch;
    let stem = format!("uvstore-{}-{}-{}", torch.version, target.os(), build.python.machine);
    let mut members = collect(&licenses_of(program))?;
    for member in &mut members {
        member.name = format!("{stem}/licenses/{}", member.name);
    }
    let bytes = |name: &str, text: String| Member {
        name: format!("{stem}/{name}"),
        content: Content::Bytes(text.into_bytes()),
        executable: false,
    };
    let name = format!("{stem}/{}", target.file());
    members.push(Member { name, content: Content::File(program.into()), executable: true });
    members.push(bytes("README.txt", README.replace("TORCH", &torch.version)));
    members.sort_by(|a, b| a.name.cmp(&b.name));
    // What each system opens by itself.
    match target {
        Target::Host => write(to, &format!("{stem}.tar.gz"), |file| bundle::write_tar(&members, file, torch.epoch)),
        Target::Windows(..) => write(to, &format!("{stem}.zip"), |file| {
            let mut zip = ZipWriter::new(file, torch.epoch);
            zip.add_all(&members)?;
            Ok(zip.finish()?.sync_all()?)
        }),
    }
}

/// Packs program, hook and launcher as a wheel in the folder `to`. It needs no other package, and any Python from
/// 3.8 on.
///
/// # Errors
/// The wheel cannot be written.
pub fn wheel(build: &Build<'_>, target: &Target, program: &Path, to: &Path) -> Result<Packed> {
    let torch = &build.recipe.torch;
    let folder = Scratch::new()?;
    let put = |name: &str, text: &str| -> Result<()> {
        let path = folder.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap_or(folder.path()))?;
        Ok(fs_err::write(path, text)?)
    };
    for (name, text) in SOURCES {
        if let Some(name) = name.strip_prefix("python/").filter(|n| *n != "sitecustomize.py") {
            put(name, &with_version(text))?;
        }
    }
    let place = folder.path().join("uvstore/bin");
    fs_err::create_dir_all(&place)?;
    fs_err::copy(program, place.join(target.file()))?;
    platform::mark_executable(&place.join(target.file()), true)?;

    let info = format!("uvstore-{PRODUCT}.dist-info");
    put(&format!("{info}/entry_points.txt"), "[console_scripts]\nuvstore = uvstore.__main__:main\n")?;
    let mut licenses = format!("License-Expression: {}\n", license_expression(target));
    for member in collect(&licenses_of(program))? {
        let Content::File(from) = &member.content else { continue };
        put(&format!("{info}/licenses/{}", member.name), &fs_err::read_to_string(from)?)?;
        licenses += &format!("License-File: {}\n", member.name);
    }
    let metadata =
        METADATA.replace("VERSION", PRODUCT).replace("TORCH", &torch.version).replace("LICENSES\n", &licenses);
    put(&format!("{info}/METADATA"), &metadata)?;
    let name = set_tag(folder.path(), &format!("py3-none-{}", platform_tag(build, target)?))?;
    write(to, &name, |file| Ok(pack(folder.path(), file, torch.epoch)?.sync_all()?))
}

/// A static program asks for no C library, so the tag is the oldest that pip knows.
fn platform_tag(build: &Build<'_>, target: &Target) -> Result<String> {
    let machine = &build.python.machine;
    match (target, std::env::consts::OS) {
        (Target::Windows(..), _) => Ok("win_amd64".into()),
        (Target::Host, "linux") if machine == "x86_64" => Ok("manylinux1_x86_64.manylinux_2_5_x86_64".into()),
        (Target::Host, "linux") => Ok(format!("manylinux2014_{machine}.manylinux_2_17_{machine}")),
        (Target::Host, other) => Err(Error::misuse("no-wheel", format!("there is no wheel of uvstore for {other}"))
            .next("stock builds of torch for it have the libuv store")),
    }
}

fn licenses_of(program: &Path) -> PathBuf {
    program.parent().unwrap_or(Path::new(".")).join("licenses")
}

fn write(to: &Path, name: &str, fill: impl FnOnce(std::fs::File) -> Result<()>) -> Result<Packed> {
    fs_err::create_dir_all(to)?;
    let beside = tempfile::Builder::new().prefix(".uvstore-").tempfile_in(to)?;
    fill(beside.reopen()?)?;
    platform::make_readable(beside.as_file())?;
    let path = to.join(name);
    platform::persist(beside, &path)?;
    let (sha256, size) = digest_file(&path)?;
    Ok(Packed { path, sha256, size })
}

/// Of the program and all that is linked into it, as SPDX writes it.
fn license_expression(target: &Target) -> String {
    let runtime = match target {
        Target::Windows(..) => "ZPL-2.1",
        Target::Host => "LGPL-2.1-or-later",
    };
    format!("(MIT OR Apache-2.0) AND MIT AND BSD-3-Clause AND {runtime} AND GPL-3.0-or-later WITH GCC-exception-3.1")
}

const README: &str = "\
uvstore, made from PyTorch TORCH: a TCPStore server on libuv, for a torch that was built without it.

  ./uvstore run -- python train.py
  ./uvstore run -- torchrun --nproc-per-node 4 train.py
  ./uvstore --help

Licences of what is linked in: licenses/. More: docs/uvstore.md of torchmill.
";

const METADATA: &str = "\
Metadata-Version: 2.4
Name: uvstore
Version: VERSION
Summary: A libuv TCPStore for a PyTorch that was built without it
Author: the torchmill authors
LICENSES
Project-URL: Source, https://github.com/torchmill/torchmill
Keywords: pytorch,distributed,libuv,tcpstore,torchrun
Classifier: Operating System :: Microsoft :: Windows
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: 3
Requires-Python: >=3.8
Description-Content-Type: text/markdown

# uvstore

`RuntimeError: use_libuv was requested but PyTorch was built without libuv support` ends with

    pip install uvstore

Nothing else changes: `python train.py`, `torchrun train.py` and `accelerate launch train.py` run as they are. The
package's hook waits for `torch.distributed`. Where that torch's store has no libuv, the rank that would be the server
starts the program that is in this package (the store of PyTorch TORCH, on libuv) on the very same address, and every
rank becomes its client. A torch that has libuv is left alone. If the program cannot serve, the store is torch's legacy
one, and one warning says why.

| variable | |
|---|---|
| `UVSTORE=0` | the hook does nothing |
| `UVSTORE=require` | a store that would fall back is an error |
| `UVSTORE_LOG=stderr` | says what was done; or a file |
| `UVSTORE_LISTEN=everywhere` | listens on all interfaces, as torch does, though MASTER_ADDR is loopback |
";
