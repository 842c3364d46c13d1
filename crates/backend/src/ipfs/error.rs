//! Why a document could not be stored, shown or removed.

use actix_web::http::StatusCode;
use pools_core::web::Problem;

use super::model::Unfit;
use crate::third_party::ThirdPartyError;

/// The field of the form, and of the problem that concerns it.
pub(super) const DOCUMENT: &str = "document";

/// Why the browser's form cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormFault {
    /// Not a form at all.
    #[error("the body must be multipart/form-data")]
    NotAForm,
    /// A form with broken parts, or one that broke off.
    #[error("the form cannot be read: {0}")]
    Broken(&'static str),
    /// It has no document.
    #[error("the form has no field `document`")]
    NoDocument,
    /// It has two.
    #[error("the form has more than one field `document`")]
    TwoDocuments,
    /// The document is called a type that is not accepted.
    #[error("a document is application/pdf, image/jpeg, image/png or text/plain")]
    OtherType,
    /// It is longer than any accepted document with a form around it.
    #[error("the form is larger than a document of 10 MiB with its fields")]
    TooLarge,
    /// Its length was not told.
    #[error("the request must tell its Content-Length")]
    NoLength,
    /// Nothing came for too long.
    #[error("the document stopped coming")]
    Stalled,
}

/// One variant per thing somebody does about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpfsError {
    /// A key is missing.
    #[error("{0} is not set")]
    NotConfigured(&'static str),
    /// The caller's form is at fault.
    #[error(transparent)]
    Form(#[from] FormFault),
    /// The caller's document is at fault.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Nothing of this id is pinned by this account.
    #[error("{0} is not pinned")]
    NotPinned(String),
    /// Pinata failed.
    #[error(transparent)]
    Pinata(ThirdPartyError),
}

impl From<IpfsError> for Problem {
    fn from(error: IpfsError) -> Self {
        let detail = error.to_string();
        match error {
            IpfsError::NotConfigured(_) => Self::not_configured(detail),
            IpfsError::Form(fault) => form_problem(fault, detail),
            IpfsError::Unfit(Unfit::Empty) => Self::invalid_field(DOCUMENT, detail),
            IpfsError::Unfit(Unfit::TooLarge) => too_large(detail),
            IpfsError::Unfit(_) => other_type(detail),
            IpfsError::NotPinned(_) => Self::not_found(detail),
            IpfsError::Pinata(cause) => cause.problem(),
        }
    }
}

fn form_problem(fault: FormFault, detail: String) -> Problem {
    match fault {
        FormFault::NotAForm => {
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
        }
        FormFault::OtherType => other_type(detail),
        FormFault::Broken(_) => Problem::bad_request(detail),
        FormFault::NoDocument | FormFault::TwoDocuments => Problem::invalid_field(DOCUMENT, detail),
        FormFault::TooLarge => too_large(detail),
        FormFault::NoLength => Problem::new(StatusCode::LENGTH_REQUIRED, "length_required", detail),
        FormFault::Stalled => Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail),
    }
}

fn too_large(detail: String) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail).field(DOCUMENT)
}

fn other_type(detail: String) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail).field(DOCUMENT)
}
