//! What may be asked, and how it is put to the model.

use serde_json::{Value, json};

/// Earlier turns that are sent along.
pub const TURNS: usize = 10;
/// A question; a long one has a thousand characters.
pub const MAX_QUESTION: usize = 8_000;
/// An earlier turn, which may be an answer of [`MAX_TOKENS`].
const MAX_TURN: usize = 64_000;
/// Longest answer. Tokens that the model thinks with count as well.
const MAX_TOKENS: u32 = 8_192;

const HELPER: &str = "You are the help desk of a decentralised lending platform: borrowers post collateral and ask \
    for loans in ETH or ERC-20 tokens, lenders fund them, loans past due or under-collateralised are liquidated, and a wallet's \
    history gives it a credit score from 300 to 850. Answer briefly and in the language of the question. You cannot see \
    accounts, loans or prices: say so instead of guessing, and never promise a rate or an approval. Give no investment \
    advice, and never ask for a private key or a seed phrase.";
const CLASSIFIER: &str = "Classify the user's question to the help desk of a decentralised lending platform. \
    `category` is the closest of the allowed words, `confidence` says from 0 to 1 how sure you are, `keywords` are up to ten \
    words of the question that decided.";
const SUGGESTER: &str = "Suggest three to five short questions that a user of a decentralised lending platform would ask \
    next, after the question given. Use its language.";

const CATEGORIES: [&str; 10] = [
    "borrowing",
    "lending",
    "collateral",
    "interest_rates",
    "repayment",
    "liquidation",
    "credit_score",
    "wallet",
    "technical_support",
    "general",
];

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Model,
}

impl Role {
    /// The names that front ends use.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "user" => Some(Self::User),
            "assistant" | "model" | "bot" => Some(Self::Model),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Model => "model",
        }
    }
}

/// One thing said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// By whom.
    pub role: Role,
    /// What.
    pub text: String,
}

/// Which field of a request is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct Invalid {
    /// Its name, with its place in a list.
    pub field: String,
    /// What it breaks.
    pub rule: &'static str,
}

/// A question that can be asked: not blank, not a book.
///
/// # Errors
/// Naming `field`.
pub fn question(field: &str, text: Option<String>) -> Result<String, Invalid> {
    checked(field.to_owned(), text.unwrap_or_default(), MAX_QUESTION)
}

/// What is sent: the last [`TURNS`] of `history` and the message. What is not sent is not looked at.
///
/// # Errors
/// Naming the turn that cannot be sent.
pub fn conversation(history: Vec<(String, String)>, message: String) -> Result<Vec<Turn>, Invalid> {
    let skipped = history.len().saturating_sub(TURNS);
    let last = history.into_iter().enumerate().skip(skipped);
    let mut turns = last
        .map(|(place, (role, content))| {
            let field = |part| format!("conversationHistory[{place}].{part}");
            let rule = "must be user or assistant";
            let role = Role::parse(&role).ok_or_else(|| Invalid { field: field("role"), rule })?;
            let text = checked(field("content"), content, MAX_TURN)?;
            Ok(Turn { role, text })
        })
        .collect::<Result<Vec<_>, _>>()?;
    turns.push(Turn { role: Role::User, text: message });
    Ok(turns)
}

fn checked(field: String, text: String, max: usize) -> Result<String, Invalid> {
    if text.trim().is_empty() {
        return Err(Invalid { field, rule: "must not be empty" });
    }
    if text.chars().count() > max {
        return Err(Invalid { field, rule: "is too long" });
    }
    Ok(text)
}

/// The request for an answer in words.
pub fn chat_request(turns: &[Turn]) -> Value {
    request(HELPER, turns, json!({ "temperature": 0.7, "maxOutputTokens": MAX_TOKENS }))
}

/// The request for an [`Intent`](super::answer::Intent).
pub fn intent_request(question: String) -> Value {
    let schema = json!({
        "type": "OBJECT",
        "properties": {
            "category": { "type": "STRING", "format": "enum", "enum": CATEGORIES },
            "confidence": { "type": "NUMBER", "minimum": 0, "maximum": 1 },
            "keywords": { "type": "ARRAY", "items": { "type": "STRING" }, "maxItems": 10 },
        },
        "required": ["category", "confidence", "keywords"],
        "propertyOrdering": ["category", "confidence", "keywords"],
    });
    structured_request(CLASSIFIER, question, &schema)
}

/// The request for suggestions.
pub fn suggestions_request(question: String) -> Value {
    let schema = json!({
        "type": "OBJECT",
        "properties": {
            "suggestions": { "type": "ARRAY", "items": { "type": "STRING" }, "minItems": 1, "maxItems": 5 },
        },
        "required": ["suggestions"],
    });
    structured_request(SUGGESTER, question, &schema)
}

fn structured_request(instruction: &str, question: String, schema: &Value) -> Value {
    let turn = Turn { role: Role::User, text: question };
    let config = json!({
        "temperature": 0,
        "maxOutputTokens": MAX_TOKENS,
        "responseMimeType": "application/json",
        "responseSchema": schema,
    });
    request(instruction, &[turn], config)
}

fn request(instruction: &str, turns: &[Turn], config: Value) -> Value {
    let contents: Vec<Value> = turns
        .iter()
        .map(|turn| json!({ "role": turn.role.name(), "parts": [{ "text": turn.text }] }))
        .collect();
    json!({
        "systemInstruction": { "parts": [{ "text": instruction }] },
        "contents": contents,
        "generationConfig": config,
    })
}

/// Whether a model's name can stand in a path.
pub fn is_model_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(count: usize) -> Vec<(String, String)> {
        let role = |place: usize| if place.is_multiple_of(2) { "user" } else { "assistant" };
        (0..count).map(|place| (role(place).to_owned(), format!("turn {place}"))).collect()
    }

    #[test]
    fn the_last_ten_turns_and_the_message_are_sent_with_geminis_roles() {
        let turns = conversation(said(13), "now".to_owned()).unwrap();
        let body = chat_request(&turns);
        let contents = body["contents"].as_array().unwrap();
        assert_eq!(contents.len(), 11);
        assert_eq!(contents[0], json!({ "role": "model", "parts": [{ "text": "turn 3" }] }));
        assert_eq!(contents[9], json!({ "role": "user", "parts": [{ "text": "turn 12" }] }));
        assert_eq!(contents[10], json!({ "role": "user", "parts": [{ "text": "now" }] }));
        assert!(body["systemInstruction"]["parts"][0]["text"].is_string());
    }

    #[test]
    fn a_bad_turn_is_named_by_its_place_and_one_that_is_not_sent_is_not_looked_at() {
        let mut history = said(12);
        history[0].0 = "wizard".to_owned();
        assert!(conversation(history.clone(), "now".to_owned()).is_ok());
        history[11].0 = "system".to_owned();
        let error = conversation(history.clone(), "now".to_owned()).unwrap_err();
        assert_eq!(error.field, "conversationHistory[11].role");
        history[11].0 = "model".to_owned();
        history[5].1 = " \n".to_owned();
        let error = conversation(history, "now".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "conversationHistory[5].content must not be empty");
    }

    #[test]
    fn a_question_is_neither_blank_nor_a_book() {
        assert_eq!(question("message", Some("Why?".to_owned())).unwrap(), "Why?");
        for bad in [None, Some(String::new()), Some(" \t".to_owned()), Some("é".repeat(MAX_QUESTION + 1))] {
            assert_eq!(question("message", bad).unwrap_err().field, "message");
        }
        assert!(question("message", Some("é".repeat(MAX_QUESTION))).is_ok());
    }

    #[test]
    fn a_models_name_is_one_segment_of_a_path() {
        assert!(is_model_name("gemini-2.5-flash"));
        for bad in ["", "models/x", "x:generateContent", "x?key=1", "x y"] {
            assert!(!is_model_name(bad), "{bad}");
        }
    }
}
