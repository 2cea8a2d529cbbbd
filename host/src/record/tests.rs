use super::{
    recorder::{Recorder, Shelf, Writer},
    *,
};
use crate::{
    event::{self, Events},
    policy::{EngineLimits, Inputs, Judged, PolicyEngine, PolicyStore},
    template::{
        facts::assemble,
        synthetic::{self, ContextTable, RowTable, TemplateTable},
    },
};
use std::sync::Arc;

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

/// The recordings in a folder, oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    files
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
    let written = recording(7);
    Shelf::open(folder.path(), 3).unwrap().put(&written).unwrap();
    let [file] = files(folder.path()).try_into().unwrap();
    assert_eq!(Recording::read(&file).unwrap(), written);
    assert_eq!(read_template(&file).unwrap(), written.template);
    let alone = folder.path().join("template.json");
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
fn the_newest_are_kept_over_restarts_and_nothing_else_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let keep = folder.path().join("notes.json");
    fs::write(&keep, "mine").unwrap();
    let mut shelf = Shelf::open(folder.path(), 3).unwrap();
    let all: Vec<_> = (0..5).map(|time_ms| Recording { time_ms, ..recording(time_ms) }).collect();
    all.iter().for_each(|recording| shelf.put(recording).unwrap());
    let kept = || -> Vec<u64> {
        let found = files(folder.path()).into_iter().filter(|file| *file != keep);
        found.map(|file| Recording::read(&file).unwrap().time_ms).collect()
    };
    assert_eq!(kept(), [2, 3, 4]);
    let left = files(folder.path())[0].with_extension("json.tmp");
    fs::write(&left, "half").unwrap();
    drop(Shelf::open(folder.path(), 2).unwrap());
    assert_eq!(kept(), [3, 4]);
    assert!(keep.is_file() && !left.exists());
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
        let mut writer = Writer::new(Shelf::open(&folder, 9).unwrap(), events);
        fs::remove_dir(&folder).unwrap();
        fs::write(&folder, "in the way").unwrap();
        (0..3).for_each(|fee| writer.write(judged(fee)));
        fs::remove_file(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        writer.write(judged(9));
    });
    assert_eq!(files(&folder).len(), 1);
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
        let error = Recorder::start(&file, 3, events).err().unwrap().to_string();
        assert!(error.contains("[record] dir") && error.contains("file"), "{error}");
    });
}

#[test]
fn what_is_recorded_is_in_the_folder_when_the_recorder_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    events_of(|events| {
        let recorder = Recorder::start(folder.path(), 3, events).unwrap();
        let (declared, judged) = judged(7);
        recorder.record(&declared, &judged);
        // The event bus ends when the recorder's thread has.
    });
    let [file] = files(folder.path()).try_into().unwrap();
    assert_eq!(Recording::read(&file).unwrap().policies, []);
}
