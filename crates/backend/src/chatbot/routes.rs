//! `/api/chatbot/*`.
//!
//! A streamed answer is a stream of `data: {"text":"…"}` events, then one event `done`, or one event `error` that holds a problem.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::Bytes;
use chrono::Utc;
use futures_util::StreamExt;
use pools_core::{
    telemetry,
    web::{JsonBody, Problem},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer::{End, Piece},
    error::ChatError,
    model::{conversation, question},
    service::{ChatService, Pieces},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChatBody {
    message: Option<String>,
    conversation_history: Option<Vec<TurnBody>>,
}

#[derive(Debug, Deserialize)]
struct TurnBody {
    role: String,
    content: String,
}

#[derive(Debug, Deserialize)]
struct QuestionBody {
    question: Option<String>,
}

/// The routes of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/chatbot/chat").route(web::post().to(chat)))
        .service(web::resource("/api/chatbot/analyze-intent").route(web::post().to(intent)))
        .service(web::resource("/api/chatbot/faq-suggestions").route(web::post().to(suggestions)))
        .service(web::resource("/api/chatbot/status").route(web::get().to(status)));
}

async fn chat(
    request: HttpRequest,
    JsonBody(body): JsonBody<ChatBody>,
    chat: web::Data<ChatService>,
) -> Result<HttpResponse, Problem> {
    let message = question("message", body.message).map_err(ChatError::from)?;
    let history = body.conversation_history.unwrap_or_default();
    let history = history.into_iter().map(|turn| (turn.role, turn.content)).collect();
    let turns = conversation(history, message).map_err(ChatError::from)?;
    if wants_events(&request) {
        return Ok(events(&request, chat.model(), chat.stream(&turns).await?));
    }
    let reply = chat.chat(&turns).await?;
    let mut answer = json!({
        "success": true, "message": reply.text, "model": chat.model(), "timestamp": Utc::now(),
    });
    if reply.cut_short {
        answer["truncated"] = json!(true);
    }
    Ok(HttpResponse::Ok().json(answer))
}

async fn intent(
    JsonBody(body): JsonBody<QuestionBody>,
    chat: web::Data<ChatService>,
) -> Result<HttpResponse, Problem> {
    let question = question("question", body.question).map_err(ChatError::from)?;
    let intent = chat.intent(question).await?;
    Ok(HttpResponse::Ok().json(json!({ "success": true, "intent": intent, "timestamp": Utc::now() })))
}

async fn suggestions(
    JsonBody(body): JsonBody<QuestionBody>,
    chat: web::Data<ChatService>,
) -> Result<HttpResponse, Problem> {
    let question = question("question", body.question).map_err(ChatError::from)?;
    let suggestions = chat.suggestions(question).await?;
    Ok(HttpResponse::Ok()
        .json(json!({ "success": true, "suggestions": suggestions, "timestamp": Utc::now() })))
}

async fn status(chat: web::Data<ChatService>) -> HttpResponse {
    let (status, message) = match chat.is_configured() {
        true => ("ready", "the chatbot can be asked"),
        false => ("not_configured", "GEMINI_API_KEY is not set"),
    };
    HttpResponse::Ok().json(json!({
        "success": true,
        "configured": chat.is_configured(),
        "model": chat.model(),
        "status": status,
        "message": message,
    }))
}

fn wants_events(request: &HttpRequest) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(','));
    kinds.any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "text/event-stream"))
}

fn events(request: &HttpRequest, model: &str, pieces: Pieces) -> HttpResponse {
    let (path, model) = (request.path().to_owned(), model.to_owned());
    // The body is made outside of the request's scope.
    let id = telemetry::request_id().map(|id| id.to_string());
    let body = pieces.map(move |piece| {
        let text = match piece {
            Ok(piece) => words(&piece) + &ending(&piece, &model),
            Err(error) => {
                let mut problem = Problem::from(error).body(&path);
                problem["request_id"] = json!(id);
                event(Some("error"), &problem)
            }
        };
        Ok::<_, actix_web::Error>(Bytes::from(text))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        // Proxies that collect answers would make one of the stream.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(body)
}

fn words(piece: &Piece) -> String {
    if piece.text.is_empty() { String::new() } else { event(None, &json!({ "text": piece.text })) }
}

fn ending(piece: &Piece, model: &str) -> String {
    let Some(end) = &piece.end else { return String::new() };
    let truncated = *end == End::CutShort;
    let done = json!({ "success": true, "model": model, "truncated": truncated, "timestamp": Utc::now() });
    event(Some("done"), &done)
}

/// JSON has no line ends, so that one `data` line is enough.
fn event(name: Option<&str>, data: &Value) -> String {
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    format!("{name}data: {data}\n\n")
}
