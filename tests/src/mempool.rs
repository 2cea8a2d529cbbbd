//! Coins on a regtest node and a mempool full of real transactions, without the node's wallet.
//!
//! One key, three kinds of outputs (P2WPKH, taproot key path, P2PKH), every input signed. The mixture
//! looks like a mempool: payments, payouts with many outputs, consolidations, parents whose children pay
//! for them, fee rates from the minimum to a hundred times that. It is the same in every run; only the
//! blocks, and with them the transaction ids, differ.

use crate::node::Node;
use anyhow::{Context, Result, ensure};
use bitcoin::{
    Address, Amount, Block, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    absolute::LockTime,
    consensus::encode::{deserialize_hex, serialize},
    key::{CompressedPublicKey, Keypair, TapTweak, TweakedKeypair},
    script::PushBytesBuf,
    secp256k1::{All, Message, Secp256k1},
    sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType},
    transaction::Version,
};
use serde_json::json;

/// Coins made from one block reward.
const FAN_OUT: usize = 400;
/// Blocks after which a reward can be spent.
const MATURITY: usize = 100;
/// What a fan-out of 400 outputs, about 14,000 vbytes, pays.
const FAN_OUT_FEE: Amount = Amount::from_sat(100_000);

/// The kinds of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Segwit,
    Taproot,
    Legacy,
}

#[derive(Clone, Copy, Debug)]
struct Coin {
    outpoint: OutPoint,
    value: Amount,
    kind: Kind,
}

/// What [`Wallet::fill`] put into the mempool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Transactions.
    pub transactions: usize,
    /// Their virtual size, vbytes.
    pub vsize: usize,
    /// Their fees.
    pub fees: Amount,
}

/// A key with coins that are confirmed and unspent.
#[derive(Debug)]
pub struct Wallet {
    secp: Secp256k1<All>,
    key: Keypair,
    tweaked: TweakedKeypair,
    public: CompressedPublicKey,
    coins: Vec<Coin>,
    random: Random,
}

impl Wallet {
    /// Mines blocks and divides their rewards into at least `coins` confirmed coins. A transaction of the
    /// mixture takes a little less than one coin.
    ///
    /// # Errors
    /// When the node does not do what it is asked.
    pub async fn funded(node: &Node, coins: usize) -> Result<Self> {
        let secp = Secp256k1::new();
        let key = Keypair::from_seckey_slice(&secp, &[0x42; 32])?;
        let mut wallet = Self {
            tweaked: key.tap_tweak(&secp, None),
            public: CompressedPublicKey(key.public_key()),
            secp,
            key,
            coins: Vec::new(),
            random: Random(0x9e37_79b9_7f4a_7c15),
        };
        let rewards = wallet.mine(node, coins.div_ceil(FAN_OUT)).await?;
        wallet.mine(node, MATURITY).await?;
        for hash in &rewards {
            let block = node.rpc.call("getblock", json!([hash, 0])).await?;
            let block: Block = deserialize_hex(block.as_str().context("a block that is not text")?)?;
            let coinbase = block.txdata.first().context("a block without a coinbase")?;
            let reward = Coin {
                outpoint: OutPoint::new(coinbase.compute_txid(), 0),
                value: coinbase.output[0].value,
                kind: Kind::Segwit,
            };
            let kinds: Vec<_> = (0..FAN_OUT).map(|_| wallet.random.kind()).collect();
            let (transaction, coins) = wallet.sign(&[reward], &kinds, FAN_OUT_FEE)?;
            let raw = hex::encode(serialize(&transaction));
            node.rpc.call("sendrawtransaction", json!([raw, 0])).await?;
            wallet.coins.extend(coins);
        }
        wallet.mine(node, 1).await?;
        ensure!(node.mempool_size().await? == 0, "the fan-out was not mined");
        Ok(wallet)
    }

    /// Where mined blocks pay to.
    pub fn address(&self) -> Address {
        Address::p2wpkh(&self.public, Network::Regtest)
    }

    /// Coins that are left.
    pub fn coins(&self) -> usize {
        self.coins.len()
    }

    /// Mines blocks with what is in the mempool; gives their hashes.
    ///
    /// # Errors
    /// When the node does not.
    pub async fn mine(&self, node: &Node, blocks: usize) -> Result<Vec<String>> {
        let hashes = node.rpc.call("generatetoaddress", json!([blocks, self.address().to_string()])).await?;
        Ok(serde_json::from_value(hashes)?)
    }

    /// Adds at least `transactions` to the node's mempool, at most three more.
    ///
    /// # Errors
    /// When the coins do not suffice, or the node does not take every transaction.
    pub async fn fill(&mut self, node: &Node, transactions: usize) -> Result<Filled> {
        let mut made = Vec::with_capacity(transactions + 3);
        let mut fees = Amount::ZERO;
        while made.len() < transactions {
            self.next(&mut made, &mut fees)?;
        }
        let before = node.mempool_size().await?;
        let file = node.folder().join("reservegrid-mempool.dat");
        std::fs::write(&file, mempool_file(&made))?;
        // Each transaction is checked as if a peer had sent it, but in one call.
        node.rpc.call("importmempool", json!([file, { "use_current_time": true }])).await?;
        std::fs::remove_file(&file)?;
        let taken = node.mempool_size().await? - before;
        ensure!(taken == made.len() as u64, "the node took {taken} of {} transactions", made.len());
        Ok(Filled { transactions: made.len(), vsize: made.iter().map(Transaction::vsize).sum(), fees })
    }

    /// Makes one transaction, or a chain of up to four.
    fn next(&mut self, made: &mut Vec<Transaction>, fees: &mut Amount) -> Result<()> {
        let rate = self.random.rate();
        let (inputs, outputs) = match self.random.below(100) {
            0..55 => (1, 2),
            55..65 => (2, 2),
            65..80 => (1, 1),
            80..84 => (1, 5 + self.random.below(40)),
            84 => (6 + self.random.below(10), 1),
            _ => {
                // A poor parent, and children that make up for it.
                let mut tip = self.pay(1, 2, 1.1, made, fees)?;
                for _ in 0..=self.random.below(3) {
                    self.coins.push(tip);
                    tip = self.pay(1, 2, 2.0 * rate, made, fees)?;
                }
                return Ok(());
            }
        };
        self.pay(inputs, outputs, rate, made, fees).map(drop)
    }

    /// Pays from the last coins to ourselves at a fee rate in satoshi per vbyte; gives the last output.
    fn pay(
        &mut self,
        inputs: usize,
        outputs: usize,
        rate: f64,
        made: &mut Vec<Transaction>,
        fees: &mut Amount,
    ) -> Result<Coin> {
        let rest =
            self.coins.len().checked_sub(inputs).context("no coins are left; fund the wallet with more")?;
        let spent = self.coins.split_off(rest);
        let kinds: Vec<_> = (0..outputs).map(|_| self.random.kind()).collect();
        // Once to learn the size, once with the fee. A signature can be a byte shorter the second time.
        let (draft, _) = self.sign(&spent, &kinds, Amount::ZERO)?;
        let fee = Amount::from_sat((draft.vsize() as f64 * rate).ceil() as u64);
        let (transaction, coins) = self.sign(&spent, &kinds, fee)?;
        made.push(transaction);
        *fees += fee;
        coins.last().copied().context("a transaction without outputs")
    }

    /// Divides coins into outputs of the given kinds, leaves a fee, signs every input.
    fn sign(&self, spent: &[Coin], kinds: &[Kind], fee: Amount) -> Result<(Transaction, Vec<Coin>)> {
        let total: Amount = spent.iter().map(|coin| coin.value).sum();
        let each = total.checked_sub(fee).context("a fee above the coins")? / kinds.len() as u64;
        ensure!(each > Amount::from_sat(1_000), "the coins are too small for {} outputs", kinds.len());
        let prevouts: Vec<_> = spent.iter().map(|coin| self.output(coin.kind, coin.value)).collect();
        let mut transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: spent.iter().map(|coin| input(coin.outpoint)).collect(),
            output: kinds.iter().map(|kind| self.output(*kind, each)).collect(),
        };
        // What does not divide evenly.
        let outputs: Amount = transaction.output.iter().map(|output| output.value).sum();
        transaction.output[0].value += total - fee - outputs;

        let mut cache = SighashCache::new(transaction.clone());
        for (index, coin) in spent.iter().enumerate() {
            let (script, witness) = self.unlock(&mut cache, index, coin, &prevouts)?;
            transaction.input[index].script_sig = script;
            transaction.input[index].witness = witness;
        }
        let txid = transaction.compute_txid();
        let coins = transaction.output.iter().zip(kinds).zip(0..).map(|((output, kind), index)| Coin {
            outpoint: OutPoint::new(txid, index),
            value: output.value,
            kind: *kind,
        });
        let coins = coins.collect();
        Ok((transaction, coins))
    }

    fn unlock(
        &self,
        cache: &mut SighashCache<Transaction>,
        index: usize,
        coin: &Coin,
        prevouts: &[TxOut],
    ) -> Result<(ScriptBuf, Witness)> {
        let script = &prevouts[index].script_pubkey;
        let ecdsa = |message| bitcoin::ecdsa::Signature {
            signature: self.secp.sign_ecdsa(&message, &self.key.secret_key()),
            sighash_type: EcdsaSighashType::All,
        };
        Ok(match coin.kind {
            Kind::Segwit => {
                let hash = cache.p2wpkh_signature_hash(index, script, coin.value, EcdsaSighashType::All)?;
                (ScriptBuf::new(), Witness::p2wpkh(&ecdsa(Message::from(hash)), &self.public.0))
            }
            Kind::Taproot => {
                let prevouts = Prevouts::All(prevouts);
                let hash =
                    cache.taproot_key_spend_signature_hash(index, &prevouts, TapSighashType::Default)?;
                let signature =
                    self.secp.sign_schnorr_no_aux_rand(&Message::from(hash), &self.tweaked.to_keypair());
                let sighash_type = TapSighashType::Default;
                let signature = bitcoin::taproot::Signature { signature, sighash_type };
                (ScriptBuf::new(), Witness::p2tr_key_spend(&signature))
            }
            Kind::Legacy => {
                let hash = cache.legacy_signature_hash(index, script, EcdsaSighashType::All.to_u32())?;
                let signature = PushBytesBuf::try_from(ecdsa(Message::from(hash)).to_vec())?;
                let script = ScriptBuf::builder()
                    .push_slice(signature)
                    .push_slice(self.public.to_bytes())
                    .into_script();
                (script, Witness::new())
            }
        })
    }

    fn output(&self, kind: Kind, value: Amount) -> TxOut {
        let script_pubkey = match kind {
            Kind::Segwit => ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash()),
            Kind::Taproot => ScriptBuf::new_p2tr_tweaked(self.tweaked.public_parts().0),
            Kind::Legacy => ScriptBuf::new_p2pkh(&self.public.pubkey_hash()),
        };
        TxOut { value, script_pubkey }
    }
}

fn input(previous_output: OutPoint) -> TxIn {
    let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence, witness: Witness::new() }
}

/// The node's own format for a saved mempool (version 1): each transaction with the time it came and no
/// change of its fee, then two empty lists.
fn mempool_file(transactions: &[Transaction]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(1u64.to_le_bytes());
    file.extend((transactions.len() as u64).to_le_bytes());
    for transaction in transactions {
        file.extend(serialize(transaction));
        file.extend([0; 16]);
    }
    file.extend([0, 0]);
    file
}

/// The same numbers in every run (xorshift64*); nothing here needs better ones.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        let number = (self.next() >> 16) % limit as u64;
        number as usize
    }

    /// Mostly segwit.
    fn kind(&mut self) -> Kind {
        match self.below(100) {
            0..65 => Kind::Segwit,
            65..88 => Kind::Taproot,
            _ => Kind::Legacy,
        }
    }

    /// Satoshi per vbyte: many near the minimum, few far above.
    fn rate(&mut self) -> f64 {
        let unit = self.below(10_000) as f64 / 10_000.0;
        1.1 + 120.0 * unit.powi(4)
    }
}
