//! Any archive ends in a report or an error: zip, tar, Debian package, whatever it begins with.
#![no_main]
use libfuzzer_sys::fuzz_target;
use torchmill::inspect::{Depth, inspect};

fuzz_target!(|data: &[u8]| {
    let _ = inspect("fuzz", &data.to_vec(), Depth::Full);
});
