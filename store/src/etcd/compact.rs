//! History in etcd: what is older than five minutes goes, as kube-apiserver has it (apiserver/pkg/storage/etcd3/compact.go).
//! Whoever of all API servers on one etcd is the first to count `compact_rev_key` on does it; the others go by what they see there.
use super::{Inner, messages::*};
use crate::{Error, writer::Shared};
use async_io::Timer;
use std::{sync::Arc, time::Duration};

const INTERVAL: Duration = Duration::from_secs(300);
const KEY: &[u8] = b"compact_rev_key";

pub(super) async fn run(inner: Arc<Inner>, shared: Arc<Shared>) {
    let (mut version, mut before) = (0, 0);
    loop {
        Timer::after(INTERVAL).await;
        let now = shared.lock().visible.revision as i64;
        // Nothing but the last turn itself.
        if now <= before + 1 {
            continue;
        }
        match turn(&inner, version, before, now).await {
            Ok(next) => (version, before) = (next, now),
            Err(error) => tracing::debug!(%error, "compacting etcd"),
        }
    }
}

/// Forgets what was before the revision of the last turn, if this is whose turn it is. Returns the version of the key.
async fn turn(inner: &Inner, version: i64, before: i64, now: i64) -> Result<i64, Error> {
    let compare =
        Compare { result: EQUAL, target: VERSION, key: KEY.to_vec(), version: Some(version), ..Compare::default() };
    let put = PutRequest { key: KEY.to_vec(), value: now.to_string().into_bytes(), lease: 0 };
    let get = RangeRequest { key: KEY.to_vec(), ..RangeRequest::default() };
    let request = TxnRequest {
        compare: vec![compare],
        success: vec![Operation { put: Some(put), ..Operation::default() }],
        failure: vec![Operation { range: Some(get), ..Operation::default() }],
    };
    let answer: TxnResponse = inner.client.once(TXN, &request).await?;
    if !answer.succeeded {
        let found = answer.outcomes.into_iter().find_map(|outcome| outcome.range?.kvs.into_iter().next());
        return Ok(found.map_or(0, |kv| kv.version));
    }
    if before > 0 {
        let request = CompactionRequest { revision: before };
        let _: CompactionResponse = inner.client.once(COMPACT, &request).await?;
    }
    Ok(version + 1)
}
