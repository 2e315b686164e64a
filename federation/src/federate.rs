//! An answer of `/federate`: pages of newest samples as pieces of an exposition.
//!
//! Promise: pieces of bounded size, each made when it is asked for, the first with the first page.
//! An error is the last piece: whoever sends them must break off there. Not here: what the text
//! looks like (see `exposition`, `families`).

use std::vec;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use model::Newest;
use model::limits::EXPOSITION_PIECE_BYTES;
use model::newest::Pages;
use model::source::SourceError;

use crate::exposition::Writer;

struct Pieces<W> {
    pages: BoxStream<'static, Result<Vec<Newest>, SourceError>>,
    page: vec::IntoIter<Newest>,
    writer: W,
    ended: bool,
}

/// Each piece is little longer than [`EXPOSITION_PIECE_BYTES`] at most, or one family.
pub fn pieces<W: Writer>(
    pages: Pages,
    writer: W,
) -> impl Stream<Item = Result<Bytes, SourceError>> + Send {
    let pieces = Pieces {
        pages,
        page: Vec::new().into_iter(),
        writer,
        ended: false,
    };
    futures::stream::unfold(pieces, async |mut pieces| {
        let piece = pieces.next().await.transpose()?;
        pieces.ended |= piece.is_err();
        Some((piece, pieces))
    })
}

impl<W: Writer> Pieces<W> {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let mut out = Vec::with_capacity(EXPOSITION_PIECE_BYTES + EXPOSITION_PIECE_BYTES / 8);
        while !self.ended && out.len() < EXPOSITION_PIECE_BYTES {
            if let Some(newest) = self.page.next() {
                self.writer.write(&newest, &mut out);
                continue;
            }
            if !out.is_empty() {
                // What is written need not wait for a page that may have to come from afar.
                break;
            }
            match self.pages.next().await.transpose()? {
                Some(page) => self.page = page.into_iter(),
                None => {
                    self.writer.finish(&mut out);
                    self.ended = true;
                }
            }
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }
}

#[cfg(test)]
mod tests {
    use model::{Labels, Timestamp};

    use super::*;
    use crate::{Escaping, Exposition};

    fn page(names: &[&str]) -> Result<Vec<Newest>, SourceError> {
        let newest = |name: &&str| Newest {
            labels: Labels::from_pairs([("__name__", *name), ("v", &"v".repeat(1000))]),
            at: Timestamp(1),
            value: 1.0,
            histogram: None,
        };
        Ok(names.iter().map(newest).collect())
    }

    async fn all(pages: Vec<Result<Vec<Newest>, SourceError>>) -> Vec<Result<Bytes, SourceError>> {
        let pages = futures::stream::iter(pages).boxed();
        let writer = Exposition::new(&Labels::default(), Escaping::Dots);
        pieces(pages, writer).collect().await
    }

    #[tokio::test]
    async fn pieces_are_bounded_and_whole_lines() {
        let pieces = all(vec![page(&["a"; 150]), page(&["b"])]).await;
        assert!(pieces.len() > 2);
        for piece in pieces {
            let piece = piece.unwrap();
            assert!(piece.len() < EXPOSITION_PIECE_BYTES + 2000);
            assert!(piece.ends_with(b"\n"));
        }
    }

    #[tokio::test]
    async fn an_error_is_the_last_piece() {
        let lost = SourceError::Unavailable(vec![model::ShardId(3)]);
        let pieces = all(vec![page(&["a"]), Err(lost.clone()), page(&["b"])]).await;
        assert_eq!(pieces.len(), 2);
        assert!(pieces[0].is_ok());
        assert_eq!(pieces[1], Err(lost));
    }

    #[tokio::test]
    async fn nothing_is_no_piece() {
        assert!(all(vec![]).await.is_empty());
    }
}
