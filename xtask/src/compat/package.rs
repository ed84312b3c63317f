//! What a package asks for: its requirements, its tags, and the symbols that its libraries leave open.

use super::holder::Holder;
use super::site::Distribution;
use super::target::{Metadata, Target};
use super::torch::{file_name, python_of};
use crate::error::{Context, Error, Result};
use crate::inspect::{Symbols, container, is_library};
use crate::wheel;

/// A package that is to stand beside a torch.
#[derive(Debug, Clone)]
pub struct Package {
    /// What METADATA says.
    pub metadata: Metadata,
    /// `cp311-cp311-manylinux_2_28_x86_64`: tags of the wheel that it is or came from.
    pub tags: Vec<String>,
    /// Its libraries for the torch's machine and Python.
    pub libraries: Vec<Own>,
    /// How many of its libraries are for other machines or Pythons.
    pub foreign: usize,
}

/// A library of a package.
#[derive(Debug, Clone)]
pub struct Own {
    /// Path in the package.
    pub path: String,
    /// Its name, as loaders compare it.
    pub file: String,
    /// What it gives and takes.
    pub symbols: Symbols,
}

impl Package {
    /// Reads the wheel in `holder`, which is called `filename`.
    ///
    /// # Errors
    /// Bad input: it is no wheel, or cannot be read.
    pub fn wheel(filename: &str, holder: &Holder, target: &Target) -> Result<Self> {
        let is = |path: &str, file: &str| {
            path.split_once('/').is_some_and(|(top, f)| top.ends_with(".dist-info") && f == file)
        };
        let Some(metadata) = holder.text(&|n| is(n, "METADATA"))? else {
            return Err(Error::misuse("no-wheel", format!("{filename} is no wheel: it has no *.dist-info/METADATA"))
                .next(
                    "a source package (.tar.gz) has no compiled part yet: it is compiled against the torch at hand",
                ));
        };
        let tags = match filename.parse::<wheel::Name>() {
            Ok(name) => vec![name.tag()],
            Err(_) => tags(&holder.text(&|n| is(n, "WHEEL"))?.unwrap_or_default()),
        };
        Self::read(Metadata::parse(&metadata), tags, holder, target).doing(|| format!("reading {filename}"))
    }

    /// Reads an installed package.
    ///
    /// # Errors
    /// Bad input: it cannot be read.
    pub fn installed(distribution: &Distribution, target: &Target) -> Result<Self> {
        // Some have a name in another encoding than UTF-8, where nothing is read.
        let metadata = String::from_utf8_lossy(&fs_err::read(&distribution.metadata)?).into_owned();
        let (root, files) = distribution.files()?;
        let holder = Holder::folder(&root, files.into_iter().filter(|f| is_library(f)));
        Self::read(Metadata::parse(&metadata), tags(&distribution.text("WHEEL")), &holder, target)
            .doing(|| format!("reading {}", distribution.entry.display()))
    }

    fn read(metadata: Metadata, tags: Vec<String>, holder: &Holder, target: &Target) -> Result<Self> {
        let mut out = Self { metadata, tags, libraries: Vec::new(), foreign: 0 };
        holder.libraries(&|n| is_library(n), &mut |member, images, _| out.take(member, images, target))?;
        Ok(out)
    }

    fn take(&mut self, member: &container::Member, images: Vec<Symbols>, target: &Target) {
        let file = file_name(&member.name);
        let other_python = matches!((python_of(&file), &target.python), (Some(own), Some(python)) if own != *python);
        match images.into_iter().find(|s| s.machine == target.machine && s.format == target.format()) {
            Some(symbols) if !other_python => {
                self.libraries.push(Own { path: member.name.clone(), file, symbols });
            }
            _ => self.foreign += 1,
        }
    }
}

fn tags(wheel_file: &str) -> Vec<String> {
    wheel::Metadata::lenient(wheel_file).all("Tag").map(str::to_owned).collect()
}
