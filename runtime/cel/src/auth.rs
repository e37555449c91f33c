//! What the authorizer library asks of the API server.
use std::fmt;

/// Answers for the request's user, or for a service account.
pub trait Authorizer {
    fn check(&self, question: &Question<'_>) -> Decision;
}

impl fmt::Debug for dyn Authorizer + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("authorizer")
    }
}

pub struct Question<'q> {
    /// "namespace:name" of a service account to ask for; None asks for the request's user.
    pub service_account: Option<&'q str>,
    pub verb: &'q str,
    pub subject: Subject<'q>,
}

pub enum Subject<'q> {
    Path(&'q str),
    Resource(&'q ResourceCheck),
}

/// What `authorizer.group(...).resource(...)` gathers. The version is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceCheck {
    pub service_account: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Clone, Debug, Default)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}
