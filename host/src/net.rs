//! TCP and UDP of the machine.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use async_trait::async_trait;
use model::limits::LISTEN_BACKLOG;
use model::port::{Connection, Datagrams, Listener, Net};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket, lookup_host};

/// Connects and listens through the kernel.
#[derive(Debug, Clone, Copy)]
pub struct HostNet;

#[async_trait]
impl Net for HostNet {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    /// Takes the address again at once after a restart (`SO_REUSEADDR`).
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let mut refused = io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("no address to listen on in {address:?}"),
        );
        for candidate in candidates(address).await? {
            match bind(candidate) {
                Ok(listener) => return Ok(Box::new(HostListener(listener))),
                Err(e) => refused = e,
            }
        }
        Err(refused)
    }

    async fn receive(&self, address: &str) -> io::Result<Box<dyn Datagrams>> {
        let mut refused = io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("no address to receive on in {address:?}"),
        );
        for candidate in candidates(address).await? {
            match UdpSocket::bind(candidate).await {
                Ok(socket) => return Ok(Box::new(HostDatagrams(socket))),
                Err(e) => refused = e,
            }
        }
        Err(refused)
    }
}

struct HostDatagrams(UdpSocket);

#[async_trait]
impl Datagrams for HostDatagrams {
    async fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct HostListener(TcpListener);

#[async_trait]
impl Listener for HostListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)> {
        let (stream, mut peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        // A listener on every interface sees IPv4 peers as mapped IPv6 addresses.
        peer.set_ip(peer.ip().to_canonical());
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What an address may be bound as, in order of preference. An empty host is every interface:
/// both families by one IPv6 socket, IPv4 alone where the machine has no IPv6.
async fn candidates(address: &str) -> io::Result<Vec<SocketAddr>> {
    match address.strip_prefix(':').map(str::parse::<u16>) {
        Some(Ok(port)) => Ok(vec![
            (Ipv6Addr::UNSPECIFIED, port).into(),
            (Ipv4Addr::UNSPECIFIED, port).into(),
        ]),
        _ => Ok(lookup_host(address).await?.collect()),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn echo_once(listen: &str) {
        let mut listener = HostNet.listen(listen).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (mut connection, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip(), Ipv4Addr::LOCALHOST);
            let mut byte = [0];
            connection.read_exact(&mut byte).await.unwrap();
            connection.write_all(&byte).await.unwrap();
        };
        let call = async {
            let mut connection = HostNet.connect(&format!("127.0.0.1:{port}")).await.unwrap();
            connection.write_all(b"!").await.unwrap();
            let mut answer = Vec::new();
            connection.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"!");
        };
        tokio::join!(serve, call);
    }

    #[tokio::test]
    async fn bytes_go_there_and_back() {
        echo_once("127.0.0.1:0").await;
        echo_once(":0").await;
    }

    #[tokio::test]
    async fn datagrams_come_in() {
        let mut datagrams = HostNet.receive("127.0.0.1:0").await.unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = datagrams.local_addr().unwrap();
        sender.send_to(b"hello", to).await.unwrap();
        let mut buffer = [0; 4];
        assert_eq!(datagrams.next(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer, b"hell");
        assert!(HostNet.receive("nonsense").await.is_err());
    }

    #[tokio::test]
    async fn an_address_is_taken_once() {
        let listener = HostNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let again = HostNet.listen(&address).await.err().map(|e| e.kind());
        assert_eq!(again, Some(io::ErrorKind::AddrInUse));
        drop(listener);
        let refused = HostNet.connect(&address).await.err().map(|e| e.kind());
        assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused));
        for wrong in ["", "nonsense", ":http", "127.0.0.1:99999"] {
            assert!(HostNet.listen(wrong).await.is_err(), "{wrong}");
        }
    }
}
