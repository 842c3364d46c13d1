//! What Pinata's two APIs answer.

use serde::Deserialize;
use serde_json::Value;

use super::model::FileRecord;

/// Both APIs' errors.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Fault {
    #[serde(default)]
    pub(super) error: FaultBody,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct FaultBody {
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LegacyReceipt {
    pub(super) ipfs_hash: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct LegacyRows {
    pub(super) rows: Vec<LegacyRow>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LegacyRow {
    pub(super) ipfs_pin_hash: Option<String>,
    pub(super) size: u64,
    pub(super) date_pinned: Option<String>,
    pub(super) date_unpinned: Option<String>,
    #[serde(default)]
    pub(super) metadata: Value,
}

impl From<LegacyRow> for FileRecord {
    fn from(row: LegacyRow) -> Self {
        Self { id: None, size: row.size, pinned_at: row.date_pinned, metadata: row.metadata }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct V3<T> {
    pub(super) data: T,
}

#[derive(Debug, Deserialize)]
pub(super) struct V3Files {
    pub(super) files: Option<Vec<V3File>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct V3File {
    pub(super) id: Option<String>,
    pub(super) cid: String,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) size: u64,
    pub(super) mime_type: Option<String>,
    pub(super) created_at: Option<String>,
    #[serde(default)]
    pub(super) keyvalues: Value,
}

impl From<V3File> for FileRecord {
    fn from(file: V3File) -> Self {
        let metadata = serde_json::json!({
            "name": file.name, "mimeType": file.mime_type, "keyvalues": file.keyvalues,
        });
        Self { id: file.id, size: file.size, pinned_at: file.created_at, metadata }
    }
}
