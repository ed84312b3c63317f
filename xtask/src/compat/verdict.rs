//! The verdict on a package, and the reasons for it.

use serde::Serialize;

use super::demangle::demangle;

/// Whether a package can be used beside the torch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Its compiled part loads, and its pins hold.
    Fits,
    /// It does not load, or pip would not leave it beside this torch.
    DoesNotFit,
    /// What it needs is not here to be read.
    CannotBeTold,
}

impl Fit {
    /// The verdict in a word or two, for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::DoesNotFit => "does not fit",
            Self::CannotBeTold => "cannot be told",
        }
    }
}

/// Why a package does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// Its requirement on torch is not held by this version: pip puts another torch in place of this one.
    Pin {
        /// As METADATA has it.
        requirement: String,
        /// This torch's version.
        torch: String,
    },
    /// Its wheel is for another Python, system or machine.
    Tags {
        /// Tags of the wheel, as its name or WHEEL states them.
        tags: Vec<String>,
        /// What this torch is for.
        torch: String,
    },
    /// Requires-Python rules this torch's Python out.
    Python {
        /// As METADATA has it.
        requirement: String,
        /// This torch's Python.
        python: String,
    },
    /// Its compiled part is for other machines or Pythons only.
    Foreign {
        /// What this torch is for.
        torch: String,
    },
    /// It has a library for each version of torch that it knows, and none for this one.
    OtherTorchs {
        /// What their names begin with: `libgraphbolt_pytorch_`.
        libraries: String,
        /// The versions that they are for.
        versions: Vec<String>,
        /// This torch's version.
        torch: String,
    },
    /// It needs a library that torch would have to bring, and this one does not.
    Library {
        /// The package's library.
        by: String,
        /// The library that it needs.
        needs: String,
        /// What this torch brings in its place.
        instead: Option<String>,
    },
    /// It needs symbols that nothing has.
    Symbols {
        /// The package's library.
        by: String,
        /// The library that must have them, where the format says so.
        of: Option<String>,
        /// The first of them, mangled.
        first: Vec<String>,
        /// How many there are.
        count: usize,
    },
    /// It needs a version of symbols that the library does not have.
    Version {
        /// The package's library.
        by: String,
        /// The library that must have it.
        of: String,
        /// Name of the symbol version: `GLIBCXX_3.4.30`.
        version: String,
    },
}

impl Reason {
    /// For people: one line, and the names of symbols, one a line.
    pub fn words(&self) -> (String, Vec<String>) {
        let line = match self {
            Self::Pin { requirement, torch } => format!("it asks for {requirement}, and this is torch {torch}"),
            Self::Tags { tags, torch } => format!("its wheel is for {}, and this torch for {torch}", tags.join(", ")),
            Self::Python { requirement, python } => {
                format!("it asks for Python {requirement}, and this torch is for {python}")
            }
            Self::Foreign { torch } => format!("no library in it is for {torch}"),
            Self::OtherTorchs { libraries, versions, torch } => {
                format!("it has {libraries} for torch {}, and this is torch {torch}", versions.join(", "))
            }
            Self::Library { by, needs, instead: None } => {
                format!("{by} needs {needs}, which this torch does not bring")
            }
            Self::Library { by, needs, instead: Some(other) } => {
                format!("{by} needs {needs}; this torch brings {other}")
            }
            Self::Version { by, of, version } => format!("{by} needs {version} of {of}, which does not define it"),
            Self::Symbols { by, of, first, count } => {
                let whose =
                    of.as_ref().map_or_else(|| "that nothing has".to_owned(), |of| format!("that {of} has not"));
                let line = match count {
                    1 => format!("{by} needs a symbol {whose}"),
                    n => format!("{by} needs {n} symbols {whose}"),
                };
                return (line, first.iter().map(|n| demangle(n)).collect());
            }
        };
        (line, Vec::new())
    }
}

/// The likely cause of a package's not fitting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It was compiled for CUDA, and this torch has none.
    NoCuda,
    /// It was compiled for another major version of CUDA.
    OtherCuda,
    /// It was compiled with the C++11 ABI, and this torch with the one before.
    NewStrings,
    /// The other way round.
    OldStrings,
    /// It uses the stable ABI of a newer torch.
    NewerStableAbi,
    /// It was compiled against another version of torch.
    OtherVersion,
    /// Its requirements ask for another version of torch.
    OtherPin,
}

impl Cause {
    /// The verdict in a word or two, for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NoCuda => "it was compiled for CUDA, and this torch has no CUDA",
            Self::OtherCuda => "it was compiled for another CUDA than this torch",
            Self::NewStrings => "it was compiled with the C++11 ABI (its strings), this torch with the ABI before",
            Self::OldStrings => {
                "it was compiled with the ABI before C++11 (its strings), this torch with the C++11 ABI"
            }
            Self::NewerStableAbi => "it uses torch's stable ABI as a newer torch has it",
            Self::OtherVersion => "it was compiled against another version of torch",
            Self::OtherPin => "it asks for another version of torch",
        }
    }
}

/// What is not at hand: a library, of which it is another one's business whether it is there and what it has; or what a
/// pin would be judged by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The package's library, or the package.
    pub by: String,
    /// What it needs: libraries, or symbols that one of them must have.
    pub needs: Vec<String>,
}

/// What was found of one library of a package.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// Path in the package.
    pub path: String,
    /// Whether it needs torch's libraries.
    pub uses_torch: bool,
    /// Whether all that it takes of torch is the stable ABI: functions of C that torch keeps from version to version.
    pub stable_abi: bool,
    /// Why it does not load.
    pub reasons: Vec<Reason>,
    /// Libraries of the system that it needs.
    pub gaps: Vec<String>,
}

/// The verdict on a package.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// As the user named it.
    pub subject: String,
    /// The package's name, normalized (PEP 503).
    pub package: String,
    /// Version of the package.
    pub version: String,
    /// The worst of all that was looked at.
    pub verdict: Fit,
    /// Whether its compiled part loads, whatever pip thinks of its pins; `None` where that cannot be told.
    pub loads: Option<bool>,
    /// Whether its requirements on torch and Python, and its tags, hold: none is known not to. What could not be judged
    /// is among the gaps, and the verdict then is no better than that it cannot be told.
    pub pins_hold: bool,
    /// Why it does not fit.
    pub reasons: Vec<Reason>,
    /// The likely cause, where the reasons point at one.
    pub cause: Option<Cause>,
    /// What it needs of others; where the verdict is that it cannot be told, this is what is missing.
    pub gaps: Vec<Gap>,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// What was found of each of its libraries.
    pub libraries: Vec<Judged>,
}
