//! Connections to other nodes: six of HTTP/2 and one of frames a peer, each made when first used.
//!
//! Control (votes, heartbeats), appends, writes, reads, pages, pushes and files (snapshots) never
//! share a connection, so that a large snapshot cannot hold a heartbeat back. All go through
//! [`model::port::Net`].

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use model::ClusterId;
use model::limits::{ASK_BYTES_MAX, RPC_BYTES_MAX};
use model::port::{Connection, World};
use proto::node::application_client::ApplicationClient;
use proto::node::membership_client::MembershipClient;
use proto::node::raft_client::RaftClient;
use proto::node::shards_client::ShardsClient;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint};

use crate::raft::append_link::AppendLink;
use crate::reads::ReadLink;
use crate::write_link::WriteLink;

/// HTTP/2 windows: the default of 64 KiB caps one stream at a few MB/s over any delay.
pub const STREAM_WINDOW_BYTES: u32 = 16 << 20;
pub const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Of a stream that is read page by page: two pages or so of a shard wait here, and the peer makes
/// the next ones when there is room.
const PAGES_STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// No bound beside that of each stream (RFC 9113, 6.9.1): pages of one shard that are not wanted yet
/// must not use up the room of another one's that are.
const PAGES_CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// One other node, by address.
pub struct Peer {
    pub address: String,
    pub append: AppendLink,
    pub write: WriteLink,
    pub reads: ReadLink,
    control: Channel,
    data: Channel,
    pages: Channel,
    files: Channel,
}

impl Peer {
    fn new(world: &World, address: &str) -> Self {
        let open = || channel(world, address);
        Self {
            address: address.to_owned(),
            append: AppendLink::to(world.clone(), raft_client(open())),
            write: WriteLink::to(world.clone(), shards_client(open())),
            reads: ReadLink::new(world.clone(), address),
            control: open(),
            data: open(),
            pages: channel_with(world, address, PAGES_WINDOWS),
            files: open(),
        }
    }

    /// Votes, heartbeats, leadership transfer.
    pub fn control(&self) -> RaftClient<Channel> {
        raft_client(self.control.clone())
    }

    /// Snapshots.
    pub fn files(&self) -> RaftClient<Channel> {
        raft_client(self.files.clone())
    }

    /// Pushes, and what is asked of one shard.
    pub fn data(&self) -> ShardsClient<Channel> {
        shards_client(self.data.clone())
    }

    /// What of a shard is read in pages, for as long as whoever wants it takes.
    pub fn pages(&self) -> ShardsClient<Channel> {
        shards_client(self.pages.clone())
    }

    /// Questions of the program above.
    pub fn application(&self) -> ApplicationClient<Channel> {
        ApplicationClient::new(self.data.clone())
            .max_decoding_message_size(ASK_BYTES_MAX)
            .max_encoding_message_size(ASK_BYTES_MAX)
    }
}

/// Formation, joining and meta proposals, at `address`.
pub fn membership_client(peers: &Peers, address: &str) -> MembershipClient<Channel> {
    MembershipClient::new(peers.at(address).control.clone())
}

fn raft_client(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel)
        .max_decoding_message_size(RPC_BYTES_MAX)
        .max_encoding_message_size(RPC_BYTES_MAX)
}

fn shards_client(channel: Channel) -> ShardsClient<Channel> {
    ShardsClient::new(channel)
        .max_decoding_message_size(RPC_BYTES_MAX)
        .max_encoding_message_size(RPC_BYTES_MAX)
}

/// Every peer this node has spoken to.
pub struct Peers {
    world: World,
    cluster: OnceLock<ClusterId>,
    by_address: Mutex<BTreeMap<String, Arc<Peer>>>,
}

impl Peers {
    pub fn new(world: World) -> Self {
        Self {
            world,
            cluster: OnceLock::new(),
            by_address: Mutex::default(),
        }
    }

    /// What this node calls its cluster from now on.
    pub fn belong_to(&self, cluster: ClusterId) {
        let known = self.cluster.get_or_init(|| cluster);
        assert_eq!(
            *known, cluster,
            "a node belongs to one cluster for its life"
        );
    }

    /// The cluster this node belongs to; zero while it belongs to none.
    pub fn cluster(&self) -> ClusterId {
        self.cluster.get().copied().unwrap_or_default()
    }

    pub fn at(&self, address: &str) -> Arc<Peer> {
        let mut peers = self.by_address.lock().expect("not poisoned");
        if let Some(peer) = peers.get(address) {
            return peer.clone();
        }
        let peer = Arc::new(Peer::new(&self.world, address));
        peers.insert(address.to_owned(), peer.clone());
        peer
    }
}

/// No connection came about, so nothing was asked.
#[derive(Debug, thiserror::Error)]
#[error("connecting")]
pub struct NotConnected(#[source] io::Error);

impl NotConnected {
    /// Whether this is why a call failed.
    pub fn caused(status: &tonic::Status) -> bool {
        let mut error: Option<&(dyn std::error::Error + 'static)> = status.source();
        while let Some(cause) = error {
            if cause.is::<Self>() {
                return true;
            }
            error = cause.source();
        }
        false
    }
}

/// How much may be on its way to a reader that does not take it: of one stream, of a connection.
type Windows = (u32, u32);

const WINDOWS: Windows = (STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES);
const PAGES_WINDOWS: Windows = (PAGES_STREAM_WINDOW_BYTES, PAGES_CONNECTION_WINDOW_BYTES);

/// A lazily connected channel to `address`; each call on a broken one tries to connect again.
pub fn channel(world: &World, address: &str) -> Channel {
    channel_with(world, address, WINDOWS)
}

fn channel_with(world: &World, address: &str, (stream, connection): Windows) -> Channel {
    let net = world.net.clone();
    let target = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (net, target) = (net.clone(), target.clone());
        async move {
            let connect = net.connect(&target);
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
            let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
            let connection = connected
                .map_err(timed_out)
                .flatten()
                .map_err(NotConnected)?;
            Ok::<_, NotConnected>(TokioIo::new(Wire(connection)))
        }
    });
    // The connector knows where to go; the URI only has to be one.
    Endpoint::from_static("http://peer")
        .initial_stream_window_size(stream)
        .initial_connection_window_size(connection)
        .http2_keep_alive_interval(std::time::Duration::from_secs(2))
        .keep_alive_timeout(std::time::Duration::from_secs(3))
        .keep_alive_while_idle(false)
        .connect_with_connector_lazy(connector)
}

/// A [`Connection`] in the shape hyper and tonic want.
pub struct Wire(pub Box<dyn Connection>);

impl tonic::transport::server::Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
