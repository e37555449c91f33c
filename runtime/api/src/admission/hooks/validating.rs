//! Validating webhooks: all that match are asked at once, and all are waited for; the first refusal is the answer
//! (plugin/webhook/validating).
use super::{
    super::Attributes,
    configurations::{Side, hooks},
    matching::is_exempt,
    review::{Notes, ask},
};
use crate::driver::BoxFuture;
use futures_lite::future::poll_fn;
use mote_schema::Status;
use mote_schema::Value;
use std::task::Poll;

pub(crate) async fn validate(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    let api = attributes.api;
    let configurations = api.webhooks.of(api, Side::Validating);
    if configurations.is_empty() || is_exempt(attributes) {
        return Ok(());
    }
    let mut relevant = Vec::new();
    for (_, configuration, hook) in hooks(&configurations) {
        if let Some(matched) = hook.matches(attributes, new).await? {
            relevant.push((configuration, hook, matched));
        }
    }
    let asking = &*attributes;
    let calls = relevant.iter().map(|(configuration, hook, matched)| {
        let call: BoxFuture<'_, _> = Box::pin(async move {
            let mut notes = Notes::default();
            let asked = ask(asking, Side::Validating, (configuration, hook), matched, new, &mut notes).await;
            (asked, notes)
        });
        call
    });
    let ended = all(calls.collect()).await;
    let mut first = Ok(());
    for (index, (asked, notes)) in ended {
        notes.leave(attributes);
        let Err(refused) = asked else { continue };
        let Some((_, hook, _)) = relevant.get(index) else { continue };
        let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
        first = first.and(refused.settle(attributes, hook, Side::Validating, key));
    }
    first
}

/// Runs all side by side; the results come in the order they ended, with their places.
async fn all<T>(futures: Vec<BoxFuture<'_, T>>) -> Vec<(usize, T)> {
    let mut running: Vec<_> = futures.into_iter().enumerate().collect();
    let mut ended = Vec::with_capacity(running.len());
    poll_fn(move |context| {
        running.retain_mut(|(place, future)| match future.as_mut().poll(context) {
            Poll::Ready(result) => {
                ended.push((*place, result));
                false
            }
            Poll::Pending => true,
        });
        if running.is_empty() { Poll::Ready(std::mem::take(&mut ended)) } else { Poll::Pending }
    })
    .await
}
