//! Building a rejection.

use crate::{ContextValue, Rejection};

impl Rejection {
    /// A rejection with one of the policy's codes and one line for people: the measured value and the
    /// required one, as in `avg_fee=141 < min_avg_fee_used=200`.
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.into(), detail: detail.into(), context: Vec::new() }
    }

    /// Adds one value that explains it. The name has the form of a code.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<ContextValue>) -> Self {
        self.context.push((name.into(), value.into()));
        self
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
