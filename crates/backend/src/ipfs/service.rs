//! Documents in, records out: the checks stand here, the HTTP of both sides elsewhere.

use std::{cell::Cell, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use pools_core::{health::HealthState, tasks::Tasks};
use tokio::time::timeout;

use super::{
    client::PinataClient,
    error::{FormFault, IpfsError},
    model::{ContentId, DocumentType, FilePart, FileRecord, HEAD_BYTES, Inspector, MAX_BYTES},
};
use crate::third_party::{ThirdPartyError, Verdict};

/// A browser that sends nothing for so long has gone; meanwhile it would hold one of Pinata's places. Less than an upload may take,
/// so that it is told why.
const STALL: Duration = Duration::from_secs(15);

/// A document that is about to come.
#[derive(Clone, Debug)]
pub struct Document {
    /// File name.
    pub name: String,
    /// What it is called; whether it is that is checked.
    pub kind: DocumentType,
    /// More bytes than this it cannot have. `None` when nobody said.
    pub bound: Option<u64>,
}

/// A stored document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Content id.
    pub cid: String,
    /// Its length.
    pub bytes: u64,
}

/// The service. Clones share the verdict on Pinata.
#[derive(Clone, Debug)]
pub struct IpfsService(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Or the variable that is missing.
    pinata: Result<PinataClient, &'static str>,
    verdict: Verdict,
}

impl IpfsService {
    /// Without a client, `pinata` names the variable that is missing.
    pub fn new(pinata: Result<PinataClient, &'static str>, jobs: &Tasks) -> Self {
        Self(Arc::new(Inner { pinata, verdict: Verdict::new("Pinata", jobs) }))
    }

    /// Stores a document while it comes.
    ///
    /// # Errors
    /// The document, the form or Pinata is at fault, checked in this order; nothing is stored then.
    ///
    /// # Cancel safety
    /// Dropped, the upload ends in the middle and nothing is stored. Once the last byte is out, it may be.
    pub async fn upload(
        &self,
        document: &Document,
        pieces: impl Stream<Item = Result<Bytes, FormFault>>,
    ) -> Result<Stored, IpfsError> {
        let mut pieces = pin!(pieces);
        let head = head(&mut pieces).await?;
        let mut inspector = Inspector::new(document.kind, &head)?;
        inspector.inspect(&head)?;
        let (Ok(pinata), Some(bound)) = (&self.0.pinata, document.bound) else {
            // The rules for documents come first, even when nothing can be done with this one.
            while let Some(piece) = next(&mut pieces).await? {
                inspector.inspect(&piece)?;
            }
            inspector.finish()?;
            document.bound.ok_or(FormFault::NoLength)?;
            return Err(self.client().err().unwrap_or(FormFault::NoLength.into()));
        };
        let bound = bound.min(MAX_BYTES);
        let (sink, answer) = pinata.pin(FilePart { name: &document.name, kind: document.kind, bound });
        // Whose turn it is: without it, a browser's silence would look like Pinata's.
        let waits_for_browser = Cell::new(false);
        let waits = &waits_for_browser;
        let pump = async move {
            let mut wanted = sink.push(head).await;
            while wanted {
                waits.set(true);
                let Some(piece) = next(&mut pieces).await? else {
                    let bytes = inspector.finish()?;
                    return Ok(sink.finish(bytes).await.then_some(bytes));
                };
                waits.set(false);
                inspector.inspect(&piece)?;
                wanted = sink.push(piece).await;
            }
            Ok::<_, IpfsError>(None)
        };
        let (mut pump, mut answer) = (pin!(pump), pin!(answer));
        let (pumped, answer) = tokio::select! {
            biased;
            pumped = &mut pump => (pumped?, answer.await),
            // Refused before it was read: there is no use in reading on.
            answer = &mut answer => (None, answer),
        };
        if pumped.is_none() && waits_for_browser.get() && answer.as_ref().is_err_and(is_timeout) {
            return Err(FormFault::Stalled.into());
        }
        let cid = self.judged(answer).map_err(IpfsError::Pinata)?;
        let early = ThirdPartyError::Answer { upstream: "Pinata", why: "it came before the document's end" };
        let bytes = pumped.ok_or(IpfsError::Pinata(early))?;
        Ok(Stored { cid, bytes })
    }

    /// What is known of a document; `None` when it is not pinned.
    ///
    /// # Errors
    /// Pinata is not configured or failed.
    pub async fn record(&self, cid: &ContentId) -> Result<Option<FileRecord>, IpfsError> {
        let found = self.client()?.find(cid).await;
        Ok(self.judged(found).map_err(IpfsError::Pinata)?.into_iter().next())
    }

    /// Removes a document.
    ///
    /// # Errors
    /// It is not pinned; Pinata is not configured or failed.
    pub async fn remove(&self, cid: &ContentId) -> Result<(), IpfsError> {
        let removed = self.client()?.unpin(cid).await;
        match self.judged(removed).map_err(IpfsError::Pinata)? {
            true => Ok(()),
            false => Err(IpfsError::NotPinned(cid.as_str().to_owned())),
        }
    }

    /// Whether Pinata answered last time; asked when that is not known.
    pub async fn health(&self) -> HealthState {
        let Ok(pinata) = self.0.pinata.clone() else { return HealthState::NotConfigured };
        let service = self.clone();
        let ask = async move {
            // The verdict is what was asked for.
            let _ = service.judged(pinata.probe().await);
        };
        self.0.verdict.state(ask).await
    }

    fn client(&self) -> Result<&PinataClient, IpfsError> {
        self.0.pinata.as_ref().map_err(|variable| IpfsError::NotConfigured(variable))
    }

    fn judged<T>(&self, answer: Result<T, ThirdPartyError>) -> Result<T, ThirdPartyError> {
        self.0.verdict.judge(&answer);
        answer
    }
}

fn is_timeout(error: &ThirdPartyError) -> bool {
    matches!(error, ThirdPartyError::Http { cause, .. } if cause.is_timeout() && !cause.is_busy())
}

/// The first [`HEAD_BYTES`] of a document and what came with them, or all of it.
async fn head<S>(pieces: &mut S) -> Result<Bytes, FormFault>
where
    S: Stream<Item = Result<Bytes, FormFault>> + Unpin,
{
    let mut head = BytesMut::new();
    while head.len() < HEAD_BYTES {
        let Some(piece) = next(pieces).await? else { break };
        head.extend_from_slice(&piece);
    }
    Ok(head.freeze())
}

async fn next<S>(pieces: &mut S) -> Result<Option<Bytes>, FormFault>
where
    S: Stream<Item = Result<Bytes, FormFault>> + Unpin,
{
    let next = timeout(STALL, pieces.next()).await.map_err(|_| FormFault::Stalled)?;
    next.transpose()
}
