//! Who may read and who may upload: one token each, compared in constant time.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Options;

/// A secret. It is kept as its digest, and shown to nobody.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Keeps the digest of the token's text, and not the text.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Whether a request carries it: as the password of any user (what pip, uv and twine send), or as a
    /// bearer token. Digests of equal length are compared, whatever was sent.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()) else { return false };
        let sent = match value.split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim().as_bytes().to_vec(),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => {
                let Ok(pair) = base64::engine::general_purpose::STANDARD.decode(rest.trim()) else { return false };
                match pair.iter().position(|b| *b == b':') {
                    Some(at) => pair[at + 1..].to_vec(),
                    None => return false,
                }
            }
            _ => return false,
        };
        let digest: [u8; 32] = Sha256::digest(&sent).into();
        digest.ct_eq(&self.0).into()
    }
}

/// The answer to a request that may not be made: 400, 401, 403 or 405. Whoever may publish may read: what was uploaded is
/// read back.
pub fn refusal(options: &Options, request: &Request) -> Option<Response> {
    // RFC 9112, 3.2: one Host in HTTP/1.1, and not two of which a proxy goes by the other.
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || hosts == 0 && request.version() >= Version::HTTP_11 {
        return Some((StatusCode::BAD_REQUEST, "a request names one Host\n").into_response());
    }
    let holds = |token: &Option<Token>| token.as_ref().is_some_and(|t| t.is_in(request.headers()));
    let may = match *request.method() {
        Method::GET | Method::HEAD => options.read.is_none() || holds(&options.read) || holds(&options.upload),
        Method::POST if options.upload.is_none() => {
            return Some((StatusCode::FORBIDDEN, "this server takes no uploads\n").into_response());
        }
        Method::POST => holds(&options.upload),
        _ => {
            // RFC 9110, 15.5.6: which ones are, the answer says.
            let allowed = [(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"))];
            return Some((StatusCode::METHOD_NOT_ALLOWED, allowed, "GET, HEAD and POST\n").into_response());
        }
    };
    let ask = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"torchmill\""))];
    (!may).then(|| (StatusCode::UNAUTHORIZED, ask, "a token is needed\n").into_response())
}

/// Whether a `Host` header is one that may stand on a page.
pub fn is_host(host: &str) -> bool {
    !host.is_empty() && host.len() < 256 && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_token_comes_as_a_password_or_as_a_bearer() {
        let token = Token::new("s3cret");
        assert!(token.is_in(&with("Bearer s3cret")));
        // __token__:s3cret
        assert!(token.is_in(&with("Basic X190b2tlbl9fOnMzY3JldA==")));
        for bad in ["Bearer s3cre", "Bearer s3cret1", "Basic !!!", "Basic X190b2tlbl9f", "s3cret", "Digest s3cret"] {
            assert!(!token.is_in(&with(bad)), "{bad}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
}
