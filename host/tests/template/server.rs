//! A JSON-RPC server that answers as badly as a test likes.

use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// What to do with one request.
pub(crate) enum Reply {
    /// HTTP 200 with this result.
    Result(Value),
    /// HTTP 500 with this error code, as Bitcoin Core does.
    Fault(i64, &'static str),
    /// Another status and body.
    Http(u16, String),
    /// These bytes and the end of the connection.
    Raw(Vec<u8>),
    /// A body without end.
    Endless,
    /// Nothing, for ever.
    Silence,
    /// Whatever comes, when it comes.
    Later(oneshot::Receiver<Reply>),
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) authorization: String,
}

type Handler = dyn FnMut(&Request) -> Reply + Send;

/// The server; it ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Request>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(handler: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let handler: Arc<Mutex<Handler>> = Arc::new(Mutex::new(handler));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&handler), sender.clone()));
            }
        });
        Self { address, seen, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The next request for `method`; others on the way are forgotten.
    pub(crate) async fn saw(&mut self, method: &str) -> Request {
        loop {
            let request = self.seen.recv().await.expect("the server lives");
            if request.method == method {
                return request;
            }
        }
    }

    /// Everything that has arrived and was not asked for yet.
    pub(crate) fn seen(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }
}

async fn serve(stream: TcpStream, handler: Arc<Mutex<Handler>>, seen: mpsc::UnboundedSender<Request>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        let mut reply = handler.lock().unwrap()(&request);
        let _ = seen.send(request);
        while let Reply::Later(receiver) = reply {
            reply = receiver.await.unwrap_or(Reply::Silence);
        }
        if !write(&mut stream, reply).await {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let mut body = vec![0; header("content-length")?.parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    let body: Value = serde_json::from_slice(&body).unwrap();
    Some(Request {
        method: body["method"].as_str().unwrap().to_owned(),
        params: body["params"].clone(),
        authorization: header("authorization").unwrap_or_default(),
    })
}

/// Whether the connection goes on.
async fn write(stream: &mut BufReader<TcpStream>, reply: Reply) -> bool {
    let (status, body) = match reply {
        Reply::Result(result) => (200, json!({ "result": result, "error": null, "id": 0 }).to_string()),
        Reply::Fault(code, message) => {
            let error = json!({ "code": code, "message": message });
            (500, json!({ "result": null, "error": error, "id": 0 }).to_string())
        }
        Reply::Http(status, body) => (status, body),
        Reply::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            return false;
        }
        Reply::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b' '; 65_536]).await.is_ok() {}
            return false;
        }
        Reply::Silence => std::future::pending().await,
        Reply::Later(_) => unreachable!("resolved by the caller"),
    };
    let head = format!("HTTP/1.1 {status} Words\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(body.as_bytes()).await.is_ok()
}
