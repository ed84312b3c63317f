//! The integration tests, as one program: linked once, and one of them is run by its file's name:
//!
//! ```text
//! cargo test --test main mirror::
//! ```
//!
//! A test that lacks what it needs fails. One that needs more than Rust, a C++ compiler, Python with its
//! package index and git is ignored, with what it needs as the reason (`-- --include-ignored` runs it); what
//! takes too much even for CI is named in `.ci/left-out`.

// A test that cannot go on panics, and may say what it saw.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::print_stdout, missing_docs)]

mod support;

mod architecture;
mod archives;
mod before_after;
mod bounds;
mod cache;
mod ci;
mod companions;
mod compat;
mod completions;
mod cuda;
mod dist;
mod doctor;
mod drafts;
mod farm;
mod fuzz_corpus;
mod help;
mod inspect;
mod makers;
mod manners;
mod mirror;
mod pipeline;
mod provenance;
mod real_sources;
mod recipes;
mod sources;
mod store;
mod tls;
mod toolchain;
mod uvstore;
mod validate;
mod wheels;
mod windows;

use support::standin;

/// A file that is not named above would never run, and nobody would miss it.
#[test]
fn every_file_of_tests_is_a_part_of_this_program() {
    let here = include_str!("main.rs");
    for entry in std::fs::read_dir(support::root().join("tests")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|m| *m != "main") {
            assert!(here.contains(&format!("\nmod {module};\n")), "tests/main.rs does not name {module}");
        }
    }
}
