//! Compiled code on disk, so that a start does not compile what an earlier one compiled.
//!
//! A file is named by what its content depends on: the engine's compatibility hash (its version, its
//! settings, this CPU) and the SHA-256 of the module. It is machine code that will be run unchecked,
//! so nobody but this user may have written it: the folder is private (0700), a file that belongs to
//! somebody else or that others may write is not used, and its content must have the checksum that it
//! begins with (a torn write, a dying disk). It is written beside and renamed, so no reader sees half
//! of one. The cache is only ever a shortcut: what does not fit is compiled anew and replaced, and a
//! full disk costs time alone. It is never distributed; what operators share are modules.

use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use wasmtime::{Engine, component::Component};

/// What a file begins with; behind it stands the SHA-256 of the rest.
const MAGIC: &[u8; 8] = b"rgcode1\n";
const HEADER: usize = MAGIC.len() + 32;
/// Larger code is not read back. Compiled code is some five times the module.
const MAX_FILE: u64 = 1 << 30;
/// Files in the folder; the oldest go when there are more.
const MAX_FILES: usize = 64;

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
        let owner = tempfile::tempfile().and_then(|file| file.metadata()).map_err(cannot)?.uid();
        let metadata = fs::metadata(dir).map_err(cannot)?;
        if metadata.uid() != owner || metadata.permissions().mode() & 0o022 != 0 {
            return Err(format!(
                "the folder for compiled policies, {}, belongs to another user or can be written by others; \
                 its content is run as machine code: give it to this user with mode 0700, or name another",
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
        let code = match self.read(&path) {
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
            .and_then(|code| self.write(&path, &code))
            .and_then(|()| self.tidy());
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "compiled policy not kept; the next start compiles again");
        }
    }

    fn path(&self, module: &[u8; 32]) -> PathBuf {
        self.dir.join(format!("{:016x}-{}.code", self.compatibility, hex::encode(module)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.uid() != self.owner || metadata.permissions().mode() & 0o022 != 0 {
            return Err(io::Error::other("it belongs to another user or can be written by others"));
        }
        if metadata.len() > MAX_FILE {
            return Err(io::Error::other("it is too large"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        match bytes.split_at_checked(HEADER) {
            Some((header, code)) if header == seal(code) => Ok(bytes),
            _ => Err(io::Error::other("its checksum is wrong")),
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(&seal(code))?;
                file.write_all(code)
            })
            .and_then(|()| fs::rename(&temporary, path));
        written.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    /// Removes the files that were made longest ago, and what a crash left half written.
    fn tidy(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        let too_many = files.len().saturating_sub(MAX_FILES);
        for (_, path) in files.iter().take(too_many) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn seal(code: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()..].copy_from_slice(&Sha256::digest(code));
    header
}
