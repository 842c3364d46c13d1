//! `/requests`, `/offers`, `/matches`.

use actix_web::web::{self, Data, Json, Path};
use pools_core::web::{JsonBody, Problem};
use serde_json::{Value, json};

use super::{
    error::Side,
    model::{BookId, LendingOffer, LoanRequest, MatchOrder},
    service::MatchingService,
    store::Recent,
};
use crate::loans::model::Members;

/// Adds the routes.
pub fn routes(config: &mut web::ServiceConfig) {
    let request = web::resource("/requests/{id}").route(web::put().to(put_request));
    let offer = web::resource("/offers/{id}").route(web::put().to(put_offer));
    let matches = web::resource("/matches").route(web::get().to(recent));
    config
        .service(request.route(web::delete().to(remove_request)))
        .service(offer.route(web::delete().to(remove_offer)))
        .service(web::resource("/requests").route(web::get().to(requests)))
        .service(web::resource("/offers").route(web::get().to(offers)))
        .service(matches.route(web::post().to(make)));
}

/// An answer about one side.
fn about(side: Side, id: &BookId, message: &str) -> Value {
    json!({ "success": true, "message": message, side.field(): id })
}

fn id(path: &str) -> Result<BookId, Problem> {
    let wrong = || Problem::bad_request("id: must be 1 to 128 printable characters").field("id");
    BookId::parse(path).ok_or_else(wrong)
}

fn stored(side: Side, id: &BookId, created: bool) -> Json<Value> {
    let message = if created { format!("{side} recorded") } else { format!("{side} updated") };
    let mut body = about(side, id, &message);
    body["created"] = json!(created);
    Json(body)
}

async fn put_request(
    path: Path<String>,
    JsonBody(body): JsonBody<Members>,
    book: Data<MatchingService>,
) -> Result<Json<Value>, Problem> {
    let request = LoanRequest::parse(id(&path)?, body)?;
    let created = book.put_request(&request).await?;
    Ok(stored(Side::Request, &request.loan_id, created))
}

async fn put_offer(
    path: Path<String>,
    JsonBody(body): JsonBody<Members>,
    book: Data<MatchingService>,
) -> Result<Json<Value>, Problem> {
    let offer = LendingOffer::parse(id(&path)?, body)?;
    let created = book.put_offer(&offer).await?;
    Ok(stored(Side::Offer, &offer.offer_id, created))
}

async fn remove_request(path: Path<String>, book: Data<MatchingService>) -> Result<Json<Value>, Problem> {
    let id = id(&path)?;
    book.remove(Side::Request, &id).await?;
    Ok(Json(about(Side::Request, &id, "loan request removed")))
}

async fn remove_offer(path: Path<String>, book: Data<MatchingService>) -> Result<Json<Value>, Problem> {
    let id = id(&path)?;
    book.remove(Side::Offer, &id).await?;
    Ok(Json(about(Side::Offer, &id, "lending offer removed")))
}

async fn requests(book: Data<MatchingService>) -> Result<Json<Value>, Problem> {
    let listed = book.requests().await?;
    let (count, truncated) = (listed.rows.len(), listed.truncated);
    Ok(Json(json!({ "success": true, "count": count, "truncated": truncated, "requests": listed.rows })))
}

async fn offers(book: Data<MatchingService>) -> Result<Json<Value>, Problem> {
    let listed = book.offers().await?;
    let (count, truncated) = (listed.rows.len(), listed.truncated);
    Ok(Json(json!({ "success": true, "count": count, "truncated": truncated, "offers": listed.rows })))
}

async fn make(
    JsonBody(body): JsonBody<Members>,
    book: Data<MatchingService>,
) -> Result<Json<Value>, Problem> {
    let made = book.make(&MatchOrder::parse(body)?).await?;
    Ok(Json(json!({ "success": true, "created": made.created, "match": made.matched })))
}

async fn recent(book: Data<MatchingService>) -> Result<Json<Value>, Problem> {
    let Recent { total, matches } = book.recent().await?;
    Ok(Json(json!({ "success": true, "total": total, "matches": matches })))
}
