//! Reading Etherscan's answers: data, an empty list, or a refusal in the clothes of a success.
//!
//! Everything has status 200. `status:"1"` is data. `status:"0"` is data only with an empty list and a message such as `No
//! transactions found`; else `result` is the text of a refusal.

use std::borrow::Cow;

use pools_core::chain::{U256, from_hex, parse_address};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::model::{Transaction, Transfer};

/// Selector and first argument.
const DATA_KEPT: usize = 4 + 32;
/// Longest text of a refusal that is passed on.
const LONGEST: usize = 120;

/// What an answer is, if it is no list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many calls in this second.
    TooFast,
    /// Too many calls today.
    UsedUp,
    /// The key is missing or wrong.
    Key,
    /// Anything else, in Etherscan's words.
    Other(String),
    /// Not what is documented.
    Unreadable(&'static str),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    result: &'a RawValue,
}

/// The rows of an answer.
pub(super) fn rows<'a, R: Deserialize<'a>>(body: &'a [u8]) -> Result<Vec<R>, Refusal> {
    let answer: Envelope<'_> =
        serde_json::from_slice(body).map_err(|_| Refusal::Unreadable("it is not the documented JSON"))?;
    if answer.status == "1" {
        return serde_json::from_str(answer.result.get())
            .map_err(|_| Refusal::Unreadable("a row is not as documented"));
    }
    if answer.result.get() == "[]" && answer.message.starts_with("No ") {
        return Ok(Vec::new());
    }
    let text = serde_json::from_str::<String>(answer.result.get());
    Err(refusal(&text.unwrap_or_else(|_| answer.message.into_owned())))
}

fn refusal(text: &str) -> Refusal {
    let lower = text.to_ascii_lowercase();
    let says = |words: &str| lower.contains(words);
    if says("daily") && says("limit") {
        Refusal::UsedUp
    } else if says("rate limit") || says("max calls") {
        Refusal::TooFast
    } else if says("api key") {
        Refusal::Key
    } else {
        let printable = text.chars().filter(|letter| !letter.is_control());
        Refusal::Other(printable.take(LONGEST).collect())
    }
}

/// A row of `txlist` or `txlistinternal`; the latter has no nonce and no price of gas.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TransactionRow<'a> {
    #[serde(borrow)]
    time_stamp: Cow<'a, str>,
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow)]
    to: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
    #[serde(borrow, default)]
    input: Cow<'a, str>,
    #[serde(borrow)]
    is_error: Cow<'a, str>,
    #[serde(borrow, default, rename = "txreceipt_status")]
    receipt_status: Cow<'a, str>,
    #[serde(borrow, default)]
    nonce: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    gas_used: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    gas_price: Option<Cow<'a, str>>,
}

impl TransactionRow<'_> {
    pub(super) fn read(&self) -> Option<Transaction> {
        let fee = match (&self.gas_used, &self.gas_price) {
            (Some(used), Some(price)) => number(used)?.saturating_mul(number(price)?),
            _ => U256::zero(),
        };
        Some(Transaction {
            at: self.time_stamp.parse().ok()?,
            from: parse_address(&self.from)?,
            to: if self.to.is_empty() { None } else { Some(parse_address(&self.to)?) },
            value: number(&self.value)?,
            data: data(&self.input)?,
            failed: self.is_error == "1" || self.receipt_status == "0",
            nonce: self.nonce.as_ref().map(|nonce| nonce.parse().ok()).unwrap_or_default(),
            fee,
        })
    }
}

/// A row of `tokentx`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TransferRow<'a> {
    #[serde(borrow)]
    time_stamp: Cow<'a, str>,
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow)]
    to: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
    #[serde(borrow)]
    contract_address: Cow<'a, str>,
    #[serde(borrow, default)]
    token_symbol: Cow<'a, str>,
}

impl TransferRow<'_> {
    pub(super) fn read(&self) -> Option<Transfer> {
        Some(Transfer {
            at: self.time_stamp.parse().ok()?,
            from: parse_address(&self.from)?,
            to: parse_address(&self.to)?,
            value: number(&self.value)?,
            contract: parse_address(&self.contract_address)?,
            symbol: self.token_symbol.clone().into_owned(),
        })
    }
}

/// An empty text is a missing number.
fn number(text: &str) -> Option<U256> {
    if text.is_empty() { Some(U256::zero()) } else { U256::from_dec_str(text).ok() }
}

/// The beginning of calldata. `deprecated` stands where Etherscan no longer gives it.
fn data(input: &str) -> Option<Vec<u8>> {
    if input.is_empty() || input == "deprecated" {
        return Some(Vec::new());
    }
    let kept = input.get(..input.len().min(2 + 2 * DATA_KEPT))?;
    from_hex(kept).map(|bytes| bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<usize, Refusal> {
        rows::<TransferRow<'_>>(body.as_bytes()).map(|rows| rows.len())
    }

    #[test]
    fn an_empty_list_is_data_and_every_refusal_is_told_apart() {
        let refused = |text: &str| read(&format!(r#"{{"status":"0","message":"NOTOK","result":"{text}"}}"#));
        assert_eq!(read(r#"{"status":"0","message":"No transactions found","result":[]}"#), Ok(0));
        assert_eq!(refused("Max rate limit reached"), Err(Refusal::TooFast));
        assert_eq!(refused("Max calls per sec rate limit reached (3/sec)"), Err(Refusal::TooFast));
        assert_eq!(refused("Max daily rate limit reached. 100000 of 100000"), Err(Refusal::UsedUp));
        assert_eq!(refused("Invalid API Key (#err2)|ABC-"), Err(Refusal::Key));
        assert_eq!(refused("Missing/Invalid API Key"), Err(Refusal::Key));
        assert_eq!(refused("Query Timeout occured"), Err(Refusal::Other("Query Timeout occured".to_owned())));
        assert_eq!(
            read(r#"{"status":"0","message":"NOTOK","result":[]}"#),
            Err(Refusal::Other("NOTOK".to_owned()))
        );
        assert_eq!(
            read(r#"{"status":"0","message":"NOTOK","result":null}"#),
            Err(Refusal::Other("NOTOK".to_owned()))
        );
    }

    #[test]
    fn what_is_no_answer_of_etherscans_is_unreadable() {
        for body in ["", "<html></html>", "{", "[]", r#"{"status":"1","message":"OK","result":"#] {
            assert!(matches!(read(body), Err(Refusal::Unreadable(_))), "{body}");
        }
        assert!(matches!(
            read(r#"{"status":"1","message":"OK","result":"text"}"#),
            Err(Refusal::Unreadable(_))
        ));
    }

    #[test]
    fn a_row_is_read_with_the_beginning_of_its_calldata_only() {
        let word = "00".repeat(31) + "07";
        let body = format!(
            r#"{{"status":"1","message":"OK","result":[{{"timeStamp":"100","from":"0x{a}","to":"","value":"5",
            "input":"0xab7b1c89{word}{word}","isError":"0","txreceipt_status":"1","nonce":"3","gasUsed":"2","gasPrice":"10"}}]}}"#,
            a = "aa".repeat(20),
        );
        let row = rows::<TransactionRow<'_>>(body.as_bytes()).unwrap()[0].read().unwrap();
        assert_eq!((row.at, row.to, row.nonce, row.failed), (100, None, Some(3), false));
        assert_eq!((row.value, row.fee), (5.into(), 20.into()));
        assert_eq!((row.data.len(), row.data[35]), (DATA_KEPT, 7));
    }
}
