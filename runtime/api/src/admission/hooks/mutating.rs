//! Mutating webhooks: one after the other, each sees what the one before made of the object. When one changed it, those
//! that asked for that (`reinvocationPolicy: IfNeeded`) are asked once more (plugin/webhook/mutating).
use super::{
    super::Attributes,
    configurations::{Hook, Side, hooks},
    matching::{Matched, is_exempt},
    review::{Notes, Refused, ask},
    versions,
};
use crate::audit;
use mote_schema::{Status, defaults, patch, prune, status::go_quote};
use mote_schema::{Value, json};
use std::collections::BTreeSet;

/// What the first pass of the mutating chain leaves for the second.
#[derive(Default)]
pub(crate) struct Round {
    pub is_second: bool,
    /// A webhook changed the object: the whole chain runs once more.
    pub should_reinvoke: bool,
    /// What MutatingAdmissionPolicies remember.
    pub policies: crate::admission::policy::Reinvocation,
    /// As the webhooks left it.
    last: Option<Value>,
    /// Webhooks that wish to be asked again, until something changes after them.
    asked: BTreeSet<String>,
    again: BTreeSet<String>,
}

impl Round {
    /// Whether there is a second round to run, and makes this that.
    pub fn next(&mut self) -> bool {
        let runs = self.should_reinvoke && !self.is_second;
        self.is_second = true;
        runs
    }

    fn changed(&mut self) {
        self.again.append(&mut self.asked);
    }
}

pub(crate) async fn mutate(
    attributes: &mut Attributes<'_, '_>,
    new: &mut Value,
    round: &mut Round,
) -> Result<(), Status> {
    let api = attributes.api;
    let configurations = api.webhooks.of(api, Side::Mutating);
    if configurations.is_empty() || is_exempt(attributes) {
        return Ok(());
    }
    if round.is_second && round.last.as_ref().is_some_and(|last| last != new) {
        // In-tree plugins had another say in between.
        round.changed();
    }
    for (index, configuration, hook) in hooks(&configurations) {
        let Some(matched) = hook.matches(attributes, new).await? else { continue };
        if round.is_second && !round.again.contains(&hook.uid) {
            continue;
        }
        let mut notes = Notes::default();
        let asked = ask(attributes, Side::Mutating, (configuration, hook), &matched, new, &mut notes).await;
        notes.leave(attributes);
        let place = format!("round_{}_index_{index}", u8::from(round.is_second));
        let outcome = match asked {
            Ok(Some(operations)) => {
                let changed = apply(attributes, hook, &matched, &operations, new).await;
                // A Secret's content has no place in any log.
                if changed.is_ok() && !attributes.is("", "secrets") {
                    audit::annotate_body(&format!("patch.webhook.admission.k8s.io/{place}"), || {
                        let told = json!({"configuration": configuration.object.name(), "webhook": hook.name,
                            "patch": operations, "patchType": "JSONPatch"});
                        told.to_string()
                    });
                }
                changed.map_err(Refused::Internal)
            }
            Ok(None) => Ok(false),
            Err(refused) => Err(refused),
        };
        let changed = matches!(outcome, Ok(true));
        let told = json!({"configuration": configuration.object.name(), "webhook": hook.name, "mutated": changed});
        attributes.annotate(format!("mutation.webhook.admission.k8s.io/{place}"), told.to_string());
        if changed {
            round.changed();
            round.should_reinvoke = true;
        }
        if hook.reinvokes {
            round.asked.insert(hook.uid.clone());
        }
        let key = format!("failed-open.mutation.webhook.admission.k8s.io/{place}");
        outcome.map(drop).or_else(|refused| refused.settle(attributes, hook, Side::Mutating, key))?;
    }
    if round.should_reinvoke && !round.is_second {
        round.last = Some(new.clone());
    }
    Ok(())
}

/// Whether the object is another one afterwards.
async fn apply(
    attributes: &Attributes<'_, '_>,
    hook: &Hook,
    matched: &Matched,
    operations: &Value,
    new: &mut Value,
) -> Result<bool, Status> {
    if new.is_null() {
        return Err(Status::internal(format!(
            "admission webhook {} attempted to modify the object, which is not supported for this operation",
            go_quote(&hook.name)
        )));
    }
    let mut patched = versions::view(attributes, matched, new).await?.into_owned();
    name(&mut patched, matched);
    patch::json(&mut patched, operations).map_err(|error| Status::internal(error.message))?;
    // What a patch adds that the kind does not know is dropped, as upstream's decoder does.
    let catalog = attributes.api.catalog();
    let object = &matched.object;
    if let Some(kind) = catalog.by_kind(&object.group, &object.version, &object.kind) {
        prune::clean(kind, &mut patched).map_err(Status::internal)?;
        defaults::apply(kind, &mut patched);
    }
    name(&mut patched, matched);
    let patched = versions::back(attributes, matched, patched).await?;
    let mut before = std::mem::replace(new, patched);
    // The envelope is ours and no change.
    for field in ["apiVersion", "kind"] {
        before[field] = new[field].clone();
    }
    Ok(before != *new)
}

fn name(value: &mut Value, matched: &Matched) {
    let object = &matched.object;
    let slash = if object.group.is_empty() { "" } else { "/" };
    value["kind"] = Value::from(&*object.kind);
    value["apiVersion"] = format!("{}{slash}{}", object.group, object.version).into();
}

impl Notes {
    pub(super) fn leave(self, attributes: &mut Attributes<'_, '_>) {
        for warning in self.warnings {
            attributes.warn(warning);
        }
        for (key, value) in self.annotations {
            attributes.annotate(key, value);
        }
    }
}

impl Refused {
    /// What a refusal means for the request, with the webhook's failurePolicy.
    pub(super) fn settle(
        self,
        attributes: &mut Attributes<'_, '_>,
        hook: &Hook,
        side: Side,
        key: String,
    ) -> Result<(), Status> {
        let why = match self {
            Refused::Denied(status) | Refused::Internal(status) => return Err(status),
            Refused::Failed { why, .. } => format!("failed calling webhook {}: {why}", go_quote(&hook.name)),
        };
        if !hook.ignores_failures {
            tracing::warn!(webhook = hook.name, why, "failed calling webhook, failing closed");
            return Err(Status::internal(why));
        }
        tracing::warn!(webhook = hook.name, why, "failed calling webhook, failing open");
        attributes.api.webhooks.figures.opened(&hook.name, side);
        attributes.annotate(key, hook.name.as_str());
        Ok(())
    }
}

impl Hook {
    /// Whether this webhook is to be asked, and about what.
    pub(super) async fn matches(
        &self,
        attributes: &Attributes<'_, '_>,
        new: &Value,
    ) -> Result<Option<Matched>, Status> {
        let Some(matched) = self.matcher.matches(attributes, new)? else { return Ok(None) };
        if self.conditions.is_empty() {
            return Ok(Some(matched));
        }
        let object = versions::view(attributes, &matched, new).await?;
        let old = versions::view(attributes, &matched, attributes.old).await?;
        match self.conditions.matches(attributes, &matched, &object, &old) {
            Ok(true) => Ok(Some(matched)),
            Ok(false) => Ok(None),
            Err(_) if self.ignores_failures => Ok(None),
            Err(why) => {
                tracing::warn!(webhook = self.name, why, "failed evaluating match conditions, failing closed");
                Err(attributes.forbidden(new, &why))
            }
        }
    }
}
