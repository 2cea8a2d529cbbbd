//! Compiled code on disk, so that a start does not compile what an earlier one compiled.
//!
//! A file is named by what its content depends on: the engine's compatibility hash (its version, its
//! settings, this CPU) and the SHA-256 of the module. It is machine code that will be run unchecked,
//! so nobody but this user may have written it: the folder is made with mode 0700, and one that belongs
//! to another user, or that its group or others may write, is refused; a file of which that is true is
//! not used. A file begins with a checksum over its name's two parts and its content, so a torn write, a
//! dying disk or a file under another's name are seen. It is written beside and renamed, so no reader
//! sees half of one. The cache is only ever a shortcut: what does not fit is compiled anew and replaced,
//! and a full disk costs time alone. Files with other names are left alone. Compiled code is never
//! distributed; what operators share are modules.

use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use wasmtime::{Engine, component::Component};

/// What a file begins with; behind it stands the SHA-256 of what it is for, and of the rest.
const MAGIC: &[u8; 8] = b"rgcode2\n";
const HEADER: usize = MAGIC.len() + 32;
/// Larger code is not read back. Compiled code is some five times the module.
const MAX_FILE: u64 = 1 << 30;
/// Files in the folder; the oldest go when there are more.
const MAX_FILES: usize = 64;
/// A file that is half written for longer was left by a crash.
const STALE: Duration = Duration::from_secs(3600);

/// The folder of one engine's compiled code.
pub(super) struct CodeCache {
    dir: PathBuf,
    /// Names what the engine can run.
    compatibility: u64,
    owner: u32,
}

impl CodeCache {
    /// Uses `dir`, which is made when it does not exist.
    ///
    /// # Errors
    /// In words, when the folder cannot be made or is open to others.
    pub(super) fn open(dir: &Path, engine: &Engine) -> Result<Self, String> {
        let cannot = |error: io::Error| {
            format!("the folder for compiled policies, {}, cannot be used: {error}", dir.display())
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cannot)?;
        // Whoever made a file is who we are: there is no call for that without unsafe code.
        let owner = tempfile::tempfile_in(dir).and_then(|file| file.metadata()).map_err(cannot)?.uid();
        let metadata = fs::metadata(dir).map_err(cannot)?;
        if metadata.uid() != owner || metadata.permissions().mode() & 0o022 != 0 {
            return Err(format!(
                "the folder for compiled policies, {}, belongs to another user or can be written by its group \
                 or by others; its content is run as machine code: give it to this user with mode 0700, or name another",
                dir.display()
            ));
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { dir: dir.to_owned(), compatibility: hasher.finish(), owner })
    }

    /// The compiled component of a module, if it is here and sound.
    pub(super) fn get(&self, engine: &Engine, module: &[u8; 32]) -> Option<Component> {
        let path = self.path(module);
        let code = match self.read(&path, module) {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled policy not used, it is compiled anew");
                return None;
            }
        };
        // Sound: the file was written by this user from `Component::serialize` of an engine that is
        // compatible, and has not changed since. Wasmtime checks version and settings once more.
        #[allow(unsafe_code, reason = "the one way to run code that was compiled before")]
        let component = unsafe { Component::deserialize(engine, code.get(HEADER..)?) };
        component
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "compiled policy not used"))
            .ok()
    }

    /// Keeps compiled code. What goes wrong is logged: the module is loaded all the same.
    pub(super) fn put(&self, module: &[u8; 32], component: &Component) {
        let path = self.path(module);
        let kept = component
            .serialize()
            .map_err(io::Error::other)
            .and_then(|code| self.write(&path, module, &code))
            .and_then(|()| self.tidy());
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "compiled policy not kept; the next start compiles again");
        }
    }

    fn path(&self, module: &[u8; 32]) -> PathBuf {
        self.dir.join(format!("{:016x}-{}.code", self.compatibility, hex::encode(module)))
    }

    fn read(&self, path: &Path, module: &[u8; 32]) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.uid() != self.owner || metadata.permissions().mode() & 0o022 != 0 {
            return Err(io::Error::other(
                "it belongs to another user or can be written by its group or by others",
            ));
        }
        if metadata.len() > MAX_FILE {
            return Err(io::Error::other("it is too large"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        match bytes.split_at_checked(HEADER) {
            Some((header, code)) if header == self.seal(module, code) => Ok(bytes),
            _ => Err(io::Error::other("its checksum is wrong")),
        }
    }

    fn write(&self, path: &Path, module: &[u8; 32], code: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(&self.seal(module, code))?;
                file.write_all(code)
            })
            .and_then(|()| fs::rename(&temporary, path));
        written.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    /// What a file with this code for this module begins with.
    fn seal(&self, module: &[u8; 32], code: &[u8]) -> [u8; HEADER] {
        let mut hash = Sha256::new();
        hash.update(self.compatibility.to_le_bytes());
        hash.update(module);
        hash.update(code);
        let mut header = [0; HEADER];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..].copy_from_slice(&hash.finalize());
        header
    }

    /// Removes the compiled code that was made longest ago, and what a crash left half written.
    fn tidy(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(kind) = name.to_str().and_then(Kind::of) else { continue };
            // Another process may tidy the same folder.
            let Ok(made) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
            match kind {
                Kind::Code => files.push((made, entry.path())),
                Kind::HalfWritten if made.elapsed().is_ok_and(|age| age > STALE) => remove(&entry.path())?,
                Kind::HalfWritten => {}
            }
        }
        files.sort();
        let too_many = files.len().saturating_sub(MAX_FILES);
        files.iter().take(too_many).try_for_each(|(_, path)| remove(path))
    }
}

/// What a file is by its name: `<16 hex>-<64 hex>.code`, or that with `.<process>.tmp` for `.code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Code,
    HalfWritten,
}

impl Kind {
    /// `None` for what is not ours.
    fn of(name: &str) -> Option<Self> {
        let (stem, ending) = name.split_once('.')?;
        let (compatibility, module) = stem.split_once('-')?;
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if compatibility.len() != 16 || module.len() != 64 || !hex(compatibility) || !hex(module) {
            return None;
        }
        let process = ending.strip_suffix(".tmp");
        match process {
            None => (ending == "code").then_some(Self::Code),
            Some(process) => process.parse::<u32>().ok().map(|_| Self::HalfWritten),
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn cache() -> (tempfile::TempDir, CodeCache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(dir.path(), &Engine::default()).unwrap();
        (dir, cache)
    }

    /// A file that was made so many seconds ago.
    fn made(path: &Path, seconds: u64) {
        let file = File::create(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn the_oldest_code_goes_and_files_of_others_stay() {
        let (dir, cache) = cache();
        let code = |n: u8| cache.path(&[n; 32]);
        let others = [
            "notes.txt",
            "0123456789abcdef.code",
            &format!("{:016x}-{}.CODE", 1, "ab".repeat(32)),
            &format!("{:016x}-{}.code.bak", 1, "ab".repeat(32)),
            &format!("{:016X}-{}.code", 0xabc, "ab".repeat(32)),
            &format!("{:016x}-{}.tmp", 1, "ab".repeat(32)),
        ]
        .map(|name| dir.path().join(name));
        others.iter().for_each(|path| made(path, 1_000_000));
        let (stale, fresh) = (code(1).with_extension("77.tmp"), code(1).with_extension("78.tmp"));
        made(&stale, 2 * STALE.as_secs());
        made(&fresh, 1);
        let count = u8::try_from(MAX_FILES).unwrap() + 3;
        (0..count).for_each(|n| made(&code(n), 10_000 - u64::from(n)));
        cache.tidy().unwrap();
        let left: Vec<u8> = (0..count).filter(|n| code(*n).exists()).collect();
        assert_eq!(left, (3..count).collect::<Vec<_>>(), "the three oldest are gone");
        assert!(others.iter().all(|path| path.exists()));
        assert!(!stale.exists() && fresh.exists());
    }

    #[test]
    fn code_under_the_name_of_another_module_or_another_engine_is_not_believed() {
        let (_dir, cache) = cache();
        cache.write(&cache.path(&[1; 32]), &[1; 32], b"code").unwrap();
        assert!(cache.read(&cache.path(&[1; 32]), &[1; 32]).is_ok());
        fs::copy(cache.path(&[1; 32]), cache.path(&[2; 32])).unwrap();
        let error = cache.read(&cache.path(&[2; 32]), &[2; 32]).unwrap_err();
        assert_eq!(error.to_string(), "its checksum is wrong");
        let other =
            CodeCache { compatibility: !cache.compatibility, dir: cache.dir.clone(), owner: cache.owner };
        fs::copy(cache.path(&[1; 32]), other.path(&[1; 32])).unwrap();
        assert!(other.read(&other.path(&[1; 32]), &[1; 32]).is_err());
    }
}
