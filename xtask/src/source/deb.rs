//! Debian packages (deb(5)): an `ar` archive, whose member `data.tar.*` holds the files. Other `ar` archives have names
//! longer than a header holds; packages have none, and what their headers say is never asked memory for.

use std::io::{self, Read, Take};

use crate::wheel::read_up_to;

/// What an `ar` archive begins with.
pub const MAGIC: &[u8] = b"!<arch>\n";
/// Bytes of a member's header: name, time, owner, group, mode, size, two bytes that end it.
const HEADER: usize = 60;

/// The bytes of `data.tar.*` of the package that `reader` begins with.
///
/// # Errors
/// It is cut off, has a header that is none, or no such member; or it cannot be read.
pub fn data_tar<R: Read>(mut reader: R) -> io::Result<Take<R>> {
    let mut magic = [0u8; MAGIC.len()];
    if read_up_to(&mut reader, &mut magic)? < MAGIC.len() || magic != *MAGIC {
        return Err(bad("it is no ar archive"));
    }
    loop {
        let mut header = [0u8; HEADER];
        match read_up_to(&mut reader, &mut header)? {
            HEADER => {}
            0 => return Err(bad("it is an ar archive without data.tar, and no Debian package")),
            _ => return Err(bad("it is cut off")),
        }
        let size = if header.ends_with(b"`\n") { number(&header[48..58]) } else { None };
        let size = size.ok_or_else(|| bad("a header of its ar archive is none"))?;
        if header.starts_with(b"data.tar") {
            return Ok(reader.take(size));
        }
        // Members begin at even places.
        let rest = size.next_multiple_of(2);
        if io::copy(&mut reader.by_ref().take(rest), &mut io::sink())? < rest {
            return Err(bad("it is cut off"));
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A number of a header: decimal digits, then blanks.
fn number(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_end_matches(' ');
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
