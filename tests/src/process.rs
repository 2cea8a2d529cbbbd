//! A child process whose output goes to files, and which does not outlive its handle.

use crate::wait;
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts a command; its output goes to `NAME.stdout` and `NAME.stderr` in `folder`.
    ///
    /// # Errors
    /// When the files cannot be made or the program does not start.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let (stdout, stderr) = (folder.join(format!("{name}.stdout")), folder.join(format!("{name}.stderr")));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("{name} does not start: {command:?}"))?;
        Ok(Self { name: name.into(), child, stdout, stderr })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, once there is one.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// What it wrote to its standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it wrote to its standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// An error for a process that ended when it should not have.
    ///
    /// # Errors
    /// When it ended, with its status and last output.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.exited()? {
            bail!("{} ended with {status}\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// The end of its output, for messages.
    pub fn tail(&self) -> String {
        let end = |text: String| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        format!("--- {} stdout\n{}\n--- {0} stderr\n{}", self.name, end(self.stdout()), end(self.stderr()))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not within the deadline.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, deadline, async || self.exited()).await.with_context(|| self.tail())
    }

    /// Asks it to end (SIGTERM) and waits until it did.
    ///
    /// # Errors
    /// When it does not within the deadline.
    pub async fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(deadline).await
    }

    /// Sends a signal by name, e.g. `STOP`, to a process that still runs.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn signal(&mut self, name: &str) -> Result<()> {
        // Not reaped yet, so the number is still this process and no other.
        if self.exited()?.is_none() {
            let status =
                Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status()?;
            if !status.success() {
                bail!("{} cannot be sent {name}", self.name);
            }
        }
        Ok(())
    }

    /// Ends it at once (SIGKILL), as a crash would.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that ended already cannot be killed, and that is well.
        let _ = self.kill();
    }
}

fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
