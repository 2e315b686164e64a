//! Reading sealed segments again, piece by piece, to find what rotted before somebody needs it.
//!
//! Promise: every byte of a segment that was whole when it was sealed is under a checksum that is
//! looked at; a piece holds little more than a batch in memory. It repairs nothing: when the log is
//! opened next, groups that miss something of a damaged segment go into quarantine.

use std::io;

use crate::SegmentedLog;
use crate::batch::{HEADER_BYTES, Header, Kind};
use crate::recovery::list;
use crate::segment::{Footer, path_of, read_footer, scan};

/// Read before a caller has its turn, and a batch more.
const PIECE_BYTES: u64 = 1 << 20;

/// A sealed segment, and how far it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    number: u32,
    len: u64,
    at: u64,
    lsn: u64,
}

/// What a piece said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    More,
    Whole,
    /// Nobody needed the segment any more.
    Gone,
    /// Where, and what of it.
    Damaged(String),
}

impl Check {
    /// How many pieces there are, about.
    pub fn pieces(&self) -> u64 {
        self.len.div_ceil(PIECE_BYTES)
    }
}

impl SegmentedLog {
    /// Every segment but the one that is being written.
    pub async fn sealed(&self) -> io::Result<Vec<Check>> {
        let mut numbers = list(self.disk(), self.dir()).await?;
        numbers.pop();
        let mut checks = Vec::with_capacity(numbers.len());
        for number in numbers {
            match self.disk().len(&path_of(self.dir(), number)).await {
                Ok(len) => checks.push(Check {
                    number,
                    len,
                    at: 0,
                    lsn: 0,
                }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(checks)
    }

    /// Checks the next batches of a segment. Behind damage it does not go on.
    pub async fn check_piece(&self, check: &mut Check) -> io::Result<Checked> {
        let checked = match self.check_batches(check).await {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Checked::Gone,
            checked => checked?,
        };
        if let Checked::Damaged(_) = checked {
            self.metrics().damaged_segments.inc();
        }
        Ok(checked)
    }

    async fn check_batches(&self, check: &mut Check) -> io::Result<Checked> {
        let path = path_of(self.dir(), check.number);
        let damaged = |at: u64, what: &str| {
            Checked::Damaged(format!("{} offset {at}: {what}", path.display()))
        };
        let end = check.at + PIECE_BYTES;
        while check.at < end {
            let at = check.at;
            let bytes = self.disk().read(&path, at, HEADER_BYTES).await?;
            let Ok(header) = Header::parse(&bytes) else {
                return Ok(damaged(at, "no batch begins here"));
            };
            let extent = usize::try_from(header.extent()).map_err(io::Error::other)?;
            if header.extent() > check.len - at || header.lsn <= check.lsn {
                return Ok(damaged(at, "a batch that cannot stand here"));
            }
            let bytes = self.disk().read(&path, at, extent).await?;
            let pieces = scan(&bytes, check.number, header.log, check.lsn);
            let whole = pieces.len() == 1 && pieces.iter().all(|piece| piece.is_whole());
            // The summary of a footer holds places before it, so it is judged in its place.
            if header.kind != Kind::Footer && (!whole || bytes.len() != extent) {
                return Ok(damaged(at, "a batch differs from what was written"));
            }
            (check.at, check.lsn) = (at + header.extent(), header.lsn);
            if check.at == check.len {
                let footer = self.footer_is_whole(check, header.log).await?;
                return Ok(match footer {
                    true => Checked::Whole,
                    false => damaged(at, "the footer differs from what was written"),
                });
            }
        }
        Ok(Checked::More)
    }

    async fn footer_is_whole(&self, check: &Check, log: u64) -> io::Result<bool> {
        let path = path_of(self.dir(), check.number);
        let footer = read_footer(self.disk(), &path, check.number, log, check.len).await?;
        Ok(matches!(footer, Footer::Whole(..)))
    }
}
