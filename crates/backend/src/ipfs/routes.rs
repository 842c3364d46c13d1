//! `/api/ipfs/*`.

use actix_web::{HttpRequest, HttpResponse, web};
use pools_core::web::{AdminToken, Problem, authorise};
use serde_json::json;

use super::{
    error::IpfsError,
    incoming,
    model::{ContentId, gateway_url},
    service::{Document, IpfsService},
};

/// Where documents come in, as slowly as their browsers send them.
pub const UPLOAD: &str = "/api/ipfs/upload";

/// The routes of this feature.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(web::resource(UPLOAD).route(web::post().to(upload)))
        .service(web::resource("/api/ipfs/metadata/{cid}").route(web::get().to(metadata)))
        .service(web::resource("/api/ipfs/unpin/{cid}").route(web::delete().to(unpin)));
}

async fn upload(
    request: HttpRequest,
    body: web::Payload,
    ipfs: web::Data<IpfsService>,
) -> Result<HttpResponse, Problem> {
    let incoming = incoming::document(&request, body).await.map_err(IpfsError::from)?;
    let (name, kind, bound) = (incoming.name.clone(), incoming.kind, incoming.bound);
    let document = Document { name, kind, bound };
    let stored = ipfs.upload(&document, incoming.pieces()).await?;
    Ok(HttpResponse::Ok().json(json!({
        "ipfsHash": stored.cid,
        "size": stored.bytes,
        "fileName": document.name,
        "mimeType": document.kind.name(),
        "url": gateway_url(&stored.cid),
    })))
}

async fn metadata(cid: web::Path<String>, ipfs: web::Data<IpfsService>) -> Result<HttpResponse, Problem> {
    let cid = parse(&cid)?;
    let record = ipfs.record(&cid).await?;
    let status = if record.is_some() { "pinned" } else { "not_found" };
    Ok(HttpResponse::Ok().json(json!({
        "ipfsHash": cid.as_str(),
        "size": record.as_ref().map(|record| record.size),
        "pinDate": record.as_ref().map(|record| &record.pinned_at),
        "metadata": record.as_ref().map(|record| &record.metadata),
        "url": record.as_ref().map(|_| gateway_url(cid.as_str())),
        "status": status,
    })))
}

async fn unpin(
    request: HttpRequest,
    cid: web::Path<String>,
    token: web::Data<AdminToken>,
    ipfs: web::Data<IpfsService>,
) -> Result<HttpResponse, Problem> {
    let cid = parse(&cid)?;
    authorise(&request, &token)?;
    ipfs.remove(&cid).await?;
    Ok(HttpResponse::Ok().json(json!({ "message": format!("{} is no longer pinned", cid.as_str()) })))
}

fn parse(text: &str) -> Result<ContentId, Problem> {
    ContentId::parse(text)
        .ok_or_else(|| Problem::bad_request("a content id is an IPFS CID of version 0 or 1").field("cid"))
}
