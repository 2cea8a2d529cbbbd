//! Commands that are more than a line of `main`.

pub(crate) mod ledger;
pub(crate) mod policy;
