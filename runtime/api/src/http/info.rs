//! What a request is about, read from its method, path and query as upstream's RequestInfoFactory does
//! (apiserver/pkg/endpoints/request/requestinfo.go), and whether it may run long.
use super::request::{Query, RequestInfo};
use std::time::Duration;

/// `path` is percent-decoded. The error is upstream's, for a special verb without a resource.
pub fn parse(method: &http::Method, path: &str, query: &Query) -> Result<RequestInfo, String> {
    let mut info =
        RequestInfo { path: path.into(), verb: method.as_str().to_ascii_lowercase(), ..RequestInfo::default() };
    let trimmed = path.trim_matches('/');
    let all: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
    let (group, mut parts) = match all.as_slice() {
        ["api", rest @ ..] if rest.len() >= 2 => ("", rest),
        ["apis", group, rest @ ..] if rest.len() >= 2 => (*group, rest),
        _ => return Ok(info),
    };
    info.is_resource = true;
    info.prefix = all[0].into();
    info.group = group.into();
    info.version = parts[0].into();
    parts = &parts[1..];
    match parts {
        [special @ ("proxy" | "watch"), rest @ ..] => {
            if rest.is_empty() {
                return Err(format!("unable to determine kind and namespace from url, {path}"));
            }
            info.verb = (*special).into();
            parts = rest;
        }
        _ => {
            info.verb = match method.as_str() {
                "POST" => "create",
                "GET" | "HEAD" => "get",
                "PUT" => "update",
                "PATCH" => "patch",
                "DELETE" => "delete",
                _ => "",
            }
            .into()
        }
    }
    if let ["namespaces", namespace, rest @ ..] = parts {
        info.namespace = (*namespace).into();
        if let [resource, ..] = rest
            && !["status", "finalize"].contains(resource)
        {
            parts = rest;
        }
    }
    info.resource = parts[0].into();
    info.name = parts.get(1).copied().unwrap_or("").into();
    if info.verb != "proxy" && parts.len() >= 3 {
        info.subresource = parts[2].into();
        info.rest = parts[3..].join("/");
        if !info.rest.is_empty() && path.ends_with('/') {
            info.rest.push('/');
        }
    }
    if info.name.is_empty() && info.verb == "get" {
        info.verb = if query.bool("watch") { "watch" } else { "list" }.into();
        if let Some(name) = query.get("fieldSelector").and_then(exact_name) {
            info.name = name.into();
        }
    }
    if info.name.is_empty() && info.verb == "delete" {
        info.verb = "deletecollection".into();
    }
    if matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
        info.field_selector = query.get("fieldSelector").unwrap_or("").into();
    }
    Ok(info)
}

/// The name that a field selector pins, so that rules with resourceNames apply to such a list or watch.
fn exact_name(selector: &str) -> Option<&str> {
    let name = selector.split(',').find_map(|term| {
        let rest = term.trim().strip_prefix("metadata.name")?.strip_prefix('=')?;
        Some(rest.strip_prefix('=').unwrap_or(rest))
    })?;
    let is_segment = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%']);
    is_segment.then_some(name)
}

impl RequestInfo {
    /// No timeout and no in-flight limit: as kube-apiserver's BasicLongRunningRequestCheck with its own lists.
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb.as_str(), "watch" | "proxy")
            || self.is_resource
                && matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }
    pub fn is_mutating(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }
}

/// A Go duration ("1m30s", "1.5h") as in `?timeout=`; negative ones count as zero. The error is Go's text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        rest = &rest[letters..];
        total += number * unit;
    }
    // Go's own limit is 2^63 nanoseconds.
    if total > 9_223_372_036.0 {
        return Err(invalid());
    }
    Ok(if negative { Duration::ZERO } else { Duration::from_secs_f64(total) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// verb|group|version|namespace|resource|subresource|name|rest
    fn check(method: &str, url: &str, want: &str) {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let info = parse(&method.parse().unwrap(), path, &Query::parse(query)).unwrap();
        let got = if info.is_resource {
            [
                &info.verb,
                &info.group,
                &info.version,
                &info.namespace,
                &info.resource,
                &info.subresource,
                &info.name,
                &info.rest,
            ]
            .map(String::as_str)
            .join("|")
        } else {
            format!("{} {}", info.verb, info.path)
        };
        assert_eq!(got, want, "{method} {url}");
    }

    #[test]
    fn resources() {
        for (method, url, want) in [
            ("GET", "/api/v1/namespaces", "list||v1||namespaces|||"),
            ("GET", "/api/v1/namespaces/other", "get||v1|other|namespaces||other|"),
            ("PUT", "/api/v1/namespaces/other/finalize", "update||v1|other|namespaces|finalize|other|"),
            ("GET", "/api/v1/namespaces/other/pods", "list||v1|other|pods|||"),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", "get||v1|other|pods||foo|"),
            ("GET", "/api/v1/pods", "list||v1||pods|||"),
            ("GET", "/api/v1/pods?watch=true", "watch||v1||pods|||"),
            ("GET", "/api/v1/pods?watch=0", "list||v1||pods|||"),
            ("GET", "/api/v1/watch/namespaces/other/pods", "watch||v1|other|pods|||"),
            ("GET", "/api/v1/namespaces/other/pods/foo/log", "get||v1|other|pods|log|foo|"),
            ("GET", "/api/v1/namespaces/o/pods/foo/proxy/a/b/", "get||v1|o|pods|proxy|foo|a/b/"),
            ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection||v1|other|pods|||"),
            ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete||v1|other|pods||foo|"),
            ("PATCH", "/apis/apps/v1/namespaces/o/deployments/d/scale", "patch|apps|v1|o|deployments|scale|d|"),
            ("GET", "/apis/apps/v1/deployments?fieldSelector=metadata.name%3Dx", "list|apps|v1||deployments||x|"),
            ("DELETE", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "deletecollection||v1||pods|||"),
            ("TRACE", "/api/v1/pods", "||v1||pods|||"),
        ] {
            check(method, url, want);
        }
    }

    #[test]
    fn other_paths() {
        for path in ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/x/y/z/a"] {
            check("GET", path, &format!("get {path}"));
        }
        assert!(parse(&http::Method::GET, "/api/v1/watch", &Query::default()).is_err());
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("1m30s", Ok(90_000)),
            ("1.5s", Ok(1500)),
            ("250ms", Ok(250)),
            ("0", Ok(0)),
            ("-5s", Ok(0)),
            ("10", Err("time: missing unit in duration \"10\"")),
            ("1x", Err("time: unknown unit \"x\" in duration \"1x\"")),
            ("", Err("time: invalid duration \"\"")),
            ("99999999999999h", Err("time: invalid duration \"99999999999999h\"")),
        ] {
            let got = parse_duration(text).map(|d| d.as_millis());
            assert_eq!(got, want.map_err(String::from), "{text}");
        }
    }
}
