//! What may not be in a policy, a binding or a match condition (pkg/apis/admissionregistration/validation/validation.go, the
//! parts about policies and expressions): an expression that does not compile is refused when it is written. Here and not in
//! schema's `check`, which knows no CEL. An expression that was there before is not asked again.
use super::definitions::{Compiler, Side};
use super::environment::Expression;
use mote_schema::{Cause, Doc, Kind, Ref, Value, validate};

const MAX_CONDITIONS: usize = 64;
const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION_EXPRESSION_BYTES: usize = 5 * 1024;

/// Nothing for other kinds.
pub(crate) fn causes(kind: &Kind, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    if kind.group != "admissionregistration.k8s.io" {
        return Vec::new();
    }
    let mut check = Check { causes: Vec::new() };
    // The spec as it was: nothing new is wrong with it.
    if old.is_some_and(|old| old["spec"] == new["spec"] && old["webhooks"] == new["webhooks"]) {
        return check.causes;
    }
    let Ok(doc) = Doc::encode(new) else { return check.causes };
    let root = doc.root();
    let spec = root.get("spec");
    match &*kind.kind {
        "ValidatingAdmissionPolicy" => check.validating(root, spec),
        "MutatingAdmissionPolicy" => check.mutating(spec),
        "ValidatingAdmissionPolicyBinding" => {
            check.binding(spec);
            check.actions(spec.get("validationActions"));
        }
        "MutatingAdmissionPolicyBinding" => check.binding(spec),
        _ => {
            // Webhooks' conditions know no params.
            let compiler = Compiler::new(Ref::absent(), Side::Validating);
            for (at, hook) in root.get("webhooks").items().enumerate() {
                check.conditions(hook.get("matchConditions"), &compiler, &format!("webhooks[{at}].matchConditions"));
            }
        }
    }
    check.causes
}

struct Check {
    causes: Vec<Cause>,
}

impl Check {
    fn required(&mut self, path: impl Into<String>, detail: &str) {
        self.causes.push(Cause::required(path, detail));
    }
    fn invalid(&mut self, path: impl Into<String>, value: &str, detail: &str) {
        self.causes.push(Cause::invalid(path, &value.into(), detail));
    }
    /// "" is not the same as nothing.
    fn one_of(&mut self, path: &str, value: Ref<'_>, supported: &[&str]) {
        if !value.exists() || value.is_null() {
            self.required(path, "");
        } else if !supported.contains(&value.str()) {
            self.causes.push(Cause::not_supported(path, &value.str().into(), supported));
        }
    }
    fn compiled(&mut self, path: &str, expression: &Expression) {
        if let Err(error) = &expression.program {
            self.invalid(path, &expression.text, error);
        }
    }

    /// What both kinds of policies begin with.
    fn common(&mut self, spec: Ref<'_>, compiler: &Compiler) {
        self.one_of("spec.failurePolicy", spec.get("failurePolicy"), &["Fail", "Ignore"]);
        let params = spec.get("paramKind");
        if params.is_map() {
            self.param_kind(params);
        }
        let constraints = spec.get("matchConstraints");
        if constraints.is_map() {
            self.resources(constraints, "spec.matchConstraints");
            if constraints.get("resourceRules").is_empty() {
                self.required("spec.matchConstraints.resourceRules", "");
            }
        } else {
            self.required("spec.matchConstraints", "");
        }
        self.conditions(spec.get("matchConditions"), compiler, "spec.matchConditions");
    }

    fn param_kind(&mut self, params: Ref<'_>) {
        let (api_version, kind) = (params.get("apiVersion").str(), params.get("kind").str());
        let path = "spec.paramKind.apiVersion";
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if api_version.is_empty() {
            self.required(path, "");
        } else if version.contains('/') {
            self.invalid(path, api_version, &format!("unexpected GroupVersion string: {api_version}"));
        } else {
            if !group.is_empty() {
                let errors = validate::dns1123_subdomain(group).join(",");
                if !errors.is_empty() {
                    self.invalid(path, group, &errors);
                }
            }
            let errors = validate::dns1035_label(version).join(",");
            if version.is_empty() {
                self.invalid(path, api_version, "version must be specified");
            } else if !errors.is_empty() {
                self.invalid(path, version, &errors);
            }
        }
        let errors = validate::dns1035_label(&kind.to_ascii_lowercase()).join(",");
        if kind.is_empty() {
            self.required("spec.paramKind.kind", "");
        } else if !errors.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {errors}");
            self.invalid("spec.paramKind.kind", kind, &detail);
        }
    }

    fn resources(&mut self, resources: Ref<'_>, path: &str) {
        let policy = resources.get("matchPolicy");
        self.one_of(&format!("{path}.matchPolicy"), policy, &["Equivalent", "Exact"]);
        for field in ["namespaceSelector", "objectSelector"] {
            let selector = resources.get(field);
            if selector.is_map() {
                self.causes
                    .extend(mote_schema::check::selector_causes(&selector.to_value(), &format!("{path}.{field}")));
            }
        }
        for field in ["resourceRules", "excludeResourceRules"] {
            for (at, rule) in resources.get(field).items().enumerate() {
                self.rule(rule, &format!("{path}.{field}[{at}]"));
            }
        }
    }

    fn rule(&mut self, rule: Ref<'_>, path: &str) {
        const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        for (at, name) in rule.get("resourceNames").items().enumerate() {
            let path = format!("{path}.resourceNames[{at}]");
            for error in validate::path_segment_name(name.str()) {
                self.invalid(path.as_str(), name.str(), &error);
            }
            if rule.get("resourceNames").items().take(at).any(|other| other.str() == name.str()) {
                self.causes.push(Cause::duplicate(path, &name.str().into()));
            }
        }
        let operations = rule.get("operations");
        if operations.is_empty() {
            self.required(format!("{path}.operations"), "");
        }
        for (at, operation) in operations.items().enumerate() {
            self.one_of(&format!("{path}.operations[{at}]"), operation, &OPERATIONS);
        }
        for field in ["apiGroups", "apiVersions", "resources"] {
            let list = rule.get(field);
            let path = format!("{path}.{field}");
            if list.is_empty() {
                self.required(path.as_str(), "");
            }
            let count = list.items().count();
            for (at, item) in list.items().enumerate() {
                if item.str().is_empty() && field != "apiGroups" {
                    self.required(format!("{path}[{at}]"), "");
                }
                if item.str() == "*" && count > 1 && field != "resources" {
                    let detail = format!(
                        "if '*' is present, must not specify other {}",
                        match field {
                            "apiGroups" => "API groups",
                            _ => "API versions",
                        }
                    );
                    self.causes.push(Cause::invalid(path.as_str(), &list.to_value(), &detail));
                }
            }
        }
        if operations.items().count() > 1 && operations.items().any(|operation| operation.str() == "*") {
            let detail = "if '*' is present, must not specify other operations";
            self.causes.push(Cause::invalid(format!("{path}.operations"), &operations.to_value(), detail));
        }
        let scope = rule.get("scope");
        if scope.exists() {
            self.one_of(&format!("{path}.scope"), scope, &["*", "Cluster", "Namespaced"]);
        }
    }

    fn conditions(&mut self, conditions: Ref<'_>, compiler: &Compiler, path: &str) {
        let count = conditions.items().count();
        if count > MAX_CONDITIONS {
            self.causes.push(Cause::too_many(path, count, MAX_CONDITIONS));
        }
        for (at, condition) in conditions.items().enumerate() {
            let (name, text) = (condition.get("name").str(), condition.get("expression").str().trim());
            let path = format!("{path}[{at}]");
            if text.is_empty() {
                self.required(format!("{path}.expression"), "");
            } else {
                self.compiled(&format!("{path}.expression"), &compiler.condition(text));
            }
            if name.is_empty() {
                self.required(format!("{path}.name"), "");
                continue;
            }
            for error in validate::qualified_name(name) {
                self.invalid(format!("{path}.name"), name, &error);
            }
            if conditions.items().take(at).any(|other| other.get("name").str() == name) {
                self.causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
            }
        }
    }

    fn variables(&mut self, spec: Ref<'_>, compiler: &mut Compiler) {
        for (at, variable) in spec.get("variables").items().enumerate() {
            let (name, text) = (variable.get("name").str(), variable.get("expression").str());
            let path = format!("spec.variables[{at}]");
            if name.trim().is_empty() {
                self.required(format!("{path}.name"), "name is not specified");
            } else if !is_identifier(name) {
                self.invalid(format!("{path}.name"), name, "must be a valid CEL identifier");
            }
            if text.trim().is_empty() {
                self.required(format!("{path}.expression"), "expression is not specified");
            } else {
                self.compiled(&format!("{path}.expression"), &compiler.variable(name, text));
            }
        }
    }

    fn validating(&mut self, root: Ref<'_>, spec: Ref<'_>) {
        let mut compiler = Compiler::new(spec, Side::Validating);
        self.common(spec, &compiler);
        self.variables(spec, &mut compiler);
        let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
        if validations.is_empty() && annotations.is_empty() {
            let detail = "validations or auditAnnotations must contain at least one item";
            self.required("spec.validations", detail);
            self.required("spec.auditAnnotations", detail);
        }
        for (at, validation) in validations.items().enumerate() {
            self.validation(validation, &compiler, &format!("spec.validations[{at}]"));
        }
        if annotations.items().count() > MAX_ANNOTATIONS {
            let detail = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
            self.causes.push(Cause::invalid("spec.auditAnnotations", &annotations.to_value(), &detail));
        }
        for (at, annotation) in annotations.items().enumerate() {
            let path = format!("spec.auditAnnotations[{at}]");
            let (key, text) = (annotation.get("key").str(), annotation.get("valueExpression").str());
            match root.at("metadata.name").str() {
                "" => self.invalid(format!("{path}.key"), key, "requires metadata.name be non-empty"),
                name => {
                    let full = format!("{name}/{key}");
                    for error in validate::qualified_name(&full) {
                        self.invalid(format!("{path}.key"), &full, &error);
                    }
                }
            }
            if text.trim().is_empty() {
                self.required(format!("{path}.valueExpression"), "valueExpression is not specified");
            } else if text.trim().len() > MAX_ANNOTATION_EXPRESSION_BYTES {
                let detail = format!("must not exceed {MAX_ANNOTATION_EXPRESSION_BYTES} bytes in length");
                self.required(format!("{path}.valueExpression"), &detail);
            } else {
                self.compiled(&format!("{path}.valueExpression"), &compiler.annotation(text));
            }
            if annotations.items().take(at).any(|other| other.get("key").str() == key) {
                self.causes.push(Cause::duplicate(format!("{path}.key"), &key.into()));
            }
        }
    }

    fn validation(&mut self, validation: Ref<'_>, compiler: &Compiler, path: &str) {
        const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        let text = |field: &str| validation.get(field).str();
        if text("expression").trim().is_empty() {
            self.required(format!("{path}.expression"), "expression is not specified");
        } else {
            self.compiled(&format!("{path}.expression"), &compiler.rule(text("expression")));
        }
        let (message, by_expression) = (text("message"), text("messageExpression"));
        if !by_expression.is_empty() {
            let path = format!("{path}.messageExpression");
            match by_expression.trim() {
                "" => self.invalid(path, by_expression, "must be non-empty if specified"),
                _ => self.compiled(&path, &compiler.message(by_expression)),
            }
        }
        if !message.is_empty() && message.trim().is_empty() {
            self.invalid(format!("{path}.message"), message, "must be non-empty if specified");
        } else if message.trim().contains(['\n', '\r']) {
            self.invalid(format!("{path}.message"), message, "must not contain line breaks");
        }
        if validation.get("reason").exists() {
            self.one_of(&format!("{path}.reason"), validation.get("reason"), &REASONS);
        }
    }

    fn mutating(&mut self, spec: Ref<'_>) {
        let mut compiler = Compiler::new(spec, Side::Mutating);
        self.common(spec, &compiler);
        self.variables(spec, &mut compiler);
        let mutations = spec.get("mutations");
        if mutations.is_empty() {
            self.required("spec.mutations", "mutations must contain at least one item");
        }
        for (at, mutation) in mutations.items().enumerate() {
            self.mutation(mutation, &compiler, &format!("spec.mutations[{at}]"));
        }
        self.one_of("spec.reinvocationPolicy", spec.get("reinvocationPolicy"), &["IfNeeded", "Never"]);
    }

    fn mutation(&mut self, mutation: Ref<'_>, compiler: &Compiler, path: &str) {
        let kind = mutation.get("patchType").str();
        let (field, other) = match kind {
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
            "JSONPatch" => ("jsonPatch", "applyConfiguration"),
            "" => return self.required(format!("{path}.patchType"), ""),
            _ => {
                return self.one_of(
                    &format!("{path}.patchType"),
                    mutation.get("patchType"),
                    &["ApplyConfiguration", "JSONPatch"],
                );
            }
        };
        if !mutation.get(field).is_map() {
            self.required(format!("{path}.{field}"), &format!("must be specified when patchType is {kind}"));
        } else {
            let text = mutation.get(field).get("expression").str();
            let path = format!("{path}.{field}.expression");
            if text.trim().is_empty() {
                self.required(path, "");
            } else {
                let compiled = if field == "jsonPatch" { compiler.json_patch(text) } else { compiler.apply(text) };
                self.compiled(&path, &compiled);
            }
        }
        if mutation.get(other).is_map() {
            let detail = format!("must not be specified when patchType is {kind}");
            self.invalid(format!("{path}.{other}"), &format!("{{{other}}}"), &detail);
        }
    }

    fn binding(&mut self, spec: Ref<'_>) {
        let name = spec.get("policyName").str();
        if name.is_empty() {
            self.required("spec.policyName", "");
        }
        for error in validate::dns1123_subdomain(name).into_iter().filter(|_| !name.is_empty()) {
            self.invalid("spec.policyName", name, &error);
        }
        let params = spec.get("paramRef");
        if params.is_map() {
            self.param_ref(params);
        }
        let resources = spec.get("matchResources");
        if resources.is_map() {
            self.resources(resources, "spec.matchResources");
        }
    }

    fn param_ref(&mut self, params: Ref<'_>) {
        let (name, selector) = (params.get("name").str(), params.get("selector"));
        for error in validate::path_segment_name(name).into_iter().filter(|_| !name.is_empty()) {
            self.invalid("spec.paramRef.name", name, &error);
        }
        if !name.is_empty() && selector.is_map() {
            for field in ["name", "selector"] {
                let path = format!("spec.paramRef.{field}");
                self.causes.push(Cause::forbidden(path, "name and selector are mutually exclusive"));
            }
        }
        if name.is_empty() && !selector.is_map() {
            self.required("spec.paramRef", "one of name or selector must be specified");
        }
        let (action, path) = (params.get("parameterNotFoundAction"), "spec.paramRef.parameterNotFoundAction");
        match action.str() {
            "" => self.required(path, ""),
            _ => self.one_of(path, action, &["Deny", "Allow"]),
        }
    }

    fn actions(&mut self, actions: Ref<'_>) {
        const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
        let path = "spec.validationActions";
        if actions.is_empty() {
            self.required(path, "at least one validation action is required");
        }
        let has = |wanted: &str| actions.items().any(|action| action.str() == wanted);
        for (at, action) in actions.items().enumerate() {
            let path = format!("{path}[{at}]");
            if !ACTIONS.contains(&action.str()) {
                self.causes.push(Cause::not_supported(path.as_str(), &action.str().into(), &ACTIONS));
            }
            if actions.items().take(at).any(|other| other.str() == action.str()) {
                self.causes.push(Cause::duplicate(path, &action.str().into()));
            }
        }
        if has("Deny") && has("Warn") {
            let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
            self.causes.push(Cause::invalid(path, &actions.to_value(), detail));
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && mote_cel::escape(name).is_some_and(|escaped| !escaped.starts_with("__") || name.starts_with("__"))
}
