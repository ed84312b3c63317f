//! A log as people hand it over, made comparable: UTF-16 is read, colours, blanks, case, line ends and the frames of
//! rich tracebacks are left out, `\` counts as `/`. Each place knows the line that it came from.

use std::borrow::Cow;

/// A text, and the same without all that differs from one terminal to the next.
pub struct Text {
    raw: Vec<u8>,
    /// Offset in `raw` at which each line begins.
    lines: Vec<u32>,
    /// What marks are compared with.
    pub squeezed: Vec<u8>,
    /// Offset in `squeezed` at which each line begins.
    starts: Vec<u32>,
}

/// A line of the text that was given.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// It, without what a terminal would take for a command; at most 240 letters.
    pub text: String,
}

/// What becomes of a byte: it itself in lower case, nothing, or one that is looked at more closely.
const DROP: u8 = 0;
const LOOK: u8 = 0xff;
const MAP: [u8; 256] = {
    let mut map = [DROP; 256];
    let mut b = 0x21;
    while b < 0x7f {
        let byte = b as u8;
        map[b] = if byte == b'\\' { b'/' } else { byte.to_ascii_lowercase() };
        b += 1;
    }
    while b < 0x100 {
        map[b] = b as u8;
        b += 1;
    }
    map[0x0a] = LOOK; // a line's end
    map[0x0d] = LOOK; // a progress bar's
    map[0x1b] = LOOK; // a colour begins
    map[0xc2] = LOOK; // a blank that does not break
    map[0xe2] = LOOK; // a frame's lines
    map[0x7f] = DROP;
    map[0xff] = DROP;
    map
};

/// A mark, as it is compared.
pub fn squeeze(mark: &str) -> Vec<u8> {
    Text::new(mark.as_bytes().to_vec()).squeezed
}

/// The text that `bytes` are: UTF-16 where they begin with a byte order mark or look like it, else as they are.
pub fn decode(bytes: Vec<u8>) -> Vec<u8> {
    let utf16 = |bytes: &[u8], big: bool| {
        let units = bytes
            .chunks_exact(2)
            .map(|c| if big { u16::from_be_bytes([c[0], c[1]]) } else { u16::from_le_bytes([c[0], c[1]]) });
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>().into_bytes()
    };
    match &bytes[..] {
        [0xff, 0xfe, rest @ ..] => return utf16(rest, false),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, true),
        [0xef, 0xbb, 0xbf, rest @ ..] => return rest.to_vec(),
        _ => {}
    }
    // Without a mark: in a text of the Latin alphabet every second byte is zero.
    let head = &bytes[..bytes.len().min(2048)];
    let zeros = |odd: usize| head.iter().skip(odd).step_by(2).filter(|b| **b == 0).count();
    let (even, odd, most) = (zeros(0), zeros(1), head.len() / 2);
    if head.len() >= 8 && odd > most * 7 / 10 && even < most / 10 {
        return utf16(&bytes, false);
    }
    if head.len() >= 8 && even > most * 7 / 10 && odd < most / 10 {
        return utf16(&bytes, true);
    }
    bytes
}

/// Whether `bytes` are no text at all.
pub fn is_noise(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(64 << 10)];
    let control = head.iter().filter(|b| matches!(b, 0..=8 | 14..=26 | 28..=31)).count();
    control * 20 > head.len()
}

impl Text {
    /// Reads `raw`, which [`decode`] made.
    pub fn new(raw: Vec<u8>) -> Self {
        let mut squeezed = Vec::with_capacity(raw.len());
        let (mut lines, mut starts) = (vec![0u32], vec![0u32]);
        let mut i = prefix(&raw, 0);
        while let Some(&byte) = raw.get(i) {
            let mapped = MAP[byte as usize];
            if mapped != LOOK {
                if mapped != DROP {
                    squeezed.push(mapped);
                }
                i += 1;
                continue;
            }
            let rest = &raw[i..];
            match rest {
                [b'\n', ..] => {
                    i += 1;
                    lines.push(u32::try_from(i).unwrap_or(u32::MAX));
                    starts.push(u32::try_from(squeezed.len()).unwrap_or(u32::MAX));
                    i = prefix(&raw, i);
                }
                [0x1b, ..] => i += escape(rest),
                // Box drawings and block elements: frames around tracebacks.
                [0xe2, 0x94..=0x96, _, ..] => i += 3,
                [0xe2, 0x9d, 0xb1, ..] => i += 3,
                [0xc2, 0xa0, ..] => i += 2,
                [b'\r', ..] => i += 1,
                _ => {
                    squeezed.push(byte);
                    i += 1;
                }
            }
        }
        Self { raw, lines, squeezed, starts }
    }

    /// The number of the line, from 0, that the byte at `offset` of [`Text::squeezed`] came from.
    pub fn line_of(&self, offset: usize) -> usize {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// How many lines there are.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// The line number `index`, from 0, squeezed.
    pub fn squeezed_line(&self, index: usize) -> &[u8] {
        let at = |i: usize| self.starts.get(i).map_or(self.squeezed.len(), |s| *s as usize);
        self.squeezed.get(at(index)..at(index + 1)).unwrap_or_default()
    }

    /// The line number `index`, from 0, to be shown.
    pub fn line(&self, index: usize) -> Line {
        let at = |i: usize| self.lines.get(i).map_or(self.raw.len(), |s| *s as usize);
        let bytes = self.raw.get(at(index)..at(index + 1)).unwrap_or_default();
        // A line may be the whole of a file without line ends.
        let bytes = &bytes[..bytes.len().min(4096)];
        let text: Cow<'_, str> = String::from_utf8_lossy(bytes);
        let mut clean = String::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c == '\u{1b}' {
                // A colour: up to its last letter.
                while rest.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
            } else if !c.is_control() && !is_direction(c) {
                clean.push(c);
            }
        }
        let text = clean.trim();
        let cut: String = text.chars().take(240).collect();
        let text = if cut.len() < text.len() { format!("{cut}…") } else { cut };
        Line { number: index + 1, text }
    }
}

/// Whether `c` shows nothing itself and changes how what stands beside it is shown: the controls of direction (UAX #9),
/// the separators of lines and paragraphs, and tags.
pub fn is_direction(c: char) -> bool {
    matches!(
        c,
        '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Bytes of an escape sequence (ECMA-48): a colour, a title.
fn escape(bytes: &[u8]) -> usize {
    let most = bytes.len().min(256);
    match bytes.get(1) {
        Some(b'[') => bytes[2..most.max(2)].iter().position(|b| (0x40..=0x7e).contains(b)).map_or(2, |end| end + 3),
        Some(b']') => bytes[2..most.max(2)].iter().position(|b| *b == 7 || *b == 0x1b).map_or(2, |end| end + 3),
        _ => 1,
    }
}

/// Where the text of the line at `at` begins, behind what a launcher puts before it: `[rank0]: `, `[default0]:`,
/// `[INFO] `, `(pid=123) `, `0: `.
fn prefix(raw: &[u8], at: usize) -> usize {
    let line = &raw[at..raw.len().min(at + 80)];
    let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
    let blank = line.iter().take_while(|b| **b == b' ').count();
    let body = &line[blank..];
    let inside = |close: u8| memchr::memchr(close, body).map(|end| (&body[1..end], end + 1));
    let found = match body {
        [b'[', ..] => inside(b']').filter(|(name, _)| {
            let digits =
                |p: &[u8]| name.strip_prefix(p).is_some_and(|d| !d.is_empty() && d.iter().all(u8::is_ascii_digit));
            digits(b"rank")
                || digits(b"default")
                || [&b"INFO"[..], b"ERROR", b"WARNING", b"stderr", b"stdout"].contains(name)
        }),
        [b'(', ..] => inside(b')').filter(|(name, _)| memchr::memmem::find(name, b"pid=").is_some()),
        [b'0'..=b'9', ..] => {
            let digits = body.iter().take_while(|b| b.is_ascii_digit()).count();
            (digits <= 4 && body[digits..].starts_with(b": ")).then_some((body, digits))
        }
        _ => None,
    };
    found.map_or(at, |(_, length)| {
        let rest = &body[length..];
        let colon = usize::from(rest.first() == Some(&b':'));
        at + blank + length + colon
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(bytes: &[u8]) -> String {
        String::from_utf8(Text::new(decode(bytes.to_vec())).squeezed).unwrap()
    }

    #[test]
    fn what_a_terminal_adds_is_left_out() {
        assert_eq!(squeezed(b"\x1b[31mError\x1b[0m: Use_LibUV\r\nwas  requested"), "error:use_libuvwasrequested");
        assert_eq!(squeezed("│ site-packages\\torch │\n│ x │".as_bytes()), "site-packages/torchx");
        assert_eq!(squeezed(b"[rank0]: a b\n[default1]:c\n(W pid=12) d\n3: e\n[c10d] f\n[INFO] g"), "abcde[c10d]fg");
    }

    #[test]
    fn utf_16_is_read_with_and_without_a_byte_order_mark_in_both_orders() {
        let text = "use_libuv was requested";
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [[&[0xff, 0xfe][..], &le].concat(), [&[0xfe, 0xff][..], &be].concat(), le, be] {
            assert_eq!(squeezed(&bytes), "use_libuvwasrequested");
        }
        assert_eq!(squeezed(b"\xef\xbb\xbfab"), "ab");
    }

    #[test]
    fn a_place_knows_its_line_and_a_line_is_shown_without_commands_for_a_terminal() {
        let text = Text::new(b"first\n\x1b]0;title\x07\x1b[2Jsec\x00ond \n[rank1]: third".to_vec());
        assert_eq!(text.line_of(0), 0);
        assert_eq!(text.line_of("first".len()), 1);
        assert_eq!(text.line_of("firstsecondt".len()), 2);
        assert!(!text.line(1).text.contains('\x1b') && text.line(1).text.ends_with("second"), "{:?}", text.line(1));
        assert_eq!(text.line(2), Line { number: 3, text: "[rank1]: third".into() });
    }

    #[test]
    fn escapes_that_end_nowhere_and_bytes_that_are_no_text_end() {
        for bytes in [&b"\x1b"[..], b"\x1b[", b"\x1b]", b"\xe2\x94", b"\xc2", b"[rank", b"[", b"(", b"12", b"\n\n"] {
            let text = Text::new(bytes.to_vec());
            let _ = (text.line(0), text.line(99), text.line_of(5), text.squeezed_line(7));
        }
        assert!(is_noise(&[1; 100]) && !is_noise(b"plain text\n\twith a tab\x1b[0m"));
    }
}
