//! GET: one object, or the page of a list that is one root of the store. How a list becomes bytes is in `items`.
use super::{
    items::{self, Items, List},
    media,
    options::{ListOptions, Match, parse_revision},
};
use crate::{
    feed,
    http::{Request, Response},
    server::Api,
};
use base64::{DecodeError, Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mote_schema::{Cause, Kind, Status, json, protobuf::ListMeta};
use mote_store::{Entry, Error, Snapshot};
use std::sync::Arc;

const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

pub(crate) async fn get(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<Response, Status> {
    let form = media::negotiate(request, kind)?;
    if request.query.bool("export") {
        return Err(Status::bad_request("the export parameter, deprecated since v1.14, is no longer supported"));
    }
    // What the store says of rubbish is no API error upstream, so it comes through as it is.
    let revision = parse_revision(&request.query).map_err(|message| Status::new(500, "", message))?;
    fresh_enough(api, revision)?;
    let object = api.current(kind, &request.info.namespace, &request.info.name).await?;
    media::respond(200, &object, form)
}

/// Refuses a resourceVersion that the store has not reached.
pub(crate) fn fresh_enough(api: &Api, asked: Option<u64>) -> Result<(), Status> {
    let current = api.store.revision();
    match asked {
        Some(asked) if asked > current => Err(too_large(asked, current)),
        _ => Ok(()),
    }
}

/// storage.NewTooLargeResourceVersionError
pub(crate) fn too_large(asked: u64, current: u64) -> Status {
    let message = format!("Too large resource version: {asked}, current: {current}");
    let causes = vec![Cause {
        reason: "ResourceVersionTooLarge",
        message: "Too large resource version".into(),
        field: String::new(),
    }];
    Status { causes, ..Status::timeout(message, 1) }
}

/// Where a continued list goes on: {"v", "rv", "start"} as upstream encodes it (apiserver/pkg/storage/continue.go).
/// A revision of -1 takes the newest state, consistent or not.
fn continue_token(revision: i64, last: &str) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{last}\u{0}")});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

/// storage.DecodeContinue: the revision, and the last key of the page before.
pub(crate) fn parse_token(text: &str) -> Result<(i64, String), Status> {
    let refuse =
        |why: &str| Err(Status::bad_request(format!("invalid continue token: continue key is not valid{why}")));
    let bytes = match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) => bytes,
        Err(DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _)) => {
            return refuse(&format!(": illegal base64 data at input byte {at}"));
        }
        Err(_) => return refuse(&format!(": illegal base64 data at input byte {}", text.len() / 4 * 4)),
    };
    let token = match mote_schema::prune::parse_json(&bytes) {
        Ok((token, _)) => token,
        Err(why) => return refuse(&format!(": {why}")),
    };
    let version = token["v"].as_str().unwrap_or("");
    if version != "meta.k8s.io/v1" {
        return refuse(&format!(": server does not recognize this encoded version {version}"));
    }
    let start = token["start"].as_str().unwrap_or("");
    let revision = token["rv"].as_i64().unwrap_or(0);
    if revision == 0 {
        return refuse(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)");
    }
    if start.is_empty() {
        return refuse(": encoded start key empty (version meta.k8s.io/v1)");
    }
    // A clean path, so that nobody climbs out of the prefix.
    let path = start.strip_prefix('/').unwrap_or(start);
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse(&format!(": {start}"));
    }
    // The first key of the page is the last one before with a zero byte behind; any other start is a key of its own.
    Ok((revision, path.strip_suffix('\u{0}').unwrap_or(path).to_owned()))
}

struct Page {
    objects: Vec<Entry>,
    revision: u64,
    next: Option<String>,
    remaining: Option<usize>,
}

pub(crate) async fn list(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<Response, Status> {
    let form = media::negotiate(request, kind)?;
    let options = ListOptions::parse(&request.query, kind, &request.info.name)?;
    let (entries, meta) = listed(api, kind, &request.info.namespace, &options).await?;
    items::respond(api, List { kind: kind.clone(), items: Items::Stored(entries), meta }, form).await
}

/// What is asked for, at the version of `kind`, and where the rest begins.
pub(crate) async fn listed(
    api: &Api,
    kind: &Arc<Kind>,
    namespace: &str,
    options: &ListOptions,
) -> Result<(Vec<Entry>, ListMeta), Status> {
    let prefix = api.list_prefix(kind, namespace);
    let page = match options.filter.is_empty() || !crate::custom::convert::waits(kind) {
        true => page(api, kind, &prefix, options)?,
        // Selected by what another program makes of them.
        false => {
            api.check_readable(&prefix)?;
            let (snapshot, after) = state(api, &prefix, options)?;
            let stored = snapshot.range(&prefix, after.as_deref()).collect();
            let revision = snapshot.revision();
            let converted = crate::custom::convert::entries(api, kind, stored).await?;
            select(kind, &prefix, options, revision, converted.into_iter())
        }
    };
    let meta = ListMeta {
        revision: page.revision,
        next: page.next.unwrap_or_default(),
        remaining: page.remaining.and_then(|count| i64::try_from(count).ok()),
    };
    Ok((crate::custom::convert::entries(api, kind, page.objects).await?, meta))
}

fn page(api: &Api, kind: &Arc<Kind>, prefix: &str, options: &ListOptions) -> Result<Page, Status> {
    api.check_readable(prefix)?;
    let (snapshot, after) = state(api, prefix, options)?;
    let entries = snapshot.range(prefix, after.as_deref());
    Ok(select(kind, prefix, options, snapshot.revision(), entries))
}

/// What is asked for of `entries`.
fn select(
    kind: &Arc<Kind>,
    prefix: &str,
    options: &ListOptions,
    revision: u64,
    entries: impl Iterator<Item = Entry>,
) -> Page {
    // Whoever takes any revision gets all of it (cacher.computeListLimit).
    let all = options.limit == 0 || options.revision == Some(0) && options.continue_token.is_empty();
    let limit = if all { usize::MAX } else { options.limit };
    let mut objects: Vec<Entry> = Vec::new();
    let mut more = false;
    let mut remaining = 0usize;
    for entry in entries {
        if objects.len() < limit {
            if options.filter.is_empty() || options.filter.matches(&feed::object(kind, &entry)) {
                objects.push(entry);
            }
        } else if options.filter.is_empty() {
            (more, remaining) = (true, remaining + 1);
        } else if options.filter.matches(&feed::object(kind, &entry)) {
            more = true;
            break;
        }
    }
    let number = i64::try_from(revision).unwrap_or(i64::MAX);
    let token = |entry: &Entry| continue_token(number, entry.key.strip_prefix(prefix).unwrap_or(""));
    Page {
        next: objects.last().filter(|_| more).map(token),
        remaining: (more && options.filter.is_empty()).then_some(remaining),
        revision,
        objects,
    }
}

/// Which root is listed, and after which key.
fn state(api: &Api, prefix: &str, options: &ListOptions) -> Result<(Snapshot, Option<String>), Status> {
    if !options.continue_token.is_empty() {
        let (revision, last) = parse_token(&options.continue_token)?;
        if options.revision.is_some_and(|revision| revision != 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let after = Some(format!("{prefix}{last}"));
        let Ok(revision) = u64::try_from(revision) else { return Ok((api.store.snapshot(), after)) };
        return match api.store.snapshot_at(revision) {
            Ok(snapshot) => Ok((snapshot, after)),
            Err(Error::Future { current, .. }) => Err(too_large(revision, current)),
            Err(_) => {
                let mut status = Status::new(410, "Expired", TOO_OLD);
                status.continue_token = Some(continue_token(-1, &last));
                Err(status)
            }
        };
    }
    match (options.revision, options.revision_match) {
        (Some(revision), matching)
            if matching == Match::Exact || matching == Match::Unset && options.limit > 0 && revision > 0 =>
        {
            match api.store.snapshot_at(revision) {
                Ok(snapshot) => Ok((snapshot, None)),
                Err(Error::Future { current, .. }) => Err(too_large(revision, current)),
                Err(_) => Err(Status::expired("The resourceVersion for the provided list is too old.")),
            }
        }
        (revision, _) => {
            fresh_enough(api, revision)?;
            Ok((api.store.snapshot(), None))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::Value;

    #[test]
    fn continue_tokens_come_back_whole_and_rubbish_is_refused() {
        for (revision, last) in [(7, "default/web"), (-1, "a")] {
            let (r, l) = parse_token(&continue_token(revision, last)).expect("own token");
            assert_eq!((r, l.as_str()), (revision, last));
        }
        let refused = |text: &str| parse_token(text).map_err(|status| (status.code, status.message));
        let token = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for (bad, why) in [
            ("?".to_owned(), ": illegal base64 data at input byte 0"),
            (String::new(), ": unexpected end of JSON input"),
            ("e30".to_owned(), ": server does not recognize this encoded version "),
            (
                token(json!({"v": "meta.k8s.io/v1", "start": "a"})),
                ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (token(json!({"v": "meta.k8s.io/v1", "rv": 1})), ": encoded start key empty (version meta.k8s.io/v1)"),
            (token(json!({"v": "meta.k8s.io/v1", "rv": 1, "start": "../a"})), ": ../a"),
        ] {
            let message = format!("invalid continue token: continue key is not valid{why}");
            assert_eq!(refused(&bad), Err((400, message)), "{bad}");
        }
    }
}
