//! The key that signs what goes to the pool, and its exchange while the gateway runs.
//!
//! From the environment it stays as it is. From a file it is read again within a second of a change: the
//! first line is the secret, a second line, where there is one, is the name of the key in place of
//! `[pool] key_id`, so that both change at once. A file that cannot be used changes nothing. The backend knows
//! both keys while they overlap; that is its side of a rotation.

use crate::config::Secret;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two looks at a file.
const LOOK: Duration = Duration::from_secs(1);
/// A secret has at least this many bytes.
const MIN_SECRET: usize = 16;

/// A signing key.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its name, sent along.
    pub id: String,
    /// The shared secret.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// Takes a secret's text apart; `id` is the name where the text has none.
    ///
    /// # Errors
    /// When the secret is too short or the name does not go into a header.
    pub fn parse(text: &str, id: &str) -> Result<Self, String> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secret = lines.next().unwrap_or_default().as_bytes().to_vec();
        let id = lines.next().unwrap_or(id).to_owned();
        if secret.len() < MIN_SECRET {
            return Err(format!("the secret has {} bytes; at least {MIN_SECRET} are needed", secret.len()));
        }
        if id.len() > 128 || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the name of the key (its second line) does not go into a header".into());
        }
        Ok(Self { id, secret })
    }
}

/// What tells a changed file from the same one.
type Stamp = (u64, i64, i64, u64);

fn stamp(path: &Path) -> io::Result<Stamp> {
    let data = fs::metadata(path)?;
    Ok((data.ino(), data.mtime(), data.mtime_nsec(), data.size()))
}

/// A file that is looked at from time to time.
pub(super) struct Watched {
    path: PathBuf,
    stamp: Option<Stamp>,
    looked: Instant,
}

impl Watched {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stamp: stamp(path).ok(), looked: Instant::now() }
    }

    /// Its text when it is another than at the last look; at most one look a second.
    pub(super) fn changed(&mut self) -> Option<io::Result<String>> {
        if self.looked.elapsed() < LOOK {
            return None;
        }
        self.looked = Instant::now();
        // One that is not there is on its way to be another one.
        let stamp = stamp(&self.path).ok()?;
        if self.stamp.replace(stamp) == Some(stamp) {
            return None;
        }
        Some(fs::read_to_string(&self.path))
    }
}

/// The present signing key.
pub struct SigningKeys(Mutex<State>);

struct State {
    key: Arc<SigningKey>,
    /// Name of the key where the file has none.
    id: String,
    file: Option<Watched>,
    news: Option<Change>,
}

/// What a look at the file brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Another key signs from now on; its name.
    Changed(String),
    /// The file cannot be used; the key of before goes on.
    Unusable(String),
}

impl SigningKeys {
    /// The key of the configuration.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn new(secret: &Secret, id: &str) -> Result<Self, String> {
        let key = Arc::new(SigningKey::parse(secret.expose(), id)?);
        let file = secret.file().map(Watched::new);
        Ok(Self(Mutex::new(State { key, id: id.to_owned(), file, news: None })))
    }

    /// Another key of the configuration.
    ///
    /// # Errors
    /// When it cannot be used; nothing changes then.
    pub fn replace(&self, secret: &Secret, id: &str) -> Result<(), String> {
        let Self(new) = Self::new(secret, id)?;
        let new = new.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The key to sign with now.
    pub fn current(&self) -> Arc<SigningKey> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { key, id, file, news } = &mut *state;
        if let Some(text) = file.as_mut().and_then(Watched::changed) {
            let text = text.map_err(|error| error.to_string());
            match text.and_then(|text| SigningKey::parse(&text, id)) {
                Ok(new) if new == **key => {}
                Ok(new) => {
                    *key = Arc::new(new);
                    *news = Some(Change::Changed(key.id.clone()));
                }
                Err(error) => *news = Some(Change::Unusable(error)),
            }
        }
        key.clone()
    }

    /// What the looks at the file brought, once.
    pub fn news(&self) -> Option<Change> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).news.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_line_is_the_name_of_the_key() {
        let key = SigningKey::parse("a secret of the pool\n\nk2\n", "k1").unwrap();
        assert_eq!((key.id.as_str(), &key.secret[..]), ("k2", &b"a secret of the pool"[..]));
        assert_eq!(SigningKey::parse("a secret of the pool", "k1").unwrap().id, "k1");
        for wrong in ["", "short", "a secret of the pool\ntwo words"] {
            assert!(SigningKey::parse(wrong, "k1").is_err(), "{wrong:?}");
        }
        assert!(!format!("{key:?}").contains("secret of"));
    }

    #[test]
    fn a_changed_file_is_taken_over_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("the first of all secrets");
        let mut secret = Secret::new("the first of all secrets");
        secret.came_from(&path);
        let keys = SigningKeys::new(&secret, "k1").unwrap();
        let look = |keys: &SigningKeys| {
            let past = Instant::now().checked_sub(LOOK).unwrap();
            keys.0.lock().unwrap().file.as_mut().unwrap().looked = past;
            (keys.current(), keys.news())
        };
        assert_eq!(look(&keys).1, None);
        write("too short");
        let (key, change) = look(&keys);
        assert!(matches!(change, Some(Change::Unusable(_))), "{change:?}");
        assert_eq!(key.id, "k1");
        assert_eq!(look(&keys).1, None, "said once");
        write("the second of all secrets\nk2");
        let (key, change) = look(&keys);
        assert_eq!((change, key.id.as_str()), (Some(Change::Changed("k2".into())), "k2"));
    }
}
