//! What the backend said about the shares of a batch.
//!
//! A 2xx with `{"results":[{"share_id":…,"accepted":…,"reason":…},…]}` is the only answer about shares.
//! A share that it does not name, or of which it says both, has no answer yet.

use super::{
    feed::{Batch, Pending},
    record::Hash,
};
use crate::words::printable;
use serde::Deserialize;
use std::{
    borrow::Cow,
    collections::HashMap,
    time::{Duration, SystemTime},
};

/// Characters of the backend's words that are kept.
const MAX_WORDS: usize = 200;
/// A backend cannot ask for more patience than this.
const MOST_PATIENCE: Duration = Duration::from_secs(3_600);

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend answered for these shares; of the others it said nothing.
    Answered {
        /// The shares with an answer.
        verdicts: Vec<Verdict>,
        /// Those without.
        rest: Vec<Pending>,
    },
    /// It refused the request as such, for good.
    Refused(String),
    /// No answer; try again, and not before this time has passed.
    Unanswered(String, Duration),
}

/// The answer for one share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The share.
    pub share: Pending,
    /// Whether the pool took it.
    pub accepted: bool,
    /// The pool's words; may be empty.
    pub detail: String,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    results: Vec<ShareAnswer<'a>>,
}

#[derive(Deserialize)]
struct ShareAnswer<'a> {
    #[serde(borrow)]
    share_id: Cow<'a, str>,
    accepted: bool,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

/// Reads an answer to a batch.
pub fn read(batch: &Batch, status: u16, retry_after: Option<&str>, body: &[u8], now: SystemTime) -> Outcome {
    let patience = retry_after.map_or(Duration::ZERO, |text| patience(text, now));
    match status {
        200..=299 => match serde_json::from_slice::<Answer<'_>>(body) {
            Ok(answer) => settle(batch, answer),
            Err(error) => Outcome::Unanswered(
                format!("the backend answered {status} with nonsense: {error}"),
                Duration::ZERO,
            ),
        },
        408 | 425 | 429 => Outcome::Unanswered(
            format!("the backend answered {status}: it wants to be asked later"),
            patience,
        ),
        // Credentials and routing say nothing about the shares; a night's work must not be refused for good
        // because a key was mistyped.
        401 | 403 | 404 | 405 => Outcome::Unanswered(
            format!("the backend answered {status}: check [pool] url, key_id and secret"),
            Duration::ZERO,
        ),
        400..=499 => Outcome::Refused(format!("{status}: {}", printable(body, MAX_WORDS))),
        _ => Outcome::Unanswered(format!("the backend answered {status}"), patience),
    }
}

fn settle(batch: &Batch, answer: Answer<'_>) -> Outcome {
    let mut said: HashMap<Hash, Option<(bool, Cow<'_, str>)>> = HashMap::with_capacity(answer.results.len());
    for result in answer.results {
        let mut share_id = Hash::default();
        if hex::decode_to_slice(result.share_id.as_bytes(), &mut share_id).is_err() {
            continue;
        }
        share_id.reverse();
        let verdict = (result.accepted, result.reason.unwrap_or_default());
        said.entry(share_id)
            .and_modify(|before| {
                // Yes and no about one share is neither.
                if before.as_ref().is_some_and(|(accepted, _)| *accepted != verdict.0) {
                    *before = None;
                }
            })
            .or_insert(Some(verdict));
    }
    let mut verdicts = Vec::with_capacity(batch.shares.len());
    let mut rest = Vec::new();
    for share in &batch.shares {
        match said.get(&share.share_id) {
            Some(Some((accepted, reason))) => {
                let detail =
                    if reason.is_empty() { String::new() } else { printable(reason.as_bytes(), MAX_WORDS) };
                verdicts.push(Verdict { share: share.clone(), accepted: *accepted, detail });
            }
            _ => rest.push(share.clone()),
        }
    }
    Outcome::Answered { verdicts, rest }
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds or a date.
fn patience(text: &str, now: SystemTime) -> Duration {
    let seconds = text.trim().parse().ok().map(Duration::from_secs);
    let until = || httpdate::parse_http_date(text.trim()).ok()?.duration_since(now).ok();
    seconds.or_else(until).unwrap_or_default().min(MOST_PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{feed::tests::batch, record::reversed},
        *,
    };

    fn ids(batch: &Batch) -> Vec<String> {
        batch.shares.iter().map(|share| reversed(&share.share_id)).collect()
    }

    fn answered(batch: &Batch, body: &str) -> (Vec<(u64, bool, String)>, Vec<u64>) {
        match read(batch, 200, None, body.as_bytes(), SystemTime::UNIX_EPOCH) {
            Outcome::Answered { verdicts, rest } => (
                verdicts.into_iter().map(|v| (v.share.share, v.accepted, v.detail)).collect(),
                rest.into_iter().map(|share| share.share).collect(),
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_share_has_its_own_answer_in_whatever_order_they_come() {
        let batch = batch([1, 2, 3]);
        let ids = ids(&batch);
        let body = format!(
            r#"{{"results":[{{"share_id":"{}","accepted":false,"reason":"account\nclosed"}},{{"share_id":"{}","accepted":true}}]}}"#,
            ids[2], ids[0]
        );
        let expected = (vec![(1, true, String::new()), (3, false, "account closed".into())], vec![2]);
        assert_eq!(answered(&batch, &body), expected);
    }

    #[test]
    fn the_same_twice_is_once_and_yes_and_no_is_nothing() {
        let batch = batch([1, 2]);
        let ids = ids(&batch);
        let line = |id: &str, accepted: bool| format!(r#"{{"share_id":"{id}","accepted":{accepted}}}"#);
        let lines = [line(&ids[0], true), line(&ids[0], true), line(&ids[1], true), line(&ids[1], false)];
        let body = format!(r#"{{"results":[{},{}]}}"#, lines.join(","), line("no id at all", true));
        assert_eq!(answered(&batch, &body), (vec![(1, true, String::new())], vec![2]));
    }

    #[test]
    fn nonsense_credentials_and_overload_are_no_answer_and_other_4xx_are_final() {
        let batch = batch([1]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let read = |status, retry_after, body: &str| read(&batch, status, retry_after, body.as_bytes(), now);
        for (status, body) in
            [(200, "<html>"), (200, "[]"), (204, ""), (401, ""), (404, ""), (500, ""), (302, "")]
        {
            let outcome = read(status, None, body);
            assert!(matches!(outcome, Outcome::Unanswered(_, Duration::ZERO)), "{status}: {outcome:?}");
        }
        for (text, seconds) in
            [("7", 7), ("Sun, 06 Nov 1994 08:49:37 GMT", 7), ("soon", 0), ("99999999", 3_600)]
        {
            let outcome = read(429, Some(text), "");
            let Outcome::Unanswered(_, patience) = outcome else { panic!("{outcome:?}") };
            assert_eq!(patience, Duration::from_secs(seconds), "{text}");
        }
        assert_eq!(read(422, None, "no such\x1bpool"), Outcome::Refused("422: no such pool".into()));
    }
}
