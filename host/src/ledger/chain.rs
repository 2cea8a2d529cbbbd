//! The chain of HMACs that makes the ledger tamper-evident, and the keys it is made with.
//!
//! Each record ends with a tag: HMAC-SHA256, with the ledger's key, over the tag before it, the record's
//! number and its bytes, cut to 16 bytes. Whoever does not have the key can neither change, remove, swap
//! nor insert a record: 128 bits are what RFC 2104 asks for at least, and a forged tag shows nothing about
//! the next. The same tag is the record's checksum.
//!
//! The keys are lines of one text, the newest first: the first one signs, all of them verify. So a key is
//! changed by writing a new line above the old ones; the next segment begins with it.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Bytes of a tag.
pub const TAG_LEN: usize = 16;
/// What follows what: the end of each record.
pub type Tag = [u8; TAG_LEN];
/// Tells keys apart without giving them away.
pub type Fingerprint = [u8; 8];

/// The name of the key that a ledger makes for itself where none is given.
pub const KEY_FILE: &str = "chain.key";
/// A key has at least this many bytes.
const MIN_KEY: usize = 16;

/// One key.
#[derive(Clone)]
pub struct Key {
    mac: Hmac<Sha256>,
    fingerprint: Fingerprint,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", hex::encode(self.fingerprint))
    }
}

impl Key {
    fn new(secret: &[u8]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
        let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        let mut named = mac.clone();
        named.update(b"reservegrid ledger key");
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(&named.finalize().into_bytes()[..8]);
        Self { mac, fingerprint }
    }

    /// Its name in the files.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The tag of a record that follows `before`.
    pub fn tag(&self, before: &Tag, number: u64, body: &[u8]) -> Tag {
        let mut mac = self.mac.clone();
        mac.update(before);
        mac.update(&number.to_le_bytes());
        mac.update(body);
        cut(mac)
    }

    /// The tag of something that is not part of the chain; `purpose` keeps the kinds apart.
    pub fn seal(&self, purpose: &str, bytes: &[u8]) -> Tag {
        let mut mac = self.mac.clone();
        mac.update(purpose.as_bytes());
        mac.update(&Sha256::digest(bytes));
        cut(mac)
    }
}

fn cut(mac: Hmac<Sha256>) -> Tag {
    let mut tag = Tag::default();
    tag.copy_from_slice(&mac.finalize().into_bytes()[..TAG_LEN]);
    tag
}

/// All keys of a ledger.
#[derive(Clone, Debug)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Takes the keys from a text, one a line, the one that signs first.
    ///
    /// # Errors
    /// When there is none, or one is too short.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if let Some(at) = lines.iter().position(|line| line.len() < MIN_KEY) {
            return Err(format!(
                "key {} has {} bytes; at least {MIN_KEY} are needed",
                at + 1,
                lines[at].len()
            ));
        }
        if lines.is_empty() {
            return Err("there is no key in it".into());
        }
        Ok(Self(lines.into_iter().map(|line| Key::new(line.as_bytes())).collect()))
    }

    /// Reads the keys from a file.
    ///
    /// # Errors
    /// When it cannot be read or holds no keys; the error names the file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let named = |kind, error: String| io::Error::new(kind, format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| named(error.kind(), error.to_string()))?;
        Self::parse(&text).map_err(|error| named(io::ErrorKind::InvalidData, error))
    }

    /// The keys of a folder whose operator gave none: in [`KEY_FILE`], made at the first start.
    ///
    /// # Errors
    /// I/O.
    pub fn of_folder(folder: &Path, may_make: bool) -> io::Result<Self> {
        let path = folder.join(KEY_FILE);
        if may_make && !path.exists() {
            let secret: [u8; 32] = bitcoin::secp256k1::rand::random();
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(format!("{}\n", hex::encode(secret)).as_bytes())?;
            file.sync_all()?;
        }
        Self::read(&path)
    }

    /// The one that signs.
    pub fn signing(&self) -> &Key {
        // There is at least one: `parse` makes sure.
        &self.0[0]
    }

    /// The key of this name.
    pub fn named(&self, fingerprint: Fingerprint) -> Option<&Key> {
        self.0.iter().find(|key| key.fingerprint == fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_depends_on_key_place_and_bytes() {
        let keys = Keys::parse("the first key of all\nthe second key of all\n").unwrap();
        let (a, b) = (&keys.0[0], &keys.0[1]);
        let tag = a.tag(&[0; 16], 7, b"record");
        assert_eq!(tag, a.tag(&[0; 16], 7, b"record"));
        for other in [
            b.tag(&[0; 16], 7, b"record"),
            a.tag(&[1; 16], 7, b"record"),
            a.tag(&[0; 16], 8, b"record"),
            a.tag(&[0; 16], 7, b"Record"),
        ] {
            assert_ne!(tag, other);
        }
        assert_eq!(keys.named(b.fingerprint()).unwrap().fingerprint(), b.fingerprint());
    }

    #[test]
    fn short_keys_and_no_keys_are_refused_and_keys_are_not_shown() {
        assert!(Keys::parse("long enough as a key\nshort").unwrap_err().contains("key 2 has 5 bytes"));
        assert!(Keys::parse(" \n").is_err());
        assert!(!format!("{:?}", Keys::parse("long enough as a key").unwrap()).contains("enough"));
    }
}
