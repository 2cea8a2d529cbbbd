//! A reader of the event stream.

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, Response, StatusCode};
use reservegrid_tests::gateway::DEADLINE;
use serde_json::Value;
use tokio::time::timeout;

/// One message of a stream: its event, its id and its data.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

pub(crate) struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    pub(crate) async fn open(api: &str, query: &str, last: Option<&str>) -> Result<Self> {
        Self::open_with(api, query, last, "").await
    }

    pub(crate) async fn open_with(api: &str, query: &str, last: Option<&str>, token: &str) -> Result<Self> {
        let mut request = Client::new().get(format!("{api}/v1/events?{query}")).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await?;
        ensure!(response.status() == StatusCode::OK, "{}: {}", response.status(), response.text().await?);
        Ok(Self { response, text: String::new() })
    }

    /// The next message; signs of life are passed over.
    pub(crate) async fn next(&mut self) -> Result<Message> {
        loop {
            while let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let found = message.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                    found.unwrap_or_default().to_owned()
                };
                let (event, id, data) = (field("event"), field("id"), field("data"));
                self.text = rest.to_owned();
                if !event.is_empty() {
                    return Ok(Message { event, id, data: serde_json::from_str(&data)? });
                }
            }
            match timeout(DEADLINE, self.response.chunk()).await.context("nothing came")?? {
                Some(chunk) => self.text.push_str(std::str::from_utf8(&chunk)?),
                None => bail!("the stream ended"),
            }
        }
    }
}
