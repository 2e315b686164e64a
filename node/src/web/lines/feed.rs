//! A request's body as blocks of bytes, gzip undone, never more of it in memory than a block.
//!
//! Promise: what is held, and what decoding it takes, is covered by the node's budget for bodies;
//! a body that packs much into little is unpacked only as fast as it is taken.

use std::io::Write;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use model::limits::{LINES_BLOCK_BYTES, LINES_MEMORY_FACTOR};

use super::header_text;
use crate::web::body::{BodyError, Budget, Share};

/// Compressed bytes unpacked at a time: they become a thousand times as many at most.
const PACKED_BYTES: usize = 4 << 10;

/// A body that is being read.
pub struct Feed {
    body: Body,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    /// As it came and not yet unpacked.
    packed: Bytes,
    plain: Vec<u8>,
    /// How much of `plain` makes a block.
    wanted: usize,
    line_bytes_max: usize,
    ended: bool,
    share: Share,
}

impl Feed {
    pub fn new(
        headers: &HeaderMap,
        body: Body,
        budget: &Budget,
        line_bytes_max: usize,
    ) -> Result<Self, BodyError> {
        let decoder = match header_text(headers, header::CONTENT_ENCODING) {
            "" | "identity" => None,
            "gzip" | "x-gzip" => Some(MultiGzDecoder::new(Vec::new())),
            other => {
                let text = format!("unsupported content encoding {other:?}, known are gzip");
                return Err(BodyError::Broken(text));
            }
        };
        Ok(Self {
            body,
            decoder,
            packed: Bytes::new(),
            plain: Vec::new(),
            wanted: LINES_BLOCK_BYTES.min(line_bytes_max),
            line_bytes_max,
            ended: false,
            share: budget.share(),
        })
    }

    /// Reads until a block is there or the body ended; then the answer is true.
    pub async fn fill(&mut self) -> Result<bool, BodyError> {
        while self.plain.len() < self.wanted && !self.ended {
            if self.packed.is_empty() {
                self.receive().await?;
            }
            self.unpack()?;
            let held = self.packed.len() + LINES_MEMORY_FACTOR * self.plain.len();
            self.share.cover(held)?;
        }
        Ok(self.ended)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.plain
    }

    /// Lets go of the first `done` bytes. None at all means that a line is longer than the block.
    pub fn advance(&mut self, done: usize) -> Result<(), BodyError> {
        self.plain.drain(..done);
        if done > 0 {
            self.wanted = LINES_BLOCK_BYTES.min(self.line_bytes_max);
        } else if self.plain.len() >= self.line_bytes_max {
            return Err(BodyError::LineTooLong(self.line_bytes_max));
        } else {
            self.wanted = (self.plain.len() * 2).clamp(self.wanted, self.line_bytes_max);
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<(), BodyError> {
        let broken = |e: axum::Error| BodyError::Broken(e.to_string());
        match self.body.frame().await.transpose().map_err(broken)? {
            Some(frame) => self.packed = frame.into_data().unwrap_or_default(),
            None => self.ended = true,
        }
        Ok(())
    }

    fn unpack(&mut self) -> Result<(), BodyError> {
        let broken = |e: std::io::Error| BodyError::Broken(format!("gzip: {e}"));
        let Some(decoder) = &mut self.decoder else {
            self.plain
                .extend_from_slice(&std::mem::take(&mut self.packed));
            return Ok(());
        };
        while !self.packed.is_empty() && self.plain.len() < self.wanted {
            let piece = self.packed.split_to(self.packed.len().min(PACKED_BYTES));
            decoder.write_all(&piece).map_err(broken)?;
            self.plain.append(decoder.get_mut());
        }
        if self.ended {
            decoder.try_finish().map_err(broken)?;
            self.plain.append(decoder.get_mut());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::http::HeaderValue;
    use futures::stream;

    use super::*;

    fn pieces(bytes: Vec<u8>, length: usize) -> Body {
        let pieces: Vec<_> = bytes.chunks(length).map(Bytes::copy_from_slice).collect();
        Body::from_stream(stream::iter(
            pieces.into_iter().map(Ok::<_, std::io::Error>),
        ))
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn feed(encoding: &'static str, body: Body, line_bytes_max: usize) -> Feed {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        Feed::new(&headers, body, &Budget::default(), line_bytes_max).unwrap()
    }

    async fn all(mut feed: Feed) -> Result<(Vec<u8>, usize), BodyError> {
        let (mut all, mut most) = (Vec::new(), 0);
        loop {
            let last = feed.fill().await?;
            most = most.max(feed.bytes().len());
            all.extend_from_slice(feed.bytes());
            if last {
                return Ok((all, most));
            }
            feed.advance(feed.bytes().len())?;
        }
    }

    #[tokio::test]
    async fn a_long_body_is_held_in_blocks() {
        let plain: Vec<u8> = (0..10 << 20).map(|i| (i % 251) as u8).collect();
        let (got, most) = all(feed("", pieces(plain.clone(), 100_000), 1 << 20))
            .await
            .unwrap();
        assert!(got == plain && most < 2 << 20, "{most}");
        let packed = [gzip(&plain[..5 << 20]), gzip(&plain[5 << 20..])].concat();
        let (got, _) = all(feed("gzip", pieces(packed, 1000), 1 << 20))
            .await
            .unwrap();
        assert!(got == plain);
    }

    #[tokio::test]
    async fn a_bomb_is_unpacked_as_it_is_taken() {
        let bomb = gzip(&vec![0; 64 << 20]);
        let feed = feed("gzip", Body::from(bomb), 1 << 20);
        let (got, most) = all(feed).await.unwrap();
        assert_eq!(got.len(), 64 << 20);
        assert!(most <= (1 << 20) + 1100 * PACKED_BYTES, "{most}");
    }

    #[tokio::test]
    async fn what_is_broken_is_told() {
        let cut = gzip(b"hello");
        let cut = Body::from(cut[..cut.len() - 4].to_vec());
        assert!(matches!(
            all(feed("gzip", cut, 100)).await,
            Err(BodyError::Broken(_))
        ));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
        assert!(Feed::new(&headers, Body::empty(), &Budget::default(), 1).is_err());
        let mut long = feed("", Body::from(vec![b'x'; 500]), 100);
        assert!(!long.fill().await.unwrap() || long.bytes().len() == 500);
    }

    #[tokio::test]
    async fn a_line_may_be_longer_than_a_block_but_not_endless() {
        let line_bytes_max = 3 << 20;
        let body = pieces(vec![b'x'; 8 << 20], 10_000);
        let mut feed = feed("", body, line_bytes_max);
        let mut tries = 0;
        let error = loop {
            assert!(!feed.fill().await.unwrap());
            tries += 1;
            if let Err(error) = feed.advance(0) {
                break error;
            }
        };
        assert_eq!(error, BodyError::LineTooLong(line_bytes_max));
        assert!(tries <= 4 && feed.bytes().len() < line_bytes_max + 10_000);
    }
}
