//! What two contradicting pushes leave behind that are taken at the same time, each before the other
//! can be seen (ADR 27): both are acknowledged, the page stays one that scrapers take, and from then on
//! everybody else is refused. Pushes one after the other are never both taken.

#[allow(dead_code, reason = "other tests need more of it")]
mod rig;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use rig::{Home, request};

/// Races until one has two winners. One in two or three has.
const RACES_MAX: usize = 400;

fn push(to: SocketAddr, path: &str, body: &str) -> (u16, String) {
    let path = format!("/metrics/job/{path}");
    let answer = request(to, "POST", &path, &[], body.as_bytes());
    (answer.code, answer.body)
}

/// Both at once; whether both were taken.
fn race(to: SocketAddr, pushes: [(&str, &str); 2]) -> bool {
    let codes = std::thread::scope(|scope| {
        let pushers = pushes.map(|(path, body)| scope.spawn(move || push(to, path, body).0));
        pushers.map(|pusher| pusher.join().unwrap())
    });
    assert!(
        codes.iter().all(|code| [200, 400].contains(code)),
        "{codes:?}"
    );
    assert!(
        codes.contains(&200),
        "each was refused for the other's sake"
    );
    codes == [200, 200]
}

/// Every family begins once and stands together, no series stands twice.
fn check(page: &str) {
    let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
    let mut family = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap();
            assert!(families.insert(family), "{family} begins twice");
        } else if !line.starts_with('#') {
            let (labels, _) = line.rsplit_once(' ').unwrap();
            assert!(labels.starts_with(family), "{labels} is not of {family}");
            assert!(series.insert(labels), "{labels} stands twice");
        }
    }
}

#[test]
fn two_types_or_two_groups_of_a_series_at_once() {
    let mut home = Home::new();
    let node = home.start_ready(&[]);
    let to = node.push();
    let page = || request(to, "GET", "/metrics", &[], b"").body;

    let types = |n: usize| {
        let counter = format!("# TYPE race_{n} counter\nrace_{n} 1\n");
        (counter, format!("# TYPE race_{n} gauge\nrace_{n} 2\n"))
    };
    let both = (0..RACES_MAX).find(|&n| {
        let (counter, gauge) = types(n);
        race(to, [("a", &counter), ("b", &gauge)])
    });
    let n = both.expect("two winners");
    let text = page();
    check(&text);
    let family = format!(
        "# TYPE race_{n} untyped\nrace_{n}{{instance=\"\",job=\"a\"}} 1\n\
         race_{n}{{instance=\"\",job=\"b\"}} 2\n"
    );
    assert!(text.contains(&family), "{text}");
    // Each goes on with what it has; nobody else gets in, as either type; one of them has to go.
    let (counter, gauge) = types(n);
    assert_eq!(push(to, "a", &counter).0, 200);
    assert_eq!(push(to, "b", &gauge).0, 200);
    for body in [&counter, &gauge] {
        let (code, why) = push(to, "c", body);
        assert_eq!(code, 400, "{why}");
        assert!(why.contains("is not a"), "{why}");
    }
    request(to, "DELETE", "/metrics/job/b", &[], b"");
    assert_eq!(push(to, "c", &counter).0, 200);
    assert!(page().contains(&format!("# TYPE race_{n} counter\n")));

    // The same series, by a group of its instance and by one of its job.
    let both = (0..RACES_MAX).find(|n| {
        let own = format!("twice_{n} 1\n");
        let named = format!("twice_{n}{{instance=\"i\"}} 2\n");
        race(to, [("t/instance/i", &own), ("t", &named)])
    });
    let n = both.expect("two winners");
    let text = page();
    check(&text);
    let line = format!("twice_{n}{{instance=\"i\",job=\"t\"}} ");
    assert_eq!(text.matches(&line).count(), 1, "{text}");
}
