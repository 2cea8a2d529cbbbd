//! From a policy's crate to a component file: `reservegrid policy build`.
//!
//! Cargo compiles the crate for `wasm32-unknown-unknown`, which has no WASI and so nothing to import
//! but the contract; then `wit-component` wraps the core module, with the contract that wit-bindgen
//! left in it, into a component. Two toolchains are tried: the one on the `PATH` where it has the
//! target (rustup, or a distribution that ships it), then a system compiler in `/usr/bin` with the
//! sources of its standard library (Debian's `rustc-web`), which builds that first. The options that
//! make a policy small and stop it on panic are given here, so a policy's crate needs no profile.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";
/// Where Debian's `rustc-web` and `cargo-web` put themselves.
const SYSTEM_BIN: &str = "/usr/bin";

/// Little fuel first, small second: "s" makes a module a quarter smaller and costs half as much fuel
/// again. Overflow and panic stop the policy, and a stopped policy is a rejection.
const PROFILE: [&str; 8] = [
    "inherits=\"release\"",
    "opt-level=3",
    "lto=true",
    "codegen-units=1",
    "panic=\"abort\"",
    "debug=false",
    "strip=true",
    "overflow-checks=true",
];

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The directory holds no crate.
    #[error("{0} has no Cargo.toml; give the directory of a policy's crate")]
    NoCrate(PathBuf),
    /// Neither toolchain is there.
    #[error(
        "no Rust compiler for {TARGET}: run `rustup target add {TARGET}`, or on Debian \
         `apt-get install rustc-web cargo-web rust-web-src lld`"
    )]
    NoToolchain,
    /// Cargo did not run.
    #[error("cannot run cargo: {0}")]
    Run(std::io::Error),
    /// Cargo ran and failed; its own words are on stderr.
    #[error("cargo could not build the policy (its messages stand above)")]
    Compile,
    /// The crate is not a library for wasm.
    #[error("the crate gives no .wasm file; its Cargo.toml needs [lib] crate-type = [\"cdylib\", \"rlib\"]")]
    NoModule,
    /// The module does not carry the contract.
    #[error(
        "{module} cannot be made a component: {detail}; does the crate call `reservegrid_policy_sdk::export_policy!`?"
    )]
    Componentize {
        /// The core module.
        module: PathBuf,
        /// The encoder's words.
        detail: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
}

/// Builds the policy crate in `crate_dir` and writes the component, atomically, to `out`, or else to
/// `policies/FOLDER.wasm` in cargo's target folder. Cargo knows what is fresh, so building again costs
/// little. Its progress goes to stderr. Gives the component's path.
///
/// # Errors
/// See [`BuildError`]; each says what to do.
pub fn build(crate_dir: &Path, out: Option<&Path>) -> Result<PathBuf, BuildError> {
    let manifest = crate_dir.join("Cargo.toml");
    let crate_dir = crate_dir
        .canonicalize()
        .ok()
        .filter(|_| manifest.is_file())
        .ok_or(BuildError::NoCrate(crate_dir.into()))?;
    let toolchain = Toolchain::find().ok_or(BuildError::NoToolchain)?;
    let workspace = workspace(&toolchain, &manifest)?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let out = out.map_or_else(
        || target.join("policies").join(crate_dir.file_name().unwrap_or_default()).with_extension("wasm"),
        Path::to_owned,
    );
    let module = compile(&toolchain, &manifest, &workspace, &target)?;
    let component = componentize(&module)?;
    write_atomically(&out, &component)?;
    Ok(out)
}

/// A compiler that can produce the target.
enum Toolchain {
    /// On the `PATH`, with the target's standard library.
    Path,
    /// In `/usr/bin`, with the sources of the standard library and this linker.
    System { linker: PathBuf },
}

impl Toolchain {
    fn find() -> Option<Self> {
        let path_sysroot = sysroot(Path::new("rustc"));
        if path_sysroot
            .as_ref()
            .is_some_and(|root| root.join("lib/rustlib").join(TARGET).join("lib").is_dir())
        {
            return Some(Self::Path);
        }
        let system_sysroot = sysroot(&Path::new(SYSTEM_BIN).join("rustc"))?;
        let has_sources = system_sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file();
        let has_cargo = Path::new(SYSTEM_BIN).join("cargo").is_file();
        let linker = [path_sysroot, Some(system_sysroot)].into_iter().flatten().find_map(|root| lld(&root));
        (has_sources && has_cargo).then_some(Self::System { linker: linker? })
    }

    fn cargo(&self) -> Command {
        let mut command = match self {
            Self::Path => Command::new("cargo"),
            Self::System { linker } => {
                let bin = Path::new(SYSTEM_BIN);
                let mut command = Command::new(bin.join("cargo"));
                command
                    .env("RUSTC", bin.join("rustc"))
                    .env("RUSTC_BOOTSTRAP", "1") // building std is not stable
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                    .env_remove("RUSTUP_TOOLCHAIN");
                command
            }
        };
        // Left over when this runs below another cargo; they would speak of another build.
        for name in ["CARGO", "RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            command.env_remove(name);
        }
        command
    }
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).stderr(Stdio::null()).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

/// The linker of a rustup toolchain, or the system's.
fn lld(sysroot: &Path) -> Option<PathBuf> {
    let hosts = fs::read_dir(sysroot.join("lib/rustlib")).into_iter().flatten().flatten();
    let bundled = hosts.map(|host| host.path().join("bin/rust-lld"));
    let system = [Path::new(SYSTEM_BIN).join("wasm-ld"), Path::new(SYSTEM_BIN).join("lld")];
    bundled.chain(system).find(|path| path.is_file())
}

/// Runs cargo; gives the core module.
fn compile(
    toolchain: &Toolchain,
    manifest: &Path,
    workspace: &Path,
    target: &Path,
) -> Result<PathBuf, BuildError> {
    let mut cargo = toolchain.cargo();
    if matches!(toolchain, Toolchain::System { .. }) {
        cargo.arg("-Zbuild-std=std,panic_abort");
    }
    cargo.args(["build", "--lib", "--profile", "policy", "--target", TARGET]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    for setting in PROFILE {
        cargo.arg("--config").arg(format!("profile.policy.{setting}"));
    }
    cargo.arg("--manifest-path").arg(manifest);
    // A folder of its own: the toolchains of host and policies must not undo each other's work.
    cargo.arg("--target-dir").arg(target.join("policy-build"));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace));
    cargo.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());

    let mut child = cargo.spawn().map_err(BuildError::Run)?;
    let messages = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
    let module = messages.map_while(Result::ok).filter_map(|line| wasm_file(&line)).last();
    if !child.wait().map_err(BuildError::Run)?.success() {
        return Err(BuildError::Compile);
    }
    module.ok_or(BuildError::NoModule)
}

/// The `.wasm` file that one line of cargo's messages speaks of. The last one is the crate's own.
fn wasm_file(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let mut files = message.get("filenames")?.as_array()?.iter().filter_map(serde_json::Value::as_str);
    files.find(|file| file.ends_with(".wasm")).map(PathBuf::from)
}

/// The folder of the workspace that the crate belongs to, or the crate's own.
fn workspace(toolchain: &Toolchain, manifest: &Path) -> Result<PathBuf, BuildError> {
    let mut cargo = toolchain.cargo();
    cargo
        .args(["locate-project", "--workspace", "--message-format", "plain", "--manifest-path"])
        .arg(manifest);
    let output = cargo.stderr(Stdio::inherit()).output().map_err(BuildError::Run)?;
    let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    match root.parent() {
        Some(dir) if output.status.success() => Ok(dir.to_owned()),
        _ => Err(BuildError::Compile),
    }
}

/// A stack of 128 KiB: the usual mebibyte would be a quarter of a thousand pages of memory to make and
/// wipe for every verdict. Below it there is nothing, so an overflow is a trap.
const STACK: &str = "-Clink-arg=-zstack-size=131072";
/// A heap of 256 KiB from the start: the columns of a full block fit, so that an evaluation need not make
/// its memory larger, which costs more than the whole of an ordinary rule. Pages that are not touched
/// cost nothing.
const HEAP: &str = "-Clink-arg=--initial-heap=262144";
/// Loops over columns take several rows at a time. Fixed-width SIMD gives the same bits everywhere.
const FEATURES: &str = "-Ctarget-feature=+simd128";

/// Compiler flags. Those for paths keep this machine's out of the module, so that the same sources give
/// the same bytes wherever they lie. In cargo's encoding: flags separated by U+001F.
fn flags(workspace: &Path) -> OsString {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let mut flags = OsString::from(format!("{STACK}\u{1f}{HEAP}\u{1f}{FEATURES}\u{1f}--remap-path-prefix="));
    flags.push(workspace);
    flags.push("=/src");
    if let Some(cargo_home) = cargo_home {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(cargo_home);
        flags.push("=/cargo");
    }
    flags
}

fn componentize(module: &Path) -> Result<Vec<u8>, BuildError> {
    let bytes = fs::read(module).map_err(|error| BuildError::File { path: module.to_owned(), error })?;
    let encoded =
        ComponentEncoder::default().validate(true).module(&bytes).and_then(|mut encoder| encoder.encode());
    encoded
        .map_err(|error| BuildError::Componentize { module: module.to_owned(), detail: format!("{error:#}") })
}

/// A reader sees the old file or the new one, never half of one.
fn write_atomically(out: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| BuildError::File { path, error }
    };
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(at(dir))?;
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = dir.join(name);
    fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, out)).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        at(out)(error)
    })
}
