//! Who may mine: everybody, the accounts of a file, or those the pool says yes to.
//!
//! A user identity is `account` or `account.worker`. The file has one account or whole identity a line and
//! is read again when it changes. The pool is asked over HTTP (`POST`, JSON with the identity, signed as
//! shares are): 2xx is a yes, 403 and 404 are a no, and anything else, or no answer in time, is no answer;
//! nobody is let in on it. Answers are remembered for a while, in bounded number, so that a restart of a whole farm asks once
//! per user.

use super::Tunables;
use crate::{
    event::unix_seconds,
    ledger::{secret::SigningKeys, sign},
    reason::Reason,
    words::chain,
};
use reqwest::{StatusCode, Url};
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

/// How the gateway knows its users.
#[derive(Clone)]
pub enum UserCheck {
    /// Everybody may mine.
    Open,
    /// Those in this file.
    File(PathBuf),
    /// Those the pool says yes to.
    Pool(PoolQuestions),
}

/// How the pool is asked.
#[derive(Clone)]
pub struct PoolQuestions {
    /// Where.
    pub url: Url,
    /// How long one answer may take.
    pub timeout: Duration,
    /// What signs questions, as it signs shares ([`sign`]).
    pub keys: Arc<SigningKeys>,
}

/// Answers of the pool that are remembered.
const REMEMBERED: usize = 10_000;
/// How long a yes is remembered.
const YES_FOR: Duration = Duration::from_secs(300);
/// How long a no is remembered: somebody may just be signing up.
const NO_FOR: Duration = Duration::from_secs(10);
/// Questions to the pool at once; more wait, within their timeout.
const QUESTIONS: usize = 32;
/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);
/// Largest file that is read, bytes.
const MAX_FILE: u64 = 64 << 20;

/// The users of this gateway.
pub(super) enum Users {
    Open,
    File(UserFile),
    Pool(Box<UserService>),
}

impl Users {
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn new(check: UserCheck) -> io::Result<Self> {
        Ok(match check {
            UserCheck::Open => Self::Open,
            UserCheck::File(path) => Self::File(UserFile::open(path)?),
            UserCheck::Pool(questions) => Self::Pool(Box::new(UserService::new(questions)?)),
        })
    }

    /// The answer, where nobody has to be asked for it.
    pub(super) fn known(&self, user: &str, now: Instant) -> Option<Result<(), Reason>> {
        match self {
            Self::Open => Some(Ok(())),
            Self::File(file) => Some(file.check(user)),
            Self::Pool(service) => service.remembered(user, now),
        }
    }

    /// The answer, however long it takes; bounded by the timeout.
    pub(super) async fn ask(&self, user: &str) -> Result<(), Reason> {
        match (self.known(user, Instant::now()), self) {
            (Some(answer), _) => answer,
            (None, Self::Pool(service)) => service.ask(user).await,
            (None, _) => Err(Reason::UserCheckUnavailable),
        }
    }
}

/// Keeps the content of a file of users up to date until shutdown.
pub(super) async fn follow(tunables: Arc<Tunables>, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|down| *down) => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let users = tunables.users.load_full();
        if !matches!(*users, Users::File(_)) {
            continue;
        }
        let read = tokio::task::spawn_blocking(move || match &*users {
            Users::File(file) => file.refresh(),
            _ => Ok(()),
        });
        if let Ok(Err(error)) = read.await {
            tracing::warn!(%error, "the file of users cannot be read; the users of before stay");
        }
    }
}

/// Accounts in a file.
pub(super) struct UserFile {
    path: PathBuf,
    list: Mutex<UserList>,
}

#[derive(Default)]
struct UserList {
    /// Time of the last change and length of the file that was read.
    stamp: Option<(SystemTime, u64)>,
    users: HashSet<String>,
}

impl UserFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = Self { path, list: Mutex::default() };
        file.refresh()?;
        Ok(file)
    }

    fn check(&self, user: &str) -> Result<(), Reason> {
        let list = self.lock();
        let known = list.users.contains(user) || list.users.contains(account(user));
        if known { Ok(()) } else { Err(Reason::UserUnknown) }
    }

    /// Reads the file if it changed.
    fn refresh(&self) -> io::Result<()> {
        let stamp = stamp(&self.path)?;
        if self.lock().stamp == Some(stamp) {
            return Ok(());
        }
        let users = parse(&fs::read_to_string(&self.path).map_err(|error| named(&self.path, error))?);
        *self.lock() = UserList { stamp: Some(stamp), users };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, UserList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> io::Result<(SystemTime, u64)> {
    let meta = fs::metadata(path).map_err(|error| named(path, error))?;
    if meta.len() > MAX_FILE {
        return Err(named(path, io::Error::other("larger than 64 MiB")));
    }
    Ok((meta.modified().map_err(|error| named(path, error))?, meta.len()))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("[miners] users_file {}: {error}", path.display()))
}

/// One user a line; `#` begins a comment.
fn parse(text: &str) -> HashSet<String> {
    let users = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    users.filter(|user| !user.is_empty()).map(str::to_owned).collect()
}

/// The part of an identity that names who is paid.
fn account(user: &str) -> &str {
    user.split_once('.').map_or(user, |(account, _)| account)
}

/// The pool, asked over HTTP.
pub(super) struct UserService {
    client: reqwest::Client,
    config: PoolQuestions,
    questions: Semaphore,
    answers: Mutex<Answers>,
}

/// What was said of whom, and until when that holds.
type Answers = HashMap<String, (Result<(), Reason>, Instant)>;

impl UserService {
    fn new(config: PoolQuestions) -> io::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(config.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(io::Error::other)?;
        let questions = Semaphore::new(QUESTIONS);
        Ok(Self { client, config, questions, answers: Mutex::default() })
    }

    fn remembered(&self, user: &str, now: Instant) -> Option<Result<(), Reason>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(user).filter(|(_, until)| now < *until).map(|(answer, _)| *answer)
    }

    async fn ask(&self, user: &str) -> Result<(), Reason> {
        let answer = timeout(self.config.timeout, async {
            let _permit = self.questions.acquire().await.ok()?;
            // Somebody else may have asked the same while this question waited.
            match self.remembered(user, Instant::now()) {
                Some(answer) => Some(answer),
                None => self.request(user).await,
            }
        });
        answer.await.ok().flatten().unwrap_or(Err(Reason::UserCheckUnavailable))
    }

    async fn request(&self, user: &str) -> Option<Result<(), Reason>> {
        let question = serde_json::json!({ "user_identity": user }).to_string();
        let timestamp = unix_seconds().to_string();
        let key = self.config.keys.current();
        let signature = sign::sign(&key.secret, &timestamp, question.as_bytes());
        let request = self
            .client
            .post(self.config.url.clone())
            .header("content-type", "application/json")
            .header(sign::KEY_ID_HEADER, &key.id)
            .header(sign::TIMESTAMP_HEADER, timestamp)
            .header(sign::SIGNATURE_HEADER, signature)
            .body(question);
        let answer = match request.send().await {
            Ok(response) => verdict(response.status()),
            Err(error) => Err(chain(&error)),
        };
        match answer {
            Ok(answer) => {
                let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
                remember(&mut answers, user, answer, Instant::now());
                Some(answer)
            }
            Err(error) => {
                tracing::warn!(%error, url = %self.config.url, "the pool gave no answer about a user");
                None
            }
        }
    }
}

/// Whatever is forgotten for want of room is only asked again.
fn remember(answers: &mut Answers, user: &str, answer: Result<(), Reason>, now: Instant) {
    if answers.len() >= REMEMBERED {
        answers.retain(|_, (_, until)| now < *until);
    }
    if answers.len() >= REMEMBERED {
        answers.clear();
    }
    let until = now + if answer.is_ok() { YES_FOR } else { NO_FOR };
    answers.insert(user.to_owned(), (answer, until));
}

fn verdict(status: StatusCode) -> Result<Result<(), Reason>, String> {
    match status {
        StatusCode::NOT_FOUND => Ok(Err(Reason::UserUnknown)),
        StatusCode::FORBIDDEN => Ok(Err(Reason::UserNotAllowed)),
        status if status.is_success() => Ok(Ok(())),
        status => Err(format!("HTTP status {status}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_file_names_accounts_and_whole_identities() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "# ours\nalice\n  bob.rig1  # only this one\n\n").unwrap();
        let users = Users::new(UserCheck::File(path.clone())).unwrap();
        let known = |user: &str| users.known(user, Instant::now()).unwrap();
        for user in ["alice", "alice.rig1", "alice.a.b", "bob.rig1"] {
            assert_eq!(known(user), Ok(()), "{user}");
        }
        for user in ["bob", "bob.rig2", "carol", "alicex", "# ours", "only this one"] {
            assert_eq!(known(user), Err(Reason::UserUnknown), "{user}");
        }
        // Another length, so that it is seen as changed whatever the clock of the file system.
        fs::write(&path, "carol\n").unwrap();
        let Users::File(file) = &users else { panic!("a file") };
        file.refresh().unwrap();
        assert_eq!((known("carol"), known("alice")), (Ok(()), Err(Reason::UserUnknown)));
        // A file that is gone changes nothing.
        fs::remove_file(&path).unwrap();
        assert!(file.refresh().unwrap_err().to_string().contains("[miners] users_file"));
        assert_eq!(known("carol"), Ok(()));
    }

    #[test]
    fn the_pool_says_yes_no_or_nothing() {
        assert_eq!(verdict(StatusCode::NO_CONTENT), Ok(Ok(())));
        assert_eq!(verdict(StatusCode::NOT_FOUND), Ok(Err(Reason::UserUnknown)));
        assert_eq!(verdict(StatusCode::FORBIDDEN), Ok(Err(Reason::UserNotAllowed)));
        for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::FOUND, StatusCode::TOO_MANY_REQUESTS] {
            assert!(verdict(status).is_err(), "{status}");
        }
    }

    #[test]
    fn answers_are_remembered_for_their_time_and_in_bounded_number() {
        let config = PoolQuestions {
            url: "http://127.0.0.1:9/".parse().unwrap(),
            timeout: Duration::from_secs(1),
            keys: Arc::new(SigningKeys::new(&Secret::new("a secret of the pool"), "k1").unwrap()),
        };
        let service = UserService::new(config).unwrap();
        let now = Instant::now();
        let remember = |user: &str, answer, at| {
            remember(&mut service.answers.lock().unwrap(), user, answer, at);
            service.answers.lock().unwrap().len()
        };
        remember("no", Err(Reason::UserUnknown), now);
        remember("yes", Ok(()), now);
        let later = now + NO_FOR;
        assert_eq!(service.remembered("no", now), Some(Err(Reason::UserUnknown)));
        assert_eq!((service.remembered("no", later), service.remembered("yes", later)), (None, Some(Ok(()))));
        assert_eq!(service.remembered("yes", now + YES_FOR), None);
        for number in 0..3 * REMEMBERED {
            assert!(remember(&number.to_string(), Ok(()), later) <= REMEMBERED);
        }
        assert_eq!(service.remembered(&(3 * REMEMBERED - 1).to_string(), later), Some(Ok(())));
    }
}
