//! As little of sccache-dist's protocol as the doors need: HTTP with one request a connection, and which worker a
//! scheduler names (`AllocJobHttpResponse` of sccache's `dist/http.rs`, as bincode writes it).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Bytes of a message to or from the scheduler; a certificate is the largest.
const MOST: u64 = 1 << 20;

/// A message: its first line, its headers in small letters, its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The request or status line.
    pub first: String,
    /// Headers, names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads one. A body is as long as is said, or ends with the connection.
    ///
    /// # Errors
    /// It is none, or too long.
    pub fn read(from: &mut impl Read, is_answer: bool) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut head = Vec::new();
        let mut byte = [0u8];
        while !head.ends_with(b"\r\n\r\n") {
            from.read_exact(&mut byte)?;
            head.push(byte[0]);
            if head.len() > 1 << 14 {
                return Err(bad("a head without an end"));
            }
        }
        let text = String::from_utf8(head).map_err(|_| bad("a head that is no text"))?;
        let mut lines = text.trim_end().split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut message = Self { first, headers, body: Vec::new() };
        let length = message.header("content-length").map(|n| n.parse().map_err(|_| bad("a length that is none")));
        let length = length.transpose()?.unwrap_or(if is_answer { MOST } else { 0 });
        if length > MOST {
            return Err(bad("a body that is too long"));
        }
        from.take(length).read_to_end(&mut message.body)?;
        Ok(message)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Method and path of a request.
    pub fn asks(&self) -> (&str, &str) {
        let mut words = self.first.split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// Writes it as an answer after which the connection ends.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn answer(status: u16, kind: &str, body: &[u8], to: &mut impl Write) -> io::Result<()> {
        let length = body.len();
        write!(
            to,
            "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n",
            if status == 200 { "OK" } else { "No" }
        )?;
        to.write_all(body)?;
        to.flush()
    }
}

/// The worker that a scheduler's answer to a request for a place names, or why it gives none; `None` if it is no such
/// answer. Integers have their full width, little end first.
pub fn place(answer: &[u8]) -> Option<Result<SocketAddrV4, String>> {
    let mut at = answer;
    let mut take = |n: usize| {
        let (taken, rest) = at.split_at_checked(n)?;
        at = rest;
        Some(taken)
    };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    match number(take(4)?) {
        0 => {}
        1 => {
            let length = usize::try_from(number(take(8)?)).ok()?;
            return Some(Err(String::from_utf8_lossy(take(length)?).escape_debug().to_string()));
        }
        _ => return None,
    }
    // The job's own token, the job's number, IPv4.
    let token = usize::try_from(number(take(8)?)).ok()?;
    take(token)?;
    take(8)?;
    if number(take(4)?) != 0 {
        return None;
    }
    let ip: [u8; 4] = take(4)?.try_into().ok()?;
    let port = u16::try_from(number(take(2)?)).ok()?;
    Some(Ok(SocketAddrV4::new(Ipv4Addr::from(ip), port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_that_a_scheduler_names_and_why_it_names_none_are_read_and_nothing_else_is() {
        let mut answer = vec![0, 0, 0, 0];
        answer.extend(3u64.to_le_bytes());
        answer.extend(b"jwt");
        answer.extend(7u64.to_le_bytes());
        answer.extend([0, 0, 0, 0, 10, 77, 0, 2]);
        answer.extend(10501u16.to_le_bytes());
        answer.push(1);
        assert_eq!(place(&answer).unwrap().unwrap().to_string(), "10.77.0.2:10501");
        for cut in 0..answer.len() - 1 {
            assert_eq!(place(&answer[..cut]), None);
        }
        let mut other = answer.clone();
        other[0] = 2;
        assert_eq!(place(&other), None);
        let mut endless = answer;
        endless[4..12].fill(0xff);
        assert_eq!(place(&endless), None);
        let mut refused = vec![1, 0, 0, 0];
        refused.extend(9u64.to_le_bytes());
        refused.extend(b"no\x1broom.");
        assert_eq!(place(&refused), None);
        refused.extend(b".");
        assert_eq!(place(&refused), Some(Err("no\\u{1b}room..".into())));
    }

    #[test]
    fn a_message_is_read_to_its_length_and_one_that_is_too_long_is_none() {
        let text = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcdef";
        let message = Message::read(&mut &text[..], false).unwrap();
        assert_eq!((message.asks(), message.body.as_slice()), (("POST", "/a"), &b"abc"[..]));
        let answer = Message::read(&mut &b"HTTP/1.1 200 OK\r\n\r\nabc"[..], true).unwrap();
        assert_eq!(answer.body, b"abc");
        assert!(Message::read(&mut &b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"[..], false).is_err());
        assert!(Message::read(&mut &vec![b'x'; 1 << 15][..], false).is_err());
    }
}
