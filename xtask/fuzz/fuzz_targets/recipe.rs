//! Any text of a recipe ends in a recipe or an error that names its file.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| torchmill_fuzz::recipe(data));
