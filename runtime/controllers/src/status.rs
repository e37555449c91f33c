//! Writing status: only when it differs, only over what was read; and the condition lists inside it.
use crate::amounts::{now, rfc3339};
use crate::session::Session;
use mote_api::{Object, Status, Sub};
use mote_schema::{Map, Value, json};

/// Puts `status` on `object` unless it is there already. The object as it is afterwards.
pub async fn write(session: &Session, object: &Object, status: Value) -> Result<Object, Status> {
    let old = object.root().get("status");
    if old.exists() && old.to_value() == status || !old.exists() && status.as_object().is_some_and(Map::is_empty) {
        return Ok(object.clone());
    }
    let mut value = object.to_value();
    value["status"] = status;
    session.update(&object.kind, Sub::Status, value).await
}

/// The members of a JSON object that Go's `omitempty` would write.
pub fn omit_empty(value: Value) -> Value {
    let Value::Object(members) = value else { return value };
    let kept = members.into_iter().filter(|(_, v)| match v {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    });
    Value::Object(kept.collect())
}

/// `status.conditions` of an object, to be changed and written back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions(pub Vec<Value>);

impl Conditions {
    pub fn of(object: &Object) -> Conditions {
        Conditions(object.root().at("status.conditions").items().map(|c| c.to_value()).collect())
    }

    pub fn get(&self, type_: &str) -> Option<&Value> {
        self.0.iter().find(|c| c["type"] == type_)
    }

    pub fn is(&self, type_: &str, status: &str) -> bool {
        self.get(type_).is_some_and(|c| c["status"] == status)
    }

    pub fn remove(&mut self, type_: &str) {
        self.0.retain(|c| c["type"] != type_);
    }

    /// Adds or replaces by type. The same status and reason is no change; a new reason keeps lastTransitionTime.
    /// This is how the workload controllers (apps) do it: a changed condition moves to the end.
    pub fn set(&mut self, mut condition: Value) {
        let type_ = condition["type"].as_str().unwrap_or_default().to_owned();
        if let Some(old) = self.get(&type_) {
            if old["status"] == condition["status"] && old["reason"] == condition["reason"] {
                return;
            }
            if old["status"] == condition["status"] {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
        }
        self.remove(&type_);
        self.0.push(condition);
    }

    /// As meta.SetStatusCondition: in place, and a new message is a change too.
    pub fn set_in_place(&mut self, mut condition: Value) {
        let Some(old) = self.0.iter_mut().find(|c| c["type"] == condition["type"]) else {
            self.0.push(condition);
            return;
        };
        if old["status"] == condition["status"] {
            condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
        }
        *old = condition;
    }

    pub fn into_value(self) -> Value {
        Value::Array(self.0.into())
    }
}

/// A condition that changed now.
pub fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    omit_empty(json!({
        "type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": rfc3339(now()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_transition_time() {
        let mut list = Conditions::default();
        let at = |status: &str, reason: &str, time: &str| json!({"type": "A", "status": status, "reason": reason, "lastTransitionTime": time});
        list.set(at("True", "One", "t1"));
        list.set(at("True", "One", "t2"));
        assert_eq!(list.get("A").unwrap()["lastTransitionTime"], "t1");
        list.set(at("True", "Two", "t3"));
        assert_eq!(list.get("A").unwrap()["lastTransitionTime"], "t1");
        assert_eq!(list.get("A").unwrap()["reason"], "Two");
        list.set(at("False", "Two", "t4"));
        assert_eq!(list.get("A").unwrap()["lastTransitionTime"], "t4");
        assert!(list.is("A", "False"));
        list.remove("A");
        assert!(list.get("A").is_none());
    }

    #[test]
    fn empty_members_go() {
        assert_eq!(omit_empty(json!({"a": 0, "b": "", "c": [], "d": 1, "e": null, "f": {}})), json!({"d": 1}));
    }
}
