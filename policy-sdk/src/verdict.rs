//! Building a rejection.

use crate::{Context, ContextValue, Rejection};

/// What the contract allows, bytes. What is longer is cut: a verdict with a long line is still a verdict.
const MAX_DETAIL: usize = 512;
const MAX_TEXT: usize = 256;

impl Rejection {
    /// A rejection with one of the policy's codes and one line for people: the measured value and the
    /// required one, as in `avg_fee=141 < min_avg_fee_used=200`.
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.into(), detail: cut(detail.into(), MAX_DETAIL), context: Vec::new() }
    }

    /// Adds one value that explains it. The name has the form of a code.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<ContextValue>) -> Self {
        let value = match value.into() {
            ContextValue::Text(text) => ContextValue::Text(cut(text, MAX_TEXT)),
            value => value,
        };
        self.context.push((name.into(), value));
        self
    }
}

fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

/// Nothing is known.
impl Default for Context {
    fn default() -> Self {
        Self {
            taken_at: 0,
            template_age_ms: 0,
            tip: None,
            mempool: None,
            fee_rates: None,
            best_template_value: None,
            unknown_transactions: None,
        }
    }
}

macro_rules! context_values {
    ($($from:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$from> for ContextValue {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })+
    };
}

context_values! {
    bool => Boolean,
    u32 => Unsigned,
    u64 => Unsigned,
    i64 => Signed,
    &str => Text,
    String => Text,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longer_than_the_contract_allows_is_cut_between_characters() {
        let long = "ä".repeat(300);
        let rejection = Rejection::new("too_long", long.as_str()).with("text", long.as_str());
        assert_eq!(rejection.detail, "ä".repeat(256));
        assert_eq!(rejection.context, [("text".to_owned(), ContextValue::Text("ä".repeat(128)))]);
    }
}
