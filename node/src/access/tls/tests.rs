//! The certificate in `testdata` is signed by itself, for `localhost`, until 2126.

use host::{HostNet, SystemClock};
use model::port::Net as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::*;

const CERTIFICATE: &str = include_str!("../testdata/cert.pem");
const KEY: &str = include_str!("../testdata/key.pem");

fn access(more: &str) -> Result<Access, super::super::AccessError> {
    let more = more.to_owned();
    let surroundings = move |path: &Path| match path.to_str() {
        Some("web.yml") => Ok(format!(
            "tls_server_config: {{cert_file: cert.pem, key_file: key.pem{more}}}"
        )),
        Some("cert.pem") => Ok(CERTIFICATE.to_owned()),
        Some("key.pem") => Ok(KEY.to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    Access::open(
        Path::new("web.yml"),
        Arc::new(surroundings),
        Arc::new(SystemClock::new()),
    )
}

/// A client that trusts the certificate.
fn client(identified: bool) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let own = certificates(CERTIFICATE, "cert").unwrap();
    roots.add(own[0].clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identified {
        true => {
            let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
            builder.with_client_auth_cert(own, key).unwrap()
        }
        false => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

/// Sends four bytes to a listener that sends them back.
async fn echoed(more: &str, identified: bool) -> io::Result<String> {
    let listener = HostNet.listen("127.0.0.1:0").await?;
    let access = Arc::new(access(more).unwrap());
    let mut secured = Secured { listener, access };
    let address = secured.local_addr()?.to_string();
    let server = async {
        let (mut connection, _) = secured.accept().await?;
        let mut bytes = [0; 4];
        connection.read_exact(&mut bytes).await?;
        connection.write_all(&bytes).await?;
        connection.shutdown().await
    };
    let asking = async {
        let connection = HostNet.connect(&address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = client(identified).connect(name, connection).await?;
        stream.write_all(b"ping").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    let (served, asked) = tokio::join!(server, asking);
    served.and(asked)
}

#[tokio::test]
async fn connections_are_encrypted() {
    for more in [
        "",
        ", min_version: TLS13",
        ", max_version: TLS12, curve_preferences: [CurveP256]",
    ] {
        assert_eq!(echoed(more, false).await.unwrap(), "ping", "{more}");
    }
}

#[tokio::test]
async fn clients_may_have_to_show_who_they_are() {
    let must = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: cert.pem";
    assert!(echoed(must, false).await.is_err());
    assert_eq!(echoed(must, true).await.unwrap(), "ping");
    let may = ", client_auth_type: VerifyClientCertIfGiven, client_ca_file: cert.pem";
    assert_eq!(echoed(may, false).await.unwrap(), "ping");
}

#[tokio::test]
async fn who_speaks_plainly_is_not_understood() {
    let listener = HostNet.listen("127.0.0.1:0").await.unwrap();
    let access = Arc::new(access("").unwrap());
    let mut secured = Secured { listener, access };
    let address = secured.local_addr().unwrap().to_string();
    let mut plain = HostNet.connect(&address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (mut connection, _) = secured.accept().await.unwrap();
    assert!(connection.read(&mut [0; 9]).await.is_err());
    assert!(connection.write(b"x").await.is_err());
}

/// Prometheus 3.5.3 says the same of unknown names.
#[test]
fn what_cannot_be_done_is_refused() {
    for (more, told) in [
        (", cipher_suites: [X]", "unknown cipher: X"),
        (", curve_preferences: [X]", "unknown curve: X"),
        (
            ", client_auth_type: VerifyClientCertIfGiven, client_ca_file: nope",
            "failed to read client_ca_file (nope)",
        ),
        (
            ", client_auth_type: VerifyClientCertIfGiven, client_ca_file: key.pem",
            "client_ca_file: no certificate in it",
        ),
    ] {
        let error = access(more).err().expect(more).to_string();
        assert!(error.contains(told), "{more}: {error}");
    }
    let suites = ", cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]";
    assert!(access(suites).is_ok());
}
