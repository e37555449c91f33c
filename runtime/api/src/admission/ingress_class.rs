//! DefaultIngressClass: an Ingress that names no class gets the newest default one
//! (plugin/pkg/admission/network/defaultingressclass).
use super::{Attributes, storage::newest};
use mote_schema::Status;
use mote_schema::Value;

const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// The older way to name a class.
const ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(super) fn mutate(attributes: &mut Attributes<'_, '_>, ingress: &mut Value) -> Result<(), Status> {
    let named = ingress["spec"].get("ingressClassName").is_some_and(|name| !name.is_null());
    let applies = attributes.is_create() && attributes.is_main("networking.k8s.io", "ingresses");
    if !applies || !ingress["spec"].is_object() || named || ingress["metadata"]["annotations"].get(ANNOTATION).is_some()
    {
        return Ok(());
    }
    if let Some(class) = newest(attributes.api, ("networking.k8s.io", "ingressclasses"), &[DEFAULT_CLASS]) {
        ingress["spec"]["ingressClassName"] = Value::from(class.name());
    }
    Ok(())
}
