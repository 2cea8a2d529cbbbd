//! The last decisions, as they were told: judged templates with their full record, and the gate's steps.
//!
//! Kept as the JSON of their events, which is what is handed out. Bounded by count and by size.

use crate::event::{Heard, Listener};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Templates that are kept.
const MAX_TEMPLATES: usize = 500;
/// Steps of the gate, and other decisions, that are kept.
const MAX_STEPS: usize = 500;
/// Bytes of each of the two.
const MAX_BYTES: usize = 8 << 20;

/// What was told last. Share it behind an `Arc`.
#[derive(Debug, Default)]
pub struct Board {
    templates: Mutex<Records>,
    steps: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    list: VecDeque<(u64, Arc<str>)>,
    bytes: usize,
}

impl Records {
    fn push(&mut self, seq: u64, json: Arc<str>, max: usize) {
        self.bytes += json.len();
        self.list.push_back((seq, json));
        while self.list.len() > max || self.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.list.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }

    fn before(&self, before: Option<u64>, limit: usize) -> Vec<(u64, Arc<str>)> {
        let older = self.list.iter().rev().filter(|(seq, _)| before.is_none_or(|before| *seq < before));
        older.take(limit).cloned().collect()
    }
}

impl Board {
    /// Judged templates, newest first: those whose number is below `before`, at most `limit`.
    pub fn templates(&self, before: Option<u64>, limit: usize) -> Vec<(u64, Arc<str>)> {
        self.templates.lock().unwrap_or_else(PoisonError::into_inner).before(before, limit)
    }

    /// Steps of the gate and other decisions, newest first.
    pub fn steps(&self, before: Option<u64>, limit: usize) -> Vec<(u64, Arc<str>)> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).before(before, limit)
    }
}

/// Whether an event belongs on the timeline: what the gateway, its source, its policies and its gate did.
fn is_step(name: &str, room: &str) -> bool {
    matches!(room, "gate" | "source" | "policy" | "block" | "gateway" | "config")
        && !matches!(name, "policy_monitored" | "template_superseded")
        || matches!(name, "forward_status" | "ledger_failed")
}

impl Listener for Arc<Board> {
    fn hear(&mut self, heard: &Heard<'_>) {
        let (seq, json) = (heard.seq, heard.json.clone());
        if heard.about.name == "template_judged" {
            self.templates.lock().unwrap_or_else(PoisonError::into_inner).push(seq, json, MAX_TEMPLATES);
        } else if is_step(heard.about.name, heard.about.room) {
            self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(seq, json, MAX_STEPS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_given_newest_first_in_pages_and_the_oldest_go() {
        let mut records = Records::default();
        for seq in 1..=10 {
            records.push(seq, "{}".into(), 6);
        }
        let numbers =
            |before, limit| records.before(before, limit).iter().map(|(seq, _)| *seq).collect::<Vec<_>>();
        assert_eq!(numbers(None, 4), [10, 9, 8, 7]);
        assert_eq!(numbers(Some(7), 4), [6, 5]);
        assert_eq!(numbers(Some(5), 4), [0u64; 0]);
    }

    #[test]
    fn large_records_push_out_more_of_the_old_ones() {
        let mut records = Records::default();
        let large: Arc<str> = "x".repeat(MAX_BYTES / 3).into();
        for seq in 1..=5 {
            records.push(seq, large.clone(), 100);
        }
        assert_eq!(records.list.len(), 3);
    }
}
