//! Forms as `multipart/form-data` (RFC 7578): `curl -F query=up`.
//!
//! Promise: a body that does not end as it should has nothing in it, as in Go; files are left out; each
//! byte is looked at a few times at most. Not here: names in other encodings than UTF-8.

/// The boundary that a content type names, if it is one of such forms.
pub fn boundary(content_type: &str) -> Option<String> {
    let mut pieces = content_type.split(';');
    let media = pieces.next()?.trim();
    if !media.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(content_type, "boundary")?;
    (!boundary.is_empty()).then_some(boundary)
}

/// Names and values, in order.
pub fn read(body: &[u8], boundary: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields(body, boundary).unwrap_or_default()
}

/// `None` when the last boundary is missing or a part has no headers.
fn fields(body: &[u8], boundary: &str) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let dashed = format!("--{boundary}");
    let mut rest = body;
    // Whatever stands before the first boundary is nobody's.
    loop {
        let (line, tail) = line(rest)?;
        match kind(line, dashed.as_bytes()) {
            Some(Line::Next) => {
                rest = tail;
                break;
            }
            Some(Line::End) => return Some(Vec::new()),
            None => rest = tail,
        }
    }
    let mut fields = Vec::new();
    loop {
        let (name, content) = headers(rest)?;
        let (value, end, tail) = content_of(content, dashed.as_bytes())?;
        if let Some(name) = name {
            fields.push((name, value.to_vec()));
        }
        match end {
            Line::End => return Some(fields),
            Line::Next => rest = tail,
        }
    }
}

enum Line {
    Next,
    End,
}

/// Whether a line is the boundary, or the last one.
fn kind(line: &[u8], dashed: &[u8]) -> Option<Line> {
    let rest = line.strip_prefix(dashed)?.trim_ascii();
    match rest {
        b"" => Some(Line::Next),
        b"--" => Some(Line::End),
        _ => None,
    }
}

/// A line without its break, and what follows. The last one may have none.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if bytes.is_empty() {
        return None;
    }
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let (line, rest) = match end {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &bytes[bytes.len()..]),
    };
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest))
}

/// What a field is called, unless it is a file or nothing; and what comes behind its headers.
fn headers(mut rest: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    let mut name = None;
    loop {
        let (header, tail) = line(rest)?;
        rest = tail;
        if header.is_empty() {
            return Some((name, rest));
        }
        let header = String::from_utf8_lossy(header);
        let (key, value) = header.split_once(':')?;
        let is_field = value.trim_start().starts_with("form-data");
        if key.eq_ignore_ascii_case("content-disposition") && is_field {
            let field = parameter(value, "name").filter(|name| !name.is_empty());
            name = field
                .filter(|_| parameter(value, "filename").is_none())
                .map(String::into_bytes);
        }
    }
}

/// Up to the next boundary: the content, which boundary, and what follows.
fn content_of<'a>(content: &'a [u8], dashed: &[u8]) -> Option<(&'a [u8], Line, &'a [u8])> {
    let mut rest = content;
    loop {
        let at = content.len() - rest.len();
        let (line, tail) = line(rest)?;
        if let Some(end) = kind(line, dashed) {
            let value = &content[..at];
            let value = value.strip_suffix(b"\n").unwrap_or(value);
            return Some((value.strip_suffix(b"\r").unwrap_or(value), end, tail));
        }
        rest = tail;
    }
}

/// Characters that must be quoted (RFC 2045).
const SPECIAL: [char; 15] = [
    '(', ')', '<', '>', '@', ',', ';', ':', '\\', '"', '/', '[', ']', '?', '=',
];

/// A parameter of a header, in quotes or not.
fn parameter(header: &str, name: &str) -> Option<String> {
    let mut rest = &header[header.find(';')? + 1..];
    loop {
        let (key, tail) = rest.split_once('=')?;
        let (value, tail) = value(tail);
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = tail.trim_start().strip_prefix(';')?;
    }
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            // Before anything else it stands for itself, as in Go: browsers send paths so.
            '\\' if quoted[at + 1..].starts_with(SPECIAL) => {
                value.extend(chars.next().map(|(_, escaped)| escaped));
            }
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: &str = "hello\r\n--BB\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\n1+1\r\n\
        --BB \r\ncontent-disposition: form-data; name=time\r\nContent-Type: text/plain\r\n\r\n5\r\n6\r\n\
        --BB\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nno\r\n--BB--\r\nbye";

    fn seen(body: &str) -> Vec<(String, String)> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let fields = read(body.as_bytes(), "BB").into_iter();
        fields.map(|(n, v)| (text(n), text(v))).collect()
    }

    #[test]
    fn fields_are_read_and_files_are_not() {
        let own = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let fields = [own("query", "1+1"), own("time", "5\r\n6")];
        assert_eq!(seen(FORM), fields);
        let bare = FORM.replace("\r\n", "\n");
        assert_eq!(seen(&bare), [own("query", "1+1"), own("time", "5\n6")]);
        assert!(seen(&FORM.replace("--BB--", "")).is_empty());
        assert!(seen("--BB--").is_empty());
        assert!(seen("").is_empty());
    }

    #[test]
    fn a_boundary_stands_in_the_content_type() {
        for (kind, found) in [
            ("multipart/form-data; boundary=BB", Some("BB")),
            (
                "Multipart/Form-Data; charset=utf-8; Boundary=\"B\\\"B\"",
                Some("B\"B"),
            ),
            ("multipart/form-data; boundary=\"a\\b\"", Some("a\\b")),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data", None),
            ("multipart/mixed; boundary=BB", None),
            ("multipart/form-data; x", None),
        ] {
            assert_eq!(boundary(kind).as_deref(), found, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_a_form(body in "(--BB|--|\r\n|\n|[a-z:;=\" ]|Content-Disposition: form-data; name=){0,40}") {
            read(body.as_bytes(), "BB");
            boundary(&body);
        }
    }
}
