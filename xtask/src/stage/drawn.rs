//! What a recipe draws in, be it that of a torch or of a companion: its sources, by their digests, in the store.

use std::path::PathBuf;

use super::build::{Beside, Build};
use crate::error::{Error, Result};
use crate::recipe::{Limits, Lock, Source};
use crate::source::unpack::Bounds;
use crate::store::Store;

/// Sources with their lock.
pub struct Drawn<'b> {
    /// Where they are.
    pub store: &'b Store,
    /// What the recipe says of them.
    pub source: &'b [Source],
    /// Their digests.
    pub lock: &'b Lock,
    /// What they may unpack to.
    pub limits: Limits,
    /// The time of everything that is unpacked: SOURCE_DATE_EPOCH.
    pub epoch: i64,
}

impl Drawn<'_> {
    /// Path of the file of the source `name` in the store; the fetch stage has put it there.
    ///
    /// # Errors
    /// The lock does not have it, or it is not in the store.
    pub fn blob(&self, name: &str) -> Result<PathBuf> {
        let locked = self.lock.source.get(name).ok_or_else(|| {
            Error::misuse("lock-stale", format!("the lock has no source '{name}'")).next("run `cargo xtask lock`")
        })?;
        self.store.blob(&locked.sha256, locked.size)?.map(|b| b.path).ok_or_else(|| {
            Error::world("not-fetched", format!("'{name}' is not in the store")).next("run `cargo xtask fetch`")
        })
    }

    /// The digest that the lock has for the source `name`; empty where it has none, which fetch will tell.
    pub fn locked(&self, name: &str) -> &str {
        self.lock.source.get(name).map_or("", |l| &l.sha256)
    }

    /// What sources may unpack to.
    pub fn bounds(&self) -> Bounds {
        Bounds { bytes: self.limits.unpacked, members: self.limits.members }
    }
}

impl Build<'_> {
    /// What the recipe of the torch draws in.
    pub(crate) fn drawn(&self) -> Drawn<'_> {
        Drawn {
            store: self.store,
            source: &self.recipe.source,
            lock: &self.lock,
            limits: self.recipe.limits,
            epoch: self.recipe.torch.epoch,
        }
    }

    /// What the recipe of a companion draws in.
    pub(crate) fn drawn_beside<'b>(&'b self, beside: &'b Beside) -> Drawn<'b> {
        Drawn {
            store: self.store,
            source: &beside.recipe.source,
            lock: &beside.lock,
            limits: beside.recipe.limits,
            epoch: beside.recipe.epoch,
        }
    }

    /// Path of the file of source `name` in the store.
    ///
    /// # Errors
    /// As [`Drawn::blob`].
    pub(crate) fn blob(&self, name: &str) -> Result<PathBuf> {
        self.drawn().blob(name)
    }

    /// The digest that the lock has for the source `name`; empty where it has none, which fetch will tell.
    pub(crate) fn locked(&self, name: &str) -> &str {
        self.lock.source.get(name).map_or("", |l| &l.sha256)
    }

    /// What sources may unpack to.
    pub(crate) fn bounds(&self) -> Bounds {
        self.drawn().bounds()
    }
}
