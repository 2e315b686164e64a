//! What a browser would have escaped in a request's target, escaped before hyper reads it; and what Go's
//! server would say of what hyper cannot read.
//!
//! Go's server takes quotes, angle brackets and bytes beyond ASCII as they come, and `#` as any other
//! byte; hyper refuses the first and cuts at the last. `curl ':9090/api/v1/query?query=up{job="x"}'`
//! sends them bare. So the first lines of HTTP/1 requests are looked at on their way in.
//!
//! Promise: only a request line is ever changed, never a body: behind the first request that may
//! have one, or asks for another protocol, bytes pass as they are, to the end of the connection.
//! Costs nothing there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose request lines are escaped.
pub struct Escaped<C> {
    connection: C,
    scanner: Scanner,
    /// Bytes that came out longer than they went in, and how many of them are handed out.
    waiting: Vec<u8>,
    given: usize,
    /// How much of [`TOLD`] has been written.
    told: usize,
}

/// What hyper answers to bytes that are no request to it, and Go's server to those that are none to it.
/// No answer of ours is like the first: it has a date.
const UNREAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const TOLD: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    connection: close\r\n\r\n400 Bad Request";

impl<C> Escaped<C> {
    pub fn new(connection: C) -> Self {
        Self {
            connection,
            scanner: Scanner::default(),
            waiting: Vec::new(),
            given: 0,
            told: 0,
        }
    }

    fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) {
        let rest = &self.waiting[self.given..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.given += count;
        if self.given == self.waiting.len() {
            (self.waiting, self.given) = (Vec::new(), 0);
        }
    }
}

impl<C: AsyncWrite + Unpin> Escaped<C> {
    /// Writes [`TOLD`] where [`UNREAD`] was to be.
    fn poll_tell(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while self.told < TOLD.len() {
            let rest = &TOLD[self.told..];
            match ready!(Pin::new(&mut self.connection).poll_write(context, rest))? {
                0 => return Poll::Ready(Ok(0)),
                written => self.told += written,
            }
        }
        self.told = 0;
        Poll::Ready(Ok(UNREAD.len()))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Escaped<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.connection).poll_read(context, buffer))?;
            let Some(longer) = self.scanner.scan(&buffer.filled()[before..]) else {
                return Poll::Ready(Ok(()));
            };
            buffer.set_filled(before);
            self.waiting = longer;
        }
        self.hand_out(buffer);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Escaped<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes == UNREAD {
            return self.poll_tell(context);
        }
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [piece] = pieces
            && **piece == *UNREAD
        {
            return self.poll_tell(context);
        }
        Pin::new(&mut self.connection).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

/// Where in a request the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Method,
    Target,
    Version,
    Header,
    /// Not to be looked at any more.
    Beyond,
}

/// Headers after which the next bytes need not be a request line.
const ENDING: [&[u8]; 4] = [
    b"content-length",
    b"transfer-encoding",
    b"upgrade",
    b"expect",
];
/// As much of a line as tells which of them it is.
const START_BYTES: usize = 17;

/// Follows requests byte by byte, over any cut.
#[derive(Debug)]
struct Scanner {
    place: Place,
    /// The first bytes of the method or header, in lower case.
    start: [u8; START_BYTES],
    len: usize,
    /// Whether the next line break is followed by something else than headers or a request line.
    is_last: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            place: Place::Method,
            start: [0; START_BYTES],
            len: 0,
            is_last: false,
        }
    }
}

impl Scanner {
    /// What to read instead, if that is anything else.
    fn scan(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut longer: Option<Vec<u8>> = None;
        for (at, &byte) in bytes.iter().enumerate() {
            if self.place == Place::Beyond {
                if let Some(longer) = &mut longer {
                    longer.extend_from_slice(&bytes[at..]);
                }
                break;
            }
            if self.place == Place::Target && is_refused(byte) {
                let longer = longer.get_or_insert_with(|| bytes[..at].to_vec());
                longer.extend_from_slice(format!("%{byte:02X}").as_bytes());
                continue;
            }
            self.step(byte);
            if let Some(longer) = &mut longer {
                longer.push(byte);
            }
        }
        longer
    }

    fn step(&mut self, byte: u8) {
        match (self.place, byte) {
            (Place::Method, b'\r' | b'\n') if self.len == 0 => {}
            // HTTP/2 begins with a request of its own.
            (Place::Method, b' ') if self.start() == b"pri" => self.place = Place::Beyond,
            (Place::Method, b' ') => self.place = Place::Target,
            (Place::Target, b' ') => self.place = Place::Version,
            (Place::Method | Place::Target | Place::Version, b'\n') => self.begin(Place::Header),
            (Place::Header, b'\n') => self.end_header(),
            (Place::Method | Place::Header, _) => self.note(byte),
            (Place::Target | Place::Version | Place::Beyond, _) => {}
        }
    }

    fn end_header(&mut self) {
        let line = self.start();
        if line.is_empty() || line == b"\r" {
            let next = match self.is_last {
                true => Place::Beyond,
                false => Place::Method,
            };
            return self.begin(next);
        }
        let folds = line.starts_with(b" ") || line.starts_with(b"\t");
        self.is_last |= folds || ENDING.iter().any(|name| line.starts_with(name));
        self.begin(Place::Header);
    }

    fn begin(&mut self, place: Place) {
        (self.place, self.len) = (place, 0);
    }

    fn note(&mut self, byte: u8) {
        if self.len < START_BYTES {
            self.start[self.len] = byte.to_ascii_lowercase();
            self.len += 1;
        }
    }

    fn start(&self) -> &[u8] {
        &self.start[..self.len]
    }
}

/// What hyper refuses in a target, or reads otherwise than Go does.
fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`' | 0x80..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out when `bytes` arrive in pieces of `size`.
    fn seen(bytes: &[u8], size: usize) -> String {
        let mut scanner = Scanner::default();
        let pieces = bytes.chunks(size);
        let all = pieces.flat_map(|piece| scanner.scan(piece).unwrap_or_else(|| piece.to_vec()));
        String::from_utf8(all.collect()).unwrap()
    }

    #[test]
    fn targets_are_escaped_in_every_cut() {
        let sent =
            "GET /q?query=up{a=\"é\"}>0#x HTTP/1.1\r\nHost: \"h\"\r\n\r\nGET /\"`< HTTP/1.1\n\n";
        let read = "GET /q?query=up{a=%22%C3%A9%22}%3E0%23x HTTP/1.1\r\nHost: \"h\"\r\n\r\n\
                    GET /%22%60%3C HTTP/1.1\n\n";
        for size in 1..sent.len() {
            assert_eq!(seen(sent.as_bytes(), size), read, "{size}");
        }
    }

    #[test]
    fn behind_a_body_nothing_is_touched() {
        let next = "GET /\"x\" HTTP/1.1\r\n\r\n";
        for header in [
            "Content-Length: 3",
            "content-length:0",
            "TRANSFER-ENCODING: chunked",
            "Upgrade: h2c",
            "Expect: 100-continue",
            " folded: x",
        ] {
            let sent = format!("POST /\"y HTTP/1.1\r\nA: b\r\n{header}\r\nC: d\r\n\r\n{next}");
            let read = sent.replacen("\"y", "%22y", 1);
            for size in [1, 7, 1000] {
                assert_eq!(seen(sent.as_bytes(), size), read, "{header}");
            }
        }
        let second_version = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /\"x\" HTTP/1.1";
        assert_eq!(seen(second_version.as_bytes(), 5), second_version);
    }

    proptest! {
        /// Whatever needs no escape passes as it is, in any cut.
        #[test]
        fn other_bytes_are_kept(text in "([ -!$-;=?-_a-~\r\n]|GET /|Content-Length){0,60}", size in 1_usize..20) {
            prop_assume!(!text.contains('"'));
            prop_assert_eq!(seen(text.as_bytes(), size), text);
        }
    }

    #[tokio::test]
    async fn a_reader_with_little_room_reads_all_of_it() {
        use tokio::io::AsyncReadExt;
        let sent: &[u8] = b"GET /\"\"\"\" HTTP/1.1\r\n\r\n";
        let mut reader = Escaped::new(sent);
        let mut read = Vec::new();
        let mut room = [0; 3];
        loop {
            match reader.read(&mut room).await.unwrap() {
                0 => break,
                count => read.extend_from_slice(&room[..count]),
            }
        }
        assert_eq!(read, b"GET /%22%22%22%22 HTTP/1.1\r\n\r\n");
    }
}
