//! METADATA and WHEEL: headers as e-mails have them (core metadata, "binary distribution format").

/// The headers of METADATA, as far as anybody here asks for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    headers: Vec<(String, String)>,
}

impl Metadata {
    /// Reads the headers; what follows the first empty line is a description, and left alone. Blanks at the end of a
    /// value, and those of other alphabets, are a part of it: installers do not cut them off everywhere, and give up.
    ///
    /// # Errors
    /// What is no header, or is not UTF-8, in a sentence.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut out = Self::default();
        for (at, line) in lines(bytes).enumerate() {
            out.add(line, begun).map_err(|why| format!("line {} {why}", at + 1))?;
        }
        // Installers read all of the file as text before they look for headers, and give up.
        if let Err(e) = std::str::from_utf8(bytes) {
            let at = bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            return Err(format!("line {} is not UTF-8", at + 1));
        }
        Ok(out)
    }

    /// Reads what others installed or published, as installers read it: a line that is no header says nothing.
    #[must_use]
    pub fn lenient(text: &str) -> Self {
        let mut out = Self::default();
        for line in lines(text.as_bytes()) {
            let _ = out.add(line, str::trim);
        }
        out
    }

    /// Takes one line, or says what is wrong with it; `cut` takes blanks from a value.
    fn add(&mut self, line: &[u8], cut: fn(&str) -> &str) -> Result<(), String> {
        let line = std::str::from_utf8(line).map_err(|_| "is not UTF-8")?;
        // Readers differ in what ends a line: these do for some of them.
        if line.contains(['\r', '\0', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'])
        {
            return Err("holds a control character".into());
        }
        if line.starts_with([' ', '\t']) {
            let (_, value) = self.headers.last_mut().ok_or("continues none")?;
            value.push('\n');
            value.push_str(line);
            return Ok(());
        }
        let (key, value) = line
            .split_once(':')
            .filter(|(k, _)| !k.is_empty() && k.bytes().all(|b| b.is_ascii_graphic()))
            .ok_or_else(|| format!("is no header: '{}'", line.escape_debug()))?;
        self.headers.push((key.to_owned(), cut(value).to_owned()));
        Ok(())
    }

    /// All headers and their values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// All values of a header, in their order.
    pub fn all<'m>(&'m self, key: &'m str) -> impl Iterator<Item = &'m str> {
        self.headers.iter().filter(move |(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v.as_str())
    }

    /// The value of a header that stands there at most once; the first, where it stands there more often.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v.as_str())
    }

    /// The value of a header that must stand there once.
    ///
    /// # Errors
    /// It stands there never, or twice: readers would differ in which one counts.
    pub fn one<'m>(&'m self, key: &'m str) -> Result<&'m str, String> {
        let mut values = self.all(key);
        match (values.next(), values.next()) {
            (Some(one), None) if !one.contains('\n') => Ok(one),
            (Some(_), None) => Err(format!("its {key} goes over several lines")),
            (None, _) => Err(format!("it has no {key}")),
            (Some(a), Some(b)) => Err(format!("it has {key} twice: '{}' and '{}'", a.escape_debug(), b.escape_debug())),
        }
    }
}

/// A value without the blanks before it that all readers take away.
fn begun(value: &str) -> &str {
    value.trim_start_matches([' ', '\t'])
}

/// The lines before the first empty one.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_end_at_the_first_empty_line() {
        let m = Metadata::parse(b"Name: demo\nversion: 1\nSummary: a\n  b\n\nName: other\n").unwrap();
        assert_eq!((m.one("Name"), m.one("Version")), (Ok("demo"), Ok("1")));
        assert_eq!(m.get("summary"), Some("a\n  b"));
    }

    #[test]
    fn blanks_that_installers_do_not_cut_off_stay() {
        let text = "Name: \t demo \nVersion:\u{3000}1\u{a0}\n";
        let m = Metadata::parse(text.as_bytes()).unwrap();
        assert_eq!((m.one("Name"), m.one("Version")), (Ok("demo "), Ok("\u{3000}1\u{a0}")));
        let m = Metadata::lenient(text);
        assert_eq!((m.one("Name"), m.one("Version")), (Ok("demo"), Ok("1")));
    }

    #[test]
    fn what_readers_would_differ_in_is_refused() {
        for bad in
            [&b" x: 1\n"[..], b"Name demo\n", b"Name: a\rVersion: 2\n", b"Name: \xff\n", b": x\n", b"Name: a\x0cb\n"]
        {
            assert!(Metadata::parse(bad).is_err(), "{bad:?}");
        }
        // The description is text, too.
        assert_eq!(Metadata::parse(b"Name: a\n\nb\ncaf\xe9\n").unwrap_err(), "line 4 is not UTF-8");
        // What others published is read as far as it goes.
        let m = Metadata::lenient(" x: 1\nName demo\nName: a\x0cb\nRequires-Dist: b\nRequires-Dist: c\n\nName: d\n");
        assert_eq!((m.get("Name"), m.all("requires-dist").collect::<Vec<_>>()), (None, vec!["b", "c"]));
        let m = Metadata::parse(b"Name: a\nName: b\n\n").unwrap();
        assert!(m.one("Name").unwrap_err().contains("twice"));
        assert!(m.one("Version").is_err());
    }
}
