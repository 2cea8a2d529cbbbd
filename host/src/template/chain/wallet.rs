//! The embedded chain's keys and its own little miner.
//!
//! One key from the seed, paid to in two ways: P2WPKH, and taproot by key path. Signatures are
//! deterministic, so "is this input signed as it must be?" is answered by signing again: the chain
//! knows no coin but the wallet's, and only the wallet can have signed.

use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, CompressedPublicKey, Script, ScriptBuf, Sequence, Transaction,
    TxIn, TxMerkleNode, TxOut, Witness,
    absolute::LockTime,
    block::{Header, Version},
    hashes::{Hash, sha256},
    key::{Keypair, Secp256k1, TapTweak, TweakedKeypair},
    opcodes::all::OP_RETURN,
    script::Builder,
    secp256k1::{All, Message, SecretKey},
    sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType},
    transaction,
};

/// Keys and scripts.
pub(super) struct Wallet {
    secp: Secp256k1<All>,
    secret: SecretKey,
    public: CompressedPublicKey,
    tweaked: TweakedKeypair,
    wpkh: ScriptBuf,
    taproot: ScriptBuf,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wallet({})", self.public)
    }
}

impl Wallet {
    #[expect(clippy::expect_used, reason = "a SHA-256 hash is below the curve order but for chance 2^-128")]
    pub(super) fn new(seed: u64) -> Self {
        let secp = Secp256k1::new();
        let entropy = sha256::Hash::hash(&[b"embedded chain", &seed.to_le_bytes()[..]].concat());
        let secret = SecretKey::from_slice(entropy.as_byte_array()).expect("a hash is a secret key");
        let keypair = Keypair::from_secret_key(&secp, &secret);
        let public = CompressedPublicKey(keypair.public_key());
        let tweaked = keypair.tap_tweak(&secp, None);
        let wpkh = ScriptBuf::new_p2wpkh(&public.wpubkey_hash());
        let taproot = ScriptBuf::new_p2tr_tweaked(tweaked.public_parts().0);
        Self { secp, secret, public, tweaked, wpkh, taproot }
    }

    /// Where to pay the wallet.
    pub(super) fn script(&self, taproot: bool) -> &Script {
        if taproot { &self.taproot } else { &self.wpkh }
    }

    pub(super) fn owns(&self, script: &Script) -> bool {
        *script == *self.wpkh || *script == *self.taproot
    }

    /// The witness of each input of `tx`; `spent` are the wallet's outputs that it spends, in order.
    /// `None` when one of them is not the wallet's.
    pub(super) fn sign(&self, tx: &Transaction, spent: &[TxOut]) -> Option<Vec<Witness>> {
        let mut cache = SighashCache::new(tx);
        let prevouts = Prevouts::All(spent);
        let mut witnesses = Vec::with_capacity(spent.len());
        for (i, output) in spent.iter().enumerate() {
            witnesses.push(if output.script_pubkey == self.wpkh {
                let sighash_type = EcdsaSighashType::All;
                let hash = cache.p2wpkh_signature_hash(i, &self.wpkh, output.value, sighash_type).ok()?;
                let signature =
                    self.secp.sign_ecdsa(&Message::from_digest(hash.to_byte_array()), &self.secret);
                Witness::p2wpkh(&bitcoin::ecdsa::Signature { signature, sighash_type }, &self.public.0)
            } else if output.script_pubkey == self.taproot {
                let sighash_type = TapSighashType::Default;
                let hash = cache.taproot_key_spend_signature_hash(i, &prevouts, sighash_type).ok()?;
                let message = Message::from_digest(hash.to_byte_array());
                let signature = self.secp.sign_schnorr_no_aux_rand(&message, self.tweaked.as_keypair());
                Witness::p2tr_key_spend(&bitcoin::taproot::Signature { signature, sighash_type })
            } else {
                return None;
            });
        }
        Some(witnesses)
    }
}

/// Mines a block of nothing but a coinbase at regtest's easiest target: two hashes on average.
pub(super) fn mine(previous: BlockHash, height: u32, time: u32, mut outputs: Vec<TxOut>) -> Block {
    // The commitment of a block without other transactions: the root of a tree with one empty leaf.
    let commitment = crate::template::merkle::parent(&[0; 32], &[0; 32]);
    let script = Builder::new()
        .push_opcode(OP_RETURN)
        .push_slice({
            let mut payload = [0; 36];
            payload[..4].copy_from_slice(&[0xaa, 0x21, 0xa9, 0xed]);
            payload[4..].copy_from_slice(&commitment);
            payload
        })
        .into_script();
    outputs.push(TxOut { value: Amount::ZERO, script_pubkey: script });
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: Default::default(),
            // The extra push keeps it at two bytes or more where the height is one.
            script_sig: Builder::new().push_int(i64::from(height)).push_int(0).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0; 32]]),
        }],
        output: outputs,
    };
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: previous,
        merkle_root: TxMerkleNode::from_raw_hash(coinbase.compute_txid().to_raw_hash()),
        time,
        bits: CompactTarget::from_consensus(super::EASIEST_BITS),
        nonce: 0,
    };
    while header.validate_pow(header.target()).is_err() {
        header.nonce += 1;
    }
    Block { header, txdata: vec![coinbase] }
}
