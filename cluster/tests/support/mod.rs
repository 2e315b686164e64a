//! What tests of several nodes in one process share.

use std::time::{Duration, Instant};

/// Waits for what must become true within a minute.
#[allow(dead_code, reason = "some tests wait in their own ways")]
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match done().await {
            Ok(()) => return,
            Err(why) if Instant::now() > deadline => panic!("{what}: {why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Addresses of this machine that nobody listens on.
pub fn free_addresses(count: usize) -> Vec<String> {
    #[allow(clippy::disallowed_types, reason = "finding free ports")]
    let sockets: Vec<std::net::TcpListener> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses = sockets.iter().map(|s| s.local_addr().unwrap().to_string());
    addresses.collect()
}
