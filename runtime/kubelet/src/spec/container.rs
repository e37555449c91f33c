//! Container and all that is under it.
use super::{IntOrString, Quantity, SeccompProfile, fields};
use std::collections::BTreeMap;

fields! {
    Container {
        args "args": Option<Vec<String>>,
        command "command": Option<Vec<String>>,
        env "env": Option<Vec<EnvVar>>,
        env_from "envFrom": Option<Vec<EnvFromSource>>,
        image "image": Option<String>,
        image_pull_policy "imagePullPolicy": Option<String>,
        lifecycle "lifecycle": Option<Lifecycle>,
        liveness_probe "livenessProbe": Option<Probe>,
        name "name": String,
        ports "ports": Option<Vec<ContainerPort>>,
        readiness_probe "readinessProbe": Option<Probe>,
        resize_policy "resizePolicy": Option<Vec<ContainerResizePolicy>>,
        resources "resources": Option<ResourceRequirements>,
        restart_policy "restartPolicy": Option<String>,
        restart_policy_rules "restartPolicyRules": Option<Vec<ContainerRestartRule>>,
        security_context "securityContext": Option<SecurityContext>,
        startup_probe "startupProbe": Option<Probe>,
        stdin "stdin": Option<bool>,
        stdin_once "stdinOnce": Option<bool>,
        termination_message_path "terminationMessagePath": Option<String>,
        termination_message_policy "terminationMessagePolicy": Option<String>,
        tty "tty": Option<bool>,
        volume_devices "volumeDevices": Option<Vec<VolumeDevice>>,
        volume_mounts "volumeMounts": Option<Vec<VolumeMount>>,
        working_dir "workingDir": Option<String>,
    }

    ResourceRequirements {
        claims "claims": Option<Vec<ResourceClaim>>,
        limits "limits": Option<BTreeMap<String, Quantity>>,
        requests "requests": Option<BTreeMap<String, Quantity>>,
    }

    ContainerResizePolicy {
        resource_name "resourceName": String,
        restart_policy "restartPolicy": String,
    }

    ResourceClaim {
        name "name": String,
        request "request": Option<String>,
    }

    EnvVar {
        name "name": String,
        value "value": Option<String>,
        value_from "valueFrom": Option<EnvVarSource>,
    }

    EnvFromSource {
        config_map_ref "configMapRef": Option<ConfigMapEnvSource>,
        prefix "prefix": Option<String>,
        secret_ref "secretRef": Option<SecretEnvSource>,
    }

    EnvVarSource {
        config_map_key_ref "configMapKeyRef": Option<ConfigMapKeySelector>,
        field_ref "fieldRef": Option<ObjectFieldSelector>,
        file_key_ref "fileKeyRef": Option<FileKeySelector>,
        resource_field_ref "resourceFieldRef": Option<ResourceFieldSelector>,
        secret_key_ref "secretKeyRef": Option<SecretKeySelector>,
    }

    ConfigMapEnvSource {
        name "name": String,
        optional "optional": Option<bool>,
    }

    SecretEnvSource {
        name "name": String,
        optional "optional": Option<bool>,
    }

    ConfigMapKeySelector {
        key "key": String,
        name "name": String,
        optional "optional": Option<bool>,
    }

    SecretKeySelector {
        key "key": String,
        name "name": String,
        optional "optional": Option<bool>,
    }

    FileKeySelector {
        key "key": String,
        optional "optional": Option<bool>,
        path "path": String,
        volume_name "volumeName": String,
    }

    ObjectFieldSelector {
        api_version "apiVersion": Option<String>,
        field_path "fieldPath": String,
    }

    ResourceFieldSelector {
        container_name "containerName": Option<String>,
        divisor "divisor": Option<Quantity>,
        resource "resource": String,
    }

    Lifecycle {
        post_start "postStart": Option<LifecycleHandler>,
        pre_stop "preStop": Option<LifecycleHandler>,
    }

    LifecycleHandler {
        exec "exec": Option<ExecAction>,
        http_get "httpGet": Option<HTTPGetAction>,
        sleep "sleep": Option<SleepAction>,
        tcp_socket "tcpSocket": Option<TCPSocketAction>,
    }

    SleepAction {
        seconds "seconds": i64,
    }

    Probe {
        exec "exec": Option<ExecAction>,
        failure_threshold "failureThreshold": Option<i32>,
        grpc "grpc": Option<GRPCAction>,
        http_get "httpGet": Option<HTTPGetAction>,
        initial_delay_seconds "initialDelaySeconds": Option<i32>,
        period_seconds "periodSeconds": Option<i32>,
        success_threshold "successThreshold": Option<i32>,
        tcp_socket "tcpSocket": Option<TCPSocketAction>,
        termination_grace_period_seconds "terminationGracePeriodSeconds": Option<i64>,
        timeout_seconds "timeoutSeconds": Option<i32>,
    }

    ExecAction {
        command "command": Option<Vec<String>>,
    }

    GRPCAction {
        port "port": i32,
        service "service": Option<String>,
    }

    HTTPGetAction {
        host "host": Option<String>,
        http_headers "httpHeaders": Option<Vec<HTTPHeader>>,
        path "path": Option<String>,
        port "port": IntOrString,
        scheme "scheme": Option<String>,
    }

    HTTPHeader {
        name "name": String,
        value "value": String,
    }

    TCPSocketAction {
        host "host": Option<String>,
        port "port": IntOrString,
    }

    ContainerPort {
        container_port "containerPort": i32,
        host_ip "hostIP": Option<String>,
        host_port "hostPort": Option<i32>,
        name "name": Option<String>,
        protocol "protocol": Option<String>,
    }

    ContainerRestartRule {
        action "action": String,
        exit_codes "exitCodes": Option<ContainerRestartRuleOnExitCodes>,
    }

    ContainerRestartRuleOnExitCodes {
        operator "operator": String,
        values "values": Option<Vec<i32>>,
    }

    SecurityContext {
        allow_privilege_escalation "allowPrivilegeEscalation": Option<bool>,
        app_armor_profile "appArmorProfile": Option<SeccompProfile>,
        capabilities "capabilities": Option<Capabilities>,
        privileged "privileged": Option<bool>,
        proc_mount "procMount": Option<String>,
        read_only_root_filesystem "readOnlyRootFilesystem": Option<bool>,
        run_as_group "runAsGroup": Option<i64>,
        run_as_non_root "runAsNonRoot": Option<bool>,
        run_as_user "runAsUser": Option<i64>,
        seccomp_profile "seccompProfile": Option<SeccompProfile>,
    }

    Capabilities {
        add "add": Option<Vec<String>>,
        drop "drop": Option<Vec<String>>,
    }

    VolumeDevice {
        device_path "devicePath": String,
        name "name": String,
    }

    VolumeMount {
        mount_path "mountPath": String,
        mount_propagation "mountPropagation": Option<String>,
        name "name": String,
        read_only "readOnly": Option<bool>,
        recursive_read_only "recursiveReadOnly": Option<String>,
        sub_path "subPath": Option<String>,
        sub_path_expr "subPathExpr": Option<String>,
    }
}
