//! What is valid, and how each message begins.
use super::*;

fn check(validate: fn(&str) -> Vec<String>, cases: &[(&str, &[&str])]) {
    for (value, beginnings) in cases {
        let errors = validate(value);
        assert_eq!(errors.len(), beginnings.len(), "{value}: {errors:?}");
        for (error, beginning) in errors.iter().zip(*beginnings) {
            assert!(error.starts_with(beginning), "{value}: {error}");
        }
    }
}

#[test]
fn names() {
    assert_eq!(
        dns1123_label("A"),
        [
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        ]
    );
    let long = "a".repeat(64);
    check(
        dns1123_label,
        &[
            ("a", &[]),
            ("1-a", &[]),
            ("", &["a lowercase RFC 1123 label"]),
            ("-a", &["a lowercase"]),
            ("a.b", &["must not contain dots"]),
            (&long, &["must be no more than 63 characters"]),
        ],
    );
    check(dns1123_subdomain, &[("a.b-c.1", &[]), ("a..b", &["a lowercase RFC 1123 subdomain"]), ("a.", &["a low"])]);
    check(dns1035_label, &[("a1", &[]), ("1a", &["a DNS-1035 label"])]);
    check(wildcard_dns1123_subdomain, &[("*.a.b", &[]), ("*", &["a wildcard"]), ("a.b", &["a wildcard"])]);
    check(
        qualified_name,
        &[
            ("a", &[]),
            ("example.com/A_b.c", &[]),
            ("/a", &["prefix part must be non-empty"]),
            ("A/a", &["prefix part a lowercase"]),
            ("a/", &["name part must be non-empty", "name part must consist"]),
            ("a/b/c", &["a valid label key must consist"]),
            (&long, &["name part must be no more than 63 bytes"]),
        ],
    );
    check(label_value, &[("", &[]), ("a", &[]), ("-", &["a valid label must be an empty"])]);
    check(
        path_segment_name,
        &[("system:x", &[]), ("..", &["may not be '..'"]), ("a/b%", &["may not contain '/'", "may not contain '%'"])],
    );
    check(
        config_map_key,
        &[("a.b", &[]), ("..", &["must not be '..'"]), ("..a", &["must not start"]), ("a b", &["a valid config key"])],
    );
    check(
        env_var_name,
        &[
            ("a b-1", &[]),
            ("", &["environment variable name must be non-empty"]),
            ("a=b", &["a valid env"]),
            ("é", &["a valid env"]),
        ],
    );
    check(
        port_name,
        &[
            ("http-2", &[]),
            ("8", &["must contain at least one letter"]),
            ("a--", &["must not contain consecutive", "must not begin or end"]),
            ("A", &["must contain only", "must contain at"]),
        ],
    );
    check(percent, &[("10%", &[]), ("%", &["a valid percent"]), ("10", &["a valid percent"])]);
    assert_eq!(mask_trailing_dash("web-"), "wea");
    assert_eq!(mask_trailing_dash("-"), "-");
}

#[test]
fn addresses() {
    check(
        ip,
        &[
            ("10.9.8.7", &[]),
            ("2001:db8::ffff", &[]),
            ("2001:DB8::ffff", &["must be in canonical form (\"2001:db8::ffff\")"]),
            ("010.9.8.7", &["must not have leading 0s"]),
            ("::ffff:1.2.3.4", &["must not be an IPv4-mapped"]),
            ("1.2.3", &["must be a valid IP address"]),
            ("1.2.3.256", &["must be a valid IP address"]),
            ("fe80::1%eth0", &["must be a valid IP address"]),
        ],
    );
    check(ip_legacy, &[("2001:DB8::ffff", &[])]);
    check(
        cidr,
        &[
            ("10.0.0.0/8", &[]),
            ("0.0.0.0/0", &[]),
            ("::/0", &[]),
            ("10.0.0.1/8", &["must not have bits set"]),
            ("10.0.0.0/08", &["must not have leading 0s in IP or prefix"]),
            ("10.0.0.0/33", &["must be a valid CIDR"]),
            ("2001:DB8::/64", &["must be in canonical form (\"2001:db8::/64\")"]),
        ],
    );
}
