//! The page of the push listener: groups with what was pushed to them, and a button that deletes
//! one. One document, its style and script inside; without scripts all of it can be read.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use federation::Escaping;
use model::group::{Family, Group, GroupingKey};
use model::{Timestamp, number};

use super::errors::TextError;
use super::{Shared, instant};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:70rem;padding:1rem;color:#1c2733}\
h1{font-size:1.4rem}section{border:1px solid #cdd5de;border-radius:6px;margin:0 0 1rem;padding:.6rem 1rem}\
h2{font-size:1rem;margin:.2rem 0;overflow-wrap:anywhere}code{background:#eef2f6;border-radius:3px;padding:.1rem .3rem}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top;overflow-wrap:anywhere}\
td.v{text-align:right;font-variant-numeric:tabular-nums}button{float:right;border:1px solid #b3261e;color:#b3261e;background:none;border-radius:4px;padding:.2rem .7rem;cursor:pointer}\
.bad{color:#b3261e}.dim{color:#5d6b7a}summary{cursor:pointer}";

/// Sends DELETE to the path a button names, then shows the page anew.
const SCRIPT: &str = "document.addEventListener('click',async e=>{const p=e.target.dataset.path;if(!p)return;\
if(!confirm('Delete the group '+e.target.dataset.group+'?'))return;e.target.disabled=true;\
const r=await fetch(p,{method:'DELETE'});if(r.ok)location.reload();else{alert(await r.text());e.target.disabled=false}})";

/// Groups shown; of more, the page says how many there are.
const GROUPS_MAX: usize = 500;
/// Samples shown of one family.
const SAMPLES_MAX: usize = 100;

/// `/`.
pub async fn page(State(api): State<Shared>) -> Result<Response, TextError> {
    let groups = api.groups.groups().await?;
    let prefix = &api.settings.route_prefix;
    let mut html = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Pushed groups</title>\
         <style>{STYLE}</style></head><body><h1>Pushed groups</h1><p class=\"dim\">{} groups. quorate {} · \
         <a href=\"{}\">metrics</a> · <a href=\"{}/api/v1/metrics\">as JSON</a> · \
         <a href=\"{}/api/v1/status\">status</a></p>",
        groups.len(),
        escape(&api.status.build().version),
        escape(&format!("{prefix}{}", api.settings.telemetry_path)),
        escape(prefix),
        escape(prefix),
    );
    for group in groups.iter().take(GROUPS_MAX) {
        write_group(&mut html, group, prefix);
    }
    if groups.len() > GROUPS_MAX {
        html.push_str(&format!(
            "<p>{} more are not shown; <code>/api/v1/metrics</code> has all.</p>",
            groups.len() - GROUPS_MAX
        ));
    }
    html.push_str(&format!("<script>{SCRIPT}</script></body></html>\n"));
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    Ok((headers, html).into_response())
}

fn write_group(html: &mut String, group: &Group, prefix: &str) {
    let name: Vec<String> = group
        .key
        .iter()
        .map(|(n, v)| format!("{n}={v:?}"))
        .collect();
    let name = escape(&name.join(", "));
    let path = escape(&format!("{prefix}{}", path_of(&group.key)));
    html.push_str(&format!(
        "<section><button data-path=\"{path}\" data-group=\"{name}\">Delete group</button><h2>{name}</h2><p class=\"dim\">"
    ));
    html.push_str(&format!("last push: {}", time(group.push_time)));
    if group.push_failure_time > Timestamp(0) {
        let class = match group.push_failure_time > group.push_time {
            true => "bad",
            false => "dim",
        };
        let at = time(group.push_failure_time);
        html.push_str(&format!(
            " · <span class=\"{class}\">last failure: {at}</span>"
        ));
    }
    if let Some(at) = group.expires {
        html.push_str(&format!(" · expires: {}", time(at)));
    }
    html.push_str("</p>");
    for family in &group.families {
        write_family(html, family);
    }
    html.push_str("</section>");
}

fn write_family(html: &mut String, family: &Family) {
    html.push_str(&format!(
        "<details><summary><code>{}</code> <span class=\"dim\">{} · {} samples{}{}</span></summary><table>",
        escape(&family.name),
        family.kind.as_str(),
        family.samples.len(),
        if family.help.is_some() { " · " } else { "" },
        escape(family.help.as_deref().unwrap_or_default()),
    ));
    for sample in family.samples.iter().take(SAMPLES_MAX) {
        html.push_str(&format!(
            "<tr><td>{}{}</td><td class=\"v\">{}</td></tr>",
            escape(&format!("{}{}", family.name, sample.suffix)),
            escape(&sample.labels.to_string()),
            number::exposition(sample.value),
        ));
    }
    if family.samples.len() > SAMPLES_MAX {
        let more = family.samples.len() - SAMPLES_MAX;
        html.push_str(&format!("<tr><td class=\"dim\">{more} more</td></tr>"));
    }
    html.push_str("</table></details>");
}

fn time(at: Timestamp) -> String {
    match at {
        Timestamp(0) => "never".to_owned(),
        at => escape(&instant::format_millis(at)),
    }
}

/// The path that names the group, whatever its labels hold: values in base64, names that are no
/// words in the form that can be undone.
fn path_of(key: &GroupingKey) -> String {
    let value = |key: &GroupingKey, name: &str| {
        let mut pairs = key.iter();
        let found = pairs.find(|(n, _)| *n == name);
        base64(found.map_or("", |(_, value)| value))
    };
    let mut path = format!("/metrics/job@base64/{}", value(key, "job"));
    for (name, text) in key.iter().filter(|(name, _)| *name != "job") {
        let name = Escaping::Values.escape(name);
        path.push_str(&format!("/{name}@base64/{}", base64(text)));
    }
    path
}

/// URL-safe; an empty text is one `=`, since a component of a path cannot be empty.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    if text.is_empty() {
        return "=".to_owned();
    }
    let mut out = String::with_capacity(text.len() * 4 / 3 + 4);
    for chunk in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..=chunk.len() {
            let index = (word >> (18 - 6 * digit)) & 63;
            out.push(char::from(DIGITS[index as usize]));
        }
    }
    out
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&#34;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::twin::Twin;
    use super::*;

    #[test]
    fn every_key_has_a_path_that_names_it() {
        for pairs in [
            vec![("job", "a")],
            vec![
                ("job", "some/job"),
                ("empty", ""),
                ("path", "/a b?#%\u{e9}"),
            ],
            vec![("job", "\"<>'&"), ("l_1", "x"), ("lab.el", "y")],
        ] {
            let own = pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            let key = GroupingKey::new(own).unwrap();
            let path = path_of(&key);
            let read = ingest::push::path::parse(&path, ingest::push::Names::Utf8);
            assert_eq!(read, Ok(key), "{path}");
        }
    }

    #[tokio::test]
    async fn the_page_shows_groups_and_nothing_pushed_is_markup() {
        let twin = Twin::new();
        let path = "/metrics/job/%3Cscript%3Ealert(1)%3C%2Fscript%3E";
        let path = path.replace("%2F", "");
        let body = "# HELP x <b>\nx{l=\"</script><i>\"} 5\n";
        let pushed = twin.push_request("PUT", &path, &[], body.to_owned()).await;
        assert_eq!(pushed.code, 200);
        let page = twin.push_request("GET", "/", &[], "").await;
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        let text = page.text();
        assert!(text.contains("1 groups") && text.contains("&lt;script&gt;alert(1)"));
        assert!(!text.contains("<i>") && !text.contains("<b>"));
        let at = text.find("data-path=\"").unwrap() + "data-path=\"".len();
        let delete = text[at..].split('"').next().unwrap();
        let deleted = twin.push_request("DELETE", delete, &[], "").await;
        assert_eq!(deleted.code, 202);
        let page = twin.push_request("GET", "/", &[], "").await;
        assert!(page.text().contains("0 groups"));
    }
}
