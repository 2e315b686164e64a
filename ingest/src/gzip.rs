//! Undoes `Content-Encoding: gzip` of a scrape's answer or a push within a bound (RFC 1952).

use std::io::Read;

use flate2::bufread::MultiGzDecoder;

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum GzipError {
    #[error("body is larger than {bytes_max} bytes decompressed")]
    TooLarge { bytes_max: usize },
    #[error("body is not gzip")]
    Malformed(#[source] std::io::Error),
}

/// Decompresses `body`, never holding more than `bytes_max` and one byte.
pub fn decompress(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, GzipError> {
    let mut plain = Vec::new();
    let bounded = (bytes_max as u64).saturating_add(1);
    MultiGzDecoder::new(body)
        .take(bounded)
        .read_to_end(&mut plain)
        .map_err(GzipError::Malformed)?;
    if plain.len() > bytes_max {
        return Err(GzipError::TooLarge { bytes_max });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let body = gzip(&vec![0; 1 << 20]);
        assert_eq!(decompress(&body, 1 << 20).unwrap().len(), 1 << 20);
        assert!(matches!(
            decompress(&body, 1000),
            Err(GzipError::TooLarge { bytes_max: 1000 })
        ));
    }

    #[test]
    fn what_is_no_gzip_is_told() {
        assert!(matches!(
            decompress(b"a 1\n", 10),
            Err(GzipError::Malformed(_))
        ));
        let cut = &gzip(b"a 1\n")[..12];
        assert!(matches!(decompress(cut, 10), Err(GzipError::Malformed(_))));
    }
}
