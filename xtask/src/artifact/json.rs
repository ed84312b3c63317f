//! JSON that stands in artifacts and beside them: its bytes, and the bound for that of others.

use serde::Serialize;

use crate::error::{Error, Result};

/// Most characters that begin a value or stand beside one, those in texts among them: a statement of ours has some
/// hundred, and what is said of compiled objects two for each header.
const MOST_MARKS: usize = 200_000;

/// Whether `json` can have no more values than what torchmill writes. Values take up to ninety times the memory of their
/// text.
///
/// # Errors
/// It can; the bound is named.
pub fn few_values(json: &[u8]) -> std::result::Result<(), String> {
    if json.iter().filter(|byte| b"{[,:".contains(byte)).count() > MOST_MARKS {
        return Err(format!("it has more than {MOST_MARKS} brackets, commas and colons, more than torchmill writes"));
    }
    Ok(())
}

/// A JSON file's bytes.
///
/// # Errors
/// None that a user can cause.
pub fn json_file(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| Error::world("json", e.to_string()))?;
    text.push(b'\n');
    Ok(text)
}
