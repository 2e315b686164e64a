//! The web configuration file, from text to checked settings.
//!
//! The keys are those of exporter-toolkit's `web-configuration.md`; `push_rules` is ours. What this
//! build cannot do (TLS 1.0 and 1.1, some ways of asking for client certificates) is refused, since
//! doing less would leave a listener more open than its file says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use axum::http::{HeaderName, HeaderValue};

use super::users;
use crate::config::fields::Fields;
use crate::config::http_client::joined;
use crate::config::problem::{Help, Problems};
use crate::config::yaml::Node;
use crate::config::{ConfigError, Secret, Surroundings, read_text, tree};

/// A checked file; paths are as the node opens them.
#[derive(Debug, Clone, PartialEq)]
pub struct WebFile {
    pub tls: Option<TlsServer>,
    /// Whether TLS connections may speak HTTP/2.
    pub http2: bool,
    /// Added to every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// By name, the password's bcrypt hash; nobody is asked when there are none.
    pub users: BTreeMap<String, Secret>,
    pub push_rules: Vec<PushRule>,
}

/// `tls_server_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsServer {
    pub certificate: Pem,
    pub key: Pem,
    /// Whose client certificates are accepted; asked for when there is one.
    pub client_authorities: Option<Pem>,
    /// Whether a client without certificate is turned away.
    pub clients_must_show: bool,
    /// Whether TLS 1.2 and TLS 1.3 may be spoken.
    pub versions: [bool; 2],
    /// Names of TLS 1.2 suites, in IANA's spelling; empty for all there are.
    pub cipher_suites: Vec<String>,
    /// `CurveP256`, …; empty for all there are.
    pub curves: Vec<String>,
}

/// PEM text, in the file or beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    Inline(Secret),
    File(PathBuf),
}

/// One of `push_rules`: what holds for pushes to jobs that begin alike.
#[derive(Debug, Clone, PartialEq)]
pub struct PushRule {
    /// Beginnings of job names; never empty.
    pub jobs: Vec<String>,
    /// Who alone may push to these jobs; empty for everybody.
    pub users: Vec<String>,
    /// For each job and node; above zero.
    pub pushes_per_second: Option<f64>,
    /// How many may come at once after a pause; at least 1.
    pub burst: f64,
}

/// Headers that may be set, and the values they may have.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// Reads and checks a file; gives its text too.
pub fn load(
    file: &Path,
    surroundings: &dyn Surroundings,
) -> Result<(WebFile, String), ConfigError> {
    let text = read_text(file, surroundings)?;
    let problems = Problems::default();
    let root = tree(&text, file)?;
    let directory = file.parent().unwrap_or(Path::new(""));
    let web = match &root {
        Some(root) => read(root, directory, &problems),
        None => None,
    };
    problems.into_result(file, &text)?;
    Ok((web.unwrap_or_default(), text))
}

impl Default for WebFile {
    fn default() -> Self {
        Self {
            tls: None,
            http2: true,
            headers: Vec::new(),
            users: BTreeMap::new(),
            push_rules: Vec::new(),
        }
    }
}

fn read(root: &Node, directory: &Path, problems: &Problems) -> Option<WebFile> {
    let fields = Fields::open(root, "web.Config", "", problems)?;
    let mut web = WebFile::default();
    if let Some(node) = fields.node("tls_server_config") {
        web.tls = read_tls(node, directory, problems);
    }
    if let Some(node) = fields.node("http_server_config") {
        read_http(node, &mut web, problems);
    }
    web.users = read_users(&fields);
    web.push_rules = read_push_rules(&fields, &web.users);
    fields.finish();
    Some(web)
}

fn read_http(node: &Node, web: &mut WebFile, problems: &Problems) {
    let place = "http_server_config";
    let Some(fields) = Fields::open(node, "web.HTTPConfig", place, problems) else {
        return;
    };
    web.http2 = fields.truth("http2").unwrap_or(true);
    for (name, value) in fields
        .entries("headers", "map[string]string")
        .unwrap_or_default()
    {
        match header(name, value.text().unwrap_or_default()) {
            Ok(header) => web.headers.extend(header),
            Err(text) => fields.value(value.line, text, None),
        }
    }
    fields.finish();
}

/// An empty value sets nothing.
fn header(name: &str, value: &str) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let known = HEADERS.iter().find(|(known, _)| *known == name);
    let Some((known, values)) = known else {
        return Err(format!("HTTP header {name:?} can not be configured"));
    };
    if value.is_empty() {
        return Ok(None);
    }
    if !values.is_empty() && !values.contains(&value) {
        let expected: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
        return Err(format!(
            "invalid value for {name}. Expected one of: [{}], but got: {value:?}",
            expected.join(" ")
        ));
    }
    let name = HeaderName::from_bytes(known.as_bytes()).expect("a constant");
    match HeaderValue::from_str(value) {
        Ok(value) => Ok(Some((name, value))),
        Err(_) => Err(format!("invalid value for {known}: {value:?}")),
    }
}

fn read_users(fields: &Fields<'_, '_>) -> BTreeMap<String, Secret> {
    let mut users = BTreeMap::new();
    for (name, value) in fields
        .entries("basic_auth_users", "map[string]config.Secret")
        .unwrap_or_default()
    {
        let hash = value.text().unwrap_or_default();
        if let Err(text) = users::check_hash(hash) {
            let sentence = format!("the password of user {name:?} must be a bcrypt hash");
            fields.value(value.line, text, Some(Help::sentence(sentence)));
        }
        users.insert(name.to_owned(), Secret::new(hash));
    }
    users
}

fn read_push_rules(fields: &Fields<'_, '_>, users: &BTreeMap<String, Secret>) -> Vec<PushRule> {
    let items = fields.items("push_rules", "[]web.PushRule");
    let rules = items.unwrap_or_default().iter();
    rules
        .filter_map(|node| read_push_rule(node, users, fields.problems))
        .collect()
}

fn read_push_rule(
    node: &Node,
    users: &BTreeMap<String, Secret>,
    problems: &Problems,
) -> Option<PushRule> {
    let fields = Fields::open(node, "web.PushRule", "push_rules", problems)?;
    let rule = PushRule {
        jobs: fields.texts("jobs", "[]string").unwrap_or_default(),
        users: fields.texts("users", "[]string").unwrap_or_default(),
        pushes_per_second: fields.float("pushes_per_second"),
        burst: 0.0,
    };
    let burst = fields.float("burst");
    let rate = rule.pushes_per_second;
    if rule.jobs.is_empty() {
        let text = "a push rule needs `jobs`: the beginnings of the job names it is for";
        fields.whole(fields.line, text, None);
    }
    if rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        let text = "`pushes_per_second` must be above zero";
        fields.value(fields.line_of("pushes_per_second"), text, None);
    }
    if burst.is_some_and(|burst| !burst.is_finite() || burst < 1.0) {
        let text = "`burst` must be at least 1";
        fields.value(fields.line_of("burst"), text, None);
    }
    if let Some(unknown) = rule.users.iter().find(|user| !users.contains_key(*user)) {
        let text = format!("user {unknown:?} is not in basic_auth_users");
        fields.value(fields.line_of("users"), text, None);
    }
    let burst = burst.unwrap_or_else(|| rate.unwrap_or_default().max(1.0));
    fields.finish().then_some(PushRule { burst, ..rule })
}

fn read_tls(node: &Node, directory: &Path, problems: &Problems) -> Option<TlsServer> {
    let fields = Fields::open(node, "web.TLSConfig", "tls_server_config", problems)?;
    let certificate = read_pem(&fields, ["cert", "cert_file"], directory);
    let key = read_pem(&fields, ["key", "key_file"], directory);
    let client_authorities = read_pem(&fields, ["client_ca", "client_ca_file"], directory);
    let asks = read_client_auth(&fields);
    let versions = read_versions(&fields);
    fields.truth("prefer_server_cipher_suites");
    let cipher_suites = fields.texts("cipher_suites", "[]string");
    let curves = fields.texts("curve_preferences", "[]string");
    let clients_must_show = asks == Some(true);
    if asks.is_some() != client_authorities.is_some() {
        let text = match asks {
            Some(_) => "client CAs are needed to verify client certificates",
            None => "client CA's have been configured without a Client Auth Policy",
        };
        fields.whole(fields.line, text, None);
    }
    if !fields
        .texts("client_allowed_sans", "[]string")
        .unwrap_or_default()
        .is_empty()
    {
        let text = "client_allowed_sans is not built in: every client of the CA would be let in";
        fields.value(fields.line_of("client_allowed_sans"), text, None);
    }
    // Without certificate and key there is no TLS, whatever else is said.
    let pair = match (certificate, key) {
        (None, None) => None,
        (None, Some(_)) => {
            fields.whole(fields.line, "missing one of cert or cert_file", None);
            None
        }
        (Some(_), None) => {
            fields.whole(fields.line, "missing one of key or key_file", None);
            None
        }
        (Some(certificate), Some(key)) => Some((certificate, key)),
    };
    fields.finish();
    let (certificate, key) = pair?;
    Some(TlsServer {
        certificate,
        key,
        client_authorities,
        clients_must_show,
        versions,
        cipher_suites: cipher_suites.unwrap_or_default(),
        curves: curves.unwrap_or_default(),
    })
}

fn read_pem(
    fields: &Fields<'_, '_>,
    [inline, file]: [&'static str; 2],
    directory: &Path,
) -> Option<Pem> {
    let text = fields.secret(inline).filter(|text| !text.is_empty());
    let path = fields.path(file);
    match (text, path) {
        (None, None) => None,
        (Some(text), None) => Some(Pem::Inline(text)),
        (None, Some(path)) => Some(Pem::File(joined(directory, &path))),
        (Some(_), Some(_)) => {
            let text = format!("only one of {inline} and {file} can be specified");
            fields.whole(fields.line, text, None);
            None
        }
    }
}

/// `None`: clients are not asked for certificates; else whether they must have one.
fn read_client_auth(fields: &Fields<'_, '_>) -> Option<bool> {
    let name = "client_auth_type";
    let refused = |text: String| {
        fields.value(fields.line_of(name), text, None);
        None
    };
    match fields.text(name).unwrap_or_default().as_str() {
        // A certificate that is asked for and not looked at is as good as none.
        "" | "NoClientCert" | "RequestClientCert" => None,
        "VerifyClientCertIfGiven" => Some(false),
        "RequireAndVerifyClientCert" => Some(true),
        "RequireAnyClientCert" | "RequireClientCert" => refused(
            "client_auth_type RequireAnyClientCert is not built in; use RequireAndVerifyClientCert"
                .to_owned(),
        ),
        other => refused(format!("Invalid ClientAuth: {other}")),
    }
}

/// Whether TLS 1.2 and 1.3 lie between `min_version` and `max_version`.
fn read_versions(fields: &Fields<'_, '_>) -> [bool; 2] {
    let number = |name: &'static str, default: u32| {
        let text = fields.text(name).unwrap_or_default();
        match text.as_str() {
            "" => default,
            "TLS13" => 13,
            "TLS12" => 12,
            "TLS11" | "TLS10" if name == "min_version" => {
                let text = format!("{name}: {text} is not built in; the oldest is TLS12");
                fields.value(fields.line_of(name), text, None);
                default
            }
            "TLS11" => 11,
            "TLS10" => 10,
            _ => {
                let text = format!("unknown TLS version: {text}");
                fields.value(fields.line_of(name), text, None);
                default
            }
        }
    };
    let (min, max) = (number("min_version", 12), number("max_version", 13));
    let versions = [12, 13].map(|version| (min..=max).contains(&version));
    if versions == [false, false] {
        let text = "no TLS version is left between min_version and max_version";
        fields.whole(fields.line, text, None);
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";

    fn read_text(text: &str) -> Result<WebFile, String> {
        let text = text.replace("HASH", HASH);
        let surroundings = move |_: &Path| Ok(text.clone());
        let read = load(Path::new("etc/web.yml"), &surroundings);
        read.map(|(web, _)| web).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_file() {
        let web = read_text(
            "tls_server_config: {cert_file: a.pem, key_file: /b.pem, client_ca_file: c.pem,
               client_auth_type: VerifyClientCertIfGiven, min_version: TLS13}
http_server_config: {http2: false, headers: {X-Frame-Options: deny}}
basic_auth_users: {alice: HASH}
push_rules:
  - {jobs: [ci-], users: [alice], pushes_per_second: 0.5}",
        )
        .unwrap();
        let tls = web.tls.unwrap();
        assert_eq!(tls.certificate, Pem::File("etc/a.pem".into()));
        assert_eq!(tls.key, Pem::File("/b.pem".into()));
        assert_eq!(
            (tls.clients_must_show, tls.versions),
            (false, [false, true])
        );
        assert!(!web.http2);
        assert_eq!(web.headers[0].0, "x-frame-options");
        assert_eq!(web.users["alice"].expose(), HASH);
        let rule = &web.push_rules[0];
        assert_eq!((rule.pushes_per_second, rule.burst), (Some(0.5), 1.0));
        assert_eq!(read_text("").unwrap(), WebFile::default());
        assert_eq!(read_text("tls_server_config: {}").unwrap().tls, None);
    }

    /// The words of Prometheus 3.5.3 where it has them.
    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            (
                "basic_auth_users: {a: plain}",
                "hashedSecret too short to be a bcrypted password",
            ),
            ("foo: 1", "line 1: field foo not found in type web.Config"),
            (
                "http_server_config: {headers: {Foo: bar}}",
                r#"HTTP header "Foo" can not be configured"#,
            ),
            (
                "http_server_config: {headers: {X-Frame-Options: maybe}}",
                r#"invalid value for X-Frame-Options. Expected one of: ["deny" "sameorigin"], but got: "maybe""#,
            ),
            (
                "tls_server_config: {cert_file: a}",
                "missing one of key or key_file",
            ),
            (
                "tls_server_config: {key_file: a}",
                "missing one of cert or cert_file",
            ),
            (
                "tls_server_config: {min_version: TLS9}",
                "unknown TLS version: TLS9",
            ),
            (
                "tls_server_config: {min_version: TLS10}",
                "the oldest is TLS12",
            ),
            (
                "tls_server_config: {client_allowed_sans: [a]}",
                "is not built in",
            ),
            (
                "tls_server_config: {client_auth_type: RequireAndVerifyClientCert}",
                "client CAs are needed",
            ),
            ("push_rules: [{users: []}]", "needs `jobs`"),
            (
                "push_rules: [{jobs: [a], users: [bob]}]",
                r#"user "bob" is not in basic_auth_users"#,
            ),
            (
                "push_rules: [{jobs: [a], pushes_per_second: 0}]",
                "must be above zero",
            ),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
