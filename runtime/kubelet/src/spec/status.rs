//! PodStatus and all that is under it, which the kubelet writes.
use super::{Quantity, ResourceRequirements, Time, fields};
use std::collections::BTreeMap;

fields! {
    PodStatus {
        allocated_resources "allocatedResources": Option<BTreeMap<String, Quantity>>,
        conditions "conditions": Option<Vec<PodCondition>>,
        container_statuses "containerStatuses": Option<Vec<ContainerStatus>>,
        ephemeral_container_statuses "ephemeralContainerStatuses": Option<Vec<ContainerStatus>>,
        host_ip "hostIP": Option<String>,
        host_ips "hostIPs": Option<Vec<HostIP>>,
        init_container_statuses "initContainerStatuses": Option<Vec<ContainerStatus>>,
        message "message": Option<String>,
        observed_generation "observedGeneration": Option<i64>,
        phase "phase": Option<String>,
        pod_ip "podIP": Option<String>,
        pod_ips "podIPs": Option<Vec<PodIP>>,
        qos_class "qosClass": Option<String>,
        reason "reason": Option<String>,
        resize "resize": Option<String>,
        resources "resources": Option<ResourceRequirements>,
        start_time "startTime": Option<Time>,
    }

    PodCondition {
        last_probe_time "lastProbeTime": Option<Time>,
        last_transition_time "lastTransitionTime": Option<Time>,
        message "message": Option<String>,
        observed_generation "observedGeneration": Option<i64>,
        reason "reason": Option<String>,
        status "status": String,
        type_ "type": String,
    }

    HostIP {
        ip "ip": String,
    }

    PodIP {
        ip "ip": String,
    }

    ContainerStatus {
        allocated_resources "allocatedResources": Option<BTreeMap<String, Quantity>>,
        container_id "containerID": Option<String>,
        image "image": String,
        image_id "imageID": String,
        last_state "lastState": Option<ContainerState>,
        name "name": String,
        ready "ready": bool,
        resources "resources": Option<ResourceRequirements>,
        restart_count "restartCount": i32,
        started "started": Option<bool>,
        state "state": Option<ContainerState>,
        user "user": Option<ContainerUser>,
        volume_mounts "volumeMounts": Option<Vec<VolumeMountStatus>>,
    }

    ContainerState {
        running "running": Option<ContainerStateRunning>,
        terminated "terminated": Option<ContainerStateTerminated>,
        waiting "waiting": Option<ContainerStateWaiting>,
    }

    ContainerStateRunning {
        started_at "startedAt": Option<Time>,
    }

    ContainerStateTerminated {
        container_id "containerID": Option<String>,
        exit_code "exitCode": i32,
        finished_at "finishedAt": Option<Time>,
        message "message": Option<String>,
        reason "reason": Option<String>,
        signal "signal": Option<i32>,
        started_at "startedAt": Option<Time>,
    }

    ContainerStateWaiting {
        message "message": Option<String>,
        reason "reason": Option<String>,
    }

    ContainerUser {
        linux "linux": Option<LinuxContainerUser>,
    }

    LinuxContainerUser {
        gid "gid": i64,
        supplemental_groups "supplementalGroups": Option<Vec<i64>>,
        uid "uid": i64,
    }

    VolumeMountStatus {
        mount_path "mountPath": String,
        name "name": String,
        read_only "readOnly": Option<bool>,
        recursive_read_only "recursiveReadOnly": Option<String>,
    }
}
