//! The few words of Redis' protocol (RESP 2) that ccache speaks: the protocol that it speaks over a socket in the file
//! system. Both sides of it: what ccache asks is read, and a server that is a Redis is asked.

use std::io::{self, BufRead, Read, Write};

/// Bytes of one value: an object of PyTorch has at most some tens of MiB.
const MOST_VALUE: usize = 512 << 20;
/// Words of one command.
const MOST_WORDS: usize = 8;
/// Bytes of a line that names a length.
const MOST_LINE: u64 = 4096;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It was done.
    Ok,
    /// A number: how many there were.
    Number(i64),
    /// The value.
    Value(Vec<u8>),
    /// There is none.
    Nil,
    /// It was not done.
    Error(String),
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A line without its end; `None` at the end of all.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    from.by_ref().take(MOST_LINE).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = bytes.strip_suffix(b"\r\n").ok_or_else(|| broken("a line without an end"))?;
    String::from_utf8(text.to_vec()).map(Some).map_err(|_| broken("a line that is no text"))
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(|_| broken("no number"))
}

/// The bytes after their length was read.
fn bulk(from: &mut impl BufRead, length: i64) -> io::Result<Vec<u8>> {
    let length =
        usize::try_from(length).ok().filter(|n| *n <= MOST_VALUE).ok_or_else(|| broken("a value too large"))?;
    let mut value = Vec::new();
    from.by_ref().take(length as u64).read_to_end(&mut value)?;
    let mut end = [0u8; 2];
    from.read_exact(&mut end)?;
    if value.len() != length || end != *b"\r\n" {
        return Err(broken("a value that is cut off"));
    }
    Ok(value)
}

/// The next command; `None` where there are no more.
///
/// # Errors
/// It is none.
pub fn command(from: &mut impl BufRead) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(head) = line(from)? else { return Ok(None) };
    let words = number(head.strip_prefix('*').ok_or_else(|| broken("no command"))?)?;
    let words = usize::try_from(words).ok().filter(|n| *n <= MOST_WORDS).ok_or_else(|| broken("too many words"))?;
    let mut out = Vec::with_capacity(words);
    for _ in 0..words {
        let head = line(from)?.ok_or_else(|| broken("a command that is cut off"))?;
        let length = number(head.strip_prefix('$').ok_or_else(|| broken("no word"))?)?;
        out.push(bulk(from, length)?);
    }
    Ok(Some(out))
}

/// Writes an answer.
///
/// # Errors
/// Whoever asked has gone.
pub fn answer(to: &mut impl Write, reply: &Reply) -> io::Result<()> {
    match reply {
        Reply::Ok => to.write_all(b"+OK\r\n")?,
        Reply::Number(n) => write!(to, ":{n}\r\n")?,
        Reply::Nil => to.write_all(b"$-1\r\n")?,
        Reply::Error(what) => write!(to, "-ERR {}\r\n", what.replace(['\r', '\n'], " "))?,
        Reply::Value(value) => {
            write!(to, "${}\r\n", value.len())?;
            to.write_all(value)?;
            to.write_all(b"\r\n")?;
        }
    }
    to.flush()
}

/// Asks a server.
///
/// # Errors
/// It does not answer, or not in this protocol.
pub fn ask(to: &mut impl Write, from: &mut impl BufRead, words: &[&[u8]]) -> io::Result<Reply> {
    let mut text = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        text.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        text.extend_from_slice(word);
        text.extend_from_slice(b"\r\n");
    }
    to.write_all(&text)?;
    to.flush()?;
    let head = line(from)?.ok_or_else(|| broken("the server hung up"))?;
    let rest = head.get(1..).unwrap_or_default();
    match head.chars().next() {
        Some('+') => Ok(Reply::Ok),
        Some('-') => Ok(Reply::Error(rest.to_owned())),
        Some(':') => Ok(Reply::Number(number(rest)?)),
        Some('$') if rest == "-1" => Ok(Reply::Nil),
        Some('$') => Ok(Reply::Value(bulk(from, number(rest)?)?)),
        _ => Err(broken("the server does not speak Redis' protocol")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_asked_is_read_and_what_is_answered_too() {
        let mut asked = Vec::new();
        let reply = ask(&mut asked, &mut &b"$3\r\na\r\n\r\n"[..], &[b"GET", b"ccache:k"]).unwrap();
        assert_eq!(reply, Reply::Value(b"a\r\n".to_vec()));
        assert_eq!(command(&mut &asked[..]).unwrap(), Some(vec![b"GET".to_vec(), b"ccache:k".to_vec()]));
        assert_eq!(command(&mut &b""[..]).unwrap(), None);
        let mut answered = Vec::new();
        answer(&mut answered, &Reply::Error("two\r\nlines".into())).unwrap();
        assert_eq!(answered, b"-ERR two  lines\r\n");
    }

    #[test]
    fn a_command_that_asks_for_more_than_there_is_is_refused() {
        for bad in [
            &b"GET x\r\n"[..],
            b"*99\r\n",
            b"*1\r\n$999999999999\r\n",
            b"*1\r\n$-5\r\n",
            b"*1\r\n$5\r\nab\r\n",
            b"*1\r\n",
        ] {
            assert!(command(&mut &bad[..]).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = command(&mut &bytes[..]);
            let _ = ask(&mut Vec::<u8>::new(), &mut &bytes[..], &[b"GET"]);
        }
    }
}
