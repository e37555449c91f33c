//! One door to every kind that is asked and not stored: TokenReview, SelfSubjectReview and the access reviews.
use crate::{http::User, rbac, server::Api, tokens};
use mote_schema::{Kind, Status, Value};

/// Answers a create of `kind` in `namespace` ("" for cluster-scoped kinds).
pub(crate) fn answer(api: &Api, user: &User, kind: &Kind, namespace: &str, body: Value) -> Result<Value, Status> {
    let security = api.security()?;
    let name: &str = kind.kind.as_ref();
    if name == "TokenReview" {
        return tokens::review(&security.authenticator, body);
    }
    rbac::review(&security.authorizer, user, name, namespace, body)
        .unwrap_or_else(|| Err(Status::method_not_supported(&kind.group, &kind.plural, "create")))
}
