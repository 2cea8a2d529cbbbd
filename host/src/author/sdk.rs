//! The SDK and the contract as this binary carries them, so that a policy project builds wherever
//! cargo has its registry: the SDK itself is in no registry.
//!
//! The SDK's manifest takes versions from its workspace; in a project it stands alone, so what it
//! inherits is written out.

use anyhow::{Context, Result};
use std::{fs, path::Path};
use toml::{Table, Value};

/// Files of the repository, by their path in it.
macro_rules! files {
    ($($path:literal,)+) => { &[$(($path, include_str!(concat!("../../../", $path))),)+] };
}

/// Everything a project needs; a test holds the list against the folders.
const FILES: &[(&str, &str)] = files![
    "policy-sdk/Cargo.toml",
    "policy-sdk/src/bindings.rs",
    "policy-sdk/src/columns.rs",
    "policy-sdk/src/guest.rs",
    "policy-sdk/src/heap.rs",
    "policy-sdk/src/lib.rs",
    "policy-sdk/src/settings/mod.rs",
    "policy-sdk/src/settings/schema.rs",
    "policy-sdk/src/settings/tests.rs",
    "policy-sdk/src/template.rs",
    "policy-sdk/src/testing/mod.rs",
    "policy-sdk/src/testing/readme.rs",
    "policy-sdk/src/testing/template.rs",
    "policy-sdk/src/verdict.rs",
    "policy-sdk/src/words.rs",
    "wit/policy-0.1.0/context.wit",
    "wit/policy-0.1.0/log.wit",
    "wit/policy-0.1.0/template.wit",
    "wit/policy-0.1.0/types.wit",
    "wit/policy-0.1.0/world.wit",
];

/// The manifest that says what the SDK inherits.
const WORKSPACE: &str = include_str!("../../../Cargo.toml");

/// Writes the SDK to `sdk` and the contract to `wit` in a project's folder.
///
/// # Errors
/// When a file cannot be written; the error names it.
pub(super) fn write(project: &Path) -> Result<()> {
    for (path, text) in FILES {
        let file = project.join(path.strip_prefix("policy-").unwrap_or(path));
        let text = if path.ends_with("Cargo.toml") { &standalone(text, WORKSPACE)? } else { *text };
        let folder = file.parent().unwrap_or(project);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&file, text))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// A member's manifest with what it inherits from its workspace written out, and without lints.
fn standalone(member: &str, workspace: &str) -> Result<String> {
    let mut member: Table = member.parse().context("the manifest of the SDK")?;
    let workspace: Table = workspace.parse().context("the manifest of the workspace")?;
    let workspace = workspace.get("workspace").and_then(Value::as_table).context("no [workspace]")?;
    member.remove("lints");
    for (section, source) in
        [("package", "package"), ("dependencies", "dependencies"), ("dev-dependencies", "dependencies")]
    {
        let source = workspace.get(source).and_then(Value::as_table);
        for (key, value) in member.get_mut(section).and_then(Value::as_table_mut).into_iter().flatten() {
            if value.get("workspace").and_then(Value::as_bool) == Some(true) {
                let inherited = source.and_then(|source| source.get(key));
                let inherited = inherited.with_context(|| format!("[workspace] has no {key}"))?;
                *value = with_features(inherited.clone(), value.get("features"));
            }
        }
    }
    Ok(member.to_string())
}

/// A member may add features to the dependency that it inherits.
fn with_features(mut inherited: Value, more: Option<&Value>) -> Value {
    let Some(more) = more.and_then(Value::as_array) else { return inherited };
    if let Value::String(version) = inherited {
        inherited = Table::from_iter([("version".to_owned(), Value::String(version))]).into();
    }
    if let Some(table) = inherited.as_table_mut() {
        let features = table.entry("features").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(features) = features.as_array_mut() {
            features.extend(more.iter().cloned());
        }
    }
    inherited
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, path::PathBuf};

    fn files(folder: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, root, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn the_list_of_embedded_files_is_the_folders_of_sdk_and_contract() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
        let mut found = BTreeSet::new();
        for folder in ["policy-sdk", "wit/policy-0.1.0"] {
            files(&root.join(folder), &root, &mut found);
        }
        let listed: BTreeSet<_> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(listed, found, "add or remove the file in FILES of host/src/author/sdk.rs");
    }

    #[test]
    fn a_manifest_stands_alone_with_what_it_inherited() {
        let workspace = r#"
            [workspace.package]
            edition = "2024"
            [workspace.dependencies]
            plain = "1"
            rich = { version = "2", default-features = false, features = ["a"] }
        "#;
        let member = r#"
            [package]
            name = "x"
            edition.workspace = true
            [lints]
            workspace = true
            [dependencies]
            own = "3"
            plain = { workspace = true, features = ["b"] }
            rich = { workspace = true, features = ["b"] }
        "#;
        let expected = r#"
            [package]
            name = "x"
            edition = "2024"
            [dependencies]
            own = "3"
            plain = { version = "1", features = ["b"] }
            rich = { version = "2", default-features = false, features = ["a", "b"] }
        "#;
        let written: Table = standalone(member, workspace).unwrap().parse().unwrap();
        assert_eq!(written, expected.parse().unwrap());
        assert!(standalone("[package]\nedition.workspace = true", "[workspace]").is_err());
    }
}
