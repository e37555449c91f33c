//! What an object costs against a ResourceQuota: which of a quota's names its kind is counted under, whether it falls
//! into the quota's scopes, and how much it uses. Pure functions over stored objects, for admission (which charges) and
//! for the controller (which recounts). Upstream: pkg/quota/v1/evaluator/core, apiserver/pkg/quota/v1/generic.
mod amounts;
mod evaluate;
pub mod pod;

pub use amounts::Amounts;
pub use evaluate::{Life, counts, lacks, life, matching, usage};

use mote_schema::{Kind, Ref};

/// Whether `object` falls into all of the quota's scopes; one without scopes takes all.
pub fn in_scope(quota: Ref<'_>, kind: &Kind, object: Ref<'_>) -> bool {
    let spec = quota.get("spec");
    spec.get("scopes").items().all(|scope| evaluate::matches_scope(kind, object, scope.str(), "Exists", Ref::absent()))
        && spec.at("scopeSelector.matchExpressions").items().all(|wanted| {
            let (scope, operator) = (wanted.get("scopeName").str(), wanted.get("operator").str());
            evaluate::matches_scope(kind, object, scope, operator, wanted.get("values"))
        })
}
