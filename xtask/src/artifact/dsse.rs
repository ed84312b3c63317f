//! Signatures: DSSE envelopes (Dead Simple Signing Envelope, v1.0.2) with Ed25519 (RFC 8032).
//! Keys are PEM files as `openssl genpkey -algorithm ed25519` makes them (RFC 8410). A key comes
//! from a file or from an environment variable, never from the command line, and no text of it is
//! ever shown.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::platform::{MOST_TEXT, no_dumps, read_text};

/// The payload type of in-toto statements.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A signed document: DSSE, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Base64 of the document.
    pub payload: String,
    /// Media type of the document, which is signed with it.
    pub payload_type: String,
    /// Signatures over both.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature over type and document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeSignature {
    /// Which key made it: a hint, see [`key_id`].
    #[serde(default)]
    pub keyid: String,
    /// Base64 of the signature.
    pub sig: String,
}

impl EnvelopeSignature {
    /// The signature; `None` where it is no Base64 of 64 bytes, as every one by Ed25519 is (RFC 8032).
    fn bytes(&self) -> Option<[u8; 64]> {
        BASE64.decode(&self.sig).ok()?.try_into().ok()
    }
}

/// Where a private key is.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A PEM file.
    File(PathBuf),
    /// An environment variable that holds the PEM text.
    Environment(String),
}

impl FromStr for KeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Whoever pastes a key must not find it in an error message and a log.
        if text.contains("-----") || text.contains('\n') {
            return Err("this looks like a key itself; name a file that holds it, or env:VARIABLE".into());
        }
        match text.strip_prefix("env:") {
            Some("") => Err("env: is followed by the name of a variable".into()),
            Some(name) => Ok(Self::Environment(name.to_owned())),
            None => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

impl KeySource {
    /// Reads the private key. From then on no dump of memory can hold it.
    ///
    /// # Errors
    /// Bad input: not there, or no Ed25519 private key in PKCS #8 PEM.
    pub fn load(&self) -> Result<SigningKey> {
        no_dumps(false);
        let (whence, text) = match self {
            Self::File(path) => (
                path.display().to_string(),
                read_text(path, MOST_TEXT)
                    .map_err(|e| Error::misuse("key", format!("the key {} cannot be read: {e}", path.display())))?,
            ),
            Self::Environment(name) => (
                format!("the environment variable {name}"),
                std::env::var(name)
                    .map_err(|_| Error::misuse("key", format!("the environment variable {name} holds no key")))?,
            ),
        };
        let text = Zeroizing::new(text);
        SigningKey::from_pkcs8_pem(text.trim()).map_err(|_| {
            Error::misuse("key", format!("{whence} holds no Ed25519 private key in PEM (PKCS #8)"))
                .next("make one: openssl genpkey -algorithm ed25519 -out signing.pem")
        })
    }

    /// Whether others than the owner may read the key's file.
    pub fn readable_by_others(&self) -> bool {
        #[cfg(unix)]
        if let Self::File(path) = self {
            use std::os::unix::fs::PermissionsExt;
            return std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
        }
        false
    }
}

/// Reads a public key.
///
/// # Errors
/// Bad input: not there, or no Ed25519 public key in PEM.
pub fn public_key(path: &Path) -> Result<VerifyingKey> {
    let bad = |what: String| {
        Error::misuse("key", what)
            .next("the public half of a key: openssl pkey -in signing.pem -pubout -out signing.pub")
    };
    let text = read_text(path, MOST_TEXT)
        .map_err(|e| bad(format!("the public key {} cannot be read: {e}", path.display())))?;
    if text.contains("PRIVATE KEY") {
        return Err(bad(format!("{} is a private key; verifying takes the public one", path.display())));
    }
    VerifyingKey::from_public_key_pem(text.trim())
        .map_err(|_| bad(format!("{} holds no Ed25519 public key in PEM", path.display())))
}

/// SHA-256 of a public key's SubjectPublicKeyInfo (DER), hexadecimal: what
/// `openssl pkey -pubin -outform DER | sha256sum` prints.
pub fn key_id(key: &VerifyingKey) -> String {
    key.to_public_key_der().map(|der| hex::encode(Sha256::digest(der.as_bytes()))).unwrap_or_default()
}

/// What is signed: the pre-authentication encoding.
pub fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

impl Envelope {
    /// Signs an in-toto statement.
    pub fn sign(payload: &[u8], key: &SigningKey) -> Self {
        let signature = key.sign(&pre_authentication(PAYLOAD_TYPE, payload));
        Self {
            payload: BASE64.encode(payload),
            payload_type: PAYLOAD_TYPE.into(),
            signatures: vec![EnvelopeSignature {
                keyid: key_id(&key.verifying_key()),
                sig: BASE64.encode(signature.to_bytes()),
            }],
        }
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// Bad input: no envelope, or one of something else than an in-toto statement.
    pub fn parse(bytes: &[u8], whence: &str) -> Result<Self> {
        let bad = |what: String| Error::misuse("envelope", format!("{whence}: {what}"));
        let e: Self = serde_json::from_slice(bytes).map_err(|e| bad(format!("no DSSE envelope: {e}")))?;
        if e.payload_type != PAYLOAD_TYPE {
            return Err(bad(format!("it holds '{}'; {PAYLOAD_TYPE} is read here", e.payload_type)));
        }
        Ok(e)
    }

    /// The document, unchecked.
    ///
    /// # Errors
    /// Bad input: it is not base64.
    pub fn payload(&self, whence: &str) -> Result<Vec<u8>> {
        BASE64
            .decode(&self.payload)
            .map_err(|e| Error::misuse("envelope", format!("{whence}: its payload is not base64: {e}")))
    }

    /// How many signatures there are; what could be nobody's is none.
    pub fn signature_count(&self) -> usize {
        self.signatures.iter().filter(|s| s.bytes().is_some()).count()
    }

    /// Which of `keys` signed the document. The hint `keyid` is not trusted: every key is tried on
    /// every signature, by the strict rules that leave no two signatures for one text.
    pub fn signed_by<'k>(&self, payload: &[u8], keys: &'k [VerifyingKey]) -> Option<&'k VerifyingKey> {
        let text = pre_authentication(&self.payload_type, payload);
        self.signatures.iter().find_map(|s| {
            let signature = Signature::from_bytes(&s.bytes()?);
            keys.iter().find(|k| k.verify_strict(&text, &signature).is_ok())
        })
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// None that a user can cause.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self).map_err(|e| Error::world("envelope", e.to_string()))?;
        text.push(b'\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // protocol.md of DSSE, "Test Vectors".
        assert_eq!(
            pre_authentication("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn what_has_not_64_bytes_is_no_signature() {
        let mut envelope = Envelope::sign(b"{}", &SigningKey::from_bytes(&[7; 32]));
        assert_eq!(envelope.signature_count(), 1);
        let whole = envelope.signatures[0].sig.clone();
        for sig in ["", "AAAA", "no Base64", &whole[..84], &BASE64.encode([0; 65])] {
            envelope.signatures[0].sig = sig.into();
            assert_eq!(envelope.signature_count(), 0, "{sig:?}");
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_breaks_the_signature(payload in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let key = SigningKey::from_bytes(&[7; 32]);
            let envelope = Envelope::sign(&payload, &key);
            let keys = [key.verifying_key()];
            prop_assert!(envelope.signed_by(&payload, &keys).is_some());
            let mut changed = payload.clone();
            changed[at.index(payload.len())] ^= 1 << bit;
            prop_assert!(envelope.signed_by(&changed, &keys).is_none());
        }
    }
}
