//! TLS for listeners, by rustls: settings from PEM texts, and connections that shake hands when
//! they are first read, so that a slow client keeps nobody else waiting.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use model::port::{Connection, Listener};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring as provider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{NamedGroup, RootCertStore, ServerConfig, version};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::Access;
use super::file::{Pem, TlsServer};
use crate::config::Surroundings;

/// What [`Connection`]s are made of.
type Plain = Box<dyn Connection>;

/// 128 bits nobody can guess, in hexadecimal digits.
pub fn random_text() -> String {
    let mut bytes = [0; 16];
    // Without randomness nothing could be told apart from anybody's guess.
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.expect("the system gives random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server's settings, and the PEM texts they came from.
pub fn server_config(
    tls: &TlsServer,
    http2: bool,
    surroundings: &dyn Surroundings,
) -> Result<(ServerConfig, Vec<String>), String> {
    let certificate = pem(&tls.certificate, "cert_file", surroundings)?;
    let key = pem(&tls.key, "key_file", surroundings)?;
    let versions: Vec<_> = [&version::TLS12, &version::TLS13]
        .into_iter()
        .zip(tls.versions)
        .filter_map(|(version, allowed)| allowed.then_some(version))
        .collect();
    let provider = Arc::new(choose(tls)?);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| error.to_string())?;
    let mut texts = vec![certificate.clone(), key.clone()];
    let builder = match &tls.client_authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let text = pem(authorities, "client_ca_file", surroundings)?;
            let mut roots = RootCertStore::empty();
            for authority in certificates(&text, "client_ca_file")? {
                let added = roots.add(authority);
                added.map_err(|error| format!("client_ca_file: {error}"))?;
            }
            texts.push(text);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match tls.clients_must_show {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(&certificate, "cert_file")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|error| format!("key_file: no private key in it: {error}"))?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("failed to load X509KeyPair: {error}"))?;
    if http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok((config, texts))
}

fn pem(pem: &Pem, name: &str, surroundings: &dyn Surroundings) -> Result<String, String> {
    match pem {
        Pem::Inline(text) => Ok(text.expose().to_owned()),
        Pem::File(path) => surroundings
            .read(path)
            .map_err(|error| format!("failed to read {name} ({}): {error}", path.display())),
    }
}

fn certificates(text: &str, name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|error| format!("{name}: {error}"))?;
    match found.is_empty() {
        true => Err(format!("{name}: no certificate in it")),
        false => Ok(found),
    }
}

/// The suites and curves asked for. As with Go, suites of TLS 1.3 are not a matter of choice.
fn choose(tls: &TlsServer) -> Result<CryptoProvider, String> {
    let mut provider = provider::default_provider();
    if !tls.cipher_suites.is_empty() {
        let known = |name: &String| {
            let suites = provider.cipher_suites.iter();
            let mut names = suites.map(|suite| format!("{:?}", suite.suite()));
            names.any(|known| go_name(&known) == *name)
        };
        if let Some(unknown) = tls.cipher_suites.iter().find(|name| !known(name)) {
            return Err(format!("unknown cipher: {unknown}"));
        }
        provider.cipher_suites.retain(|suite| {
            let name = format!("{:?}", suite.suite());
            suite.tls13().is_some() || tls.cipher_suites.contains(&go_name(&name))
        });
    }
    if !tls.curves.is_empty() {
        let mut groups = Vec::new();
        for name in &tls.curves {
            match name.as_str() {
                "CurveP256" => groups.push(NamedGroup::secp256r1),
                "CurveP384" => groups.push(NamedGroup::secp384r1),
                "X25519" => groups.push(NamedGroup::X25519),
                // Known to Go; a client that has nothing else is turned away.
                "CurveP521" | "X25519MLKEM768" => {}
                _ => return Err(format!("unknown curve: {name}")),
            }
        }
        provider
            .kx_groups
            .retain(|group| groups.contains(&group.name()));
    }
    Ok(provider)
}

/// rustls' name of a suite as IANA and Go write it.
fn go_name(name: &str) -> String {
    name.replacen("TLS13_", "TLS_", 1)
}

/// A listener whose connections are encrypted when the settings in force say so.
pub struct Secured {
    pub listener: Box<dyn Listener>,
    pub access: Arc<Access>,
}

#[async_trait]
impl Listener for Secured {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)> {
        let (connection, peer) = self.listener.accept().await?;
        let connection = match &self.access.in_force().tls {
            Some(config) => {
                let accept = TlsAcceptor::from(Arc::clone(config)).accept(connection);
                Box::new(Encrypted::Greeting(Box::new(accept)))
            }
            None => connection,
        };
        Ok((connection, peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A TLS connection; the first who reads or writes drives the handshake.
enum Encrypted {
    Greeting(Box<Accept<Plain>>),
    Open(Box<TlsStream<Plain>>),
    Failed,
}

impl Encrypted {
    fn poll_open(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Pin<&mut TlsStream<Plain>>>> {
        if let Self::Greeting(accept) = self {
            match ready!(Pin::new(accept.as_mut()).poll(context)) {
                Ok(stream) => *self = Self::Open(Box::new(stream)),
                Err(error) => {
                    *self = Self::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        match self {
            Self::Open(stream) => Poll::Ready(Ok(Pin::new(stream.as_mut()))),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(context))?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(context))?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Open(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            // Nothing was said yet, so there is nothing to end in order.
            Self::Greeting(_) | Self::Failed => Poll::Ready(Ok(())),
        }
    }
}

/// Reads the file and the ones it names without putting anything in force: `promtool check
/// web-config`.
pub fn check(file: &Path, surroundings: &dyn Surroundings) -> Result<(), super::AccessError> {
    super::Settings::read(file, surroundings).map(drop)
}

#[cfg(test)]
mod tests;
