//! A node's place in Consul: it registers itself with an agent, keeps itself registered, and finds
//! the other nodes there.
//!
//! What stays true: every request has a deadline and every answer a bound; what an agent answers
//! never panics; a node that stops cleanly is gone from the catalogue, and whatever Consul does,
//! the node goes on. It purposely does not know what peers are found for, and nothing here decides
//! who is a member: Consul only names addresses worth asking.
//!
//! In reading order:
//! - [`registration`]: what is registered
//! - [`found`]: what is found
//! - [`agent`]: one agent and its few requests
//! - [`keep`]: the loop that keeps both true

pub mod agent;
pub mod error;
pub mod found;
mod http;
pub mod keep;
pub mod registration;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use agent::Agent;
pub use error::ConsulError;
pub use found::Found;
pub use keep::keep_registered;
pub use registration::Registration;

/// Host and port of `host:port`, the host of an IPv6 address without its brackets; `None` when a
/// part is missing or cannot be one.
fn split_address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port
        .parse()
        .ok()
        .filter(|&p| p != 0 && !port.starts_with('+'))?;
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_host = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(fits)
        }
    };
    is_host.then_some((bracketed.unwrap_or(host), port))
}
