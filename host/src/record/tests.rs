use super::{
    file::{Shelf, files},
    recorder::{Recorder, Writer},
    source::{Pace, Replay},
    *,
};
use crate::{
    event::{self, Events},
    policy::{EngineLimits, Inputs, Judged, PolicyEngine, PolicyStore},
    reason::Reason,
    template::{
        TemplateSource,
        facts::assemble,
        synthetic::{self, ContextTable, RowTable, TemplateTable},
    },
};
use bitcoin::Network;
use std::{fs, sync::Arc, time::Duration};

const KEEP: Keep = Keep { bytes: 1 << 30, age: Duration::from_secs(3_600) };
/// 2026-11-22, noon, in milliseconds.
const NOON: u64 = 1_795_348_800_000;
const DAY: u64 = 86_400_000;

/// A template with this fee, judged by a set without policies.
fn judged(fee: u64) -> (Arc<Declared>, Judged) {
    let rows = vec![RowTable { fee, ..RowTable::default() }];
    let table = TemplateTable { transactions: rows, ..TemplateTable::default() };
    let (declared, context) = synthetic::build(&table, &ContextTable::default()).unwrap();
    let template = Arc::new(assemble(&declared).unwrap());
    let engine = PolicyEngine::start(EngineLimits::default(), None).unwrap();
    let by = PolicyStore::load(engine, Vec::new(), 0).unwrap().running();
    let inputs = Inputs { template, context: Arc::new(context) };
    let judgement = by.evaluate(&inputs);
    (Arc::new(declared), Judged { judgement, by, inputs })
}

fn recording(fee: u64) -> Recording {
    let (declared, Judged { judgement, by, inputs }) = judged(fee);
    let context = Arc::unwrap_or_clone(inputs.context);
    Recording::new(Arc::unwrap_or_clone(declared), context, by.set(), &judgement)
}

fn at(time_ms: u64) -> Recording {
    Recording { time_ms, ..recording(time_ms % 1_000) }
}

fn names(folder: &Path) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    files(folder).unwrap().into_iter().map(name).collect()
}

/// The times of what a folder holds, or the first fault.
fn times(folder: &Path) -> Result<Vec<u64>, String> {
    let of = |file: PathBuf| Recordings::open(&file).unwrap();
    let all = files(folder).unwrap().into_iter().flat_map(of);
    all.map(|one| one.map(|recording| recording.time_ms).map_err(|error| error.to_string())).collect()
}

/// Runs something with an event bus, and gives the events as JSON.
fn events_of(something: impl FnOnce(Events)) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events");
    let (events, writer) = event::start(Some(&file), None).unwrap();
    something(events);
    writer.join();
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_recording_is_read_as_it_was_written_and_its_template_alone_too() {
    let folder = tempfile::tempdir().unwrap();
    let (first, written) = (at(NOON), at(NOON + 7));
    let mut shelf = Shelf::open(folder.path(), KEEP).unwrap();
    shelf.put(&first).unwrap();
    shelf.put(&written).unwrap();
    let file = folder.path().join("2026-11-22-0001.ndjson.gz");
    let second = PathBuf::from(format!("{}#2", file.display()));
    assert_eq!(Recording::read(&second).unwrap(), written);
    assert_eq!(read_template(&second).unwrap(), written.template);
    for (place, words) in [
        (file.clone(), "several recordings; name one, e.g. "),
        (PathBuf::from(format!("{}#3", file.display())), "there is none: the file holds 2 recordings"),
        (PathBuf::from(format!("{}#0", file.display())), "write FILE#N, N from 1"),
    ] {
        let error = Recording::read(&place).unwrap_err().to_string();
        assert!(error.starts_with(&place.display().to_string()) && error.contains(words), "{error}");
    }
    let alone = folder.path().join("recording.json");
    fs::write(&alone, serde_json::to_string_pretty(&written).unwrap()).unwrap();
    assert_eq!(Recording::read(&alone).unwrap(), written);
    fs::write(&alone, written.template.to_json().unwrap()).unwrap();
    assert_eq!(read_template(&alone).unwrap(), written.template);
    assert!(Recording::read(&alone).unwrap_err().to_string().contains("no recording of a judged template"));
    assert_eq!(assemble(&written.template.declared).unwrap().digest.to_string(), written.digest);
}

#[test]
fn a_file_that_is_damaged_or_of_another_format_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.json");
    let whole = serde_json::to_string(&recording(7)).unwrap();
    let newer = whole.replacen("\"recording\":1", "\"recording\":2", 1);
    let unknown = whole.replacen("\"recording\":1", "\"recording\":1,\"surprise\":1", 1);
    for (text, words) in [
        (&whole[..whole.len() / 2], "no JSON object"),
        (newer.as_str(), "format 2"),
        (unknown.as_str(), "surprise"),
        ("[]", ""),
    ] {
        fs::write(&file, text).unwrap();
        for error in [Recording::read(&file).unwrap_err(), read_template(&file).unwrap_err()] {
            let error = error.to_string();
            assert!(error.starts_with(&file.display().to_string()) && error.contains(words), "{error}");
        }
    }
    assert!(Recording::read(&folder.path().join("gone")).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn there_is_a_file_a_day_and_a_start_and_zcat_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::open(folder.path(), KEEP).unwrap();
    let all = [NOON, NOON + 1, NOON + DAY, NOON + DAY + 1];
    all.iter().for_each(|time| shelf.put(&at(*time)).unwrap());
    let mut shelf = Shelf::open(folder.path(), KEEP).unwrap();
    shelf.put(&at(NOON + DAY + 2)).unwrap();
    assert_eq!(
        names(folder.path()),
        ["2026-11-22-0001.ndjson.gz", "2026-11-23-0001.ndjson.gz", "2026-11-23-0002.ndjson.gz"]
    );
    assert_eq!(times(folder.path()).unwrap(), [&all[..], &[NOON + DAY + 2]].concat());
    let lines = std::process::Command::new("zcat").arg(&files(folder.path()).unwrap()[0]).output().unwrap();
    assert_eq!(String::from_utf8(lines.stdout).unwrap().lines().count(), 2);
}

#[test]
fn the_oldest_files_go_when_there_are_too_many_bytes_or_days_and_nothing_else_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("notes-1.ndjson.gz");
    fs::write(&mine, "mine").unwrap();
    let mut shelf = Shelf::open(folder.path(), KEEP).unwrap();
    shelf.put(&at(NOON)).unwrap();
    let one = fs::metadata(&files(folder.path()).unwrap()[0]).unwrap().len();

    // About eight of them, two a file.
    let keep = Keep { bytes: one * 9, ..KEEP };
    let mut shelf = Shelf::open(folder.path(), keep).unwrap();
    (1..40).for_each(|at_ms| shelf.put(&at(NOON + at_ms)).unwrap());
    let kept = times(folder.path()).unwrap();
    assert!((6..=9).contains(&kept.len()) && kept.ends_with(&[NOON + 38, NOON + 39]), "{kept:?}");
    let bytes: u64 = files(folder.path()).unwrap().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes <= keep.bytes, "{bytes}");

    let long_ago = std::time::SystemTime::now() - 2 * KEEP.age;
    let oldest = fs::File::options().append(true).open(&files(folder.path()).unwrap()[0]).unwrap();
    oldest.set_modified(long_ago).unwrap();
    Shelf::open(folder.path(), KEEP).unwrap();
    assert!(times(folder.path()).unwrap().len() < kept.len());
    assert!(mine.is_file());
}

#[test]
fn what_a_crash_cut_off_is_told_and_those_before_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::open(folder.path(), KEEP).unwrap();
    (0..3).for_each(|at_ms| shelf.put(&at(NOON + at_ms)).unwrap());
    let file = files(folder.path()).unwrap().remove(0);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 20]).unwrap();
    let mut recordings = Recordings::open(&file).unwrap();
    assert_eq!(
        (recordings.next().unwrap().unwrap().time_ms, recordings.place().ends_with("#1")),
        (NOON, true)
    );
    assert_eq!(recordings.next().unwrap().unwrap().time_ms, NOON + 1);
    let error = recordings.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("ends in the middle of recording 3"), "{error}");
    assert!(recordings.next().is_none());
    // A gateway that starts again writes another file, and both are read.
    Shelf::open(folder.path(), KEEP).unwrap().put(&at(NOON + 9)).unwrap();
    assert_eq!(names(folder.path()).len(), 2);

    let mut changed = whole.clone();
    let middle = whole.len() / 2;
    changed[middle] ^= 0xff;
    fs::write(&file, changed).unwrap();
    assert!(times(folder.path()).unwrap_err().contains("recording 2 is damaged"));
}

#[test]
fn a_file_that_somebody_removed_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::open(folder.path(), KEEP).unwrap();
    shelf.put(&at(NOON)).unwrap();
    // What is written there would be nowhere.
    fs::remove_file(&files(folder.path()).unwrap()[0]).unwrap();
    shelf.put(&at(NOON + 1)).unwrap();
    assert_eq!(times(folder.path()).unwrap(), [NOON + 1]);
    shelf.put(&at(NOON + 2)).unwrap();
    assert_eq!(times(folder.path()).unwrap(), [NOON + 1, NOON + 2]);
}

/// What a replay gives until it has no more, and what it says then.
async fn replayed(from: &Path, pace: Pace) -> (Vec<u64>, Vec<(Reason, String)>) {
    let source = Replay::open(from, Network::Bitcoin, pace).unwrap();
    let (mut fees, mut faults, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        match source.next_template(after, Duration::from_secs(3_600)).await {
            Ok(Some(sourced)) => {
                after = Some(sourced.template.digest);
                fees.push(sourced.template.facts.total_fees);
            }
            Ok(None) => panic!("it was waited for too long"),
            Err(error) => {
                let ended = error.reason == Reason::ReplayEnded;
                faults.push((error.reason, error.detail));
                if ended {
                    return (fees, faults);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_replay_gives_each_template_once_in_order_at_its_time_and_says_when_there_are_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::open(folder.path(), KEEP).unwrap();
    for number in 1..=4 {
        shelf.put(&Recording { time_ms: NOON + number * 50, ..recording(number) }).unwrap();
    }
    for (pace, at_least) in [(Pace::Fast, 0), (Pace::Recorded, 150)] {
        let began = std::time::Instant::now();
        let (fees, faults) = replayed(folder.path(), pace).await;
        assert_eq!(fees, [1, 2, 3, 4]);
        assert_eq!(faults, [(Reason::ReplayEnded, "4 templates were given; there are no more".to_owned())]);
        assert!(began.elapsed() >= Duration::from_millis(at_least), "{pace:?}: {:?}", began.elapsed());
    }
    // Asked for what is current, it says that; afterwards it is silent.
    let mut shelf = Shelf::open(folder.path(), KEEP).unwrap();
    shelf.put(&Recording { time_ms: NOON + DAY / 2 - 1, ..recording(9) }).unwrap();
    let source = Replay::open(folder.path(), Network::Bitcoin, Pace::Recorded).unwrap();
    let first = source.next_template(None, Duration::MAX / 4).await.unwrap().unwrap();
    let again = source.next_template(None, Duration::from_secs(1)).await.unwrap().unwrap();
    assert_eq!(first.template.digest, again.template.digest);
    let after = |digest, seconds| source.next_template(Some(digest), Duration::from_secs(seconds));
    let mut last = first.template.digest;
    for _ in 0..3 {
        last = after(last, 60).await.unwrap().unwrap().template.digest;
    }
    assert!(after(last, 1).await.unwrap().is_none(), "its time has not come");
    let recorded =
        Recording::read(&PathBuf::from(format!("{}#1", files(folder.path()).unwrap()[0].display())));
    let context = first.context.taken(1, Duration::from_secs(9), Some(9));
    assert_eq!(context, recorded.unwrap().template.context, "policies see what they saw then");
}

#[tokio::test]
async fn a_replay_goes_on_behind_what_it_cannot_read_and_refuses_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let empty = Replay::open(folder.path(), Network::Bitcoin, Pace::Fast).err().unwrap().to_string();
    assert!(empty.contains("holds no recordings"), "{empty}");
    for number in 1..=2 {
        Shelf::open(folder.path(), KEEP).unwrap().put(&recording(number)).unwrap();
    }
    let broken = files(folder.path()).unwrap().remove(0);
    fs::write(&broken, &fs::read(&broken).unwrap()[..50]).unwrap();
    let (fees, faults) = replayed(folder.path(), Pace::Fast).await;
    assert_eq!(fees, [2]);
    assert_eq!(faults[0].0, Reason::TemplateUndecodable);
    assert!(faults[0].1.contains("in the middle of recording 1"), "{faults:?}");
    let source = Replay::open(folder.path(), Network::Signet, Pace::Fast).unwrap();
    source.next_template(None, Duration::from_secs(60)).await.unwrap_err();
    let other = source.next_template(None, Duration::from_secs(60)).await.unwrap_err();
    assert!(other.detail.contains("is of mainnet, and [source] network is signet"), "{other}");
}

#[test]
fn a_full_queue_costs_recordings_and_is_said_once() {
    let events = events_of(|events| {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, waiting) = Recorder::unattended(2, folder.path(), events).unwrap();
        let (declared, judged) = judged(7);
        for _ in 0..5 {
            recorder.record(&declared, &judged);
        }
        drop(recorder);
        assert_eq!(waiting.iter().count(), 2);
    });
    let reasons: Vec<_> = events.iter().map(|event| event["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["record_dropped"]);
}

#[test]
fn a_disk_that_is_gone_is_said_once_and_writing_goes_on_when_it_is_back() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("recordings");
    let events = events_of(|events| {
        let mut writer = Writer::new(Shelf::open(&folder, KEEP).unwrap(), events);
        fs::remove_dir(&folder).unwrap();
        fs::write(&folder, "in the way").unwrap();
        (0..3).for_each(|fee| writer.write(judged(fee)));
        fs::remove_file(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        writer.write(judged(9));
    });
    assert_eq!(files(&folder).unwrap().len(), 1);
    let told: Vec<_> =
        events.iter().map(|event| (event["reason"].as_str().unwrap(), event["lost"].as_u64())).collect();
    assert_eq!(told, [("record_write_failed", Some(1)), ("record_dropped", Some(3))]);
    assert!(events[0]["detail"].as_str().unwrap().contains("recordings"), "{}", events[0]);
}

#[test]
fn a_folder_that_cannot_be_used_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    events_of(|events| {
        let error = Recorder::start(&file, KEEP, events).err().unwrap().to_string();
        assert!(error.contains("[record] dir") && error.contains("file"), "{error}");
    });
}

#[test]
fn what_is_recorded_is_in_the_folder_when_the_recorder_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    events_of(|events| {
        let recorder = Recorder::start(folder.path(), KEEP, events).unwrap();
        let (declared, judged) = judged(7);
        recorder.record(&declared, &judged);
        // The event bus ends when the recorder's thread has.
    });
    let [file] = files(folder.path()).unwrap().try_into().unwrap();
    assert_eq!(Recordings::open(&file).unwrap().next().unwrap().unwrap().policies, []);
}
