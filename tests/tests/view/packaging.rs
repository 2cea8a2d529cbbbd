//! What stands around a gateway: the container file and the unit name nothing that is not there, and start the
//! binary with arguments that it takes.

use anyhow::{Context, Result, ensure};
use reservegrid_tests::gateway::{DEADLINE, command};
use reservegrid_tests::process::Process;
use std::{fs, path::PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn example(name: &str) -> Result<String> {
    let path = root().join("examples").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// What follows a word at the beginning of lines.
fn after<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(word)).map(str::trim).collect()
}

/// The binary with arguments whose configuration is not there: a wrong configuration, not a wrong command line.
async fn takes(arguments: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = command()?;
    command.args(arguments).current_dir(folder.path());
    let mut process = Process::start("started", command, folder.path())?;
    let code = process.wait(DEADLINE).await?.code();
    ensure!(code == Some(64), "{arguments:?}: {code:?}: {}", process.stderr());
    ensure!(process.stderr().contains("the configuration file cannot be read"), "{}", process.stderr());
    Ok(())
}

#[tokio::test]
async fn the_container_file_builds_copies_and_starts_what_there_is() -> Result<()> {
    let file = example("container/Containerfile")?;
    let makefile = fs::read_to_string(root().join("Makefile"))?;
    let goals: Vec<_> = after(&file, "RUN make ");
    ensure!(!goals.is_empty(), "nothing is built");
    for goal in goals.iter().flat_map(|goals| goals.split(' ')) {
        ensure!(makefile.lines().any(|line| line.starts_with(&format!("{goal}:"))), "make {goal}");
    }
    // Where the build leaves them, seen from its work folder, which is the root of the sources.
    let workdir = *after(&file, "WORKDIR ").first().context("a work folder")?;
    let mut installed = Vec::new();
    for copy in after(&file, "COPY --from=build ") {
        let (from, to) = copy.split_once(' ').context("from where to where")?;
        let from = from.strip_prefix(workdir).context("a path of the build")?;
        ensure!(["/target/release/reservegrid", "/target/policies"].contains(&from), "{from}");
        installed.push(to);
    }
    let words = |line: &str| -> Result<Vec<String>> { Ok(serde_json::from_str(line)?) };
    let entry = words(after(&file, "ENTRYPOINT ").first().context("an entry point")?)?;
    ensure!(entry.len() == 1 && installed.contains(&entry[0].as_str()), "{entry:?} is not in {installed:?}");
    let arguments = words(after(&file, "CMD ").first().context("a command")?)?;
    ensure!(arguments.last().is_some_and(|path| path.starts_with("/etc/reservegrid/")), "{arguments:?}");
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.replace("/etc/", "/no/such/")).collect();
    takes(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let port = after(&file, "EXPOSE ");
    ensure!(
        example("inline.toml")?.contains(&format!(":{}\"", port.concat())),
        "{port:?} is not that of the example"
    );
    ensure!(after(&file, "USER ") == ["reservegrid"], "root");
    Ok(())
}

#[tokio::test]
async fn the_unit_starts_checks_and_reloads_with_commands_that_there_are() -> Result<()> {
    let unit = example("systemd/reservegrid.service")?;
    for key in ["ExecStartPre=", "ExecStart="] {
        let lines = after(&unit, key);
        let line = lines.first().with_context(|| key.to_owned())?;
        let arguments = line.strip_prefix("/usr/local/bin/reservegrid ").context("our binary")?;
        let arguments = arguments.replace("/etc/", "/no/such/");
        takes(&arguments.split(' ').collect::<Vec<_>>()).await?;
    }
    ensure!(after(&unit, "ExecReload=") == ["/bin/kill -HUP $MAINPID"], "a reload is SIGHUP");
    ensure!(
        after(&unit, "RestartPreventExitStatus=") == ["64"],
        "a wrong configuration is not started again"
    );
    Ok(())
}
