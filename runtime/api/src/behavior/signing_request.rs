//! CertificateSigningRequests: who asks is the server's to say, and conditions carry their times
//! (kubernetes/pkg/registry/certificates/certificates/strategy.go).
use crate::{clock, http::User};
use mote_schema::{Value, json};

pub(super) fn create(user: &User, new: &mut Value) {
    let spec = &mut new["spec"];
    let Some(spec) = spec.as_object_mut() else { return };
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    spec.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        spec.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        spec.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
}

/// `sub` is "", "status" or "approval".
pub(super) fn update(sub: &str, old: &Value, new: &mut Value) {
    if sub.is_empty() {
        new["spec"] = old["spec"].clone();
        return;
    }
    let before = old["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    if sub == "status" {
        // Approval and denial are /approval's.
        for decided in ["Approved", "Denied"] {
            let is = |condition: &&Value| condition["type"] == decided;
            let kept: Vec<Value> = before.iter().filter(is).cloned().collect();
            let Some(conditions) = new["status"]["conditions"].as_array_mut() else { continue };
            let places = conditions.iter_mut().filter(|condition| condition["type"] == decided);
            let places: Vec<&mut Value> = places.collect();
            if places.len() == kept.len() {
                places.into_iter().zip(kept).for_each(|(place, kept)| *place = kept);
            }
        }
    }
    let now = clock::timestamp();
    for condition in new["status"]["conditions"].as_array_mut().into_iter().flatten() {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.as_str().into();
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |known: &&Value| known["type"] == condition["type"] && known["status"] == condition["status"];
            let since = before.iter().find(same).map(|known| known["lastTransitionTime"].clone());
            condition["lastTransitionTime"] =
                since.filter(|since| !since.is_null()).unwrap_or_else(|| now.as_str().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_not_the_askers_to_say() {
        let mut new = json!({"spec": {"username": "admin", "groups": ["system:masters"], "signerName": "x"}});
        create(&User::new("ann", &["devs"]), &mut new);
        assert_eq!(new, json!({"spec": {"username": "ann", "groups": ["devs"], "signerName": "x"}}));
        let old = new.clone();
        new["spec"]["signerName"] = "y".into();
        update("", &old, &mut new);
        assert_eq!(new, old);
    }

    #[test]
    fn conditions_have_times_and_approval_is_not_status() {
        let old = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "A", "lastTransitionTime": "t"}]}});
        let mut new = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "B"}, {"type": "Failed", "status": "True"}]}});
        update("status", &old, &mut new);
        let conditions = &new["status"]["conditions"];
        assert_eq!((&conditions[0]["reason"], &conditions[0]["lastTransitionTime"]), (&json!("A"), &json!("t")));
        assert!(conditions[1]["lastUpdateTime"].is_string() && conditions[1]["lastTransitionTime"].is_string());
        let mut approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "B"}]}});
        update("approval", &old, &mut approved);
        assert_eq!(approved["status"]["conditions"][0]["lastTransitionTime"], "t");
    }
}
