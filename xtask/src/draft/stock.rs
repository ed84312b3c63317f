//! What the package index and its wheels say of a release.

use std::collections::BTreeSet;
use std::io::Read;

use pep440_rs::Version;
use pep508_rs::VersionOrUrl;
use ureq::Agent;

use crate::error::{Context, Error, Result};
use crate::event::Sink;
use crate::inspect::Remote;
use crate::recipe::{cuda, requirement};
use crate::source::pypi::{self, IndexFile};
use crate::wheel::{self, Metadata, Name};

/// The stock wheels of a release, for Linux.
#[derive(Debug, Default)]
pub struct Stock {
    /// Pythons that have a wheel, to the minor version: `3.11`; in order of version.
    pub pythons: Vec<String>,
    /// The same of builds without a global lock: `3.14`.
    pub free_threaded: Vec<String>,
    /// The day of the first upload, at midnight UTC, in seconds since 1970 and as written.
    pub day: Option<(i64, String)>,
    /// `Requires-Dist` of the wheel for x86-64; `None` where it was not read.
    pub requires: Option<Vec<String>>,
    /// The commit that its `torch/version.py` states; `None` where it was not read.
    pub commit: Option<String>,
}

/// Asks the index that pip is configured with.
///
/// # Errors
/// Bad input: it has no wheel of that version for Linux. The world: it does not answer.
pub fn read(agent: &Agent, version: &Version, events: &dyn Sink) -> Result<Stock> {
    let files = pypi::files(agent, "torch")?;
    let own: Vec<(Tags, &IndexFile)> = files
        .iter()
        .filter_map(|f| Some((Tags::of(&f.filename)?, f)))
        .filter(|(tags, _)| tags.version == *version)
        .collect();
    let linux: Vec<&(Tags, &IndexFile)> = own.iter().filter(|(t, _)| t.platform.contains("linux")).collect();
    if linux.is_empty() {
        return Err(no_wheel(version, own.len(), &files));
    }
    let minors = |free: bool| -> Vec<String> {
        let found: BTreeSet<u8> = linux.iter().filter(|(t, _)| t.free_threaded == free).map(|(t, _)| t.minor).collect();
        found.into_iter().map(|m| format!("3.{m}")).collect()
    };
    // A wheel that was uploaded again has a build number: the first one stands for the release.
    let mut intel: Vec<&&(Tags, &IndexFile)> =
        linux.iter().filter(|(t, _)| t.platform.contains("x86_64") && !t.free_threaded).collect();
    intel.sort_by_key(|(t, _)| (t.again, t.minor));
    let read = intel.first().map(|(_, wheel)| inside(agent, wheel, events)).transpose()?.unwrap_or_default();
    Ok(Stock {
        pythons: minors(false),
        free_threaded: minors(true),
        day: linux.iter().filter_map(|(_, f)| day(f.uploaded.as_deref()?)).min(),
        requires: read.metadata.as_deref().map(requires),
        commit: read.version.as_deref().and_then(commit),
    })
}

fn no_wheel(version: &Version, others: usize, files: &[IndexFile]) -> Error {
    let newest = files.iter().filter_map(|f| Tags::of(&f.filename)).map(|t| t.version).max();
    let what = match others {
        0 => format!("the package index has no wheel of torch {version}"),
        n => format!("the package index has {n} wheels of torch {version}, and none for Linux"),
    };
    let e = Error::misuse("no-stock-wheel", what);
    let e = match newest {
        Some(newest) => e.next(format!("the newest there is {newest}")),
        None => e,
    };
    e.next("--without-wheel writes the recipe from upstream's tree alone")
}

/// What a wheel's name tells here.
#[derive(Debug)]
struct Tags {
    version: Version,
    /// Whether it has a build number.
    again: bool,
    /// `11` of `cp311`.
    minor: u8,
    free_threaded: bool,
    platform: String,
}

impl Tags {
    fn of(filename: &str) -> Option<Self> {
        let name: Name = filename.parse().ok()?;
        Some(Self {
            version: name.parsed_version()?,
            again: name.build.is_some(),
            minor: name.python.strip_prefix("cp3")?.parse().ok()?,
            free_threaded: name.abi.ends_with('t'),
            platform: name.platform,
        })
    }
}

/// `2026-06-17T21:08:43Z` as its day.
fn day(uploaded: &str) -> Option<(i64, String)> {
    let text = uploaded.get(..10)?;
    let mut numbers = text.split('-').map(|n| n.parse::<i64>().ok());
    let (year, month, day) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let near = (year - 1970) * 365 + (month - 1) * 28;
    // Days are counted in one place, which tells the date of a day: the day is near here.
    let days = (near..near + 400).find(|d| crate::artifact::civil_date(*d) == (year, month, day))?;
    Some((days * 86_400, text.to_owned()))
}

/// What of a wheel is read.
#[derive(Default)]
struct Inside {
    metadata: Option<String>,
    version: Option<String>,
}

/// METADATA and `torch/version.py` of a wheel on a server, of which little is read. Where the wheel cannot be read so, at
/// least the METADATA that the index serves beside it.
fn inside(agent: &Agent, wheel: &IndexFile, events: &dyn Sink) -> Result<Inside> {
    match members(agent, wheel) {
        Ok(read) if read.metadata.is_some() => Ok(read),
        other => {
            if let Err(e) = &other {
                events.warn(format!("{} was not read: {}", wheel.filename, e.what()));
            }
            let metadata = pypi::metadata_beside(agent, wheel)?;
            Ok(Inside { metadata, ..other.unwrap_or_default() })
        }
    }
}

fn members(agent: &Agent, wheel: &IndexFile) -> Result<Inside> {
    const MOST: u64 = 4 << 20;
    const MOST_OF_DIRECTORY: u64 = 128 << 20;
    let bad = |what: String| Error::world("wheel", format!("{}: {what}", wheel.filename));
    let remote = Remote::open(agent.clone(), &wheel.url).doing(|| format!("reading {}", wheel.filename))?;
    let mut archive = wheel::open_zip(&remote, MOST_OF_DIRECTORY, std::io::BufReader::new).map_err(bad)?;
    let names: Vec<String> = archive.file_names().filter_map(|n| n.ok()).map(|n| n.into_owned()).collect();
    let mut text = |wanted: &dyn Fn(&str) -> bool| -> Result<Option<String>> {
        let Some(name) = names.iter().find(|n| wanted(n)) else { return Ok(None) };
        let member = archive.by_name(name).map_err(|e| bad(e.to_string()))?;
        let mut text = String::new();
        member.take(MOST).read_to_string(&mut text).map_err(|e| bad(e.to_string()))?;
        Ok(Some(text))
    };
    let is_metadata =
        |n: &str| n.split_once('/').is_some_and(|(top, f)| top.ends_with(".dist-info") && f == "METADATA");
    Ok(Inside { metadata: text(&is_metadata)?, version: text(&|n| n == "torch/version.py")? })
}

/// What METADATA asks for.
fn requires(metadata: &str) -> Vec<String> {
    Metadata::lenient(metadata).all("Requires-Dist").map(str::to_owned).collect()
}

/// `git_version = '…'`, or with a type between.
fn commit(version_py: &str) -> Option<String> {
    let line = version_py.lines().find(|l| l.starts_with("git_version"))?;
    let commit = line.split_once('=')?.1.trim().trim_matches(['\'', '"']);
    (commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit())).then(|| commit.to_ascii_lowercase())
}

impl Stock {
    /// The CUDA that the wheel is for: `13.0` of `cuda-toolkit[…]==13.0.2` or of `nvidia-cuda-runtime-cu12==12.8.90`.
    pub fn cuda(&self) -> Option<String> {
        let of = |name: &str| {
            let requirement = self.requires.iter().flatten().find(|r| r.starts_with(name))?;
            let version = requirement.split_once("==")?.1.split(';').next()?.trim();
            let mut numbers = version.split('.');
            Some(format!("{}.{}", numbers.next()?, numbers.next()?))
        };
        of("cuda-toolkit").or_else(|| of("nvidia-cuda-runtime"))
    }

    /// What of its requirements is a library of CUDA: those that name a version or a range, as a recipe has to, and the
    /// others. What only an extra asks for is neither.
    pub fn cuda_requires(&self) -> (Vec<&str>, Vec<&str>) {
        let begins = ["cuda-", "nvidia-", "triton"];
        let is_extra = |r: &str| r.split_once(';').is_some_and(|(_, marker)| marker.contains("extra"));
        let libraries = self.requires.iter().flatten().map(String::as_str);
        let libraries = libraries.filter(|r| begins.iter().any(|b| r.starts_with(b)) && !is_extra(r));
        libraries.partition(|r| match requirement(r).map(|r| r.version_or_url) {
            Ok(Some(VersionOrUrl::VersionSpecifier(range))) => !range.is_empty(),
            _ => false,
        })
    }
}

/// The CUDA release of the stock wheel.
///
/// # Errors
/// Bad input: it has none, or one that this program does not know.
pub fn cuda_of(stock: &Stock, version: &Version) -> Result<&'static cuda::Release> {
    let said = stock.cuda().ok_or_else(|| {
        Error::misuse("no-cuda", format!("nothing in the stock wheel of {version} says which CUDA it is for"))
            .next("do without --cuda; the index's wheels of some systems have none")
    })?;
    cuda::release(&said).ok_or_else(|| {
        let known: Vec<&str> = cuda::RELEASES.iter().map(|r| r.version).collect();
        Error::misuse(
            "unknown-cuda",
            format!("the stock wheel of {version} is for CUDA {said}, which this program does not know"),
        )
        .next(format!("it knows {}: add that release to xtask/src/recipe/cuda.rs", known.join(", ")))
        .next("or do without --cuda")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_counted_from_1970() {
        assert_eq!(day("1970-01-01T00:00:00Z").unwrap().0, 0);
        assert_eq!(day("2026-06-17T21:08:43.160075Z").unwrap(), (1_781_654_400, "2026-06-17".to_owned()));
        assert_eq!(day("2024-02-29T00:00:00Z").unwrap().0, 1_709_164_800);
        assert!(day("2026-02-30T00:00:00Z").is_none() && day("yesterday").is_none());
    }

    #[test]
    fn the_commit_is_read_however_the_file_writes_it() {
        let id = "7269437d655783a26cba32aa88195b741ff496aa";
        assert_eq!(commit(&format!("debug = False\ngit_version = '{id}'\n")).as_deref(), Some(id));
        assert_eq!(commit(&format!("git_version: Optional[str] = \"{id}\"\n")).as_deref(), Some(id));
        assert_eq!(commit("git_version = 'Unknown'\n"), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_an_index_says_makes_a_reader_panic(text in "[\\PC\n]{0,80}") {
            let _ = (day(&text), Tags::of(&text).is_some(), commit(&text), requires(&text));
            let stock = Stock { requires: Some(vec![format!("cuda-toolkit=={text}"), text]), ..Stock::default() };
            let _ = (stock.cuda(), stock.cuda_requires());
        }
    }

    #[test]
    fn a_range_is_taken_over_and_what_takes_any_version_is_open() {
        let requires = [
            "cuda-toolkit[cudart]==13.0.2",
            "nvidia-cublas<=13.1.1.3,>=13.1.0.3; platform_system == \"Linux\"",
            "triton",
            "nvidia-x @ https://h/x.whl",
            "nvidia-y==1; extra == \"y\"",
            "filelock",
        ];
        let stock = Stock { requires: Some(requires.map(str::to_owned).into()), ..Stock::default() };
        let (taken, open) = stock.cuda_requires();
        assert_eq!(taken, requires[..2]);
        assert_eq!(open, requires[2..4]);
    }

    #[test]
    fn a_wheel_that_came_again_is_told_apart() {
        let t = Tags::of("torch-2.10.0-3-cp313-cp313t-manylinux_2_28_x86_64.whl").unwrap();
        assert!(t.again && t.free_threaded && t.minor == 13);
        assert!(Tags::of("torch-2.10.0.tar.gz").is_none());
        // A number that no Python has.
        assert!(Tags::of("torch-2.10.0-cp34294967295-cp34294967295-manylinux_2_28_x86_64.whl").is_none());
    }
}
