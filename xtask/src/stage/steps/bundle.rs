//! bundle: the libtorch archive, from the wheel's install tree, in the layout of the official one:
//! `libtorch/{bin,include,lib,share,build-version,build-hash}`.

use serde::{Deserialize, Serialize};

use super::wheel::Wheel;
use crate::artifact::json::json_file;
use crate::artifact::origin::FOLDER;
use crate::artifact::{Content, GzipWriter, Member, repair, sbom, wheel::collect};
use crate::error::{Error, Result};
use crate::recipe::Torch;
use crate::stage::origin::{components, origin, torch_subject};
use crate::stage::step::{Cx, Step};
use crate::store::Parts;

/// The stage that packs the libtorch archive.
pub struct Bundle;

/// What is kept beside the bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// File name of the archive.
    pub file: String,
}

impl Step for Bundle {
    type Record = Record;
    const NAME: &'static str = "bundle";
    const WHAT: &'static str = "the libtorch archive, of the same install tree";

    /// None of its own: it is what the wheel is.
    fn inputs(_cx: &Cx<'_>, _parts: &mut Parts) -> Result<()> {
        Ok(())
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, wheel) = (cx.build, cx.made::<Wheel>()?);
        let torch = &build.recipe.torch;
        let repairer = repair::of(build.recipe.system);
        let file = file_name(torch, repairer.bundle_system(), &build.python.machine);
        let root = wheel.folder.join("tree/torch");
        let mut members = Vec::new();
        for part in ["bin", "include", "lib", "share"] {
            let dir = root.join(part);
            if dir.is_dir() {
                for mut member in collect(&dir)? {
                    if part == "lib" && repairer.python_only().contains(&member.name.as_str()) {
                        continue;
                    }
                    member.name = format!("libtorch/{part}/{}", member.name);
                    members.push(member);
                }
            }
        }
        let mut add = |name: String, bytes: Vec<u8>| {
            members.push(Member {
                name: format!("libtorch/{name}"),
                content: Content::Bytes(bytes),
                executable: false,
            });
        };
        add("build-hash".into(), format!("{}\n", torch.commit).into_bytes());
        add("build-version".into(), format!("{}\n", torch.full_version()).into_bytes());
        // Nothing of a Python is in it: it is the same file whichever Python's build makes it.
        for (path, bytes) in origin(build)?.without_python()?.files {
            add(format!("share/{FOLDER}/{path}"), bytes);
        }
        let parts = components(&build.drawn(), &[], &wheel.record.grafted);
        let bill = sbom::cyclonedx(&torch_subject(build), torch.epoch, &parts);
        add(format!("share/{FOLDER}/{}", sbom::FILE), json_file(&bill)?);
        let dist_info = wheel.folder.join("tree").join(crate::artifact::wheel::dist_info(&wheel.folder.join("tree"))?);
        for mut member in collect(&dist_info.join("licenses"))? {
            member.name = format!("libtorch/share/licenses/{}", member.name);
            members.push(member);
        }
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let out = fs_err::File::create(cx.out()?.join(&file))?.into_file();
        write_tar(&members, out, torch.epoch)?;
        Ok(Record { file })
    }
}

/// The archive's name. It tells which strings a program that links it must have, in upstream's words: the ABI before
/// C++11 is named, the one that compilers have by themselves is not.
fn file_name(torch: &Torch, system: &str, machine: &str) -> String {
    let strings = if torch.cxx11_abi { "" } else { "pre-cxx11-abi-" };
    format!("libtorch-{strings}{}-{system}-{machine}.tar.gz", torch.full_version())
}

/// Writes `members` as a compressed tar archive that is the same whenever it is made.
///
/// # Errors
/// The world: a member cannot be read, or the archive cannot be written. Or somebody asked to stop.
pub fn write_tar(members: &[Member], out: std::fs::File, epoch: i64) -> Result<()> {
    let mut tar = tar::Builder::new(GzipWriter::new(std::io::BufWriter::with_capacity(1 << 20, out))?);
    for member in members {
        crate::platform::check_cancelled()?;
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(if member.executable { 0o755 } else { 0o644 });
        header.set_mtime(u64::try_from(epoch).unwrap_or(0));
        header.set_uid(0);
        header.set_gid(0);
        match &member.content {
            Content::File(path) => {
                let mut file = fs_err::File::open(path)?;
                header.set_size(file.metadata()?.len());
                tar.append_data(&mut header, &member.name, &mut file)?;
            }
            Content::Bytes(bytes) => {
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, &member.name, bytes.as_slice())?;
            }
        }
    }
    let file = tar.into_inner()?.finish()?.into_inner().map_err(|e| Error::from(e.into_error()))?;
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Backend, Status};

    #[test]
    fn only_the_abi_before_cxx11_is_named() {
        let torch = |local: &str, cxx11_abi| Torch {
            version: "2.6.0".into(),
            commit: String::new(),
            local: local.into(),
            epoch: 0,
            tch: None,
            backend: Backend::Setuptools,
            cxx11_abi,
            status: Status::BuiltHere,
        };
        let name = |torch: &Torch| file_name(torch, "linux", "x86_64");
        assert_eq!(name(&torch("cpu.libuv", true)), "libtorch-2.6.0+cpu.libuv-linux-x86_64.tar.gz");
        assert_eq!(name(&torch("cu124.libuv", false)), "libtorch-pre-cxx11-abi-2.6.0+cu124.libuv-linux-x86_64.tar.gz");
    }
}
