//! How a changed file is noticed: by looking, again and again.
//!
//! Not by the kernel's notifications: those say nothing on network and some container file systems, and
//! follow an inode, so that a file replaced by rename, or a symbolic link that is turned elsewhere (as
//! Kubernetes does with mounted configuration), needs its folders watched too. A `stat` of a few files
//! every two seconds costs nothing and works everywhere. What counts is the content: a file that was
//! touched, or written again with the same bytes, did not change.

use crate::policy::store::LoadedSet;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// SHA-256 of each file, or none where there is no file that can be read.
pub(super) type Sight = BTreeMap<PathBuf, Option<[u8; 32]>>;

/// Time stamps of some file systems have a grain of two seconds: a file that was changed just before it
/// was looked at may change again and keep its stamp.
const YOUNG: Duration = Duration::from_secs(5);
/// More of a file is not looked at. The limit for modules is an operator's choice, and far below this.
const MAX_BYTES: u64 = 256 << 20;

/// The modules of a set, as they were when it was loaded.
pub(super) fn modules(set: &LoadedSet) -> Sight {
    set.modules().map(|(path, digest)| (path.to_owned(), Some(*digest))).collect()
}

/// What is seen is another thing than what was tried, and was seen twice.
pub(super) fn is_news(seen: &Sight, last: &Sight, tried: &Sight) -> bool {
    seen == last && seen != tried
}

/// Looks at files, and reads one only when its stamp says that it may have changed.
#[derive(Debug, Default)]
pub(super) struct Eyes {
    known: HashMap<PathBuf, (Stamp, Option<[u8; 32]>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// The stamp was old enough when the file was read that a later change must show in it.
    settled: bool,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            settled: age.is_some_and(|age| age > YOUNG),
        }
    }
}

impl Eyes {
    /// Looks at every file. Blocks.
    pub(super) fn look(&mut self, paths: &[PathBuf]) -> Sight {
        self.known.retain(|path, _| paths.contains(path));
        paths.iter().map(|path| (path.clone(), self.look_at(path))).collect()
    }

    fn look_at(&mut self, path: &Path) -> Option<[u8; 32]> {
        // A pipe or a device would be read without end.
        let metadata = fs::metadata(path).ok().filter(Metadata::is_file)?;
        let stamp = Stamp::of(&metadata);
        if let Some((known, digest)) = self.known.get(path)
            && *known == stamp
            && stamp.settled
        {
            return *digest;
        }
        let digest = read(path);
        self.known.insert(path.to_owned(), (stamp, digest));
        digest
    }
}

fn read(path: &Path) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path).ok()?.take(MAX_BYTES), &mut hash).ok()?;
    Some(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(text: &str) -> Sight {
        Sight::from([("a".into(), Some(Sha256::digest(text).into()))])
    }

    #[test]
    fn a_change_is_news_when_it_was_seen_twice_and_not_tried_yet() {
        let (old, half, new) = (sight("old"), sight("ne"), sight("new"));
        assert!(!is_news(&old, &Sight::new(), &old), "nothing changed");
        assert!(!is_news(&half, &old, &old), "it may still be written");
        assert!(!is_news(&new, &half, &old), "it was");
        assert!(is_news(&new, &new, &old));
        assert!(!is_news(&new, &new, &new), "tried, with whatever result");
    }

    #[test]
    fn content_counts_and_not_the_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a"), folder.path().join("b")];
        let mut eyes = Eyes::default();
        assert_eq!(eyes.look(&paths).into_values().collect::<Vec<_>>(), [None, None]);
        fs::write(&paths[0], "one").unwrap();
        let one = eyes.look(&paths);
        assert!(one[&paths[0]].is_some() && one[&paths[1]].is_none());
        fs::write(&paths[0], "one").unwrap();
        assert_eq!(eyes.look(&paths), one, "the same bytes again");
        // The same length within the same grain of time.
        fs::write(&paths[0], "two").unwrap();
        assert_ne!(eyes.look(&paths), one);
        fs::write(folder.path().join("next"), "one").unwrap();
        fs::rename(folder.path().join("next"), &paths[0]).unwrap();
        assert_eq!(eyes.look(&paths), one, "a rename over it is seen");
    }

    #[test]
    fn an_old_file_is_read_again_only_when_its_stamp_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let write = |text: &str, age: u64| {
            fs::write(&path, text).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        let mut eyes = Eyes::default();
        write("one", 100);
        let one = eyes.look(std::slice::from_ref(&path));
        assert!(eyes.known[&path].0.settled);
        assert_eq!(eyes.look(std::slice::from_ref(&path)), one);
        write("two", 50);
        assert_ne!(eyes.look(std::slice::from_ref(&path)), one);
    }

    #[test]
    fn a_folder_or_a_pipe_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Eyes::default().look(&[folder.path().to_owned()]);
        assert_eq!(seen[folder.path()], None);
    }
}
