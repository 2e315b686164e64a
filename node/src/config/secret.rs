//! A text that must not be shown.

use std::fmt;

/// A password, token or key. Neither `Debug` nor anything else prints it: whoever needs the text
/// says so by [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What stands for a secret wherever a configuration is shown (Prometheus' word).
pub const REDACTED: &str = "<secret>";

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Whether the value of a key of this name is a secret, in sections that are kept as they are.
/// A name that only points to one (`password_file`, `token_url`) is not.
pub fn names_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let points = ["_file", "_files", "_ref", "_url", "_type", "_id"]
        .iter()
        .any(|end| key.ends_with(end));
    let secret = ["password", "secret", "token", "credential", "bearer"]
        .iter()
        .any(|word| key.contains(word));
    let keys = [
        "key",
        "private_key",
        "api_key",
        "application_key",
        "consumer_key",
        "account_key",
    ];
    (secret && !points) || keys.contains(&key.as_str())
}

/// `http://user:password@host` with the password hidden, as Prometheus prints URLs.
pub fn redacted_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_len);
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:xxxxx@{host}{tail}")
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "<secret>");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn keys_that_hold_secrets_are_known() {
        for key in [
            "password",
            "bearer_token",
            "token",
            "client_secret",
            "secret_key",
            "credentials",
            "application_credential_secret",
            "secrets",
            "key",
        ] {
            assert!(names_secret(key), "{key}");
        }
        for key in [
            "password_file",
            "bearer_token_file",
            "token_url",
            "key_file",
            "credentials_file",
            "client_id",
            "authorization",
            "application_credential_id",
            "url",
        ] {
            assert!(!names_secret(key), "{key}");
        }
    }

    #[test]
    fn passwords_in_urls_are_hidden() {
        for (url, shown) in [
            ("http://u:p@h/w", "http://u:xxxxx@h/w"),
            ("http://u:p@x:y@h:1?a=b", "http://u:xxxxx@h:1?a=b"),
            ("http://u@h", "http://u@h"),
            ("http://h/a:b@c", "http://h/a:b@c"),
            ("h:1", "h:1"),
        ] {
            assert_eq!(redacted_url(url), shown);
        }
    }
}
