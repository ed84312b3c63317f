//! Which form of a page a client wants: PEP 691, "Version + Format Selection".

/// One of the forms that PEP 691 lets a client choose among.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// [`Form::JSON`] (PEP 691).
    Json,
    /// PEP 503, under its own type.
    Html,
    /// PEP 503, for browsers and old clients.
    Text,
}

impl Form {
    /// Content type of the JSON form.
    pub const JSON: &'static str = "application/vnd.pypi.simple.v1+json";
    /// Content type of the HTML form.
    pub const HTML: &'static str = "application/vnd.pypi.simple.v1+html";

    /// The form with the highest quality in an `Accept` header; at a tie the one named first. Whoever
    /// says nothing, or takes anything, gets `text/html`, as PEP 691 advises.
    pub fn wanted(accept: &str) -> Option<Self> {
        if accept.trim().is_empty() {
            return Some(Self::Text);
        }
        let mut best: Option<(f32, Self)> = None;
        for part in accept.split(',') {
            let mut fields = part.split(';').map(str::trim);
            let form = match fields.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/vnd.pypi.simple.v1+json" | "application/vnd.pypi.simple.latest+json" => Self::Json,
                "application/vnd.pypi.simple.v1+html" | "application/vnd.pypi.simple.latest+html" => Self::Html,
                "application/*" => Self::Json,
                "text/html" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            let quality = quality(fields);
            if quality > 0.0 && best.is_none_or(|(q, _)| quality > q) {
                best = Some((quality, form));
            }
        }
        best.map(|(_, form)| form)
    }

    /// The file that holds it.
    pub fn file(self) -> &'static str {
        if self == Self::Json { "index.json" } else { "index.html" }
    }

    /// What it is sent as.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => Self::JSON,
            Self::Html => Self::HTML,
            Self::Text => "text/html; charset=utf-8",
        }
    }
}

/// The `q` among parameters, from 0 to 1 (RFC 9110, 12.4.2); what cannot be read as one wants nothing.
fn quality<'a>(mut fields: impl Iterator<Item = &'a str>) -> f32 {
    let said = fields.find_map(|f| f.strip_prefix("q=").or_else(|| f.strip_prefix("Q=")));
    said.map_or(1.0, |q| q.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0))
}

/// Whether an `Accept-Encoding` takes gzip.
pub fn takes_gzip(value: &str) -> bool {
    let gzip = value.split(',').find_map(|part| {
        let mut fields = part.split(';').map(str::trim);
        let name = fields.next()?;
        ["gzip", "x-gzip"].iter().any(|n| n.eq_ignore_ascii_case(name)).then(|| quality(fields))
    });
    gzip.is_some_and(|q| q > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_they_prefer() {
        // pip, uv, a browser, curl, nothing.
        let pip = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";
        let uv = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01";
        assert_eq!(Form::wanted(pip), Some(Form::Json));
        assert_eq!(Form::wanted(uv), Some(Form::Json));
        assert_eq!(Form::wanted("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Some(Form::Text));
        assert_eq!(Form::wanted("*/*"), Some(Form::Text));
        assert_eq!(Form::wanted(""), Some(Form::Text));
        assert_eq!(Form::wanted("application/vnd.pypi.simple.latest+html"), Some(Form::Html));
    }

    #[test]
    fn what_is_not_spoken_is_not_acceptable() {
        assert_eq!(Form::wanted("application/vnd.pypi.simple.v2+json"), None);
        for nothing in ["text/html;q=0", "text/html;Q=0", "text/html;q=2", "*/*;q=nan", "*/*;q=inf"] {
            assert_eq!(Form::wanted(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn gzip_is_sent_to_whoever_takes_it() {
        assert!(takes_gzip("gzip, deflate"));
        assert!(takes_gzip("br;q=1.0, gzip;q=0.8"));
        assert!(!takes_gzip("gzip;q=0, identity"));
        assert!(!takes_gzip("gzip;Q=0"));
        assert!(!takes_gzip("gzip;q=0.000, gzip"));
        assert!(!takes_gzip("identity"));
    }
}
