//! turmoil's network behind [`model::port::Net`].
//!
//! Works only inside a turmoil host. Names are those the hosts were registered by; delay, loss and
//! partitions are set on the `turmoil::Sim`. A connection attempt into a partition waits until the
//! caller gives up, as a real one may for minutes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use model::port::{Connection, Listener, Net};
use turmoil::net::{TcpListener, TcpStream};

/// The network of the turmoil host that calls it.
#[derive(Debug, Clone, Copy)]
pub struct SimNet;

#[async_trait]
impl Net for SimNet {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let (host, port) = split(address)?;
        Ok(Box::new(TcpStream::connect((host, port)).await?))
    }

    /// Every address a node can name is its own, so all of them listen on all of them.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let (_, port) = split(address)?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        Ok(Box::new(SimListener(listener)))
    }
}

struct SimListener(TcpListener);

#[async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn split(address: &str) -> io::Result<(&str, u16)> {
    let wrong = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{address:?} is not host:port"),
        )
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    Ok((host, port.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A client sends to an echo server over a lossy, slow link; returns what happened when.
    fn trace(seed: u64) -> Vec<(Duration, String)> {
        let trace = Arc::new(Mutex::new(Vec::new()));
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(Duration::from_secs(30))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(50))
            .build();
        sim.host("server", || async {
            let mut listener = SimNet.listen(":9092").await?;
            assert_eq!(listener.local_addr()?.port(), 9092);
            loop {
                let (mut connection, _) = listener.accept().await?;
                let mut line = [0; 8];
                connection.read_exact(&mut line).await?;
                connection.write_all(&line).await?;
            }
        });
        let seen = trace.clone();
        sim.client("client", async move {
            for i in 0..5u64 {
                let mut connection = SimNet.connect("server:9092").await?;
                connection.write_all(&i.to_be_bytes()).await?;
                let mut line = [0; 8];
                connection.read_exact(&mut line).await?;
                assert_eq!(u64::from_be_bytes(line), i);
                let at = turmoil::sim_elapsed().unwrap();
                seen.lock().unwrap().push((at, i.to_string()));
            }
            let refused = SimNet.connect("server:1").await.err().map(|e| e.kind());
            assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused));
            Ok(())
        });
        sim.run().unwrap();
        let trace = trace.lock().unwrap().clone();
        assert_eq!(trace.len(), 5);
        trace
    }

    #[test]
    fn the_same_seed_delivers_at_the_same_instants() {
        assert_eq!(trace(3), trace(3));
        assert_ne!(trace(3), trace(4));
    }

    #[test]
    fn an_address_needs_a_port() {
        for wrong in ["", "host", "host:", "host:http", "host:70000"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }
}
