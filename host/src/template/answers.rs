//! What a node says to a solved block (`submitblock`, BIP 22), as reason codes.
//!
//! The words are those of BIP 22 and of the validation of Bitcoin Core and Knots (`validation.cpp`,
//! `consensus/`). What is not in the list is a rejection all the same, under a code that says only that.

use super::SubmitOutcome;
use crate::reason::Reason;

/// Longest words of a source that are kept, characters.
const MAX_WORDS: usize = 200;

impl SubmitOutcome {
    /// The answer to `submitblock`: null, or a word.
    pub fn of_node(answer: Option<&str>) -> Self {
        match answer {
            None => Self::Accepted,
            Some("duplicate") => Self::Known,
            Some(words) => Self::Rejected(words.chars().take(MAX_WORDS).collect()),
        }
    }

    /// Its code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Accepted => Reason::BlockSubmitted,
            Self::Known => Reason::BlockKnown,
            Self::Rejected(words) => rejection(words),
            Self::Unconfirmed(_) => Reason::BlockUnconfirmed,
        }
    }

    /// The block is in the source's chain, or was: it need not be delivered again.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Accepted | Self::Known)
    }
}

/// The code for the words of a rejection.
pub fn rejection(words: &str) -> Reason {
    // Some versions add what exactly was wrong, as in `bad-txns-inputs-missingorspent, CheckTxInputs: ...`.
    let word = words.split([',', ':', ' ']).next().unwrap_or_default();
    match word {
        // Valid as far as it was looked at, but another block is the tip.
        "inconclusive" | "duplicate-inconclusive" | "inconclusive-not-best-prevblk" => {
            Reason::BlockInconclusive
        }
        // Its parent is one that the node does not have, or has and found invalid.
        "prev-blk-not-found" | "bad-prevblk" | "bad-prevblk-checkpoint" | "invalid-prev-block" => {
            Reason::BlockParentUnknown
        }
        "high-hash"
        | "duplicate-invalid"
        | "time-too-old"
        | "time-too-new"
        | "time-timewarp-attack"
        | "mandatory-script-verify-flag-failed"
        | "block-script-verify-flag-failed"
        | "unexpected-witness" => Reason::BlockInvalid,
        word if word.starts_with("bad-") => Reason::BlockInvalid,
        _ => Reason::BlockRejectedByNode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_bip_22_and_of_the_node_s_validation_has_its_code() {
        use Reason::{
            BlockInconclusive, BlockInvalid, BlockKnown, BlockParentUnknown, BlockRejectedByNode,
            BlockSubmitted,
        };
        let code = |answer| SubmitOutcome::of_node(answer).reason();
        assert_eq!(code(None), BlockSubmitted);
        for (words, expected) in [
            ("duplicate", BlockKnown),
            ("duplicate-invalid", BlockInvalid),
            ("duplicate-inconclusive", BlockInconclusive),
            ("inconclusive", BlockInconclusive),
            ("inconclusive-not-best-prevblk", BlockInconclusive),
            ("rejected", BlockRejectedByNode),
            ("stale-prevblk", BlockRejectedByNode),
            ("a word of tomorrow", BlockRejectedByNode),
            ("", BlockRejectedByNode),
            ("high-hash", BlockInvalid),
            ("bad-txnmrklroot", BlockInvalid),
            ("bad-witness-merkle-match", BlockInvalid),
            ("bad-cb-amount", BlockInvalid),
            ("bad-cb-height", BlockInvalid),
            ("bad-diffbits", BlockInvalid),
            ("bad-version(0x00000001)", BlockInvalid),
            ("bad-txns-nonfinal", BlockInvalid),
            ("bad-txns-inputs-missingorspent, CheckTxInputs: inputs missing/spent", BlockInvalid),
            ("bad-blk-sigops", BlockInvalid),
            ("time-too-old", BlockInvalid),
            ("time-too-new", BlockInvalid),
            ("time-timewarp-attack", BlockInvalid),
            ("mandatory-script-verify-flag-failed (Script failed)", BlockInvalid),
            ("prev-blk-not-found", BlockParentUnknown),
            ("bad-prevblk", BlockParentUnknown),
        ] {
            assert_eq!(code(Some(words)), expected, "{words}");
        }
    }

    #[test]
    fn words_without_end_are_cut() {
        let SubmitOutcome::Rejected(words) = SubmitOutcome::of_node(Some(&"x".repeat(10_000))) else {
            panic!("not rejected")
        };
        assert_eq!(words.len(), MAX_WORDS);
    }
}
