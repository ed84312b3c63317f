//! shard: one of several parts of the objects, for a build that several machines do through one compiler cache.
//! Each compiles its part; the one that then builds finds all of them in the cache.

use serde::{Deserialize, Serialize};

use super::prefix::compiler_cache;
use crate::error::Result;
use crate::stage::build::{Build, Part};
use crate::stage::step::{Ahead, Cx, Step};
use crate::stage::work::ninja::{self, Goal};
use crate::stage::work::room;
use crate::store::Parts;

/// The stage that compiles a part of the objects, and links nothing.
pub struct Shard;

/// What is kept of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// How many objects are in this part.
    pub objects: usize,
    /// How many there are in all.
    pub of: usize,
}

impl Step for Shard {
    type Record = Record;
    const NAME: &'static str = "shard";
    const WHAT: &'static str = "a part of the objects, where several machines share a cache";

    fn of(build: &Build<'_>) -> Vec<String> {
        build.options.part.iter().map(|_| String::new()).collect()
    }

    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        parts.json("part", &cx.build.options.part.map(|part| part.to_string()));
        Ok(())
    }

    fn check(build: &Build<'_>, ahead: &Ahead) -> Result<()> {
        room::check(build, ahead.work.as_ref(), true)
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, work, cache) = (cx.build, cx.work()?, compiler_cache(cx)?);
        let part = build.options.part.unwrap_or(Part::ALL);
        let all = ninja::objects(&build.recipe, work)?;
        let (of, own) = (all.len(), share(all, part));
        build.events.note(format!(
            "part {part}: {} of {of} objects, with {} jobs, compiler cache: {}",
            own.len(),
            ninja::jobs(build),
            cache.name()
        ));
        if own.is_empty() {
            // The build ends here all the same.
            ninja::make_up(build, work, &cache)?;
        } else {
            ninja::run(build, work, &cache, Goal::Objects(&own), Self::NAME)?;
        }
        Ok(Record { objects: own.len(), of })
    }
}

/// The objects of a part. Whoever asks for another part of the same objects with the same seconds gets others, and all
/// parts take about as long: the longest first, each to the part that has least so far (Graham's rule for equal machines).
fn share(mut objects: Vec<(String, f64)>, part: Part) -> Vec<String> {
    objects.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
    let mut sums = vec![0.0; usize::from(part.of)];
    let mut own = Vec::new();
    for (object, seconds) in objects {
        let least = sums.iter().enumerate().min_by(|(_, a), (_, b)| f64::total_cmp(a, b)).map_or(0, |(i, _)| i);
        sums[least] += seconds;
        if least + 1 == usize::from(part.number) {
            own.push(object);
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_all_objects_once_and_none_takes_longer_than_its_share_and_one_object(
            seconds in proptest::collection::vec(0.1_f64..100.0, 0..200),
            of in 1_u16..9,
        ) {
            let objects: Vec<(String, f64)> = seconds.iter().enumerate().map(|(i, s)| (format!("{i}.o"), *s)).collect();
            let time = |names: &[String]| names.iter().map(|n| objects.iter().find(|(o, _)| o == n).unwrap().1).sum::<f64>();
            let all: f64 = seconds.iter().sum();
            let longest = seconds.iter().copied().fold(0.0, f64::max);
            let mut seen = Vec::new();
            for number in 1..=of {
                // In whatever order ninja lists them.
                let mut listed = objects.clone();
                let by = usize::from(number) % listed.len().max(1);
                listed.rotate_left(by);
                let own = share(listed, Part { number, of });
                prop_assert!(time(&own) <= all / f64::from(of) + longest + 1e-6);
                seen.extend(own);
            }
            seen.sort();
            let mut names: Vec<String> = objects.iter().map(|(o, _)| o.clone()).collect();
            names.sort();
            prop_assert_eq!(seen, names);
        }
    }
}
