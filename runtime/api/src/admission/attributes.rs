//! One write as every admission plugin sees it (apiserver/pkg/admission/attributes.go).
use crate::{
    DeleteOptions,
    registry::{Beside, Target},
    server::Api,
};
use mote_schema::Status;
use mote_schema::Value;
use std::borrow::Cow;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As rules of webhooks and policies, and AdmissionReview, name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// Group, version and kind of what `new` is: the target's own, or a subresource's (policy/v1 Eviction, v1 Binding,
/// v1 PodExecOptions, autoscaling/v1 Scale).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectKind<'a> {
    pub group: Cow<'a, str>,
    pub version: Cow<'a, str>,
    pub kind: Cow<'a, str>,
}

/// The object travels beside this, since mutating plugins change it: `new` is null for a DELETE.
pub(crate) struct Attributes<'a, 't> {
    pub api: &'a Api,
    /// The resource and its name, who asks, dry run, and where warnings go.
    pub target: &'a mut Target<'t>,
    pub operation: Operation,
    /// "" for the object itself; "status", "binding", "exec"
    pub subresource: &'a str,
    pub object: ObjectKind<'a>,
    /// Null for a CREATE or CONNECT.
    pub old: &'a Value,
    /// Of a DELETE.
    pub delete: Option<&'a DeleteOptions>,
    /// What is to be written in the same transaction if all agree.
    pub beside: &'a mut Beside,
}

impl Attributes<'_, '_> {
    /// The object itself of this resource, not a part of it.
    pub(crate) fn is_main(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.is(group, plural)
    }

    /// This resource or any part of it.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.target.kind.plural == plural && self.target.kind.group == group
    }

    pub(crate) fn is_create(&self) -> bool {
        self.operation == Operation::Create
    }

    pub(crate) fn is_update(&self) -> bool {
        self.operation == Operation::Update
    }

    /// What a refusal calls the object: upstream's extractResourceName.
    pub(crate) fn name<'n>(&'n self, new: &'n Value) -> &'n str {
        if !self.target.name.is_empty() {
            return self.target.name;
        }
        let metadata = &new["metadata"];
        let texts = ["name", "generateName"].into_iter().filter_map(|field| metadata[field].as_str());
        texts.into_iter().find(|text| !text.is_empty()).unwrap_or("Unknown")
    }

    pub(crate) fn forbidden(&self, new: &Value, detail: &str) -> Status {
        let kind = self.target.kind;
        Status::forbidden(&kind.group, &kind.plural, self.name(new), detail)
    }

    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.target.warnings.push(text.into());
    }

    /// An audit annotation: the plugin's qualified name and what it has to say.
    pub(crate) fn annotate(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) {
        crate::audit::annotate(key.as_ref(), value.as_ref());
    }
}
