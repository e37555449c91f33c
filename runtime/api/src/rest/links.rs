//! Links of an HTML page that came through a proxy subresource: those to the page's own host lead through the proxy
//! again (apimachinery/pkg/util/proxy/transport.go). All other bytes stay as they are.

/// Attributes that hold a URL, on whatever element.
const LINKS: &[&str] = &[
    "action",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "icon",
    "longdesc",
    "manifest",
    "poster",
    "profile",
    "src",
    "usemap",
];

pub(super) struct Through<'a> {
    /// The proxy's own path, `/api/v1/namespaces/x/pods/y/proxy`.
    pub prefix: &'a str,
    /// Where the page came from, `10.42.0.7:80`.
    pub authority: &'a str,
}

impl Through<'_> {
    /// A relative link, and one to another host, stays as it is.
    pub fn lead(&self, link: &str) -> String {
        let own = ["http:", "https:", ""].iter().find_map(|scheme| {
            let rest = link.strip_prefix(scheme)?.strip_prefix("//")?.strip_prefix(self.authority)?;
            (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(rest)
        });
        let path = own.unwrap_or(link);
        if own.is_none() && (!link.starts_with('/') || link.starts_with("//")) || path.starts_with(self.prefix) {
            return path.to_owned();
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{}{slash}{path}", self.prefix)
    }
}

pub(super) fn rewrite(page: &[u8], through: &Through<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + 256);
    let mut at = 0;
    while let Some(open) = find(page, at, b"<") {
        out.extend_from_slice(&page[at..open]);
        let rest = &page[open..];
        if rest.starts_with(b"<!--") {
            at = find(page, open, b"-->").unwrap_or(page.len());
            out.extend_from_slice(&page[open..at]);
            continue;
        }
        let name_end = rest.iter().skip(1).position(|b| !b.is_ascii_alphanumeric()).map_or(rest.len(), |n| n + 1);
        let name = rest[1..name_end].to_ascii_lowercase();
        at = open + name_end;
        out.extend_from_slice(&page[open..at]);
        if name.is_empty() {
            continue;
        }
        at = attributes(page, at, through, &mut out);
        // What is inside these is no markup.
        if matches!(&name[..], b"script" | b"style" | b"textarea" | b"title") {
            let end = [b"</", &name[..]].concat();
            let close = (at..page.len())
                .find(|&i| page.get(i..i + end.len()).is_some_and(|text| text.eq_ignore_ascii_case(&end)));
            let close = close.unwrap_or(page.len());
            out.extend_from_slice(&page[at..close]);
            at = close;
        }
    }
    out.extend_from_slice(&page[at..]);
    out
}

fn find(page: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    page[from..].windows(what.len()).position(|window| window == what).map(|at| from + at)
}

/// Copies a start tag from behind its name up to its `>`; returns where that is.
fn attributes(page: &[u8], mut at: usize, through: &Through<'_>, out: &mut Vec<u8>) -> usize {
    let span = |from: usize, stop: &dyn Fn(u8) -> bool| {
        page[from..].iter().position(|&b| stop(b)).map_or(page.len(), |n| from + n)
    };
    loop {
        let name = span(at, &|b| !b.is_ascii_whitespace() && b != b'/');
        let name_end = span(name, &|b| b.is_ascii_whitespace() || matches!(b, b'=' | b'>' | b'/'));
        let equals = span(name_end, &|b| !b.is_ascii_whitespace());
        if page.get(name).is_none_or(|&b| b == b'>') {
            out.extend_from_slice(&page[at..name]);
            return name;
        }
        if page.get(equals) != Some(&b'=') {
            out.extend_from_slice(&page[at..name_end]);
            at = name_end;
            continue;
        }
        let value = span(equals + 1, &|b| !b.is_ascii_whitespace());
        let quote = page.get(value).copied().filter(|b| matches!(b, b'"' | b'\''));
        let (value, end) = match quote {
            Some(quote) => (value + 1, span(value + 1, &|b| b == quote)),
            None => (value, span(value, &|b| b.is_ascii_whitespace() || b == b'>')),
        };
        out.extend_from_slice(&page[at..value]);
        let is_link = LINKS.iter().any(|link| page[name..name_end].eq_ignore_ascii_case(link.as_bytes()));
        match str::from_utf8(&page[value..end]) {
            Ok(text) if is_link => out.extend_from_slice(through.lead(text).as_bytes()),
            _ => out.extend_from_slice(&page[value..end]),
        }
        at = end;
        if quote.is_some() && end < page.len() {
            out.extend(quote);
            at = end + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_links_lead_through_the_proxy() {
        let through = Through { prefix: "/p/proxy", authority: "10.0.0.1:80" };
        for (page, expected) in [
            (r#"<a href="/x">t</a>"#, r#"<a href="/p/proxy/x">t</a>"#),
            (r#"<A class=b HREF='/x/'>"#, r#"<A class=b HREF='/p/proxy/x/'>"#),
            (r#"<img src=/x alt="/y">"#, r#"<img src=/p/proxy/x alt="/y">"#),
            (r#"<a href="http://10.0.0.1:80/x?y">"#, r#"<a href="/p/proxy/x?y">"#),
            (r#"<a href="//10.0.0.1:80">"#, r#"<a href="/p/proxy/">"#),
            (r#"<a href="http://10.0.0.1:8080/x">"#, r#"<a href="http://10.0.0.1:8080/x">"#),
            (
                r#"<a href="x"><a href="//h/x"><a href="/p/proxy/x">"#,
                r#"<a href="x"><a href="//h/x"><a href="/p/proxy/x">"#,
            ),
            (
                r#"<script src="/x">"<a href='/y'>"</script><b/>"#,
                r#"<script src="/p/proxy/x">"<a href='/y'>"</script><b/>"#,
            ),
            (r#"<!-- <a href="/x"> --><a href="">"#, r#"<!-- <a href="/x"> --><a href="">"#),
            (r#"</a href="/x"> < b <"#, r#"</a href="/x"> < b <"#),
            (r#"<a b=1 href="/x"#, r#"<a b=1 href="/p/proxy/x"#),
            ("<a href", "<a href"),
            ("<a href=", "<a href="),
        ] {
            assert_eq!(String::from_utf8_lossy(&rewrite(page.as_bytes(), &through)), expected, "{page}");
        }
    }
}
