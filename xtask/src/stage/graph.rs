//! The table of the stages: what each needs, and where its result lives. There is no other list of them.

use std::sync::LazyLock;

use super::build::{CCACHE, CUDA, CUDNN};
use super::locked;
use super::step::{Need, Place, Stage, Step, after, from, reads};
use super::steps::buildenv::Buildenv;
use super::steps::bundle::Bundle;
use super::steps::canary::Canary;
use super::steps::companion::Companion;
use super::steps::companionenv::Companionenv;
use super::steps::compile::Compile;
use super::steps::configure::Configure;
use super::steps::cuda::Cuda;
use super::steps::fetch::Fetch;
use super::steps::libuv::Libuv;
use super::steps::prefix::Prefix;
use super::steps::provenance::Provenance;
use super::steps::set::Set;
use super::steps::shard::Shard;
use super::steps::testenv::Testenv;
use super::steps::toolchain::Toolchain;
use super::steps::tree::Tree;
use super::steps::uvstore::Uvstore;
use super::steps::verify::{self, Verify};
use super::steps::wheel::Wheel;

/// The stages, in the order that a build runs them. The number is the version of a stage's code: raise it when
/// the code changes what comes out.
pub const STAGES: &[Stage] = &[
    Stage::of::<Fetch>(1, Place::Home, &[]),
    Stage::of::<Tree>(2, Place::Store, &[after::<Fetch>()]),
    Stage::of::<Buildenv>(3, Place::Store, &[after::<Fetch>()]),
    Stage::of::<Prefix>(2, Place::Store, &[after::<Fetch>()]),
    // Its key is in the compiler's identity, which is in the keys of all that compile.
    Stage::of::<Toolchain>(locked::VERSION, Place::Store, &[after::<Fetch>()]),
    Stage::of::<Libuv>(4, Place::Store, &[after::<Fetch>(), from::<Buildenv>(), after::<Toolchain>()]),
    Stage::of::<Cuda>(3, Place::Store, &[from::<Prefix>().only(|of| of == CUDA || of == CUDNN), after::<Toolchain>()]),
    Stage::of::<Configure>(
        5,
        Place::Work,
        &[
            from::<Tree>(),
            from::<Buildenv>(),
            // The packages of a toolkit are used as the toolkit, and a compiler cache leaves no trace.
            from::<Prefix>().only(|of| of != CUDA && of != CCACHE),
            after::<Prefix>().only(|of| of == CCACHE),
            from::<Libuv>(),
            from::<Cuda>(),
            after::<Toolchain>(),
        ],
    ),
    // It makes no byte of the artifacts: what comes after it is the same with another canary.
    Stage::of::<Canary>(1, Place::Work, &[from::<Configure>(), after::<Buildenv>(), after::<Toolchain>(), CACHE]),
    Stage::of::<Shard>(
        1,
        Place::Work,
        &[from::<Configure>(), after::<Canary>(), after::<Buildenv>(), after::<Toolchain>(), CACHE],
    ),
    Stage::of::<Compile>(
        1,
        Place::Work,
        &[from::<Configure>(), after::<Canary>(), after::<Buildenv>(), after::<Toolchain>(), CACHE],
    ),
    Stage::of::<Wheel>(
        4,
        Place::Store,
        &[from::<Compile>(), after::<Configure>(), after::<Buildenv>(), after::<Toolchain>(), CACHE],
    ),
    Stage::of::<Bundle>(5, Place::Store, &[from::<Wheel>()]),
    Stage::of::<Provenance>(2, Place::Store, &[from::<Bundle>(), after::<Wheel>(), after::<Buildenv>()]),
    Stage::of::<Testenv>(3, Place::Store, &[after::<Fetch>()]),
    Stage::of::<Verify>(
        3,
        Place::Store,
        &[
            // Everything that a check needs from outside is there before its network is cut.
            after::<Fetch>(),
            reads::<Provenance>(),
            after::<Wheel>(),
            after::<Bundle>(),
            from::<Testenv>(),
            from::<Buildenv>(),
            from::<Prefix>().only(|of| of == verify::MKL),
            CACHE,
            from::<Cuda>(),
            after::<Toolchain>(),
        ],
    ),
    Stage::of::<Companionenv>(1, Place::Store, &[after::<Fetch>()]),
    Stage::of::<Companion>(
        1,
        Place::Store,
        &[
            after::<Fetch>(),
            // The bytes of the wheel that it is compiled against.
            reads::<Provenance>(),
            after::<Wheel>(),
            from::<Companionenv>().namesake(),
            after::<Buildenv>(),
            after::<Prefix>(),
            after::<Toolchain>(),
        ],
    ),
    Stage::of::<Set>(
        2,
        Place::Store,
        &[after::<Fetch>(), reads::<Provenance>(), after::<Wheel>(), from::<Companion>()],
    ),
    Stage::of::<Uvstore>(3, Place::Store, &[after::<Fetch>(), from::<Buildenv>(), after::<Toolchain>()]),
];

/// The compiler cache: it leaves no trace in what is compiled through it.
const CACHE: Need = after::<Prefix>().only(|of| of == CCACHE);

/// The stages that `--until` may name, in order: those of a build that goes to the end.
pub static ORDER: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let all = before(Verify::NAME);
    STAGES.iter().map(|stage| stage.name).filter(|name| *name == Verify::NAME || all.contains(name)).collect()
});

/// The stages that companions add.
pub static BESIDE: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let own = |name: &&str| !ORDER.contains(name);
    before(Set::NAME).into_iter().filter(own).chain([Set::NAME]).collect()
});

/// The row of the stage called `name`.
pub fn stage(name: &str) -> Option<&'static Stage> {
    STAGES.iter().find(|stage| stage.name == name)
}

/// Whether a stage works in the work folder, or on what stands there.
pub fn in_work(stage: &Stage) -> bool {
    let work = |name: &str| self::stage(name).is_some_and(|s| s.place == Place::Work);
    stage.place == Place::Work || stage.needs.iter().any(|need| work(need.stage))
}

/// All that comes before the stage called `name`.
fn before(name: &str) -> Vec<&'static str> {
    let mut out: Vec<&'static str> = Vec::new();
    let mut open: Vec<&str> = vec![name];
    while let Some(next) = open.pop() {
        for need in stage(next).map_or(&[][..], |stage| stage.needs) {
            if !out.contains(&need.stage) {
                out.push(need.stage);
                open.push(need.stage);
            }
        }
    }
    out
}

/// The table as README and the documentation show it: every stage with what it waits for. What one of those
/// waits for itself is left out.
pub fn diagram() -> String {
    let mut out = String::new();
    let wide = STAGES.iter().map(|s| s.name.len()).max().unwrap_or_default();
    for stage in STAGES {
        let direct: Vec<&str> = stage.needs.iter().map(|need| need.stage).collect();
        let mut waits: Vec<&str> = Vec::new();
        for name in direct.iter().copied() {
            let behind = direct.iter().any(|other| *other != name && before(other).contains(&name));
            if !behind && !waits.contains(&name) {
                waits.push(name);
            }
        }
        let line = format!("{:wide$}  ◄─ {}", stage.name, waits.join(", "));
        let line = if waits.is_empty() { stage.name } else { &line };
        out.push_str(&format!("{line:42} {}\n", stage.what));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_needs_only_stages_that_stand_before_it_so_the_table_is_the_order() {
        for (i, stage) in STAGES.iter().enumerate() {
            for need in stage.needs {
                let at = STAGES.iter().position(|s| s.name == need.stage).unwrap();
                assert!(at < i, "{} needs {}, which stands after it", stage.name, need.stage);
            }
        }
    }

    #[test]
    fn no_two_stages_have_one_name() {
        let names: std::collections::BTreeSet<_> = STAGES.iter().map(|s| s.name).collect();
        assert_eq!(names.len(), STAGES.len());
    }
}
