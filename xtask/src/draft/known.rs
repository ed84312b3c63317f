//! All that a draft is made of.

use pep440_rs::Version;

use super::stock::Stock;
use super::upstream::Upstream;
use crate::recipe::{Recipe, RecipeFile, features};

/// All that a draft is made of.
pub struct Known {
    /// The version of torch that the draft is for.
    pub version: Version,
    /// What upstream's tree says at that version.
    pub upstream: Upstream,
    /// Its wheels, where they were asked for.
    pub stock: Option<Stock>,
    /// The recipe that the rest is taken from.
    pub nearest: Nearest,
    /// Recipes here that have CUDA.
    pub cuda_recipes: Vec<Recipe>,
}

/// The recipe of upstream's git whose version is nearest: the newest one that is not newer, else the oldest.
pub struct Nearest {
    /// The recipe as it is built by: with what it takes over from others.
    pub recipe: Recipe,
    /// Its own file, as typed.
    pub file: RecipeFile,
}

impl Known {
    /// Switches that the nearest recipe sets, and this version's tree no longer declares.
    pub fn gone(&self) -> Vec<&str> {
        let recipe = &self.nearest.recipe;
        let set = recipe.features.keys().chain(recipe.machine.values().flat_map(|m| m.features.keys()));
        let mut gone: Vec<&str> = set
            .map(String::as_str)
            .filter(|n| !self.upstream.switches.contains(*n) && !features::NO_OPTION.contains(n))
            .collect();
        gone.sort_unstable();
        gone.dedup();
        gone
    }

    /// Switches that this version's tree declares, and nobody here knows.
    pub fn new_switches(&self) -> Vec<&str> {
        let declared = self.upstream.switches.iter().map(String::as_str);
        declared.filter(|n| !features::KNOWN.contains(n)).collect()
    }
}
