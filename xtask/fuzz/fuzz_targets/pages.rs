//! What an index says, ours or another one: pages as JSON and HTML, locks of indexes, requirements files, and what its
//! clients ask for.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| torchmill_fuzz::pages(&String::from_utf8_lossy(data)));
