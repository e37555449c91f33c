//! Events about a pod or one of its containers. One place, so that container ids never reach a message: the same
//! trouble must count up one event, not make many.
use crate::pod::Role;
use mote_api::Client;
use mote_schema::{Map, Object};

pub struct Recorder<'a> {
    client: &'a Client,
    about: &'a Object,
    field_path: String,
}

impl<'a> Recorder<'a> {
    pub fn of_pod(client: &'a Client, about: &'a Object) -> Recorder<'a> {
        Recorder { client, about, field_path: String::new() }
    }
    pub fn of_container(client: &'a Client, about: &'a Object, role: Role, name: &str) -> Recorder<'a> {
        Recorder { client, about, field_path: role.field_path(name) }
    }
    pub fn normal(&self, reason: &str, message: &str) {
        self.record("Normal", reason, message, Map::new());
    }
    pub fn warning(&self, reason: &str, message: &str) {
        self.record("Warning", reason, message, Map::new());
    }
    /// A warning with annotations.
    pub fn annotated(&self, reason: &str, message: &str, annotations: Map) {
        self.record("Warning", reason, message, annotations);
    }
    fn record(&self, type_: &str, reason: &str, message: &str, annotations: Map) {
        tracing::debug!(pod = %format_args!("{}/{}", self.about.namespace(), self.about.name()),
            part = self.field_path, reason, message, "event");
        self.client.event_at(self.about, &self.field_path, type_, reason, message, annotations);
    }
}
