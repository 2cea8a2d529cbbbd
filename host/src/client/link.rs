//! The encrypted connection to a gateway, from the client's side.

use crate::{
    event::unix_seconds,
    noise::{ACT2_LEN, AuthorityPublicKey, Initiator, Sealer},
    sv2::{self, Frame, FrameDecoder, Side, setup},
};
use anyhow::{Context, Result, anyhow, bail};
use binary_sv2::{Encodable, GetSize};
use common_messages_sv2::{Protocol, SetupConnection};
use parsers_sv2::{CommonMessages, IsSv2Message};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// For connecting, the handshake and setup, each.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Link {
    stream: TcpStream,
    sealer: Sealer,
    decoder: FrameDecoder,
}

impl Link {
    pub(super) async fn connect(address: &str, authority: Option<AuthorityPublicKey>) -> Result<Self> {
        let connecting = timeout(PATIENCE, TcpStream::connect(address)).await;
        let mut stream = connecting
            .context("no connection within 10 s")
            .and_then(|connected| Ok(connected?))
            .with_context(|| format!("cannot reach {address}"))?;
        stream.set_nodelay(true)?;
        let (initiator, act1) = Initiator::start(authority)?;
        stream.write_all(&act1).await?;
        let mut act2 = [0; ACT2_LEN];
        timeout(PATIENCE, stream.read_exact(&mut act2))
            .await
            .context("no answer to the handshake within 10 s")??;
        let (sealer, opener) = initiator.finish(&act2, unix_seconds())?.split();
        Ok(Self { stream, sealer, decoder: FrameDecoder::new(opener, Side::Server) })
    }

    /// SetupConnection and its answer.
    pub(super) async fn setup(&mut self, endpoint: &str, standard_jobs: bool) -> Result<()> {
        let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, "0"));
        let text = |text: &'static str| text.try_into().map_err(|error| anyhow!("{error:?}"));
        let setup = SetupConnection {
            protocol: Protocol::MiningProtocol,
            min_version: setup::VERSION,
            max_version: setup::VERSION,
            flags: if standard_jobs {
                setup::REQUIRES_STANDARD_JOBS
            } else {
                setup::REQUIRES_VERSION_ROLLING
            },
            endpoint_host: host.try_into().map_err(|error| anyhow!("{error:?}"))?,
            endpoint_port: port.parse().unwrap_or(0),
            vendor: text("ReserveGrid")?,
            hardware_version: text("CPU")?,
            firmware: text(env!("CARGO_PKG_VERSION"))?,
            device_id: text("")?,
        };
        self.send(CommonMessages::SetupConnection(setup)).await?;
        let mut frame =
            timeout(PATIENCE, self.next_frame()).await.context("no answer to SetupConnection")??;
        let answer = CommonMessages::try_from((frame.header.msg_type, &mut frame.payload[..]));
        match answer.map_err(|error| anyhow!("the answer to SetupConnection does not decode: {error:?}"))? {
            CommonMessages::SetupConnectionSuccess(_) => Ok(()),
            CommonMessages::SetupConnectionError(error) => {
                bail!("the gateway refuses the connection: {}", error.error_code.as_utf8_or_hex())
            }
            other => bail!("unexpected answer to SetupConnection: {other}"),
        }
    }

    pub(super) async fn send<M: IsSv2Message + Encodable + GetSize>(&mut self, message: M) -> Result<()> {
        let mut bytes = Vec::new();
        sv2::encode(&mut self.sealer, message, &mut bytes)?;
        self.stream.write_all(&bytes).await?;
        Ok(())
    }

    /// The next frame. Nothing is lost when the future is dropped.
    pub(super) async fn next_frame(&mut self) -> Result<Frame> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            let length = self.stream.read(&mut chunk).await?;
            if length == 0 {
                bail!("the gateway closed the connection");
            }
            self.decoder.push(&chunk[..length]);
        }
    }
}
