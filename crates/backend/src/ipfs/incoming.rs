//! The browser's form, read piece by piece.
//!
//! Fields beside the document are read over, up to [`SPARE`] bytes. The pieces of the document end only when the whole form
//! has been read and was well-formed, so that whoever takes them knows that they are all.

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::{HttpMessage, HttpRequest, error::PayloadError, http::header, web};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use super::{
    error::{DOCUMENT, FormFault},
    model::{DocumentType, MAX_BYTES, file_name},
};

/// What a form may hold beside its document: boundaries, heads, a few fields.
const SPARE: u64 = 64 * 1024;

/// A document that is about to come.
pub(super) struct Incoming {
    /// Its name, fit to be shown.
    pub(super) name: String,
    /// What the form says that it is.
    pub(super) kind: DocumentType,
    /// The length of the whole form: the document is shorter.
    pub(super) bound: Option<u64>,
    rest: Rest,
}

/// What has not been read.
struct Rest {
    form: Multipart,
    /// The document until its end.
    field: Option<Field>,
    spare: u64,
}

/// Reads up to the beginning of the document.
pub(super) async fn document(request: &HttpRequest, body: web::Payload) -> Result<Incoming, FormFault> {
    let kind = request.mime_type().ok().flatten();
    if kind.is_none_or(|kind| kind.essence_str() != "multipart/form-data") {
        return Err(FormFault::NotAForm);
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let bound = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if bound.is_some_and(|bound| bound > MAX_BYTES + SPARE) {
        return Err(FormFault::TooLarge);
    }
    let mut form = Multipart::new(request.headers(), body);
    let mut spare = SPARE;
    loop {
        let mut field = form.try_next().await.map_err(fault)?.ok_or(FormFault::NoDocument)?;
        if field.name() == Some(DOCUMENT) {
            let name = field.content_disposition().and_then(|head| head.get_filename()).unwrap_or_default();
            let (name, kind) = (file_name(name), document_type(&field)?);
            return Ok(Incoming { name, kind, bound, rest: Rest { form, field: Some(field), spare } });
        }
        read_over(&mut field, &mut spare).await?;
    }
}

impl Incoming {
    /// The document's bytes.
    pub(super) fn pieces(self) -> impl Stream<Item = Result<Bytes, FormFault>> {
        stream::try_unfold(self.rest, |mut rest| async move {
            if let Some(field) = &mut rest.field {
                if let Some(piece) = field.next().await {
                    return piece.map(|piece| Some((piece, rest))).map_err(fault);
                }
                rest.field = None;
            }
            while let Some(mut field) = rest.form.try_next().await.map_err(fault)? {
                if field.name() == Some(DOCUMENT) {
                    return Err(FormFault::TwoDocuments);
                }
                read_over(&mut field, &mut rest.spare).await?;
            }
            Ok(None)
        })
    }
}

/// Text is what a part without a type is (RFC 7578, 4.4).
fn document_type(field: &Field) -> Result<DocumentType, FormFault> {
    let said = field.headers().contains_key(header::CONTENT_TYPE);
    match field.content_type() {
        Some(kind) => DocumentType::parse(kind.essence_str()).ok_or(FormFault::OtherType),
        None if said => Err(FormFault::OtherType),
        None => Ok(DocumentType::Text),
    }
}

async fn read_over(field: &mut Field, spare: &mut u64) -> Result<(), FormFault> {
    while let Some(piece) = field.try_next().await.map_err(fault)? {
        *spare = spare.checked_sub(piece.len() as u64).ok_or(FormFault::TooLarge)?;
    }
    Ok(())
}

fn fault(error: MultipartError) -> FormFault {
    FormFault::Broken(match error {
        MultipartError::BoundaryMissing => "a boundary is missing",
        MultipartError::ContentDispositionMissing | MultipartError::ContentDispositionNameMissing => {
            "a part has no name"
        }
        MultipartError::Incomplete | MultipartError::Payload(PayloadError::Incomplete(_)) => {
            "it ends before its end"
        }
        MultipartError::Payload(PayloadError::Overflow) => "the head of a part is too long",
        _ => "a part of it is malformed",
    })
}
