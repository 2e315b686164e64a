//! What people write into files for a node to read.

use std::io;
use std::path::Path;

use ingest::mapping::MetricType;
use node::access::file as web;
use node::config;
use node::lines::mapping;

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// A file that names others finds none.
fn nowhere(_: &Path) -> io::Result<String> {
    Err(io::ErrorKind::NotFound.into())
}

/// The configuration, which is shown as text that can be read.
pub fn configuration(bytes: &[u8]) {
    let file = Path::new("prometheus.yml");
    if let Some(text) = text(bytes)
        && let Ok(read) = config::parse(text, file, &nowhere)
    {
        let shown = read.redacted_yaml();
        let again = config::parse(&shown, file, &nowhere);
        let again = again.map(|config| config.redacted_yaml());
        assert_eq!(again.map_err(|e| e.to_string()), Ok(shown));
    }
}

/// Who may reach a listener.
pub fn access(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        let read = |_: &Path| Ok(text.to_owned());
        if let Ok((_, kept)) = web::load(Path::new("web.yml"), &read) {
            assert_eq!(kept, text);
        }
    }
}

/// Rules for Graphite's and StatsD's names, a line of `---`, and a name.
pub fn mapping(bytes: &[u8]) {
    let Some(text) = text(bytes) else {
        return;
    };
    let (rules, name) = text.split_once("\n---\n").unwrap_or((text, "a.b.c"));
    if let Ok(file) = mapping::parse(rules) {
        let _ = file.rules.find(name, MetricType::Counter);
    }
}
