//! From the body of one POST to one reply per call, whatever the node made of it.
//!
//! Replies are matched by id, never by position. An id that is missing, unknown or answered twice differently hurts
//! only its own call. Accepted although odd: ids as strings, no `jsonrpc` member, `error: null` beside a result, an
//! array around a lone answer. Results are slices of the body: nothing is copied and nothing is parsed twice.

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An error object of JSON-RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: i64,
    pub(super) message: String,
    /// The `data` member as JSON text.
    pub(super) data: Option<String>,
}

/// What one call got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// JSON text of the result; `null` is a result.
    Result(Bytes),
    Error(Fault),
    /// Nothing usable.
    Missing,
}

/// What a whole POST got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// One reply per call, in the order of the calls, and how many replies belonged to no call.
    Replies { replies: Vec<Reply>, strays: u64 },
    /// One error for the whole batch.
    Whole(Fault),
    /// Not JSON-RPC.
    Garbage,
}

#[derive(Deserialize)]
struct Member<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    // A `null` result is a result, so the member must be told from its absence.
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads the answer to `count` calls with the ids from `first` on.
pub(super) fn parse(body: &Bytes, first: u64, count: usize) -> Parsed {
    let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if is_list {
        return members(body).map_or(Parsed::Garbage, |members| matched(body, &members, first, count));
    }
    match serde_json::from_slice::<Member<'_>>(body) {
        Err(_) => Parsed::Garbage,
        Ok(member) if member.result.is_none() && member.error.is_none() => Parsed::Garbage,
        Ok(member) if count == 1 => lone(body, &member, first),
        Ok(member) => member.error.map_or(Parsed::Garbage, |error| Parsed::Whole(fault(error))),
    }
}

/// A lone call's answer stands on its own connection, so an error without id is its own.
fn lone(body: &Bytes, member: &Member<'_>, first: u64) -> Parsed {
    if member.error.is_some() && id(member).is_none() {
        return Parsed::Replies { replies: vec![reply(body, member)], strays: 0 };
    }
    matched(body, std::slice::from_ref(member), first, 1)
}

fn members(body: &Bytes) -> Option<Vec<Member<'_>>> {
    if let Ok(members) = serde_json::from_slice(body) {
        return Some(members);
    }
    // One element of another shape must not cost the others their answers.
    let elements: Vec<&RawValue> = serde_json::from_slice(body).ok()?;
    Some(elements.into_iter().filter_map(|element| serde_json::from_str(element.get()).ok()).collect())
}

fn matched(body: &Bytes, members: &[Member<'_>], first: u64, count: usize) -> Parsed {
    let mut slots: Vec<Option<Reply>> = vec![None; count];
    let mut strays = 0;
    for member in members {
        let offset = id(member).and_then(|id| usize::try_from(id.checked_sub(first)?).ok());
        let Some(slot) = offset.and_then(|offset| slots.get_mut(offset)) else {
            strays += 1;
            continue;
        };
        let reply = reply(body, member);
        *slot = match slot.take() {
            None => Some(reply),
            // Two different answers under one id: nobody can say which is right, so neither is used.
            Some(other) => {
                strays += 1;
                Some(if other == reply { reply } else { Reply::Missing })
            }
        };
    }
    let replies = slots.into_iter().map(|slot| slot.unwrap_or(Reply::Missing)).collect();
    Parsed::Replies { replies, strays }
}

fn reply(body: &Bytes, member: &Member<'_>) -> Reply {
    match (member.error, member.result) {
        (Some(error), _) => Reply::Error(fault(error)),
        (None, Some(result)) => Reply::Result(body.slice_ref(result.get().as_bytes())),
        (None, None) => Reply::Missing,
    }
}

fn id(member: &Member<'_>) -> Option<u64> {
    member.id?.get().trim_matches('"').parse().ok()
}

fn fault(error: &RawValue) -> Fault {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(default)]
        code: i64,
        #[serde(default)]
        message: String,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    match serde_json::from_str::<Object<'_>>(error.get()) {
        Ok(object) => {
            let data = object.data.map(|data| data.get().to_owned());
            Fault { code: object.code, message: object.message, data }
        }
        // Some proxies answer `"error": "text"`.
        Err(_) => Fault { code: 0, message: error.get().to_owned(), data: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(body: &'static str, count: usize) -> (Vec<Reply>, u64) {
        match parse(&Bytes::from_static(body.as_bytes()), 10, count) {
            Parsed::Replies { replies, strays } => (replies, strays),
            other => panic!("{other:?}"),
        }
    }

    fn result(text: &'static str) -> Reply {
        Reply::Result(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn replies_go_to_their_ids_in_any_order_and_strangers_are_counted() {
        let body = r#"[{"id":12,"result":"c"},{"id":9,"result":"low"},{"id":10,"result":"a"},
            {"id":11,"result":"b"},{"id":99,"result":"high"},{"result":"none"}]"#;
        assert_eq!(replies(body, 3), (vec![result("\"a\""), result("\"b\""), result("\"c\"")], 3));
    }

    #[test]
    fn an_id_answered_twice_differently_is_not_believed() {
        let body = r#"[{"id":10,"result":1},{"id":10,"result":2},{"id":11,"result":3},{"id":11,"result":3}]"#;
        assert_eq!(replies(body, 3), (vec![Reply::Missing, result("3"), Reply::Missing], 2));
    }

    #[test]
    fn odd_but_legal_replies_are_accepted() {
        let body = r#" [{"id":"10","result":null,"error":null},{"id":11,"result":{"a":[1,{}]}},7]"#;
        assert_eq!(replies(body, 2), (vec![result("null"), result("{\"a\":[1,{}]}")], 0));
        assert_eq!(replies(r#"[{"id":10,"result":true}]"#, 1).0, [result("true")]);
        let error = Reply::Error(Fault { code: -32700, message: "bad".to_owned(), data: None });
        assert_eq!(replies(r#"{"id":null,"error":{"code":-32700,"message":"bad"}}"#, 1).0, [error]);
        assert_eq!(replies(r#"{"id":7,"result":true}"#, 1), (vec![Reply::Missing], 1));
    }

    #[test]
    fn one_error_for_a_batch_is_told_from_garbage() {
        let whole = Bytes::from_static(
            br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"too many"}}"#,
        );
        assert!(matches!(parse(&whole, 1, 2), Parsed::Whole(fault) if fault.code == -32600));
        for garbage in ["<html>", "", "[{\"id\":1,\"result\":", "{}", "{\"id\":1,\"result\":1}"] {
            assert_eq!(parse(&Bytes::from_static(garbage.as_bytes()), 1, 2), Parsed::Garbage, "{garbage}");
        }
    }
}
