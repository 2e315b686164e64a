//! Frames of the connection that carries questions and answers of reads (docs/format/reads.md).
//!
//! ```text
//! connection: "QRD1" from the asker, "QRD1" back, then frames both ways
//! frame:      u32 LE length of the rest   u8 kind   u64 LE number of the question   body
//! ```
//!
//! Promise: a length beyond [`RPC_BYTES_MAX`] is an error before anything is held for it, and what
//! is not a frame ends the connection.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::limits::RPC_BYTES_MAX;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What both sides begin with. HTTP/2, on the same port, begins otherwise.
pub const MAGIC: [u8; 4] = *b"QRD1";

/// Kind and number.
const HEAD_BYTES: usize = 1 + 8;
/// Room that is made for what comes next, and what of it may be used up before more is made: small
/// frames, whose bodies still lie in it, share one.
const READ_BYTES: usize = 16 << 10;
const READ_BYTES_MIN: usize = 2 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A `ReadRequest`.
    Ask,
    /// A `ReadReply`.
    Reply,
    /// Nobody waits for the answer any more. No body.
    Cancel,
    /// Asks for a [`Kind::Pong`] of the same number. No body.
    Ping,
    Pong,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Ask => 1,
            Self::Reply => 2,
            Self::Cancel => 3,
            Self::Ping => 4,
            Self::Pong => 5,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        let all = [Self::Ask, Self::Reply, Self::Cancel, Self::Ping, Self::Pong];
        all.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub number: u64,
    pub body: Bytes,
}

/// Appends a frame with a message in it.
///
/// # Errors
/// When the message is larger than a frame may be.
pub fn put_message(
    kind: Kind,
    number: u64,
    message: &impl Message,
    out: &mut BytesMut,
) -> io::Result<()> {
    let len = HEAD_BYTES + message.encoded_len();
    if len > RPC_BYTES_MAX {
        return Err(malformed("a message larger than a frame"));
    }
    out.reserve(4 + len);
    put_head(kind, number, len, out);
    message
        .encode(out)
        .map_err(|_| malformed("room was made for the message"))
}

/// Appends a frame without a body.
pub fn put_bare(kind: Kind, number: u64, out: &mut BytesMut) {
    put_head(kind, number, HEAD_BYTES, out);
}

fn put_head(kind: Kind, number: u64, len: usize, out: &mut BytesMut) {
    out.put_u32_le(u32::try_from(len).expect("a frame is far below 4 GiB"));
    out.put_u8(kind.byte());
    out.put_u64_le(number);
}

/// Takes frames out of a stream of bytes. Asking for the next one may be given up at any time:
/// nothing that was read is lost.
#[derive(Debug)]
pub struct Frames<R> {
    from: R,
    held: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub fn new(from: R) -> Self {
        Self {
            from,
            held: BytesMut::new(),
        }
    }

    /// The next frame; none when the other side ended the connection between two.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = take(&mut self.held)? {
                return Ok(Some(frame));
            }
            if self.held.capacity() - self.held.len() < READ_BYTES_MIN {
                self.held.reserve(READ_BYTES);
            }
            if self.from.read_buf(&mut self.held).await? == 0 {
                return match self.held.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }
}

/// The first frame in `held`, if it is whole.
fn take(held: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some(len) = held.first_chunk::<4>() else {
        return Ok(None);
    };
    let len = u32::from_le_bytes(*len) as usize;
    if !(HEAD_BYTES..=RPC_BYTES_MAX).contains(&len) {
        return Err(malformed("a frame of an impossible length"));
    }
    if held.len() < 4 + len {
        return Ok(None);
    }
    held.advance(4);
    let mut frame = held.split_to(len).freeze();
    let kind = Kind::of(frame.get_u8()).ok_or_else(|| malformed("an unknown kind of frame"))?;
    let number = frame.get_u64_le();
    Ok(Some(Frame {
        kind,
        number,
        body: frame,
    }))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::node::ReadReply;

    use super::*;

    #[tokio::test]
    async fn frames_come_back_however_they_are_cut() {
        let mut bytes = BytesMut::new();
        let reply = ReadReply {
            end: true,
            ..Default::default()
        };
        put_message(Kind::Reply, 7, &reply, &mut bytes).unwrap();
        put_bare(Kind::Ping, u64::MAX, &mut bytes);
        for cut in 1..bytes.len() {
            let (front, back) = bytes.split_at(cut);
            let mut frames = Frames::new(AsyncReadExt::chain(front, back));
            let first = frames.next().await.unwrap().unwrap();
            assert_eq!((first.kind, first.number), (Kind::Reply, 7));
            assert_eq!(ReadReply::decode(first.body).unwrap(), reply);
            let second = frames.next().await.unwrap().unwrap();
            assert_eq!((second.kind, second.number), (Kind::Ping, u64::MAX));
            assert_eq!(frames.next().await.unwrap(), None);
            let mut broken = Frames::new(front);
            while let Ok(Some(_)) = broken.next().await {}
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_is_an_error_before_room_is_made() {
        let endless = [255, 255, 255, 255, 1];
        assert!(Frames::new(&endless[..]).next().await.is_err());
        let short = [3, 0, 0, 0, 1, 0, 0];
        assert!(Frames::new(&short[..]).next().await.is_err());
        let unknown = [9, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(Frames::new(&unknown[..]).next().await.is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut held = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut held) {}
        }
    }
}
