//! The conversation after setup as a state machine: messages and the time go in, what to ask for and what to
//! assemble come out. No sockets, no clock.
//!
//! A template is used when its transactions are here and there is a tip for it. Little is kept: on the tip the
//! template whose transactions are on their way and the newest one, and a few for the tip after. What is
//! overtaken is not asked for. Every answer that is owed has a deadline, and what the protocol does not allow
//! ends the conversation, for a new one begins with the newest template again.

use super::{
    super::{
        CoinbaseParts, CoinbaseSpec, Declared, DeclaredTransaction, Provenance, SourceError, future_tip,
    },
    memory::Memory,
    message::{Heard, NewTip, Offer, nonsense},
};
use crate::{dial::words, reason::Reason};
use bitcoin::{Amount, BlockHash, Network, consensus::encode::serialize};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// Future templates that are kept.
const MAX_FUTURES: usize = 4;
/// Requests for transactions on their way.
const MAX_REQUESTED: usize = 4;
/// Messages of unknown type, and numbers of templates that were overtaken, that are put up with.
const MAX_UNKNOWN: u32 = 32;

/// The tip that templates are on.
#[derive(Clone, Copy, Debug)]
pub struct Tip {
    /// As the provider told it.
    pub said: NewTip,
    /// Its height.
    pub height: u32,
    /// When it was told.
    since: Instant,
}

/// A template that can be assembled.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What was offered.
    pub offer: Arc<Offer>,
    /// Its transactions.
    pub transactions: Arc<Vec<Vec<u8>>>,
    /// The tip it is on, or that before its own.
    pub tip: Tip,
    /// It is for the tip after `tip`.
    pub ahead: bool,
    /// The provider's clock, Unix seconds.
    now: u32,
}

/// A template on its way to being used.
#[derive(Debug)]
struct Pending {
    offer: Arc<Offer>,
    requested: bool,
    transactions: Option<Arc<Vec<Vec<u8>>>>,
    drafted: bool,
}

/// What the provider owes beside answers.
#[derive(Clone, Copy, Debug)]
enum Owed {
    /// Its first template, and the tip for it.
    First,
    /// A template in place of this one, which it called stale.
    Newer(u64),
}

/// See the module.
#[derive(Debug)]
pub struct Feed {
    patience: Duration,
    tip: Option<Tip>,
    /// On the tip, newest last; at most two.
    on_tip: VecDeque<Pending>,
    /// For tips to come, newest last.
    futures: VecDeque<Pending>,
    requested: Vec<(u64, Instant)>,
    owed: Option<(Owed, Instant)>,
    newest: Option<u64>,
    unknown: u32,
}

impl Feed {
    /// A conversation that begins now: the provider has `patience` for its first template and for every
    /// answer.
    pub fn new(now: Instant, patience: Duration) -> Self {
        Self {
            patience,
            tip: None,
            on_tip: VecDeque::new(),
            futures: VecDeque::new(),
            requested: Vec::new(),
            owed: Some((Owed::First, now + patience)),
            newest: None,
            unknown: 0,
        }
    }

    /// The tip.
    pub fn tip(&self) -> Option<BlockHash> {
        self.tip.map(|tip| tip.said.hash)
    }

    /// Takes a message.
    ///
    /// # Errors
    /// When the conversation cannot go on.
    pub fn hear(&mut self, heard: Heard, now: Instant, memory: &mut Memory) -> Result<(), SourceError> {
        match heard {
            Heard::Offer(offer) => self.offer(*offer),
            Heard::Tip(tip) => self.new_tip(tip, now, memory),
            Heard::Transactions { id, list } => self.transactions(id, list),
            Heard::Refused { id, code } => self.refused(id, &code, now),
            Heard::Reconnect => Err(SourceError {
                reason: Reason::TemplateSourceUnreachable,
                detail: "the Template Provider asks its clients to connect again".into(),
            }),
            Heard::Unknown => {
                self.unknown += 1;
                match self.unknown > MAX_UNKNOWN {
                    true => Err(nonsense("too many messages of unknown type".into())),
                    false => Ok(()),
                }
            }
        }
    }

    fn offer(&mut self, offer: Offer) -> Result<(), SourceError> {
        let id = offer.id;
        if self.newest.is_some_and(|newest| id <= newest) {
            return Err(nonsense(format!("template {id} does not have a higher number than the one before")));
        }
        self.newest = Some(id);
        let future = offer.future;
        let pending =
            Pending { offer: Arc::new(offer), requested: false, transactions: None, drafted: false };
        if future {
            if self.futures.len() == MAX_FUTURES {
                self.futures.pop_front();
            }
            self.futures.push_back(pending);
            return Ok(());
        }
        let Some(tip) = self.tip else {
            return Err(nonsense(format!("template {id} is for the current tip, and none was told")));
        };
        let height = pending.offer.height;
        if tip.height.checked_add(1) != Some(height) {
            let detail = format!(
                "template {id} is for height {height}, but the block it builds on has height {}",
                tip.height
            );
            return Err(SourceError { reason: Reason::TemplateSourceInvalid, detail });
        }
        // One that is half here is not given up for the newest, or a hasty provider would get nothing through.
        let under_way = |pending: &Pending| pending.requested && !pending.drafted;
        let first = self.on_tip.pop_front().filter(under_way);
        self.on_tip = first.into_iter().chain([pending]).collect();
        self.owed = None;
        Ok(())
    }

    fn new_tip(&mut self, said: NewTip, now: Instant, memory: &mut Memory) -> Result<(), SourceError> {
        let id = said.template_id;
        let Some(at) = self.futures.iter().position(|pending| pending.offer.id == id) else {
            let known = self.on_tip.iter().any(|pending| pending.offer.id == id);
            let what = if known { "is not for another tip" } else { "was not offered, or was overtaken" };
            let detail = format!("SetNewPrevHash names template {id}, which {what}");
            return Err(SourceError { reason: Reason::TemplateIdUnknown, detail });
        };
        // Those before it were for the same tip and are worse.
        self.futures.drain(..at);
        let Some(mut named) = self.futures.pop_front() else { return Ok(()) };
        named.drafted = false;
        let height = memory.moved(&said, &named.offer)?;
        self.tip = Some(Tip { said, height, since: now });
        self.on_tip = [named].into();
        self.owed = None;
        Ok(())
    }

    fn transactions(&mut self, id: u64, list: Vec<Vec<u8>>) -> Result<(), SourceError> {
        self.answered(id)?;
        if let Some(pending) = self.pending(id).filter(|pending| pending.transactions.is_none()) {
            pending.transactions = Some(Arc::new(list));
        }
        Ok(())
    }

    fn refused(&mut self, id: u64, code: &str, now: Instant) -> Result<(), SourceError> {
        self.answered(id)?;
        if self.pending(id).is_none() {
            return Ok(()); // overtaken
        }
        let detail = format!("the Template Provider answers {:?} about its template {id}", words(code));
        match code {
            "stale-template-id" => {
                let of_tip = self.on_tip.back().is_some_and(|pending| pending.offer.id == id);
                self.on_tip.retain(|pending| pending.offer.id != id);
                self.futures.retain(|pending| pending.offer.id != id);
                if of_tip {
                    self.owed = Some((Owed::Newer(id), now + self.patience));
                }
                Ok(())
            }
            "template-id-not-found" => Err(SourceError { reason: Reason::TemplateIdUnknown, detail }),
            _ => Err(SourceError { reason: Reason::TemplateSourceRefused, detail }),
        }
    }

    fn answered(&mut self, id: u64) -> Result<(), SourceError> {
        match self.requested.iter().position(|(requested, _)| *requested == id) {
            Some(at) => _ = self.requested.swap_remove(at),
            None => return Err(nonsense(format!("transactions of template {id}, which nobody asked for"))),
        }
        Ok(())
    }

    fn pending(&mut self, id: u64) -> Option<&mut Pending> {
        self.on_tip.iter_mut().chain(&mut self.futures).find(|pending| pending.offer.id == id)
    }

    /// The template whose transactions are to be asked for now; it counts as asked for from here on.
    pub fn next_request(&mut self, now: Instant) -> Option<u64> {
        if self.requested.len() >= MAX_REQUESTED {
            return None;
        }
        let newest = [self.on_tip.back_mut(), self.futures.back_mut()];
        let wanted = newest.into_iter().flatten().find(|pending| !pending.requested)?;
        wanted.requested = true;
        let id = wanted.offer.id;
        self.requested.push((id, now + self.patience));
        Some(id)
    }

    /// The template on the tip to be asked for once more, to see whether the provider is alive.
    pub fn probe(&mut self, now: Instant) -> Option<u64> {
        let id = self.on_tip.back()?.offer.id;
        if !self.requested.is_empty() {
            return None; // it owes an answer already
        }
        self.requested.push((id, now + self.patience));
        Some(id)
    }

    /// What can be assembled now; it counts as assembled from here on. What is on the tip goes first.
    pub fn next_draft(&mut self, now: Instant) -> Option<Draft> {
        let tip = self.tip?;
        let ready = |pending: &Pending| pending.transactions.is_some() && !pending.drafted;
        // For the block after the next; what is for another is used when its tip is told.
        let next =
            |pending: &Pending| ready(pending) && tip.height.checked_add(2) == Some(pending.offer.height);
        let ahead = match self.on_tip.iter().rposition(ready) {
            Some(at) => {
                self.on_tip.drain(..at);
                false
            }
            None => true,
        };
        let pending = match ahead {
            false => self.on_tip.front_mut()?,
            true => self.futures.back_mut().filter(|pending| next(pending))?,
        };
        pending.drafted = true;
        let elapsed = now.saturating_duration_since(tip.since).as_secs();
        Some(Draft {
            offer: pending.offer.clone(),
            transactions: pending.transactions.clone()?,
            tip,
            ahead,
            now: tip.said.time.saturating_add(u32::try_from(elapsed).unwrap_or(u32::MAX)),
        })
    }

    /// When [`on_time`](Self::on_time) has something to say.
    pub fn deadline(&self) -> Option<Instant> {
        let answers = self.requested.iter().map(|(_, until)| *until);
        answers.chain(self.owed.map(|(_, until)| until)).min()
    }

    /// Time passed.
    ///
    /// # Errors
    /// When something did not come in time.
    pub fn on_time(&mut self, now: Instant) -> Result<(), SourceError> {
        let within = format!("within {} ms", self.patience.as_millis());
        if let Some((owed, _)) = self.owed.filter(|(_, until)| *until <= now) {
            let (reason, detail) = match owed {
                Owed::First => (
                    Reason::TemplateSourceUnreachable,
                    format!("the Template Provider sent no template and tip {within}"),
                ),
                Owed::Newer(id) => (
                    Reason::TemplateOutdated,
                    format!("the Template Provider calls its template {id} stale and sent no other {within}"),
                ),
            };
            return Err(SourceError { reason, detail });
        }
        let Some((id, _)) = self.requested.iter().find(|(_, until)| *until <= now).copied() else {
            return Ok(());
        };
        let has_them = self.pending(id).is_none_or(|pending| pending.transactions.is_some());
        let (reason, detail) = match has_them {
            true => {
                (Reason::TemplateSourceUnreachable, format!("the Template Provider did not answer {within}"))
            }
            false => (
                Reason::TemplateDataMissing,
                format!("the Template Provider did not send the transactions of template {id} {within}"),
            ),
        };
        Err(SourceError { reason, detail })
    }
}

impl Draft {
    /// What the provider says, for assembly. Ids, fees and sigop costs it does not say.
    ///
    /// # Errors
    /// When there is no room for our part of the coinbase, or it is to pay more than there is.
    pub fn declare(&self, network: Network, coinbase: &CoinbaseSpec) -> Result<Declared, SourceError> {
        let invalid = |detail| SourceError { reason: Reason::TemplateSourceInvalid, detail };
        let Offer { coinbase: frame, version, height, merkle_path, .. } = &*self.offer;
        let given = frame.outputs.iter().map(|output| output.value);
        let value = given.chain([frame.value]).try_fold(Amount::ZERO, Amount::checked_add);
        let value = value.ok_or_else(|| invalid("the coinbase would pay more than there is".into()))?;
        let (transaction, extranonce_at) =
            coinbase.plan_within(frame).map_err(|error| invalid(error.to_string()))?;
        let NewTip { hash, bits, target, time, .. } = self.tip.said;
        let bytes = |bytes: &Vec<u8>| DeclaredTransaction { bytes: bytes.clone(), ..Default::default() };
        Ok(Declared {
            network,
            provenance: Provenance::Node,
            height: *height,
            version: *version,
            previous_block_hash: if self.ahead { future_tip() } else { hash },
            // The target of a block on a tip to come is taken to be the present one; if it is another, the
            // template becomes nothing.
            bits,
            target: (!self.ahead).then_some(target),
            min_time: time,
            current_time: self.now,
            coinbase_value: value.to_sat(),
            coinbase: CoinbaseParts::Whole { transaction: serialize(&transaction), extranonce_at },
            merkle_path: Some(merkle_path.clone()),
            transaction_count: None,
            witness_commitment_script: None,
            transactions: self.transactions.iter().map(bytes).collect(),
        })
    }
}
