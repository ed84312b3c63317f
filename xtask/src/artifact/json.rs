//! JSON of others, before it becomes values: those take up to ninety times the memory of their text.

/// Most characters that begin a value or stand beside one, those in texts among them: a statement of ours has some
/// hundred, and what is said of compiled objects two for each header.
const MOST_MARKS: usize = 200_000;

/// Whether `json` can have no more values than what torchmill writes.
///
/// # Errors
/// It can; the bound is named.
pub fn few_values(json: &[u8]) -> Result<(), String> {
    if json.iter().filter(|byte| b"{[,:".contains(byte)).count() > MOST_MARKS {
        return Err(format!("it has more than {MOST_MARKS} brackets, commas and colons, more than torchmill writes"));
    }
    Ok(())
}
