#![allow(clippy::unwrap_used)]

use super::Settings;

type Read = (u64, String, Vec<u8>, Vec<Vec<u8>>, Vec<(u64, bool)>, char);

fn configure(settings: &mut Settings) -> Read {
    (
        settings.integer("number", "A number.", 1..=9, Some(5)),
        settings.text("text", "A text.", 4, Some("abc")),
        settings.hex("bytes", "Bytes.", 2),
        settings.hex_list("more", "More bytes.", 2, 1),
        settings.list("list", "A list.", 2, |entry| {
            let number = entry.integer("n", "A number in it.", 0..=u64::MAX, None);
            (number, entry.boolean("b", "A boolean in it.", Some(true)))
        }),
        settings.choice("choice", "A choice.", &[("first", '1'), ("second", '2')]),
    )
}

fn faults(json: &str) -> Vec<(String, String)> {
    let faults = Settings::read(json, configure).unwrap_err();
    faults.into_iter().map(|fault| (fault.path, fault.problem)).collect()
}

#[test]
fn what_does_not_stand_there_has_its_default() {
    let read = Settings::read("{}", configure).unwrap();
    assert_eq!(read, (5, "abc".into(), vec![], vec![], vec![], '1'));
}

#[test]
fn every_kind_of_setting_is_read() {
    let json = r#" {"number": 9, "text": "\u00e4\"", "bytes": "0aFF", "more": ["", "01"], "choice": "sec\u006fnd",
        "list": [{"n": 18446744073709551615}, {"b": false, "n": 0}]} "#;
    let read = Settings::read(json, configure).unwrap();
    let list = vec![(u64::MAX, true), (0, false)];
    assert_eq!(read, (9, "ä\"".into(), vec![10, 255], vec![vec![], vec![1]], list, '2'));
}

#[test]
fn what_is_of_the_wrong_kind_or_too_large_is_a_fault_with_its_place() {
    for (json, path, problem) in [
        (r#"{"number": 10}"#, "number", "must be a whole number from 1 to 9, not 10"),
        (r#"{"number": "1"}"#, "number", "must be a whole number from 1 to 9, not \"1\""),
        (r#"{"number": 1e0}"#, "number", "must be a whole number from 1 to 9, not 1e0"),
        (r#"{"text": "abcde"}"#, "text", "must be one line of at most 4 bytes, not \"abcde\""),
        (r#"{"text": "a\n"}"#, "text", "must be one line of at most 4 bytes, not \"a\\n\""),
        (r#"{"bytes": "010203"}"#, "bytes", "must be at most 2 bytes in hexadecimal, not \"010203\""),
        (r#"{"more": ["00", "0"]}"#, "more[1]", "must be at most 1 bytes in hexadecimal, not \"0\""),
        (r#"{"more": {}}"#, "more", "must be a list of at most 2 entries, not {}"),
        (r#"{"list": [1]}"#, "list[0]", "must be an object, not 1"),
        (r#"{"list": [{}]}"#, "list[0].n", "is missing; it has no default"),
        (r#"{"list": [{"n": 1, "m": 2}]}"#, "list[0].m", "is not a setting of this policy; there are: n, b"),
        (r#"{"number": 1, "number": 2}"#, "number", "stands there twice"),
    ] {
        assert_eq!(faults(json), [(path.to_owned(), problem.to_owned())], "{json}");
    }
}

#[test]
fn the_schema_says_what_is_read() {
    assert_eq!(
        Settings::schema(|settings| drop(configure(settings))).document(),
        concat!(
            r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{"#,
            r#""number":{"description":"A number.","type":"integer","minimum":1,"maximum":9,"default":5},"#,
            r#""text":{"description":"A text.","type":"string","maxLength":4,"default":"abc"},"#,
            r#""bytes":{"description":"Bytes.","type":"string","pattern":"^([0-9a-fA-F]{2})*$","maxLength":4,"#,
            r#""default":""},"more":{"description":"More bytes.","type":"array","maxItems":2,"default":[],"items":"#,
            r#"{"type":"string","pattern":"^([0-9a-fA-F]{2})*$","maxLength":2}},"#,
            r#""list":{"description":"A list.","type":"array","maxItems":2,"default":[],"items":{"type":"object","#,
            r#""properties":{"n":{"description":"A number in it.","type":"integer","minimum":0,"#,
            r#""maximum":18446744073709551615},"b":{"description":"A boolean in it.","type":"boolean","#,
            r#""default":true}},"required":["n"],"additionalProperties":false}},"#,
            r#""choice":{"description":"A choice.","enum":["first","second"],"default":"first"}},"#,
            r#""additionalProperties":false}"#
        )
    );
}
