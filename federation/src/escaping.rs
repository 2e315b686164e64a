//! Names for readers that cannot take UTF-8, and which scheme a reader of text asked for.
//!
//! The schemes are those of Prometheus' "UTF-8 support" proposal (prometheus/proposals 0028), the
//! negotiation that of prometheus/common's `expfmt.Negotiate`, both checked against Prometheus
//! 3.5. Not here: other forms than text (see `format`).

use std::borrow::Cow;
use std::fmt::Write;

/// How a name that is not `[a-zA-Z_:][a-zA-Z0-9_:]*` is written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Escaping {
    /// Every other character becomes `_`.
    #[default]
    Underscores,
    /// `.` becomes `_dot_`, `_` becomes `__`, every other character `__`.
    Dots,
    /// `U__` and the code points in hexadecimal: can be undone.
    Values,
    /// As it is, in quotes.
    AllowUtf8,
}

impl Escaping {
    const ALL: [Self; 4] = [Self::Underscores, Self::Dots, Self::Values, Self::AllowUtf8];

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.as_str() == name)
    }

    /// As Accept and Content-Type write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
            Self::AllowUtf8 => "allow-utf-8",
        }
    }

    /// The Content-Type of the text format in this scheme.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Underscores => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            Self::Dots => "text/plain; version=0.0.4; charset=utf-8; escaping=dots",
            Self::Values => "text/plain; version=0.0.4; charset=utf-8; escaping=values",
            Self::AllowUtf8 => "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8",
        }
    }

    /// The scheme an Accept header asks for: the last known one named up to the first range, by
    /// falling preference, that the text format satisfies.
    pub fn negotiate(accept: &str) -> Self {
        let mut scheme = Self::default();
        for range in by_preference(accept) {
            let asked = range.parameter("escaping").and_then(Self::of_name);
            scheme = asked.unwrap_or(scheme);
            let version = range.parameter("version").unwrap_or_default();
            if range.kind == "text/plain" && matches!(version, "" | "0.0.4") {
                break;
            }
        }
        scheme
    }

    /// `name` in this scheme.
    pub fn escape(self, name: &str) -> Cow<'_, str> {
        if self == Self::AllowUtf8 || is_plain(name) {
            return Cow::Borrowed(name);
        }
        let mut out = String::with_capacity(name.len() + 8);
        if self == Self::Values {
            out.push_str("U__");
        }
        for (at, c) in name.char_indices() {
            match (self, c) {
                (Self::Dots | Self::Values, '_') => out.push_str("__"),
                (Self::Dots, '.') => out.push_str("_dot_"),
                _ if is_plain_at(at, c) => out.push(c),
                (Self::Dots, _) => out.push_str("__"),
                (Self::Values, _) => {
                    write!(out, "_{:x}_", u32::from(c)).expect("a String takes all");
                }
                _ => out.push('_'),
            }
        }
        Cow::Owned(out)
    }
}

/// Undoes [`Escaping::Values`]; a text that is not of that form stays as it is.
pub fn unescape_values(name: &str) -> Cow<'_, str> {
    let restored = name.strip_prefix("U__").and_then(restore);
    restored.map_or(Cow::Borrowed(name), Cow::Owned)
}

fn restore(escaped: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = escaped;
    while let Some((plain, tail)) = rest.split_once('_') {
        out.push_str(plain);
        if let Some(tail) = tail.strip_prefix('_') {
            out.push('_');
            rest = tail;
            continue;
        }
        let (hex, tail) = tail.split_once('_')?;
        if hex.len() > 6 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        out.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

/// Whether the text format can write `name` without quotes.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.char_indices().all(|(at, c)| is_plain_at(at, c))
}

fn is_plain_at(at: usize, c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':' || (at > 0 && c.is_ascii_digit())
}

/// One media range of an Accept header.
pub(crate) struct Range<'a> {
    pub kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f64,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let pair = |p: &'a str| p.split_once('=').map(|(n, v)| (n.trim(), v.trim()));
        let parameters: Vec<_> = parts.filter_map(pair).collect();
        let quality = parameters.iter().find(|(name, _)| *name == "q");
        Self {
            kind,
            quality: quality.map_or(1.0, |(_, q)| q.parse().unwrap_or(1.0)),
            parameters,
        }
    }

    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        let found = self.parameters.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| *value)
    }
}

/// By falling quality; among equals, ranges with a wildcard come last.
pub(crate) fn by_preference(accept: &str) -> Vec<Range<'_>> {
    let mut ranges: Vec<_> = accept.split(',').map(Range::parse).collect();
    let wildcards = |r: &Range<'_>| (r.kind.starts_with('*'), r.kind.ends_with('*'));
    ranges.sort_by(|a, b| {
        let quality = b.quality.total_cmp(&a.quality);
        quality.then_with(|| wildcards(a).cmp(&wildcards(b)))
    });
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Seen at Prometheus 3.5.3: `curl -G :9090/federate -H 'Accept: text/plain;escaping=…'` over
    /// series of these names.
    #[test]
    fn names_are_escaped_as_prometheus_does() {
        let name = "t/a.b_c é:x";
        for (scheme, escaped) in [
            (Escaping::Underscores, "t_a_b_c__:x"),
            (Escaping::Dots, "t__a_dot_b__c____:x"),
            (Escaping::Values, "U__t_2f_a_2e_b__c_20__e9_:x"),
            (Escaping::AllowUtf8, name),
        ] {
            assert_eq!(scheme.escape(name), escaped);
            assert_eq!(scheme.escape("plain_name"), "plain_name");
        }
        assert_eq!(Escaping::Underscores.escape("9t"), "_t");
        assert_eq!(Escaping::Dots.escape("9t"), "__t");
        assert_eq!(Escaping::Values.escape("9t"), "U___39_t");
    }

    /// Seen at Prometheus 3.5.3, by the Content-Type that came back.
    #[test]
    fn the_scheme_is_negotiated_as_prometheus_does() {
        let scraper = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,\
            */*;q=0.2";
        for (accept, scheme) in [
            ("", Escaping::Underscores),
            ("*/*", Escaping::Underscores),
            ("text/html", Escaping::Underscores),
            ("text/plain;version=9", Escaping::Underscores),
            (
                "text/plain; version=0.0.4; escaping=bogus",
                Escaping::Underscores,
            ),
            ("text/plain;version=0.0.4;escaping=dots", Escaping::Dots),
            ("text/plain;escaping=values", Escaping::Values),
            (
                "text/plain;version=1.0.0;escaping=allow-utf-8",
                Escaping::AllowUtf8,
            ),
            (scraper, Escaping::AllowUtf8),
            (
                "text/plain;escaping=dots;q=0.1,text/plain",
                Escaping::Underscores,
            ),
        ] {
            assert_eq!(Escaping::negotiate(accept), scheme, "{accept}");
        }
    }

    #[test]
    fn what_is_not_an_escaped_name_stays() {
        assert_eq!(unescape_values("U__la_2e_bel"), "la.bel");
        assert_eq!(unescape_values("U__la_2E_bel"), "la.bel");
        assert_eq!(unescape_values("U__a__b"), "a_b");
        for text in [
            "plain",
            "U__a_",
            "U__a_2",
            "U__zz_2g_",
            "U__a_110000_",
            "U__a_d800_",
        ] {
            assert_eq!(unescape_values(text), text);
        }
    }

    proptest! {
        #[test]
        fn values_can_be_undone(name in "\\PC{1,20}") {
            let escaped = Escaping::Values.escape(&name).into_owned();
            prop_assert!(is_plain(&escaped));
            // A plain name that looks escaped is the one ambiguity of the scheme.
            if !name.starts_with("U__") {
                prop_assert_eq!(unescape_values(&escaped), name.as_str());
            }
        }

        #[test]
        fn any_accept_header_gives_a_scheme(accept in "[ -~]{0,80}") {
            Escaping::negotiate(&accept);
        }
    }
}
