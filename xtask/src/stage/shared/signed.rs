//! Entries that say who wrote them: an Ed25519 signature behind the entry, over its name and its bytes, in the encoding
//! of DSSE. What has no signature that counts is read as if it were not there.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::artifact::dsse::{key_id, pre_authentication};

/// What stands between an entry and its signature.
const MARK: &[u8; 16] = b"\0torchmill-sig1\0";
/// Bytes of a signature (RFC 8032).
const SIGNATURE: usize = 64;
/// The type under which entries are signed: none of them can be taken for something else that was signed.
const TYPE: &str = "application/vnd.torchmill.cache-entry";

/// Whose entries are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Nobody's: the cache is only written.
    #[default]
    Nobody,
    /// Those that one of these keys signed.
    Keys(Vec<VerifyingKey>),
    /// Everybody's who can write there.
    Unsigned,
}

impl Trust {
    /// Whose entries are read, in a word that changes where that changes.
    pub fn shown(&self) -> String {
        match self {
            Self::Nobody => "nobody".into(),
            Self::Unsigned => "everybody".into(),
            Self::Keys(keys) => {
                let mut ids: Vec<String> = keys.iter().map(key_id).collect();
                ids.sort();
                ids.dedup();
                ids.join(",")
            }
        }
    }
}

/// The text that is signed.
fn text(key: &str, entry: &[u8]) -> Vec<u8> {
    let mut payload = format!("{key}\n").into_bytes();
    payload.extend_from_slice(entry);
    pre_authentication(TYPE, &payload)
}

/// An entry with the signature of `secret` behind it.
pub fn seal(key: &str, entry: &[u8], secret: &SigningKey) -> Vec<u8> {
    let signature = secret.sign(&text(key, entry));
    [entry, MARK, &signature.to_bytes()].concat()
}

/// The entry in `bytes`, if it is one of those that are read.
pub fn open<'b>(key: &str, bytes: &'b [u8], trust: &Trust) -> Option<&'b [u8]> {
    let parts = bytes.len().checked_sub(MARK.len() + SIGNATURE).map(|at| bytes.split_at(at));
    let signed = parts.and_then(|(entry, end)| Some((entry, end.strip_prefix(MARK)?)));
    match trust {
        Trust::Nobody => None,
        Trust::Unsigned => Some(signed.map_or(bytes, |(entry, _)| entry)),
        Trust::Keys(keys) => {
            let (entry, signature) = signed?;
            let signature = Signature::from_bytes(signature.try_into().ok()?);
            let text = text(key, entry);
            keys.iter().any(|k| k.verify_strict(&text, &signature).is_ok()).then_some(entry)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_only_under_a_trusted_key_its_own_name_and_with_its_own_bytes() {
        let (ours, theirs) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
        let trust = Trust::Keys(vec![ours.verifying_key()]);
        let sealed = seal("name", b"entry", &ours);
        assert_eq!(open("name", &sealed, &trust), Some(&b"entry"[..]));
        assert_eq!(open("name", &sealed, &Trust::Unsigned), Some(&b"entry"[..]));
        assert_eq!(open("name", b"entry", &Trust::Unsigned), Some(&b"entry"[..]));
        assert_eq!(open("name", &sealed, &Trust::Nobody), None);
        // Put under another name, signed by another key, without a signature, changed, cut off.
        assert_eq!(open("other", &sealed, &trust), None);
        assert_eq!(open("name", &seal("name", b"entry", &theirs), &trust), None);
        assert_eq!(open("name", b"entry", &trust), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open("name", &changed, &trust), None, "byte {at}");
            assert_eq!(open("name", &sealed[..at], &trust), None);
        }
    }
}
