//! PodSpec and what is said of the pod as a whole.
use super::{Container, Quantity, ResourceRequirements, Volume, fields};
use std::collections::BTreeMap;

fields! {
    PodSpec {
        active_deadline_seconds "activeDeadlineSeconds": Option<i64>,
        containers "containers": Vec<Container>,
        dns_config "dnsConfig": Option<PodDNSConfig>,
        dns_policy "dnsPolicy": Option<String>,
        enable_service_links "enableServiceLinks": Option<bool>,
        host_aliases "hostAliases": Option<Vec<HostAlias>>,
        host_ipc "hostIPC": Option<bool>,
        host_network "hostNetwork": Option<bool>,
        host_pid "hostPID": Option<bool>,
        host_users "hostUsers": Option<bool>,
        hostname "hostname": Option<String>,
        hostname_override "hostnameOverride": Option<String>,
        image_pull_secrets "imagePullSecrets": Option<Vec<LocalObjectReference>>,
        init_containers "initContainers": Option<Vec<Container>>,
        node_name "nodeName": Option<String>,
        os "os": Option<PodOS>,
        overhead "overhead": Option<BTreeMap<String, Quantity>>,
        priority_class_name "priorityClassName": Option<String>,
        readiness_gates "readinessGates": Option<Vec<PodReadinessGate>>,
        resources "resources": Option<ResourceRequirements>,
        restart_policy "restartPolicy": Option<String>,
        runtime_class_name "runtimeClassName": Option<String>,
        security_context "securityContext": Option<PodSecurityContext>,
        service_account_name "serviceAccountName": Option<String>,
        set_hostname_as_fqdn "setHostnameAsFQDN": Option<bool>,
        share_process_namespace "shareProcessNamespace": Option<bool>,
        subdomain "subdomain": Option<String>,
        termination_grace_period_seconds "terminationGracePeriodSeconds": Option<i64>,
        volumes "volumes": Option<Vec<Volume>>,
    }

    PodDNSConfig {
        nameservers "nameservers": Option<Vec<String>>,
        options "options": Option<Vec<PodDNSConfigOption>>,
        searches "searches": Option<Vec<String>>,
    }

    PodDNSConfigOption {
        name "name": Option<String>,
        value "value": Option<String>,
    }

    HostAlias {
        hostnames "hostnames": Option<Vec<String>>,
        ip "ip": String,
    }

    LocalObjectReference {
        name "name": String,
    }

    PodOS {
        name "name": String,
    }

    PodReadinessGate {
        condition_type "conditionType": String,
    }

    PodSecurityContext {
        app_armor_profile "appArmorProfile": Option<SeccompProfile>,
        fs_group "fsGroup": Option<i64>,
        run_as_group "runAsGroup": Option<i64>,
        run_as_non_root "runAsNonRoot": Option<bool>,
        run_as_user "runAsUser": Option<i64>,
        seccomp_profile "seccompProfile": Option<SeccompProfile>,
        supplemental_groups "supplementalGroups": Option<Vec<i64>>,
        supplemental_groups_policy "supplementalGroupsPolicy": Option<String>,
        sysctls "sysctls": Option<Vec<Sysctl>>,
    }

    SeccompProfile {
        localhost_profile "localhostProfile": Option<String>,
        type_ "type": String,
    }

    Sysctl {
        name "name": String,
        value "value": String,
    }
}
