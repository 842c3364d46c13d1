//! Questions in, answers out.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use pools_core::{health::HealthState, resilience::deadline, tasks::Tasks};
use serde_json::Value;

use super::{
    answer::{self, End, Intent, Piece},
    client::{self, GEMINI, GeminiClient, LATE},
    error::ChatError,
    model::{self, Turn},
};
use crate::third_party::{ThirdPartyError, Verdict};

/// A streamed answer: words, and how they ended in the last piece. An error is its last item.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Piece, ChatError>>>>;

/// An answer in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The words.
    pub text: String,
    /// Whether it grew too long and was cut.
    pub cut_short: bool,
}

/// The service. Clones share the verdict on Gemini.
#[derive(Clone, Debug)]
pub struct ChatService(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    gemini: Option<GeminiClient>,
    model: String,
    verdict: Verdict,
}

impl ChatService {
    /// Without a client, every question is answered with the reason.
    pub fn new(gemini: Option<GeminiClient>, model: &str, jobs: &Tasks) -> Self {
        let verdict = Verdict::new(GEMINI, jobs);
        Self(Arc::new(Inner { gemini, model: model.to_owned(), verdict }))
    }

    /// The model that answers.
    pub fn model(&self) -> &str {
        &self.0.model
    }

    /// Whether there is a key.
    pub fn is_configured(&self) -> bool {
        self.0.gemini.is_some()
    }

    /// The answer to a conversation.
    ///
    /// # Errors
    /// There is none.
    pub async fn chat(&self, turns: &[Turn]) -> Result<Reply, ChatError> {
        self.ask(&model::chat_request(turns)).await
    }

    /// The answer to a conversation, word by word. Returns with the first of them, so that what goes wrong before is an
    /// error and not a stream.
    ///
    /// # Errors
    /// There is none.
    pub async fn stream(&self, turns: &[Turn]) -> Result<Pieces, ChatError> {
        let events = self.client()?.stream(&model::chat_request(turns)).await;
        let events = self.judged(events.map_err(ChatError::Gemini))?;
        let mut pieces: Pieces = Box::pin(self.clone().pieces(events));
        // A head is no word yet.
        let first = deadline::in_time(pieces.try_next()).await;
        match first.unwrap_or_else(|| self.judged(Err(ChatError::Gemini(LATE))))? {
            Some(first) => Ok(Box::pin(stream::once(async { Ok(first) }).chain(pieces))),
            None => Err(broken_off()),
        }
    }

    /// What a question is about.
    ///
    /// # Errors
    /// There is no usable answer.
    pub async fn intent(&self, question: String) -> Result<Intent, ChatError> {
        let reply = self.ask(&model::intent_request(question)).await?;
        Ok(answer::intent(&reply.text)?)
    }

    /// What could be asked next.
    ///
    /// # Errors
    /// There is no usable answer.
    pub async fn suggestions(&self, question: String) -> Result<Vec<String>, ChatError> {
        let reply = self.ask(&model::suggestions_request(question)).await?;
        Ok(answer::suggestions(&reply.text)?)
    }

    /// Whether Gemini answered last time; asked when that is not known.
    pub async fn health(&self) -> HealthState {
        let Some(gemini) = self.0.gemini.clone() else { return HealthState::NotConfigured };
        let service = self.clone();
        let ask = async move {
            // The verdict is what was asked for.
            let _ = service.judged(gemini.probe().await.map_err(ChatError::Gemini));
        };
        self.0.verdict.state(ask).await
    }

    async fn ask(&self, request: &Value) -> Result<Reply, ChatError> {
        let body = self.client()?.generate(request).await.map_err(ChatError::Gemini);
        let piece = body.and_then(|body| Ok(answer::piece(&body)?));
        self.judged(piece.and_then(|piece| {
            let cut_short = matches!(checked(piece.end.as_ref())?, Some(End::CutShort));
            if piece.text.is_empty() {
                let why = "there is no text in it";
                return Err(ChatError::Gemini(ThirdPartyError::Answer { upstream: GEMINI, why }));
            }
            Ok(Reply { text: piece.text, cut_short })
        }))
    }

    /// The pieces of a stream, down to its end or to what broke it.
    fn pieces(
        self,
        events: impl Stream<Item = Result<Vec<u8>, ChatError>> + 'static,
    ) -> impl Stream<Item = Result<Piece, ChatError>> {
        let state = Some((self, Box::pin(events)));
        stream::unfold(state, |state| async move {
            let (service, mut events) = state?;
            loop {
                let piece = match events.next().await {
                    Some(Ok(event)) => read(&event),
                    Some(Err(error)) => Err(error),
                    None => Err(broken_off()),
                };
                return match service.judged(piece) {
                    // Nothing said, nothing ended: not worth an item.
                    Ok(piece) if piece == Piece::default() => continue,
                    Ok(piece) if piece.end.is_some() => Some((Ok(piece), None)),
                    Ok(piece) => Some((Ok(piece), Some((service, events)))),
                    Err(error) => Some((Err(error), None)),
                };
            }
        })
    }

    fn client(&self) -> Result<&GeminiClient, ChatError> {
        self.0.gemini.as_ref().ok_or(ChatError::NotConfigured)
    }

    fn judged<T>(&self, outcome: Result<T, ChatError>) -> Result<T, ChatError> {
        match outcome {
            Err(ChatError::Gemini(error)) => {
                let outcome = Err::<T, _>(error);
                self.0.verdict.judge(&outcome);
                outcome.map_err(ChatError::Gemini)
            }
            outcome => {
                // Blocked is an answer as well.
                self.0.verdict.judge(&Ok::<_, ThirdPartyError>(()));
                outcome
            }
        }
    }
}

/// One event of a stream.
fn read(event: &[u8]) -> Result<Piece, ChatError> {
    if let Some(fault) = answer::fault(event) {
        return Err(ChatError::Gemini(client::error(fault.code, fault)));
    }
    let piece = answer::piece(event)?;
    checked(piece.end.as_ref())?;
    Ok(piece)
}

/// An end that is no error.
fn checked(end: Option<&End>) -> Result<Option<&End>, ChatError> {
    match end {
        Some(End::Blocked(reason)) => Err(ChatError::Blocked { reason: reason.clone() }),
        Some(End::Failed(reason)) => {
            let reason = Some(reason.clone());
            Err(ChatError::Gemini(ThirdPartyError::Status { upstream: GEMINI, status: 200, reason }))
        }
        end => Ok(end),
    }
}

fn broken_off() -> ChatError {
    ChatError::Gemini(ThirdPartyError::Answer {
        upstream: GEMINI,
        why: "the stream ended before the answer did",
    })
}
