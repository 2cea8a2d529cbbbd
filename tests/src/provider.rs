//! An SV2 Template Provider in front of a real node, on foreign codecs; honest unless a test says otherwise.
//!
//! It serves one client at a time. What it offers is the node's `getblocktemplate`; what it is handed as a
//! solution it puts together and submits to the node. A test says when it looks at the node again
//! ([`refresh`](Provider::refresh)), offers something for the tip after this one
//! ([`offer_ahead`](Provider::offer_ahead)), and what it does wrong ([`Mischief`]).

mod chain;
mod wire;

use crate::{gateway::GatewayConfig, node::Node};
use anyhow::{Context, Result, anyhow, ensure};
use bitcoin::secp256k1::{Keypair, Secp256k1};
use chain::{Chain, Offered};
use parsers_sv2::{CommonMessages, TemplateDistribution};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use wire::{Received, Wire};

/// The provider's authority, and another that is not.
const SECRET: [u8; 32] = [0x37; 32];
const OTHER_SECRET: [u8; 32] = [0x38; 32];

/// What the provider does wrong, from now on and to every client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mischief {
    /// Nothing.
    #[default]
    None,
    /// Does not answer the handshake.
    Silent,
    /// Shows a certificate of another authority.
    OtherAuthority,
    /// Refuses the connection at setup.
    RefusesSetup,
    /// Offers nothing.
    OffersNothing,
    /// Tells a tip for a template that it never offered.
    UnknownTemplate,
    /// Sends bytes that are no template.
    Nonsense,
    /// Offers a template whose coinbase begins with a height of the past.
    PastHeight,
    /// Says that the coinbase may pay more, or less, than it may, satoshi.
    Value(i64),
    /// Sends a merkle path of other transactions.
    WrongPath,
    /// Sends the transactions in another order.
    OtherOrder,
    /// Sends a transaction that does not parse.
    Undecodable,
    /// Announces more transactions than a block can have.
    Oversized,
    /// Closes the connection in the middle of the transactions.
    CutOff,
    /// Does not send the transactions.
    Hangs,
    /// Calls its template stale.
    Stale,
    /// Does not know its template.
    NotFound,
    /// Takes solutions and does nothing with them.
    DropsSolutions,
}

/// What the provider has been sent.
#[derive(Debug, Default)]
struct Seen {
    /// CoinbaseOutputConstraints: size and sigops.
    constraints: Option<(u32, u16)>,
    clients: usize,
    /// Questions for transactions.
    questions: usize,
    /// The hash of each solved block, and what the node said to it.
    solutions: Vec<(String, String)>,
}

enum Order {
    Refresh,
    OfferAhead,
    TellAhead,
    HangUp,
}

/// The provider; it ends with this handle.
pub struct Provider {
    address: SocketAddr,
    mischief: Arc<Mutex<Mischief>>,
    seen: Arc<Mutex<Seen>>,
    orders: mpsc::Sender<(Order, oneshot::Sender<Result<()>>)>,
    task: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn start(node: &Node) -> Result<Self> {
        Self::start_at(node, "127.0.0.1:0").await
    }

    /// Starts it at an address, e.g. that of one that has ended.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub async fn start_at(node: &Node, address: &str) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (orders, ordered) = mpsc::channel(8);
        let (mischief, seen) = (Arc::default(), Arc::default());
        let desk = Desk {
            chain: Chain::new(node.rpc.clone()),
            mischief: Arc::clone(&mischief),
            seen: Arc::clone(&seen),
            offered: Vec::new(),
            ahead: None,
        };
        let task = tokio::spawn(desk.serve(listener, ordered));
        Ok(Self { address, mischief, seen, orders, task })
    }

    /// Its address, `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Its authority key, base58.
    pub fn authority_key(&self) -> String {
        let (_, public) = keys(SECRET);
        bitcoin::base58::encode_check(&[&[1, 0], &public[..]].concat())
    }

    /// Templates come from here.
    #[must_use]
    pub fn configure(&self, config: GatewayConfig) -> GatewayConfig {
        config
            .set("source", "kind", "template_provider")
            .set("source", "address", self.address())
            .set("source", "authority_key", self.authority_key())
            .set("source", "network", "regtest")
            .set("coinbase", "payout_address", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080")
    }

    /// What it does wrong from now on.
    pub fn misbehave(&self, mischief: Mischief) {
        *lock(&self.mischief) = mischief;
    }

    /// Looks at the node again: offers its template, and tells its tip if it is another.
    ///
    /// # Errors
    /// When there is no client, or the node does not answer.
    pub async fn refresh(&self) -> Result<()> {
        self.order(Order::Refresh).await
    }

    /// Offers what the node's template would be after an empty block.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub async fn offer_ahead(&self) -> Result<()> {
        self.order(Order::OfferAhead).await
    }

    /// Tells the node's tip for what was offered ahead, and nothing else.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh), and when nothing was offered ahead.
    pub async fn tell_ahead(&self) -> Result<()> {
        self.order(Order::TellAhead).await
    }

    /// Closes the connection.
    ///
    /// # Errors
    /// When there is none.
    pub async fn hang_up(&self) -> Result<()> {
        self.order(Order::HangUp).await
    }

    async fn order(&self, order: Order) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.orders.send((order, done)).await.map_err(|_| anyhow!("the provider has ended"))?;
        answer.await.context("the client was gone")?
    }

    /// Size and sigops that the client asked room for.
    pub fn constraints(&self) -> Option<(u32, u16)> {
        lock(&self.seen).constraints
    }

    /// Clients that got through the handshake so far.
    pub fn clients(&self) -> usize {
        lock(&self.seen).clients
    }

    /// How often transactions were asked for.
    pub fn questions(&self) -> usize {
        lock(&self.seen).questions
    }

    /// What the node said to a block that came as a solution.
    pub fn said_to(&self, hash: &str) -> Option<String> {
        let seen = lock(&self.seen);
        seen.solutions.iter().find(|(solved, _)| solved == hash).map(|(_, said)| said.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Secret and x-only public key.
fn keys(secret: [u8; 32]) -> ([u8; 32], [u8; 32]) {
    let key = Keypair::from_seckey_slice(&Secp256k1::new(), &secret).unwrap_or_else(|_| unreachable!());
    (secret, key.x_only_public_key().0.serialize())
}

/// The provider's side of a connection.
struct Desk {
    chain: Chain,
    mischief: Arc<Mutex<Mischief>>,
    seen: Arc<Mutex<Seen>>,
    /// What the client was offered, oldest first.
    offered: Vec<Offered>,
    /// What it was offered ahead.
    ahead: Option<u64>,
}

type Ordered = mpsc::Receiver<(Order, oneshot::Sender<Result<()>>)>;

impl Desk {
    async fn serve(mut self, listener: TcpListener, mut ordered: Ordered) {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let _ = stream.set_nodelay(true);
            let secret = match self.mischief() {
                Mischief::Silent => {
                    // Until the client has enough of it.
                    let _ = wire::until_closed(stream).await;
                    continue;
                }
                Mischief::OtherAuthority => OTHER_SECRET,
                _ => SECRET,
            };
            let (secret, public) = keys(secret);
            let Ok(wire) = Wire::respond(stream, &public, &secret).await else { continue };
            lock(&self.seen).clients += 1;
            // Whatever went wrong, the client is told by the end of the connection.
            let _ = self.talk(wire, &mut ordered).await;
            (self.offered, self.ahead) = (Vec::new(), None);
        }
    }

    fn mischief(&self) -> Mischief {
        *lock(&self.mischief)
    }

    async fn talk(&mut self, mut wire: Wire, ordered: &mut Ordered) -> Result<()> {
        loop {
            tokio::select! {
                received = wire.receive() => match received? {
                    Some(received) => if !self.hear(received, &mut wire).await? { return Ok(()) },
                    None => return Ok(()),
                },
                order = ordered.recv() => {
                    let Some((order, done)) = order else { return Ok(()) };
                    let last = matches!(order, Order::HangUp);
                    let _ = done.send(self.follow(order, &mut wire).await);
                    if last {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn follow(&mut self, order: Order, wire: &mut Wire) -> Result<()> {
        match order {
            Order::Refresh => self.offer(wire).await,
            Order::OfferAhead => {
                let offered = self.chain.offer(true).await?;
                self.ahead = Some(offered.id);
                wire.send_template(&offered, self.mischief()).await?;
                self.offered.push(offered);
                Ok(())
            }
            Order::TellAhead => {
                let id = self.ahead.take().context("nothing was offered ahead")?;
                let at = self.offered.iter().position(|offered| offered.id == id).context("it is gone")?;
                self.chain.move_to_tip(&mut self.offered[at]).await?;
                wire.send_tip(id, &self.offered[at]).await
            }
            Order::HangUp => Ok(()),
        }
    }

    /// The node's template, and its tip if the client does not know it.
    async fn offer(&mut self, wire: &mut Wire) -> Result<()> {
        let mischief = self.mischief();
        let offered = self.chain.offer(false).await?;
        match mischief {
            Mischief::OffersNothing => return Ok(()),
            Mischief::Nonsense => return wire.send_raw(0x71, 3, &[1, 2, 3]).await,
            _ => {}
        }
        let new_tip = self.offered.last().is_none_or(|last| last.previous != offered.previous);
        let (id, future) = (offered.id, new_tip);
        wire.send_template(&Offered { future, ..offered.clone() }, mischief).await?;
        if new_tip {
            let named = if mischief == Mischief::UnknownTemplate { id + 1_000 } else { id };
            wire.send_tip(named, &offered).await?;
        }
        self.offered.push(offered);
        Ok(())
    }

    /// False when the connection is to end.
    async fn hear(&mut self, received: Received, wire: &mut Wire) -> Result<bool> {
        let Received { msg_type, mut payload } = received;
        if let Ok(CommonMessages::SetupConnection(setup)) =
            CommonMessages::try_from((msg_type, &mut payload[..]))
        {
            ensure!(setup.protocol as u8 == 2, "a client of another protocol");
            let accepts = self.mischief() != Mischief::RefusesSetup;
            wire.answer_setup(accepts).await?;
            return Ok(accepts);
        }
        let message = TemplateDistribution::try_from((msg_type, &mut payload[..]));
        match message.map_err(|error| anyhow!("{error:?}"))? {
            TemplateDistribution::CoinbaseOutputConstraints(m) => {
                let asked = (m.coinbase_output_max_additional_size, m.coinbase_output_max_additional_sigops);
                lock(&self.seen).constraints = Some(asked);
                self.offer(wire).await?;
            }
            TemplateDistribution::RequestTransactionData(m) => {
                lock(&self.seen).questions += 1;
                return self.transactions(m.template_id, wire).await;
            }
            TemplateDistribution::SubmitSolution(m) => {
                if self.mischief() == Mischief::DropsSolutions {
                    return Ok(true);
                }
                let offered = self.offered.iter().find(|offered| offered.id == m.template_id);
                let offered = offered.context("a solution of a template that is not ours")?;
                let said = self.chain.submit(offered, &m).await?;
                lock(&self.seen).solutions.push(said);
                self.offer(wire).await?;
            }
            other => return Err(anyhow!("no client sends {other}")),
        }
        Ok(true)
    }

    async fn transactions(&mut self, id: u64, wire: &mut Wire) -> Result<bool> {
        let Some(offered) = self.offered.iter().find(|offered| offered.id == id) else {
            wire.send_no_data(id, "template-id-not-found").await?;
            return Ok(true);
        };
        match self.mischief() {
            Mischief::Hangs => {}
            Mischief::Stale => wire.send_no_data(id, "stale-template-id").await?,
            Mischief::NotFound => wire.send_no_data(id, "template-id-not-found").await?,
            Mischief::Oversized => wire.send_raw(0x74, 0x00ff_ffff, &[0; 64]).await?,
            Mischief::CutOff => {
                wire.send_data(offered, Mischief::None, true).await?;
                return Ok(false);
            }
            mischief => wire.send_data(offered, mischief, false).await?,
        }
        Ok(true)
    }
}
