//! How a request is made: who we say we are, TLS, proxy, extra headers. The same keys stand in a
//! scrape job and in every section that talks HTTP.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::fields::Fields;
use super::secret::Secret;
use super::sections::Kept;
use super::yaml::Node;

/// All of it, with Prometheus' defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpClient {
    pub auth: Auth,
    pub tls: Tls,
    pub follow_redirects: bool,
    pub enable_http2: bool,
    pub proxy: Proxy,
    /// By name, sent with every request.
    pub headers: BTreeMap<String, Header>,
}

/// Who we say we are. At most one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    None,
    Basic {
        username: String,
        username_file: Option<PathBuf>,
        password: SecretSource,
    },
    /// `Authorization: <scheme> <credentials>`; also what `bearer_token` means.
    Authorization {
        scheme: String,
        credentials: SecretSource,
    },
    /// Kept to be shown; no token is fetched yet.
    OAuth2(Kept),
}

/// Where a secret comes from. Files are read again for each request, as Prometheus does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    None,
    Inline(Secret),
    File(PathBuf),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    pub ca: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub cert: Option<String>,
    pub cert_file: Option<PathBuf>,
    pub key: Option<Secret>,
    pub key_file: Option<PathBuf>,
    pub server_name: String,
    pub insecure_skip_verify: bool,
    /// `TLS10` … `TLS13`.
    pub min_version: Option<String>,
    pub max_version: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    pub url: Option<String>,
    pub no_proxy: String,
    pub from_environment: bool,
    pub connect_headers: BTreeMap<String, Vec<Secret>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    pub values: Vec<String>,
    pub secrets: Vec<Secret>,
    pub files: Vec<PathBuf>,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self {
            auth: Auth::None,
            tls: Tls::default(),
            follow_redirects: true,
            enable_http2: true,
            proxy: Proxy::default(),
            headers: BTreeMap::new(),
        }
    }
}

/// Headers a request sets itself.
const RESERVED_HEADERS: [&str; 18] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
    "accept",
    "transfer-encoding",
    "te",
];

impl HttpClient {
    /// Takes the client's keys out of a larger mapping.
    pub fn read(fields: &Fields<'_, '_>) -> Self {
        let default = Self::default();
        Self {
            auth: read_auth(fields),
            tls: read_tls(fields),
            follow_redirects: fields
                .truth("follow_redirects")
                .unwrap_or(default.follow_redirects),
            enable_http2: fields.truth("enable_http2").unwrap_or(default.enable_http2),
            proxy: read_proxy(fields),
            headers: read_headers(fields),
        }
    }

    /// Makes relative file names start at the configuration's directory.
    pub fn resolve(&mut self, directory: &Path) {
        match &mut self.auth {
            Auth::Basic {
                username_file,
                password,
                ..
            } => {
                resolve_option(username_file, directory);
                password.resolve(directory);
            }
            Auth::Authorization { credentials, .. } => credentials.resolve(directory),
            Auth::None | Auth::OAuth2(_) => {}
        }
        let tls = &mut self.tls;
        for file in [&mut tls.ca_file, &mut tls.cert_file, &mut tls.key_file] {
            resolve_option(file, directory);
        }
        for file in self.headers.values_mut().flat_map(|h| &mut h.files) {
            *file = joined(directory, file);
        }
    }
}

impl SecretSource {
    fn resolve(&mut self, directory: &Path) {
        if let Self::File(file) = self {
            *file = joined(directory, file);
        }
    }
}

fn resolve_option(file: &mut Option<PathBuf>, directory: &Path) {
    if let Some(file) = file {
        *file = joined(directory, file);
    }
}

/// `file` as seen from `directory`, without leading `./`.
pub fn joined(directory: &Path, file: &Path) -> PathBuf {
    if directory.as_os_str().is_empty() || directory == Path::new(".") {
        return file.to_owned();
    }
    directory.join(file)
}

fn read_auth(fields: &Fields<'_, '_>) -> Auth {
    let bearer = fields.secret("bearer_token").filter(|t| !t.is_empty());
    let bearer_file = fields.path("bearer_token_file");
    let basic = fields.node("basic_auth");
    let authorization = fields.node("authorization");
    let oauth2 = fields.node("oauth2");
    if bearer.is_some() && bearer_file.is_some() {
        let text = "at most one of bearer_token & bearer_token_file must be configured";
        fields.whole(fields.line_of("bearer_token_file"), text, None);
    }
    let bearers = bearer.is_some() || bearer_file.is_some();
    let others = [basic.is_some(), oauth2.is_some()];
    let ways = others.iter().filter(|set| **set).count();
    if authorization.is_some() && bearers {
        let text = "authorization is not compatible with bearer_token & bearer_token_file";
        fields.whole(fields.line_of("authorization"), text, None);
    } else if authorization.is_some() && ways > 0 {
        let text = "at most one of basic_auth, oauth2 & authorization must be configured";
        fields.whole(fields.line_of("authorization"), text, None);
    } else if ways + usize::from(bearers) > 1 {
        let text = "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured";
        fields.whole(fields.line, text, None);
    }
    let basic = basic.map(|node| read_basic(node, fields));
    let authorization = authorization.map(|node| read_authorization(node, fields));
    let oauth2 = oauth2.map(|node| read_oauth2(node, fields));
    if let Some(auth) = basic.or(authorization).or(oauth2) {
        return auth;
    }
    let credentials = match (bearer, bearer_file) {
        (Some(token), _) => SecretSource::Inline(token),
        (None, Some(file)) => SecretSource::File(file),
        (None, None) => return Auth::None,
    };
    Auth::Authorization {
        scheme: "Bearer".to_owned(),
        credentials,
    }
}

fn read_basic(node: &Node, parent: &Fields<'_, '_>) -> Auth {
    let place = format!("{}, basic_auth", parent.place);
    let Some(fields) = Fields::open(node, "config.plain", place, parent.problems) else {
        return Auth::None;
    };
    let fields = fields.checked_with(parent);
    let username = fields.text("username").unwrap_or_default();
    let username_file = fields.path("username_file");
    let password = fields.secret("password").filter(|p| !p.is_empty());
    let password_file = fields.path("password_file");
    refuse_references(&fields, &["username_ref", "password_ref"]);
    fields.refuse_unknown(|_, _| None);
    if !username.is_empty() && username_file.is_some() {
        let text =
            "at most one of basic_auth username, username_file & username_ref must be configured";
        fields.whole(fields.line_of("username_file"), text, None);
    }
    if password.is_some() && password_file.is_some() {
        let text =
            "at most one of basic_auth password, password_file & password_ref must be configured";
        fields.whole(fields.line_of("password_file"), text, None);
    }
    Auth::Basic {
        username,
        username_file,
        password: source(password, password_file),
    }
}

fn source(inline: Option<Secret>, file: Option<PathBuf>) -> SecretSource {
    match (inline, file) {
        (Some(secret), _) => SecretSource::Inline(secret),
        (None, Some(file)) => SecretSource::File(file),
        (None, None) => SecretSource::None,
    }
}

/// `*_ref` names an entry of a secret manager, which Prometheus itself has not wired up either.
fn refuse_references(fields: &Fields<'_, '_>, names: &[&'static str]) {
    for (name, node) in fields.matching(names) {
        if !node.is_null() {
            let text = format!("no secret manager is configured for {name}");
            fields.whole(node.line, text, None);
        }
    }
}

fn read_authorization(node: &Node, parent: &Fields<'_, '_>) -> Auth {
    let place = format!("{}, authorization", parent.place);
    let Some(fields) = Fields::open(node, "config.Authorization", place, parent.problems) else {
        return Auth::None;
    };
    let fields = fields.checked_with(parent);
    let scheme = fields.text("type").unwrap_or_default();
    let credentials = fields.secret("credentials").filter(|c| !c.is_empty());
    let credentials_file = fields.path("credentials_file");
    refuse_references(&fields, &["credentials_ref"]);
    fields.refuse_unknown(|_, _| None);
    if credentials.is_some() && credentials_file.is_some() {
        let text = "at most one of authorization credentials & credentials_file must be configured";
        fields.whole(fields.line_of("credentials_file"), text, None);
    }
    if scheme.trim().eq_ignore_ascii_case("basic") {
        let text = "authorization type cannot be set to \"basic\", use \"basic_auth\" instead";
        fields.whole(fields.line_of("type"), text, None);
    }
    let scheme = match scheme.trim() {
        "" => "Bearer".to_owned(),
        scheme => scheme.to_owned(),
    };
    Auth::Authorization {
        scheme,
        credentials: source(credentials, credentials_file),
    }
}

fn read_oauth2(node: &Node, parent: &Fields<'_, '_>) -> Auth {
    let place = format!("{}, oauth2", parent.place);
    let Some(fields) = Fields::open(node, "config.plain", place, parent.problems) else {
        return Auth::None;
    };
    let fields = fields.checked_with(parent);
    let client_id = fields.text("client_id").unwrap_or_default();
    let token_url = fields.text("token_url").unwrap_or_default();
    let secret = fields.secret("client_secret").is_some();
    let secret_file = fields.path("client_secret_file").is_some();
    refuse_references(&fields, &["client_secret_ref"]);
    fields.texts("scopes", "[]string");
    fields.entries("endpoint_params", "map[string]string");
    read_tls(&fields);
    read_proxy(&fields);
    fields.refuse_unknown(|_, _| None);
    if secret && secret_file {
        let text = "at most one of oauth2 client_secret, client_secret_file & client_secret_ref must be configured";
        fields.whole(fields.line, text, None);
    } else if client_id.is_empty() {
        fields.whole(fields.line, "oauth2 client_id must be configured", None);
    } else if token_url.is_empty() {
        fields.whole(fields.line, "oauth2 token_url must be configured", None);
    }
    Auth::OAuth2(Kept(node.clone()))
}

fn read_tls(fields: &Fields<'_, '_>) -> Tls {
    let Some(node) = fields.node("tls_config") else {
        return Tls::default();
    };
    let place = format!("{}, tls_config", fields.place);
    let Some(fields) = Fields::open(node, "config.plain", place, fields.problems) else {
        return Tls::default();
    };
    let tls = Tls {
        ca: fields.text("ca").filter(|t| !t.is_empty()),
        ca_file: fields.path("ca_file"),
        cert: fields.text("cert").filter(|t| !t.is_empty()),
        cert_file: fields.path("cert_file"),
        key: fields.secret("key").filter(|t| !t.is_empty()),
        key_file: fields.path("key_file"),
        server_name: fields.text("server_name").unwrap_or_default(),
        insecure_skip_verify: fields.truth("insecure_skip_verify").unwrap_or(false),
        min_version: tls_version(&fields, "min_version"),
        max_version: tls_version(&fields, "max_version"),
    };
    refuse_references(&fields, &["ca_ref", "cert_ref", "key_ref"]);
    fields.refuse_unknown(|_, _| None);
    check_tls(&tls, &fields);
    tls
}

fn check_tls(tls: &Tls, fields: &Fields<'_, '_>) {
    let refuse = |text: &str| fields.whole(fields.line, text, None);
    let has_cert = tls.cert.is_some() || tls.cert_file.is_some();
    let has_key = tls.key.is_some() || tls.key_file.is_some();
    if tls.ca.is_some() && tls.ca_file.is_some() {
        refuse("at most one of ca, ca_file & ca_ref must be configured");
    } else if tls.cert.is_some() && tls.cert_file.is_some() {
        refuse("at most one of cert, cert_file & cert_ref must be configured");
    } else if tls.key.is_some() && tls.key_file.is_some() {
        refuse("at most one of key and key_file must be configured");
    } else if has_cert && !has_key {
        refuse(
            "exactly one of key or key_file must be configured when a client certificate is configured",
        );
    } else if has_key && !has_cert {
        refuse(
            "exactly one of cert or cert_file must be configured when a client key is configured",
        );
    }
}

fn tls_version(fields: &Fields<'_, '_>, name: &'static str) -> Option<String> {
    let version = fields.text(name).filter(|text| !text.is_empty())?;
    if !matches!(version.as_str(), "TLS10" | "TLS11" | "TLS12" | "TLS13") {
        let text = format!("unknown TLS version: {version}");
        fields.value(fields.line_of(name), text, None);
    }
    Some(version)
}

fn read_proxy(fields: &Fields<'_, '_>) -> Proxy {
    let headers = fields.entries("proxy_connect_header", "config.ProxyHeader");
    let connect_headers = headers.unwrap_or_default().into_iter().map(|(name, node)| {
        let values = match &node.value {
            super::yaml::Value::Sequence(items) => items.iter().filter_map(Node::text).collect(),
            _ => {
                fields.wrong_type(node, "[]config.Secret");
                Vec::new()
            }
        };
        let secrets = values.into_iter().map(Secret::new).collect();
        (name.to_owned(), secrets)
    });
    let proxy = Proxy {
        connect_headers: connect_headers.collect(),
        url: fields.text("proxy_url").filter(|url| !url.is_empty()),
        no_proxy: fields.text("no_proxy").unwrap_or_default(),
        from_environment: fields.truth("proxy_from_environment").unwrap_or(false),
    };
    let refuse = |name: &str, text: &str| fields.whole(fields.line_of(name), text, None);
    if let Some(url) = &proxy.url
        && url.starts_with(':')
    {
        let text = format!("parse {url:?}: missing protocol scheme");
        fields.value(fields.line_of("proxy_url"), text, None);
    }
    if proxy.from_environment && proxy.url.is_some() {
        refuse(
            "proxy_from_environment",
            "if proxy_from_environment is configured, proxy_url must not be configured",
        );
    } else if proxy.from_environment && !proxy.no_proxy.is_empty() {
        refuse(
            "no_proxy",
            "if proxy_from_environment is configured, no_proxy must not be configured",
        );
    } else if proxy.url.is_none() && !proxy.no_proxy.is_empty() {
        refuse(
            "no_proxy",
            "if no_proxy is configured, proxy_url must also be configured",
        );
    }
    proxy
}

fn read_headers(fields: &Fields<'_, '_>) -> BTreeMap<String, Header> {
    let entries = fields.entries("http_headers", "config.Headers");
    let read = entries.unwrap_or_default().into_iter();
    let headers = read.filter_map(|(name, node)| {
        if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            let text = format!("setting header {name:?} is not allowed");
            fields.whole(node.line, text, None);
        }
        let place = format!("{}, http_headers.{name}", fields.place);
        let header = Fields::open(node, "config.Header", place, fields.problems)?;
        let list = |key| header.texts(key, "[]string").unwrap_or_default();
        let value = Header {
            values: list("values"),
            secrets: list("secrets").into_iter().map(Secret::new).collect(),
            files: list("files").into_iter().map(PathBuf::from).collect(),
        };
        header.finish();
        Some((name.to_owned(), value))
    });
    headers.collect()
}
