//! Why the disk did not give what the engine needed.

use std::io;

/// What the caller does: after `Io` stop the node; after `Corrupt` quarantine this replica and
/// fetch the shard from a peer.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{action} {file}")]
    Io {
        action: &'static str,
        file: String,
        #[source]
        source: io::Error,
    },
    #[error("{file}: {section} is corrupt: {reason}")]
    Corrupt {
        file: String,
        section: &'static str,
        reason: String,
    },
}

/// Why a shard does not open.
pub type OpenError = StorageError;
/// Why a snapshot was not installed. After `Corrupt` the old state stands, in memory and on disk;
/// after `Io` either does.
pub type InstallError = StorageError;
/// Why a command could not be applied; nothing was changed.
pub type ApplyError = StorageError;

impl StorageError {
    pub fn io(action: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            action,
            file: file.into(),
            source,
        }
    }

    pub fn corrupt(file: impl Into<String>, section: &'static str, reason: impl ToString) -> Self {
        Self::Corrupt {
            file: file.into(),
            section,
            reason: reason.to_string(),
        }
    }

    /// The text with its cause, for errors that carry only a text.
    pub fn full_text(&self) -> String {
        match self {
            Self::Io { source, .. } => format!("{self}: {source}"),
            Self::Corrupt { .. } => self.to_string(),
        }
    }
}

/// For callers that speak `io::Error`.
impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io { ref source, .. } => io::Error::new(source.kind(), error.full_text()),
            StorageError::Corrupt { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}
