//! JSON-RPC over HTTP to a Bitcoin node: credentials, limits, and words for everything that goes wrong.
//!
//! A node is trusted with the chain, not with our memory or patience: an answer has a largest size and
//! a deadline. Every failure becomes a [`SourceError`] whose reason says who has to act: a node that is
//! away or not ready, an operator whose credentials are refused, or an answer that makes no sense, in
//! which case the field is named. Credentials never appear in an error, a log line or a `Debug` output.
//!
//! A cookie file changes at each start of the node. It is read before every request, and once more
//! when the node refuses what was in it.

use super::SourceError;
use crate::{
    reason::Reason,
    words::{chain, printable},
};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{fmt, path::PathBuf, time::Duration};
use tokio::{io::AsyncReadExt, time::timeout};

/// The largest answer that is read: a template of 4 MB in hex twice over, with room to spare.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Characters of the node's words that are shown.
const MAX_WORDS: usize = 80;
/// The largest cookie file that is read; real ones have 75 bytes.
const MAX_COOKIE: u64 = 4096;
/// Shorter than a node's own limit for idle connections (30 s), so that we never write into a
/// connection that it is about to close.
const IDLE_CONNECTION: Duration = Duration::from_secs(10);
/// Finds out about a node whose machine vanished while a long poll was under way.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How often and how soon it is asked again before the connection counts as dead.
const KEEPALIVE_RETRIES: u32 = 3;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How to prove to a node that we may ask.
#[derive(Clone)]
pub enum Auth {
    /// The file that a node writes at each start (`.cookie` in its data directory).
    Cookie(PathBuf),
    /// `rpcuser` and `rpcpassword`, or a line of `rpcauth`.
    UserPassword {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cookie(path) => f.debug_tuple("Cookie").field(path).finish(),
            Self::UserPassword { .. } => f.write_str("UserPassword(hidden)"),
        }
    }
}

/// The way to one node.
#[derive(Debug)]
pub(super) struct Rpc {
    client: Client,
    url: Url,
    auth: Auth,
    request_timeout: Duration,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The request timeout, from the first byte sent to the last byte received.
    Normal,
    /// As long as the node likes until it begins to answer, then the request timeout for the rest.
    LongPoll,
}

/// An answer that says no. Its codes are the node's (`rpc/protocol.h` in Bitcoin Core).
#[derive(Debug, Deserialize)]
struct RpcFault {
    code: i64,
    message: String,
}

/// An answer with a result. `deserialize_with` makes serde insist that the key is there even where `T`
/// is an option.
#[derive(Deserialize)]
struct Success<T: DeserializeOwned> {
    #[serde(deserialize_with = "T::deserialize")]
    result: T,
    #[serde(default)]
    error: Option<RpcFault>,
}

#[derive(Deserialize)]
struct Failure {
    error: RpcFault,
}

impl Rpc {
    /// Prepares connections to the node at `url`; nothing is sent yet.
    ///
    /// # Errors
    /// `ConfigInvalid` for an address that is not a plain `http://` one.
    pub(super) fn new(url: &str, auth: Auth, request_timeout: Duration) -> Result<Self, SourceError> {
        let invalid = |detail: String| SourceError { reason: Reason::ConfigInvalid, detail };
        let url = Url::parse(url).map_err(|e| invalid(format!("the node's address is no URL: {e}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            let detail = "the node's address carries credentials; give them as user and password instead";
            return Err(invalid(detail.to_owned()));
        }
        if url.scheme() != "http" || url.host().is_none() {
            let detail = format!("the node's address {url} must begin with http:// (put TLS into a proxy)");
            return Err(invalid(detail));
        }
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(request_timeout)
            .pool_idle_timeout(IDLE_CONNECTION)
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE_INTERVAL)
            .tcp_keepalive_retries(KEEPALIVE_RETRIES)
            .tcp_nodelay(true)
            .build()
            .map_err(|e| invalid(format!("no HTTP client: {}", chain(&e))))?;
        Ok(Self { client, url, auth, request_timeout })
    }

    /// The node's address, for people.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Calls a method and reads its result as `T`.
    pub(super) async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        method: &'static str,
        params: Value,
        wait: Wait,
    ) -> Result<T, SourceError> {
        let request = serde_json::json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params });
        let exchange = self.exchange(method, request.to_string(), wait);
        let (status, body) = match wait {
            Wait::Normal => {
                timeout(self.request_timeout, exchange).await.map_err(|_| self.late(method))??
            }
            Wait::LongPoll => exchange.await?,
        };
        // A full template takes milliseconds to decode: not on a thread that other tasks wait for.
        let url = self.url.clone();
        tokio::task::spawn_blocking(move || decode(&url, method, status, &body)).await.map_err(|e| {
            SourceError {
                reason: Reason::TemplateSourceInvalid,
                detail: format!("{method}: not decoded: {e}"),
            }
        })?
    }

    async fn exchange(
        &self,
        method: &'static str,
        request: String,
        wait: Wait,
    ) -> Result<(StatusCode, Vec<u8>), SourceError> {
        let mut credentials = self.credentials().await?;
        let mut response = self.send(method, request.clone(), &credentials).await?;
        if response.status() == StatusCode::UNAUTHORIZED && matches!(self.auth, Auth::Cookie(_)) {
            // The node may have been restarted between our reading and its looking.
            let fresh = self.credentials().await?;
            if fresh != credentials {
                credentials = fresh;
                response = self.send(method, request, &credentials).await?;
            }
        }
        let status = response.status();
        let body = self.body(method, response);
        let body = match wait {
            Wait::Normal => body.await?,
            Wait::LongPoll => timeout(self.request_timeout, body).await.map_err(|_| self.late(method))??,
        };
        Ok((status, body))
    }

    async fn send(
        &self,
        method: &'static str,
        request: String,
        (user, password): &(String, String),
    ) -> Result<Response, SourceError> {
        self.client
            .post(self.url.clone())
            .basic_auth(user, Some(password))
            .header("content-type", "application/json")
            .body(request)
            .send()
            .await
            .map_err(|e| self.unreachable(method, e))
    }

    async fn body(&self, method: &'static str, mut response: Response) -> Result<Vec<u8>, SourceError> {
        let too_large = || SourceError {
            reason: Reason::TemplateSourceInvalid,
            detail: format!("{} answers {method} with more than {MAX_ANSWER} bytes", self.url),
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > MAX_ANSWER as u64 {
            return Err(too_large());
        }
        let mut body = Vec::with_capacity(announced as usize);
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(method, e))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn credentials(&self) -> Result<(String, String), SourceError> {
        let path = match &self.auth {
            Auth::UserPassword { user, password } => return Ok((user.clone(), password.clone())),
            Auth::Cookie(path) => path,
        };
        let mut cookie = String::new();
        let read = async {
            let file = tokio::fs::File::open(path).await?;
            file.take(MAX_COOKIE).read_to_string(&mut cookie).await
        };
        read.await.map_err(|e| {
            // A node removes its cookie when it stops.
            let reason = match e.kind() {
                std::io::ErrorKind::NotFound => Reason::TemplateSourceUnreachable,
                _ => Reason::TemplateSourceRefused,
            };
            let detail = format!(
                "the node's cookie file {} cannot be read ({e}); is the node running, and may we read it?",
                path.display()
            );
            SourceError { reason, detail }
        })?;
        let (user, password) = cookie.trim_end().split_once(':').ok_or_else(|| SourceError {
            reason: Reason::TemplateSourceRefused,
            detail: format!("{} is not a cookie file: it has no user:password", path.display()),
        })?;
        Ok((user.to_owned(), password.to_owned()))
    }

    fn unreachable(&self, method: &str, error: reqwest::Error) -> SourceError {
        let what = if error.is_connect() { "cannot be reached" } else { "broke off" };
        let detail = format!("{} {what} ({method}): {}", self.url, chain(&error.without_url()));
        SourceError { reason: Reason::TemplateSourceUnreachable, detail }
    }

    fn late(&self, method: &str) -> SourceError {
        let detail = format!("{} did not answer {method} within {:?}", self.url, self.request_timeout);
        SourceError { reason: Reason::TemplateSourceUnreachable, detail }
    }
}

fn decode<T: DeserializeOwned>(
    url: &Url,
    method: &str,
    status: StatusCode,
    body: &[u8],
) -> Result<T, SourceError> {
    let fail = |reason, detail: String| Err(SourceError { reason, detail: format!("{url} {detail}") });
    match status {
        StatusCode::UNAUTHORIZED => {
            let detail = "refuses the credentials; check user and password, or the cookie file, which changes \
                          at each start of the node";
            return fail(Reason::TemplateSourceRefused, detail.to_owned());
        }
        StatusCode::FORBIDDEN => {
            let detail = "refuses our address or this method; check rpcallowip and rpcwhitelist";
            return fail(Reason::TemplateSourceRefused, detail.to_owned());
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            let detail = format!("is too busy for {method}: {}", excerpt(body));
            return fail(Reason::TemplateSourceUnreachable, detail);
        }
        _ => {}
    }
    let fault = |RpcFault { code, message }: RpcFault| {
        let message = printable(message.as_bytes(), MAX_WORDS);
        match code {
            -28 => fail(Reason::TemplateSourceUnreachable, format!("is still warming up: {message}")),
            -10 => {
                fail(Reason::TemplateSourceUnreachable, format!("is still downloading the chain: {message}"))
            }
            -9 => fail(Reason::TemplateSourceUnreachable, format!("has no peers or is stopping: {message}")),
            _ => fail(Reason::TemplateSourceRefused, format!("refuses {method}: {message} (code {code})")),
        }
    };
    let error = match serde_json::from_slice::<Success<T>>(body) {
        Ok(Success { error: Some(error), .. }) => return fault(error),
        Ok(Success { result, .. }) if status.is_success() => return Ok(result),
        Ok(_) => return fail(Reason::TemplateSourceInvalid, format!("answers {method} with HTTP {status}")),
        Err(error) => error,
    };
    if let Ok(Failure { error }) = serde_json::from_slice(body) {
        return fault(error);
    }
    let detail = if error.is_data() {
        let field = field_at(body, error.column()).unwrap_or_default();
        format!("answers {method} with something unexpected{field}: {error}")
    } else {
        format!(
            "answers {method} (HTTP {status}) with something that is not JSON: {error}: {}",
            excerpt(body)
        )
    };
    fail(Reason::TemplateSourceInvalid, detail)
}

/// The last key before a column of a JSON text of one line, for an error message.
fn field_at(body: &[u8], column: usize) -> Option<String> {
    let before = body.get(..column)?;
    let colon = before.windows(2).rposition(|pair| pair == b"\":")?;
    let start = before[..colon].iter().rposition(|byte| *byte == b'"')? + 1;
    Some(format!(" near \"{}\"", printable(&before[start..colon], MAX_WORDS)))
}

/// The beginning of an answer.
fn excerpt(body: &[u8]) -> String {
    if body.is_empty() { "(empty)".to_owned() } else { format!("\"{}\"", printable(body, MAX_WORDS)) }
}
