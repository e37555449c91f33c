//! What expressions of policies and match conditions may name (apiserver/pkg/admission/plugin/cel/compile.go), and expressions
//! compiled for it.
use mote_cel::{Environment, Fields, ObjectType, Program, Slot, Type, print_issues};
use std::sync::{Arc, OnceLock};

/// Which variables there are beside object, oldObject, request and namespaceObject.
#[derive(Clone, Copy, Default)]
pub(super) struct Options {
    pub params: bool,
    pub authorizer: bool,
    /// `Object` and `JSONPatch` may be written.
    pub mutations: bool,
}

/// A compiled expression, or why there is none.
#[derive(Debug)]
pub(super) struct Expression {
    pub text: String,
    pub program: Result<Program, String>,
}

impl Expression {
    /// `allowed` are the types it may have; any when empty.
    pub fn compile(environment: &Environment, text: &str, allowed: &[Type]) -> Expression {
        let program = match environment.compile(text) {
            Err(issues) => Err(format!("compilation failed: {}", print_issues(&issues))),
            Ok(program) => {
                let found = program.result_type();
                if allowed.is_empty() || allowed.iter().any(|ty| ty.same(found)) {
                    Ok(program)
                } else {
                    let names: Vec<String> = allowed.iter().map(name).collect();
                    Err(match &names[..] {
                        [one] => format!("must evaluate to {one} but got {}", name(found)),
                        all => format!("must evaluate to one of [{}] but got {}", all.join(" "), name(found)),
                    })
                }
            }
        };
        Expression { text: text.to_owned(), program }
    }
}

fn name(ty: &Type) -> String {
    match ty {
        Type::Null => "null_type".into(),
        other => other.to_string(),
    }
}

type Named = (&'static str, Type);

fn object(name: &str, fields: impl IntoIterator<Item = Named>) -> Arc<Fields> {
    Arc::new(Fields::new(name, fields.into_iter().map(|(name, ty)| (name.to_owned(), Slot::from(ty)))))
}

fn nested(name: &str, fields: impl IntoIterator<Item = Named>) -> Type {
    Type::Object(object(name, fields))
}

/// `request`: an AdmissionRequest without its objects.
pub(super) fn request_type() -> &'static Type {
    static TYPE: OnceLock<Type> = OnceLock::new();
    TYPE.get_or_init(|| {
        let text = |name| (name, Type::String);
        let kind = || nested("kubernetes.GroupVersionKind", ["group", "version", "kind"].map(text));
        let resource = || nested("kubernetes.GroupVersionResource", ["group", "version", "resource"].map(text));
        let texts = || Type::list(Type::String);
        let user = nested(
            "kubernetes.UserInfo",
            [text("username"), text("uid"), ("groups", texts()), ("extra", Type::map(Type::String, texts()))],
        );
        nested(
            "kubernetes.AdmissionRequest",
            [
                ("kind", kind()),
                ("resource", resource()),
                text("subResource"),
                ("requestKind", kind()),
                ("requestResource", resource()),
                text("requestSubResource"),
                text("name"),
                text("namespace"),
                text("operation"),
                ("userInfo", user),
                ("dryRun", Type::Bool),
                ("options", Type::Dyn),
            ],
        )
    })
}

/// `namespaceObject`: what of a Namespace expressions may see.
pub(super) fn namespace_type() -> &'static Type {
    static TYPE: OnceLock<Type> = OnceLock::new();
    TYPE.get_or_init(|| {
        let text = |name| (name, Type::String);
        let texts = || Type::list(Type::String);
        let labels = || Type::map(Type::String, Type::String);
        let condition = nested(
            "kubernetes.NamespaceCondition",
            [text("status"), text("type"), ("lastTransitionTime", Type::Timestamp), text("message"), text("reason")],
        );
        let metadata = nested(
            "kubernetes.NamespaceMetadata",
            [
                text("name"),
                text("generateName"),
                text("namespace"),
                ("labels", labels()),
                ("annotations", labels()),
                text("UID"),
                ("creationTimestamp", Type::Timestamp),
                ("deletionGracePeriodSeconds", Type::Int),
                ("deletionTimestamp", Type::Timestamp),
                ("generation", Type::Int),
                text("resourceVersion"),
                ("finalizers", texts()),
            ],
        );
        let status = [("conditions", Type::list(condition)), text("phase")];
        nested(
            "kubernetes.Namespace",
            [
                ("metadata", metadata),
                ("spec", nested("kubernetes.NamespaceSpec", [("finalizers", texts())])),
                ("status", nested("kubernetes.NamespaceStatus", status)),
            ],
        )
    })
}

/// One operation of a JSON patch, as expressions write it.
fn json_patch() -> Arc<dyn ObjectType> {
    let text = |name: &str| (name.to_owned(), Slot::from(Type::String));
    let fields = [text("op"), text("path"), text("from"), ("value".to_owned(), Slot::from(Type::Dyn))];
    Arc::new(Fields::new("JSONPatch", fields).constructible())
}

pub(super) fn json_patch_list() -> Type {
    Type::list(Type::Object(json_patch()))
}

/// `Object`: what an apply configuration evaluates to.
pub(super) fn apply_type() -> Type {
    Type::object(Fields::new("Object", []))
}

/// `object_type` is what `object` and `oldObject` are known to be: dyn, but where types are checked.
pub(super) fn environment(options: Options, object_type: Type, params_type: Type) -> Environment {
    let mut environment = Environment::new()
        .with("object", object_type.clone())
        .with("oldObject", object_type)
        .with("namespaceObject", namespace_type().clone())
        .with("request", request_type().clone());
    if options.params {
        environment = environment.with("params", params_type);
    }
    if options.authorizer {
        environment = environment
            .with("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
            .with("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"));
    }
    if options.mutations {
        environment = environment.with_object(json_patch()).with_mutation_objects();
    }
    environment
}

/// The type of `variables` with these variables so far.
pub(super) fn variables_type(variables: &[(String, Type)]) -> Type {
    let fields = variables.iter().map(|(name, ty)| (name.clone(), Slot::from(ty.clone())));
    Type::object(Fields::new("kubernetes.variables", fields))
}
