//! Requests to a server on this machine that tells what it was asked.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use model::port::{Task, World};
use tokio::sync::watch;

use super::*;
use crate::config::{Header, Proxy, Secret};
use crate::web::{Bounds, serve};

/// Holds one file.
struct OneFile;

impl Surroundings for OneFile {
    fn read(&self, file: &Path) -> io::Result<String> {
        match file == Path::new("token") {
            true => Ok("t0ken\n".to_owned()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

struct Server {
    world: World,
    port: u16,
    _stop: watch::Sender<bool>,
    _task: Task,
    _root: tempfile::TempDir,
}

impl Server {
    async fn start(router: Router) -> Self {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let listener = world.net.listen("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopping) = watch::channel(false);
        let spawn = Arc::clone(&world.spawn);
        let served = serve(listener, router, spawn, Bounds::default(), stopping);
        Self {
            _task: world.spawn.spawn("server", Box::pin(served)),
            world,
            port,
            _stop: stop,
            _root: root,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn fetch(&self, client: Client, path: &str) -> Result<String, FetchError> {
        let url = self.url(path);
        self.fetch_with(client, request(&url)).await
    }

    async fn fetch_with(
        &self,
        client: Client,
        request: ScrapeRequest,
    ) -> Result<String, FetchError> {
        let fetch = HttpFetch {
            net: Arc::clone(&self.world.net),
            client,
            surroundings: Arc::new(OneFile),
            cluster_id: Arc::new(|| Some(ClusterId(0xab))),
        };
        let fetched = fetch.fetch(request).await?;
        assert_eq!(fetched.content_type, "text/plain; charset=utf-8");
        Ok(String::from_utf8(fetched.body.to_vec()).unwrap())
    }
}

fn request(url: &str) -> ScrapeRequest {
    ScrapeRequest {
        url: url.to_owned(),
        headers: vec![("Accept".to_owned(), "text/plain".to_owned())],
        timeout: Duration::from_secs(30),
        body_bytes_max: 4096,
    }
}

fn client() -> Client {
    Client {
        http: HttpClient::default(),
        enable_compression: true,
    }
}

/// The request's headers, one a line, sorted.
async fn told(headers: HeaderMap) -> String {
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines.concat()
}

async fn gzipped() -> impl IntoResponse {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&[b'x'; 3000]).unwrap();
    let kind = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
    let encoding = (header::CONTENT_ENCODING, "gzip");
    ([kind, encoding], encoder.finish().unwrap())
}

fn router() -> Router {
    Router::new()
        .route("/a/told", get(told))
        .route("/gzip", get(gzipped))
        .route("/long", get(|| async { "y".repeat(5000) }))
        .route(
            "/a/relative",
            get(|| async { Redirect::temporary("told#part") }),
        )
        .route(
            "/absolute",
            get(|| async { Redirect::permanent("/a/relative") }),
        )
        .route("/silent", get(std::future::pending::<()>))
}

#[tokio::test]
async fn a_scrape_says_who_asks_for_what() {
    let server = Server::start(router()).await;
    let said = server.fetch(client(), "/a/told").await.unwrap();
    let expected = format!(
        "accept-encoding: gzip\naccept: text/plain\nconnection: close\nhost: 127.0.0.1:{}\n\
         user-agent: {USER_AGENT}\nx-quorate-cluster: {:032x}\n",
        server.port, 0xab
    );
    assert_eq!(said, expected);
    let plain = Client {
        enable_compression: false,
        ..client()
    };
    let said = server.fetch(plain, "/a/told").await.unwrap();
    assert!(said.contains("accept-encoding: identity\n"), "{said}");
}

#[tokio::test]
async fn bodies_are_undone_and_bounded() {
    let server = Server::start(router()).await;
    assert_eq!(server.fetch(client(), "/gzip").await, Ok("x".repeat(3000)));
    let smaller = ScrapeRequest {
        body_bytes_max: 2999,
        ..request(&server.url("/gzip"))
    };
    let bounded = server.fetch_with(client(), smaller).await;
    assert_eq!(bounded, Err(FetchError::BodyTooLarge));
    let long = server.fetch(client(), "/long").await;
    assert_eq!(long, Err(FetchError::BodyTooLarge));
}

#[tokio::test]
async fn credentials_are_sent_as_configured() {
    let server = Server::start(router()).await;
    let inline = || SecretSource::Inline(Secret::new("pass"));
    let file = |name| SecretSource::File(PathBuf::from(name));
    let basic = |password| Auth::Basic {
        username: "user".to_owned(),
        username_file: None,
        password,
    };
    let bearer = |credentials| Auth::Authorization {
        scheme: "Bearer".to_owned(),
        credentials,
    };
    for (auth, sent) in [
        // printf user:pass | base64
        (basic(inline()), "Basic dXNlcjpwYXNz"),
        (basic(file("token")), "Basic dXNlcjp0MGtlbg=="),
        (bearer(inline()), "Bearer pass"),
        (bearer(file("token")), "Bearer t0ken"),
    ] {
        let mut client = client();
        client.http.auth = auth;
        let said = server.fetch(client, "/a/told").await.unwrap();
        assert!(said.contains(&format!("authorization: {sent}\n")), "{said}");
    }
    let mut missing = client();
    missing.http.auth = bearer(file("gone"));
    let error = server.fetch(missing, "/a/told").await.unwrap_err();
    assert!(error.to_string().contains("unable to read file gone"));
}

#[tokio::test]
async fn redirects_are_followed_but_take_no_secrets_elsewhere() {
    let server = Server::start(router()).await;
    let mut secretive = client();
    let header = Header {
        values: vec!["open".to_owned()],
        secrets: vec![Secret::new("hidden")],
        files: vec![PathBuf::from("token")],
    };
    secretive.http.headers.insert("X-Key".to_owned(), header);
    let said = server.fetch(secretive.clone(), "/absolute").await.unwrap();
    for value in ["open", "hidden", "t0ken"] {
        assert!(said.contains(&format!("x-key: {value}\n")), "{said}");
    }

    let elsewhere = format!("http://localhost:{}/a/told", server.port);
    let away = move || async move { Redirect::temporary(&elsewhere) };
    let first = Server::start(Router::new().route("/", get(away))).await;
    let said = first.fetch(secretive.clone(), "/").await.unwrap();
    assert!(!said.contains("x-key"), "{said}");

    secretive.http.follow_redirects = false;
    let stays = server.fetch(secretive, "/absolute").await;
    let status = FetchError::Status("308 Permanent Redirect".to_owned());
    assert_eq!(stays, Err(status));
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    let circle = move || async move {
        counted.fetch_add(1, Ordering::SeqCst);
        Redirect::temporary("/")
    };
    let server = Server::start(Router::new().route("/", get(circle))).await;
    let error = server.fetch(client(), "/").await.unwrap_err();
    assert!(error.to_string().ends_with("stopped after 10 redirects"));
    assert_eq!(asked.load(Ordering::SeqCst), 11);
}

#[tokio::test]
async fn what_fails_is_told_in_prometheus_words() {
    let server = Server::start(router()).await;
    let missing = server.fetch(client(), "/nothing").await;
    assert_eq!(missing, Err(FetchError::Status("404 Not Found".to_owned())));
    let hasty = ScrapeRequest {
        timeout: Duration::from_millis(20),
        ..request(&server.url("/silent"))
    };
    let late = server.fetch_with(client(), hasty).await;
    let url = server.url("/silent");
    assert_eq!(late, Err(FetchError::Timeout { url }));
    for (url, reason) in [
        (
            "http://127.0.0.1:1/",
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        ("https://127.0.0.1:1/", "https scraping is not built in yet"),
        ("gopher://h/", "unsupported protocol scheme \"gopher\""),
    ] {
        let failed = server.fetch_with(client(), request(url)).await;
        let reason = reason.to_owned();
        let url = url.to_owned();
        assert_eq!(failed, Err(FetchError::Transport { url, reason }));
    }
    let mut proxied = client();
    proxied.http.proxy = Proxy {
        url: Some("http://proxy:3128".to_owned()),
        ..Proxy::default()
    };
    let refused = server.fetch(proxied, "/a/told").await;
    assert!(matches!(refused, Err(FetchError::Refused(_))));
}

#[tokio::test]
async fn any_answer_is_survived() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort"[..],
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 302 Found\r\nlocation: http://[\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: \xff\r\ncontent-length: 0\r\n\r\n",
        b"\x00\x01\x02",
        b"",
    ] {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let mut listener = world.net.listen("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fetch = HttpFetch {
            net: Arc::clone(&world.net),
            client: client(),
            surroundings: Arc::new(OneFile),
            cluster_id: Arc::new(|| None),
        };
        let served = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            assert!(connection.read(&mut asked).await.unwrap() > 0);
            connection.write_all(answer).await.unwrap();
        };
        let url = format!("http://127.0.0.1:{port}/");
        let (fetched, ()) = tokio::join!(fetch.fetch(request(&url)), served);
        assert!(
            matches!(fetched, Err(FetchError::Transport { .. })),
            "{fetched:?}"
        );
    }
}
