//! A new policy project: `reservegrid policy new NAME`.
//!
//! The project is a crate of its own with a small policy that works: settings, a unit test, a case that
//! is accepted and one that is rejected, and a README with the next commands. The texts stand in
//! `project/`; `{{name}}` and `{{sdk}}` are filled in here.

use super::sdk;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where files of a project go, and what they say.
const FILES: [(&str, &str); 7] = [
    ("Cargo.toml", include_str!("project/Cargo.toml.txt")),
    ("README.md", include_str!("project/README.md.txt")),
    (".gitignore", include_str!("project/gitignore.txt")),
    ("src/lib.rs", include_str!("project/lib.rs.txt")),
    ("src/tests.rs", include_str!("project/tests.rs.txt")),
    ("cases/accepts-a-short-template.toml", include_str!("project/accepts.toml.txt")),
    ("cases/rejects-a-long-template.toml", include_str!("project/rejects.toml.txt")),
];

/// Makes the project `name` in the folder `dir` (default: `name` here). Without `sdk`, the path of an
/// SDK crate, the SDK that this binary carries is written into the project. Gives the project's folder.
///
/// # Errors
/// A name that a policy cannot have, a folder that is there already, a file that cannot be written.
pub fn new(name: &str, dir: Option<&Path>, sdk: Option<&Path>) -> Result<PathBuf> {
    let well_formed = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.len() <= 64;
    ensure!(
        well_formed,
        "{name:?} is no name for a policy: lower case letters, digits and dashes, a letter first, at most 64"
    );
    let project = dir.map_or_else(|| PathBuf::from(name), Path::to_owned);
    let taken = fs::read_dir(&project).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(
        !taken && !project.is_file(),
        "{} is there already and not empty; give another folder with --dir",
        project.display()
    );
    let sdk_path = match sdk {
        None => "sdk".to_owned(),
        Some(path) => {
            ensure!(
                path.join("Cargo.toml").is_file(),
                "{} has no Cargo.toml; --sdk takes the folder of the crate reservegrid-policy-sdk",
                path.display()
            );
            let path = path.canonicalize().with_context(|| path.display().to_string())?;
            toml_text(path.to_str().context("the path of the SDK is not UTF-8")?)
        }
    };
    let fill = |text: &str| text.replace("{{name}}", name).replace("{{sdk}}", &sdk_path);
    for (path, text) in FILES {
        let file = project.join(path);
        fs::create_dir_all(file.parent().unwrap_or(&project))
            .and_then(|()| fs::write(&file, fill(text)))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    if sdk.is_none() {
        sdk::write(&project)?;
    }
    Ok(project)
}

/// A path as it stands between the quotes of a TOML string.
fn toml_text(path: &str) -> String {
    path.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_policy_can_have_are_refused_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "Max", "9a", "-a", "a_b", "a/b", "..", &"a".repeat(65)] {
            let error = new(name, Some(&folder.path().join("x")), None).unwrap_err();
            assert!(error.to_string().contains("no name for a policy"), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kept"), "precious").unwrap();
        let error = new("mine", Some(folder.path()), None).unwrap_err();
        assert!(error.to_string().contains("--dir"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        let folder = tempfile::tempdir().unwrap();
        let project = new("mine", Some(&folder.path().join("mine")), None).unwrap();
        for (path, _) in FILES {
            let text = fs::read_to_string(project.join(path)).unwrap();
            assert!(!text.contains("{{"), "{path}: {text}");
        }
        assert!(
            project.join("sdk/src/lib.rs").is_file() && project.join("wit/policy-0.1.0/world.wit").is_file()
        );
    }
}
