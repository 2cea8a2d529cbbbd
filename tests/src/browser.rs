//! A headless Chromium, driven over its debugging protocol: what a person sees and does on a page.
//!
//! The protocol goes through two named pipes (`--remote-debugging-pipe`), JSON messages that end with a
//! zero byte, so nothing listens anywhere. Whatever the page logs as an error is kept for the test.

use crate::{process::Process, wait};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{self, Receiver},
    time::Duration,
};
use tempfile::TempDir;

/// For one answer of the browser.
const DEADLINE: Duration = Duration::from_secs(60);

/// The browser: in `RESERVEGRID_BROWSER_DIR`.
///
/// # Errors
/// When there is none.
pub fn program() -> Result<PathBuf> {
    let folder = std::env::var_os("RESERVEGRID_BROWSER_DIR").context("RESERVEGRID_BROWSER_DIR is not set")?;
    let path = PathBuf::from(folder).join("chromium");
    ensure!(path.exists(), "{} is missing: run `make browser`", path.display());
    Ok(path)
}

/// A running browser with one page; it ends with this handle.
#[derive(Debug)]
pub struct Browser {
    process: Process,
    to: File,
    from: Receiver<Value>,
    session: String,
    next: u64,
    errors: Vec<String>,
    _folder: TempDir,
}

impl Browser {
    /// Starts the browser with an empty page.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("reservegrid-browser-").tempdir()?;
        let pipes = ["to", "from"].map(|name| folder.path().join(name));
        ensure!(Command::new("mkfifo").args(&pipes).status()?.success(), "mkfifo failed");
        let mut command = Command::new("sh");
        command.arg("-c").arg(r#"to=$1 from=$2; shift 2; exec "$@" 3<"$to" 4>"$from""#).arg("sh");
        command.args(&pipes).arg(program()?).args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]);
        command
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg("about:blank");
        command.current_dir(folder.path());
        let process = Process::start("browser", command, folder.path())?;
        let [to, from] = pipes;
        // In the order in which the shell opens them: each waits for the other end.
        let opened = tokio::task::spawn_blocking(move || -> Result<(File, File)> {
            Ok((OpenOptions::new().write(true).open(to)?, File::open(from)?))
        });
        let (to, from) = tokio::time::timeout(DEADLINE, opened).await.context("the browser's pipes")???;
        let (heard, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut messages = BufReader::new(from).split(0);
            while let Some(Ok(message)) = messages.next() {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if heard.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            process,
            to,
            from: receiver,
            session: String::new(),
            next: 0,
            errors: Vec::new(),
            _folder: folder,
        };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", attach).await?;
        browser.session = session["sessionId"].as_str().context("a session")?.to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(browser)
    }

    /// One command of the protocol and its answer.
    async fn ask(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes())?;
        let (process, from, errors) = (&mut self.process, &self.from, &mut self.errors);
        wait::until(method, DEADLINE, async || {
            process.check_running()?;
            while let Ok(message) = from.try_recv() {
                if message["id"] == id {
                    if !message["error"].is_null() {
                        bail!("{method}: {}", message["error"]);
                    }
                    return Ok(Some(message["result"].clone()));
                }
                note(&message, errors);
            }
            Ok(None)
        })
        .await
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// When the browser cannot.
    pub async fn open(&mut self, url: &str) -> Result<()> {
        let answer = self.ask("Page.navigate", json!({ "url": url })).await?;
        ensure!(answer["errorText"].is_null(), "{url}: {}", answer["errorText"]);
        self.wait_for("the page", "document.readyState === 'complete'").await?;
        Ok(())
    }

    /// The value of an expression on the page; promises are waited for.
    ///
    /// # Errors
    /// When it throws.
    pub async fn eval(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", asked).await?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true, or a text that is not empty; gives it.
    ///
    /// # Errors
    /// When it does not become so, with the text of the page.
    pub async fn wait_for(&mut self, what: &str, expression: &str) -> Result<Value> {
        let started = std::time::Instant::now();
        loop {
            let value = self.eval(expression).await?;
            if value == true || value.as_str().is_some_and(|text| !text.is_empty()) {
                return Ok(value);
            }
            if started.elapsed() > DEADLINE {
                let text = self.eval("document.body.innerText").await?;
                bail!("waited in vain for {what}; errors: {:?}; the page says\n{text}", self.errors);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presses a key, as a person at the keyboard.
    ///
    /// # Errors
    /// When the browser cannot.
    pub async fn press(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            "Escape" => 27,
            " " => 32,
            _ => bail!("{key} is not known here"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        let event = |kind: &str| json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
        self.ask("Input.dispatchKeyEvent", event("keyDown")).await?;
        self.ask("Input.dispatchKeyEvent", event("keyUp")).await?;
        Ok(())
    }

    /// The size of the window, and whether it is a phone's.
    ///
    /// # Errors
    /// When the browser cannot.
    pub async fn window(&mut self, width: u32, height: u32, phone: bool) -> Result<()> {
        let scale = if phone { 2 } else { 1 };
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone });
        self.ask("Emulation.setDeviceMetricsOverride", size).await?;
        Ok(())
    }

    /// Whether the person likes it dark.
    ///
    /// # Errors
    /// When the browser cannot.
    pub async fn dark(&mut self, dark: bool) -> Result<()> {
        let value = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.ask("Emulation.setEmulatedMedia", media).await?;
        Ok(())
    }

    /// Takes a picture of the whole page, as PNG.
    ///
    /// # Errors
    /// When the browser cannot, or the file cannot be written.
    pub async fn picture(&mut self, file: &Path) -> Result<()> {
        let asked = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.ask("Page.captureScreenshot", asked).await?;
        let text = answer["data"].as_str().context("a picture")?;
        std::fs::write(file, base64(text)?)?;
        Ok(())
    }

    /// What the page logged as an error, or threw, so far.
    pub fn errors(&mut self) -> &[String] {
        while let Ok(message) = self.from.try_recv() {
            note(&message, &mut self.errors);
        }
        &self.errors
    }
}

fn note(message: &Value, errors: &mut Vec<String>) {
    let parameters = &message["params"];
    match message["method"].as_str() {
        Some("Runtime.exceptionThrown") => errors.push(parameters["exceptionDetails"].to_string()),
        Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
            errors.push(parameters["entry"].to_string());
        }
        _ => {}
    }
}

/// Reads base64 with its padding.
fn base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for symbol in text.bytes().filter(|symbol| *symbol != b'=') {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("{symbol:#x} is no base64"),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_every_length_of_padding() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmE=", "fooba")]
        {
            assert_eq!(base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(base64("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        assert!(base64("a-b_").is_err());
    }
}
