//! One answer of `/federate` over a connection of its own, as a parent's scrape is: when its first
//! byte of the body came, when the last, and what it held.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
pub struct Fetched {
    pub first_byte: Duration,
    pub total: Duration,
    pub bytes: usize,
    /// Lines that are no comment; unknown where the answer is compressed.
    pub series: Option<usize>,
}

/// Asks for everything. Anything but a whole answer is an error.
pub fn fetch(address: SocketAddr, gzip: bool) -> anyhow::Result<Fetched> {
    let encoding = if gzip {
        "Accept-Encoding: gzip\r\n"
    } else {
        ""
    };
    let request = format!(
        "GET /federate?match[]=%7B__name__%3D~%22.%2B%22%7D HTTP/1.1\r\nHost: {address}\r\n\
         {encoding}Connection: close\r\n\r\n"
    );
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let began = Instant::now();
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = vec![0; 256 << 10];
    let mut first_byte = None;
    let mut head_ends = None;
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..read]);
        if head_ends.is_none() {
            head_ends = answer.windows(4).position(|w| w == b"\r\n\r\n");
        }
        if head_ends.is_some_and(|at| answer.len() > at + 4) {
            first_byte.get_or_insert_with(|| began.elapsed());
        }
    }
    let total = began.elapsed();
    let head_ends = head_ends.context("no answer")?;
    let head = String::from_utf8_lossy(&answer[..head_ends]).to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 200"), "{head}");
    let body = &answer[head_ends + 4..];
    let body = match head.contains("transfer-encoding: chunked") {
        true => unchunked(body)?,
        false => body.to_vec(),
    };
    let lines = || body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let series = (!gzip).then(|| lines().filter(|line| line[0] != b'#').count());
    Ok(Fetched {
        first_byte: first_byte.context("an empty body")?,
        total,
        bytes: answer.len(),
        series,
    })
}

/// RFC 9112, 7.1; one that lacks its last chunk is broken off.
fn unchunked(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(rest.len());
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n");
        let end = end.context("broken off")?;
        let length = std::str::from_utf8(&rest[..end])?;
        let length =
            usize::from_str_radix(length.split(';').next().unwrap_or_default().trim(), 16)?;
        rest = &rest[end + 2..];
        if length == 0 {
            return Ok(body);
        }
        if rest.len() < length + 2 {
            bail!("broken off");
        }
        body.extend_from_slice(&rest[..length]);
        rest = &rest[length + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_without_its_end_is_no_body() {
        assert_eq!(
            unchunked(b"3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n").unwrap(),
            b"abcd"
        );
        for cut in [&b"3\r\nabc\r\n"[..], b"3\r\nab", b""] {
            assert!(unchunked(cut).is_err());
        }
    }
}
