//! The table of the built-in kinds. What a table is, `mote_doc` says, which reads it where speed counts.
pub use mote_doc::table::*;

pub static BUILTIN: &Table = &crate::builtin::TABLE;

#[cfg(test)]
mod tests {
    use super::*;

    fn field(definition: &str, name: &str) -> &'static Field {
        let id = BUILTIN.type_by_definition(definition).unwrap_or_else(|| panic!("{definition}"));
        BUILTIN.field(id, name).unwrap_or_else(|| panic!("{definition}.{name}"))
    }

    #[test]
    fn fields_of_each_type_are_sorted_and_lead_somewhere() {
        for id in 0..BUILTIN.types.len() as TypeId {
            let names: Vec<&str> = BUILTIN.fields(id).iter().map(|f| BUILTIN.name(f)).collect();
            assert!(names.is_sorted() && !names.contains(&""), "{}", BUILTIN.definition(id));
            for f in BUILTIN.fields(id) {
                let default = BUILTIN.default(f);
                assert!(default.is_empty() || serde_json::from_str::<crate::Value>(default).is_ok(), "{default}");
                if let Shape::Object(inner) = f.shape {
                    assert!(!BUILTIN.type_name(inner).is_empty());
                }
                assert_eq!(
                    f.list_type == Some(ListType::Map),
                    BUILTIN.list_keys(f).next().is_some(),
                    "{}",
                    names.join(" ")
                );
            }
        }
    }

    #[test]
    fn well_known_fields() {
        let ports = field("io.k8s.api.core.v1.ServiceSpec", "ports");
        assert_eq!(ports.list_type, Some(ListType::Map));
        assert_eq!(BUILTIN.list_keys(ports).collect::<Vec<_>>(), ["port", "protocol"]);
        assert_eq!((BUILTIN.merge_key(ports), ports.patch_merge, ports.number), ("port", true, 1));
        let replicas = field("io.k8s.api.apps.v1.DeploymentSpec", "replicas");
        assert_eq!((replicas.shape, replicas.presence), (Shape::Int32, Presence::Pointer));
        let strategy = field("io.k8s.api.apps.v1.DeploymentSpec", "strategy");
        assert!(strategy.patch_retain_keys && !strategy.patch_merge);
        let empty_dir = field("io.k8s.api.core.v1.Volume", "emptyDir");
        assert_eq!((empty_dir.number, empty_dir.inline), (2, 2));
        let protocol = field("io.k8s.api.core.v1.ContainerPort", "protocol");
        assert_eq!(BUILTIN.values(protocol).collect::<Vec<_>>(), ["SCTP", "TCP", "UDP"]);
        assert_eq!(BUILTIN.go_type(protocol), "v1.Protocol");
        let selector = field("io.k8s.api.core.v1.ServiceSpec", "selector");
        assert!(selector.atomic && selector.container == Container::Map);
        assert_eq!(BUILTIN.go_type(selector), "map[string]string");
    }

    /// The whole table is data of the binary; a field costs 20 bytes.
    #[test]
    fn the_table_stays_small() {
        let t = BUILTIN;
        let bytes = size_of_val(&*t.types)
            + size_of_val(&*t.fields)
            + size_of_val(&*t.extras)
            + size_of_val(&*t.text_ends)
            + t.texts.len();
        assert!(bytes < 100_000, "{bytes}");
    }
}
