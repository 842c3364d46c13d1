use serde_json::json;

use super::*;

fn read(value: &serde_json::Value) -> Piece {
    piece(value.to_string().as_bytes()).unwrap()
}

#[test]
fn text_is_what_the_first_candidate_says_aloud() {
    let answer = json!({ "candidates": [{ "content": { "role": "model", "parts": [
        { "text": "the user wants…", "thought": true }, { "text": "Rates " }, { "text": "vary.", "thoughtSignature": "x" },
    ] }, "finishReason": "STOP" }], "usageMetadata": {} });
    assert_eq!(read(&answer), Piece { text: "Rates vary.".to_owned(), end: Some(End::Complete) });
    assert_eq!(read(&json!({ "usageMetadata": {} })), Piece::default());
    assert_eq!(piece(b"<html>"), Err(Unusable::NotDocumented));
    assert_eq!(piece(b"{\"candidates\": [{\"content\": "), Err(Unusable::NotDocumented));
}

#[test]
fn each_reason_to_stop_is_told_apart() {
    let ended = |reason: &str| read(&json!({ "candidates": [{ "finishReason": reason }] })).end.unwrap();
    assert_eq!(ended("MAX_TOKENS"), End::CutShort);
    for reason in ["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"] {
        assert_eq!(ended(reason), End::Blocked(reason.to_owned()));
    }
    assert_eq!(ended("MALFORMED_FUNCTION_CALL"), End::Failed("MALFORMED_FUNCTION_CALL".to_owned()));
    assert_eq!(ended("<b>odd</b>"), End::Failed("OTHER".to_owned()));
    let blocked = read(&json!({ "promptFeedback": { "blockReason": "PROHIBITED_CONTENT" } }));
    assert_eq!(blocked.end, Some(End::Blocked("PROHIBITED_CONTENT".to_owned())));
}

#[test]
fn errors_tell_of_keys_and_pauses_in_their_details() {
    let error = |details: serde_json::Value| {
        let body = json!({ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "details": details } });
        (fault(body.to_string().as_bytes()), fault(json!([body]).to_string().as_bytes()))
    };
    let (found, in_array) = error(json!([{ "@type": "QuotaFailure" }, { "retryDelay": "28.5s" }]));
    assert_eq!(found, in_array);
    let found = found.unwrap();
    assert_eq!((found.code, found.retry_after), (429, Some(Duration::from_millis(28_500))));
    assert_eq!(found.status.as_deref(), Some("RESOURCE_EXHAUSTED"));
    for odd in ["-1s", "soon", "9e99s", "NaNs", ""] {
        assert_eq!(error(json!([{ "retryDelay": odd }])).0.unwrap().retry_after, None, "{odd}");
    }
    assert!(error(json!([{ "reason": "API_KEY_INVALID" }])).0.unwrap().is_key);
    assert_eq!(fault(b"<html>"), None);
}

#[test]
fn events_are_the_same_however_the_stream_is_cut() {
    let stream = ": hello\r\ndata: {\"a\":1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\n\n\ndata: unfinished";
    let expected = [&b"{\"a\":1}"[..], b"two\nlines"];
    for size in 1..stream.len() {
        let mut events = Events::default();
        let found: Vec<_> =
            stream.as_bytes().chunks(size).flat_map(|chunk| events.push(chunk).unwrap()).collect();
        assert_eq!(found, expected, "in pieces of {size}");
    }
}

#[test]
fn an_event_without_an_end_is_refused_at_its_bound() {
    let mut events = Events::default();
    let chunk = vec![b'x'; MAX_EVENT / 2];
    assert_eq!((events.push(&chunk), events.push(&chunk)), (Ok(Vec::new()), Ok(Vec::new())));
    assert_eq!(events.push(b"x"), Err(Unusable::TooLong));
}

#[test]
fn structured_answers_are_held_to_their_schema() {
    let good = json!({ "category": "lending", "confidence": 0.9, "keywords": ["rate"] }).to_string();
    assert_eq!(intent(&good).unwrap().category, "lending");
    let bad = [
        json!({ "category": "", "confidence": 0.9, "keywords": [] }),
        json!({ "category": "lending", "confidence": 1.5, "keywords": [] }),
        json!({ "category": "lending", "confidence": "high", "keywords": [] }),
        json!({ "category": "lending", "confidence": 0.5 }),
        json!({ "category": "lending", "confidence": 0.5, "keywords": [1] }),
        json!("lending"),
    ];
    for bad in bad {
        assert_eq!(intent(&bad.to_string()), Err(Unusable::Schema), "{bad}");
    }
    assert_eq!(suggestions(r#"{"suggestions":["How?"]}"#).unwrap(), ["How?"]);
    for bad in [r#"{"suggestions":[]}"#, r#"{"suggestions":[" "]}"#, r#"["How?"]"#, "How?"] {
        assert_eq!(suggestions(bad), Err(Unusable::Schema), "{bad}");
    }
}
