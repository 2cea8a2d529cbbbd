//! Noise, frames and messages of the provider, on SRI's codecs.

use super::{Mischief, chain::Offered};
use anyhow::{Context, Result, anyhow};
use binary_sv2::{Encodable, GetSize, Seq0255, U256};
use bitcoin::{
    Amount, ScriptBuf, Target, TxOut, consensus::encode::serialize, hashes::Hash, script::Builder,
};
use codec_sv2::{
    Decrypted, EncodableFrame, Handshake, MessageFrame, NoiseDecoder, NoiseEncoder, TransportDecryptState,
    TransportEncryptState,
};
use noise_sv2::{ELLSWIFT_ENCODING_SIZE, Responder};
use parsers_sv2::{CommonMessages, IsSv2Message, TemplateDistribution};
use std::time::Duration;
use template_distribution_sv2::{NewTemplate, RequestTransactionDataError, SetNewPrevHash};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// For how long its certificate is valid.
const VALIDITY: Duration = Duration::from_secs(3_600);

/// A frame of the client.
pub(super) struct Received {
    pub(super) msg_type: u8,
    pub(super) payload: Vec<u8>,
}

/// A connection whose handshake is done.
pub(super) struct Wire {
    stream: TcpStream,
    encoder: NoiseEncoder,
    sealing: TransportEncryptState,
    decoder: NoiseDecoder,
    opening: Option<TransportDecryptState>,
    unread: Vec<u8>,
}

/// Says nothing, and waits for the other side to leave.
pub(super) async fn until_closed(mut stream: TcpStream) -> Result<()> {
    let mut sink = [0; 256];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

impl Wire {
    pub(super) async fn respond(mut stream: TcpStream, public: &[u8; 32], secret: &[u8; 32]) -> Result<Self> {
        let responder = Responder::from_authority_kp(public, secret, VALIDITY);
        let responder = Handshake::responder(responder.map_err(|error| anyhow!("{error:?}"))?);
        let mut act1 = [0; ELLSWIFT_ENCODING_SIZE];
        stream.read_exact(&mut act1).await?;
        let (act2, transport) = responder.step_1(act1).map_err(|error| anyhow!("{error:?}"))?;
        stream.write_all(act2.payload()).await?;
        let (sealing, opening) = transport.split();
        Ok(Self {
            stream,
            encoder: NoiseEncoder::new(),
            sealing,
            decoder: NoiseDecoder::new(),
            opening: Some(opening),
            unread: Vec::new(),
        })
    }

    /// The next frame; `None` at the end.
    pub(super) async fn receive(&mut self) -> Result<Option<Received>> {
        loop {
            let wanted = self.decoder.writable_len();
            if self.unread.len() < wanted {
                if self.stream.read_buf(&mut self.unread).await? == 0 {
                    return Ok(None);
                }
                continue;
            }
            self.decoder.writable().copy_from_slice(&self.unread[..wanted]);
            self.unread.drain(..wanted);
            let opening = self.opening.take().context("a frame before this one was not authentic")?;
            match self.decoder.next_transport_frame(opening).map_err(|error| anyhow!("{error:?}"))? {
                Decrypted::Incomplete(_, opening) => self.opening = Some(opening),
                Decrypted::Frame(mut frame, opening) => {
                    self.opening = Some(opening);
                    let msg_type = frame.header().msg_type();
                    return Ok(Some(Received { msg_type, payload: frame.payload().to_vec() }));
                }
            }
        }
    }

    async fn send<M: IsSv2Message + Encodable + GetSize>(&mut self, message: M) -> Result<()> {
        let header = (message.message_type(), message.extension_type(), message.channel_bit());
        let frame = MessageFrame::from_message(message, header.0, header.1, header.2);
        let frame = frame.map_err(|error| anyhow!("{error:?}"))?;
        let bytes =
            self.encoder.encode_transport(frame, &mut self.sealing).map_err(|error| anyhow!("{error:?}"))?;
        Ok(self.stream.write_all(&bytes).await?)
    }

    fn seal(&mut self, msg_type: u8, announced: usize, payload: &[u8]) -> Result<Vec<u8>> {
        let [l0, l1, l2, ..] = announced.to_le_bytes();
        let frame = RawFrame([&[0, 0, msg_type, l0, l1, l2], payload].concat());
        let bytes = self.encoder.encode_transport(frame, &mut self.sealing);
        Ok(bytes.map_err(|error| anyhow!("{error:?}"))?.to_vec())
    }

    /// A frame whose header may announce another length than it has.
    pub(super) async fn send_raw(&mut self, msg_type: u8, announced: usize, payload: &[u8]) -> Result<()> {
        let bytes = self.seal(msg_type, announced, payload)?;
        Ok(self.stream.write_all(&bytes).await?)
    }

    pub(super) async fn answer_setup(&mut self, accepts: bool) -> Result<()> {
        use common_messages_sv2::{SetupConnectionError, SetupConnectionSuccess};
        if accepts {
            let success = SetupConnectionSuccess { used_version: 2, flags: 0 };
            return self.send(CommonMessages::SetupConnectionSuccess(success)).await;
        }
        let error_code = "unsupported-protocol".try_into().map_err(|error| anyhow!("{error:?}"))?;
        self.send(CommonMessages::SetupConnectionError(SetupConnectionError { flags: 0, error_code })).await
    }

    pub(super) async fn send_template(&mut self, offered: &Offered, mischief: Mischief) -> Result<()> {
        let height = match mischief {
            Mischief::PastHeight => offered.height.saturating_sub(5),
            _ => offered.height,
        };
        let value = match mischief {
            Mischief::Value(lie) => offered.value.saturating_add_signed(lie),
            _ => offered.value,
        };
        let mut path = offered.merkle_path();
        if mischief == Mischief::WrongPath {
            path[0] = [0x5a; 32];
        }
        // As Bitcoin Core prescribes it: the height and a zero behind it, a sequence that lets the lock time count.
        let prefix = Builder::new().push_int(i64::from(height)).push_int(0).into_script();
        let commitment = ScriptBuf::from_bytes(offered.commitment.clone());
        let commitment = TxOut { value: Amount::ZERO, script_pubkey: commitment };
        let outputs = serialize(&commitment);
        let path: Vec<U256<'_>> = path.iter().map(U256::from).collect();
        let message = NewTemplate {
            template_id: offered.id,
            future_template: offered.future,
            version: offered.version,
            coinbase_tx_version: 2,
            coinbase_prefix: prefix.as_bytes().try_into().map_err(|error| anyhow!("{error:?}"))?,
            coinbase_tx_input_sequence: 0xffff_fffe,
            coinbase_tx_value_remaining: value,
            coinbase_tx_outputs_count: 1,
            coinbase_tx_outputs: (&outputs[..]).try_into().map_err(|error| anyhow!("{error:?}"))?,
            coinbase_tx_locktime: offered.height - 1,
            merkle_path: Seq0255::new(path).map_err(|error| anyhow!("{error:?}"))?,
        };
        self.send(TemplateDistribution::NewTemplate(message)).await
    }

    pub(super) async fn send_tip(&mut self, template_id: u64, offered: &Offered) -> Result<()> {
        let (previous, target) =
            (offered.previous.to_byte_array(), Target::from_compact(offered.bits).to_le_bytes());
        let message = SetNewPrevHash {
            template_id,
            prev_hash: (&previous).into(),
            header_timestamp: offered.time,
            n_bits: offered.bits.to_consensus(),
            target: (&target).into(),
        };
        self.send(TemplateDistribution::SetNewPrevHash(message)).await
    }

    /// The transactions; `half`, only the first half of the bytes.
    pub(super) async fn send_data(
        &mut self,
        offered: &Offered,
        mischief: Mischief,
        half: bool,
    ) -> Result<()> {
        let mut list: Vec<Vec<u8>> = offered.transactions.iter().map(serialize).collect();
        match mischief {
            Mischief::OtherOrder => list.reverse(),
            Mischief::Undecodable => list[0].truncate(40),
            _ => {}
        }
        // By hand, so that it can be sent in part: id, no other data, the transactions.
        let mut payload = offered.id.to_le_bytes().to_vec();
        payload.extend([0, 0]);
        payload.extend(u16::try_from(list.len())?.to_le_bytes());
        for bytes in &list {
            payload.extend(&u32::try_from(bytes.len())?.to_le_bytes()[..3]);
            payload.extend(bytes);
        }
        let mut bytes = self.seal(0x74, payload.len(), &payload)?;
        if half {
            bytes.truncate(bytes.len() / 2);
        }
        Ok(self.stream.write_all(&bytes).await?)
    }

    pub(super) async fn send_no_data(&mut self, template_id: u64, code: &str) -> Result<()> {
        let error_code = code.try_into().map_err(|error| anyhow!("{error:?}"))?;
        let message = RequestTransactionDataError { template_id, error_code };
        self.send(TemplateDistribution::RequestTransactionDataError(message)).await
    }
}

/// Header and payload in one, as they are.
struct RawFrame(Vec<u8>);

impl EncodableFrame for RawFrame {
    fn encoded_length(&self) -> usize {
        self.0.len()
    }

    fn encode_into(self, out: &mut [u8]) -> Result<(), framing_sv2::Error> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}
