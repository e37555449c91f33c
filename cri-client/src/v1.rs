//! CRI v1's messages: the fields we write or read, with their numbers in `runtime/v1/api.proto` (cri-api 1.36).
//! Field names and meaning are the protocol's. Enums travel as `i32`; their values are constants below. Requests
//! and answers that have the same single field on the wire share one type.
use std::collections::BTreeMap;

pub type Map = BTreeMap<String, String>;

/// A row: field number, name, type, and how prost writes it.
macro_rules! messages {
    ($($message:ident { $($number:tt $field:ident: $type:ty [$($shape:tt)*],)* })*) => {
        $(
            #[derive(Clone, PartialEq, prost::Message)]
            pub struct $message {
                $(#[prost($($shape)*, tag = $number)] pub $field: $type,)*
            }
        )*
    };
}

/// Values of `NamespaceOption`'s modes.
pub mod namespace_mode {
    pub const POD: i32 = 0;
    pub const CONTAINER: i32 = 1;
    pub const NODE: i32 = 2;
    pub const TARGET: i32 = 3;
}

pub mod sandbox_state {
    pub const READY: i32 = 0;
    pub const NOTREADY: i32 = 1;
}

pub mod container_state {
    pub const CREATED: i32 = 0;
    pub const RUNNING: i32 = 1;
    pub const EXITED: i32 = 2;
    pub const UNKNOWN: i32 = 3;
}

pub mod mount_propagation {
    pub const PRIVATE: i32 = 0;
    pub const HOST_TO_CONTAINER: i32 = 1;
    pub const BIDIRECTIONAL: i32 = 2;
}

/// Values of `SecurityProfile::profile_type`.
pub mod profile_type {
    pub const RUNTIME_DEFAULT: i32 = 0;
    pub const UNCONFINED: i32 = 1;
    pub const LOCALHOST: i32 = 2;
}

pub mod protocol {
    pub const TCP: i32 = 0;
    pub const UDP: i32 = 1;
    pub const SCTP: i32 = 2;
}

pub mod cgroup_driver {
    pub const SYSTEMD: i32 = 0;
    pub const CGROUPFS: i32 = 1;
}

pub mod container_event {
    pub const CREATED: i32 = 0;
    pub const STARTED: i32 = 1;
    pub const STOPPED: i32 = 2;
    pub const DELETED: i32 = 3;
}

messages! {
    Empty {}
    // Version, status, configuration.
    VersionRequest {
        1 version: String [string],
    }
    VersionResponse {
        1 version: String [string],
        2 runtime_name: String [string],
        3 runtime_version: String [string],
        4 runtime_api_version: String [string],
    }
    StatusRequest {
        1 verbose: bool [bool],
    }
    StatusResponse {
        1 status: Option<RuntimeStatus> [message, optional],
        2 info: Map [btree_map = "string, string"],
        3 runtime_handlers: Vec<RuntimeHandler> [message, repeated],
        4 features: Option<RuntimeFeatures> [message, optional],
    }
    RuntimeStatus {
        1 conditions: Vec<RuntimeCondition> [message, repeated],
    }
    RuntimeCondition {
        1 r#type: String [string],
        2 status: bool [bool],
        3 reason: String [string],
        4 message: String [string],
    }
    RuntimeHandler {
        1 name: String [string],
        2 features: Option<RuntimeHandlerFeatures> [message, optional],
    }
    RuntimeHandlerFeatures {
        1 recursive_read_only_mounts: bool [bool],
        2 user_namespaces: bool [bool],
    }
    RuntimeFeatures {
        1 supplemental_groups_policy: bool [bool],
    }
    UpdateRuntimeConfigRequest {
        1 runtime_config: Option<RuntimeConfig> [message, optional],
    }
    RuntimeConfig {
        1 network_config: Option<NetworkConfig> [message, optional],
    }
    NetworkConfig {
        1 pod_cidr: String [string],
    }
    RuntimeConfigResponse {
        1 linux: Option<LinuxRuntimeConfiguration> [message, optional],
    }
    LinuxRuntimeConfiguration {
        1 cgroup_driver: i32 [int32],
    }
    // Sandboxes.
    DnsConfig {
        1 servers: Vec<String> [string, repeated],
        2 searches: Vec<String> [string, repeated],
        3 options: Vec<String> [string, repeated],
    }
    PortMapping {
        1 protocol: i32 [int32],
        2 container_port: i32 [int32],
        3 host_port: i32 [int32],
        4 host_ip: String [string],
    }
    IdMapping {
        1 host_id: u32 [uint32],
        2 container_id: u32 [uint32],
        3 length: u32 [uint32],
    }
    UserNamespace {
        1 mode: i32 [int32],
        2 uids: Vec<IdMapping> [message, repeated],
        3 gids: Vec<IdMapping> [message, repeated],
    }
    NamespaceOption {
        1 network: i32 [int32],
        2 pid: i32 [int32],
        3 ipc: i32 [int32],
        4 target_id: String [string],
        5 userns_options: Option<UserNamespace> [message, optional],
    }
    Int64Value {
        1 value: i64 [int64],
    }
    UInt64Value {
        1 value: u64 [uint64],
    }
    LinuxSandboxSecurityContext {
        1 namespace_options: Option<NamespaceOption> [message, optional],
        3 run_as_user: Option<Int64Value> [message, optional],
        8 run_as_group: Option<Int64Value> [message, optional],
        4 readonly_rootfs: bool [bool],
        5 supplemental_groups: Vec<i64> [int64, repeated],
        11 supplemental_groups_policy: i32 [int32],
        6 privileged: bool [bool],
        9 seccomp: Option<SecurityProfile> [message, optional],
        10 apparmor: Option<SecurityProfile> [message, optional],
    }
    SecurityProfile {
        1 profile_type: i32 [int32],
        2 localhost_ref: String [string],
    }
    LinuxPodSandboxConfig {
        1 cgroup_parent: String [string],
        2 security_context: Option<LinuxSandboxSecurityContext> [message, optional],
        3 sysctls: Map [btree_map = "string, string"],
        4 overhead: Option<LinuxContainerResources> [message, optional],
        5 resources: Option<LinuxContainerResources> [message, optional],
    }
    PodSandboxMetadata {
        1 name: String [string],
        2 uid: String [string],
        3 namespace: String [string],
        4 attempt: u32 [uint32],
    }
    PodSandboxConfig {
        1 metadata: Option<PodSandboxMetadata> [message, optional],
        2 hostname: String [string],
        3 log_directory: String [string],
        4 dns_config: Option<DnsConfig> [message, optional],
        5 port_mappings: Vec<PortMapping> [message, repeated],
        6 labels: Map [btree_map = "string, string"],
        7 annotations: Map [btree_map = "string, string"],
        8 linux: Option<LinuxPodSandboxConfig> [message, optional],
    }
    RunPodSandboxRequest {
        1 config: Option<PodSandboxConfig> [message, optional],
        2 runtime_handler: String [string],
    }
    RunPodSandboxResponse {
        1 pod_sandbox_id: String [string],
    }
    PodSandboxId {
        1 pod_sandbox_id: String [string],
    }
    PodSandboxStatusRequest {
        1 pod_sandbox_id: String [string],
        2 verbose: bool [bool],
    }
    PodIp {
        1 ip: String [string],
    }
    PodSandboxNetworkStatus {
        1 ip: String [string],
        2 additional_ips: Vec<PodIp> [message, repeated],
    }
    PodSandboxStatus {
        1 id: String [string],
        2 metadata: Option<PodSandboxMetadata> [message, optional],
        3 state: i32 [int32],
        4 created_at: i64 [int64],
        5 network: Option<PodSandboxNetworkStatus> [message, optional],
        7 labels: Map [btree_map = "string, string"],
        8 annotations: Map [btree_map = "string, string"],
        9 runtime_handler: String [string],
    }
    PodSandboxStatusResponse {
        1 status: Option<PodSandboxStatus> [message, optional],
        2 info: Map [btree_map = "string, string"],
        3 containers_statuses: Vec<ContainerStatus> [message, repeated],
        4 timestamp: i64 [int64],
    }
    StateValue {
        1 state: i32 [int32],
    }
    PodSandboxFilter {
        1 id: String [string],
        2 state: Option<StateValue> [message, optional],
        3 label_selector: Map [btree_map = "string, string"],
    }
    ListPodSandboxRequest {
        1 filter: Option<PodSandboxFilter> [message, optional],
    }
    PodSandbox {
        1 id: String [string],
        2 metadata: Option<PodSandboxMetadata> [message, optional],
        3 state: i32 [int32],
        4 created_at: i64 [int64],
        5 labels: Map [btree_map = "string, string"],
        6 annotations: Map [btree_map = "string, string"],
        7 runtime_handler: String [string],
    }
    ListPodSandboxResponse {
        1 items: Vec<PodSandbox> [message, repeated],
    }
    // Containers.
    ImageSpec {
        1 image: String [string],
        2 annotations: Map [btree_map = "string, string"],
        18 user_specified_image: String [string],
        19 runtime_handler: String [string],
        20 image_ref: String [string],
    }
    KeyValue {
        1 key: String [string],
        2 value: Vec<u8> [bytes = "vec"],
    }
    Mount {
        1 container_path: String [string],
        2 host_path: String [string],
        3 readonly: bool [bool],
        4 selinux_relabel: bool [bool],
        5 propagation: i32 [int32],
        6 uid_mappings: Vec<IdMapping> [message, repeated],
        7 gid_mappings: Vec<IdMapping> [message, repeated],
        8 recursive_read_only: bool [bool],
        9 image: Option<ImageSpec> [message, optional],
        10 image_sub_path: String [string],
    }
    Device {
        1 container_path: String [string],
        2 host_path: String [string],
        3 permissions: String [string],
    }
    HugepageLimit {
        1 page_size: String [string],
        2 limit: u64 [uint64],
    }
    LinuxContainerResources {
        1 cpu_period: i64 [int64],
        2 cpu_quota: i64 [int64],
        3 cpu_shares: i64 [int64],
        4 memory_limit_in_bytes: i64 [int64],
        5 oom_score_adj: i64 [int64],
        6 cpuset_cpus: String [string],
        7 cpuset_mems: String [string],
        8 hugepage_limits: Vec<HugepageLimit> [message, repeated],
        9 unified: Map [btree_map = "string, string"],
        10 memory_swap_limit_in_bytes: i64 [int64],
    }
    Capability {
        1 add_capabilities: Vec<String> [string, repeated],
        2 drop_capabilities: Vec<String> [string, repeated],
        3 add_ambient_capabilities: Vec<String> [string, repeated],
    }
    LinuxContainerSecurityContext {
        1 capabilities: Option<Capability> [message, optional],
        2 privileged: bool [bool],
        3 namespace_options: Option<NamespaceOption> [message, optional],
        5 run_as_user: Option<Int64Value> [message, optional],
        12 run_as_group: Option<Int64Value> [message, optional],
        6 run_as_username: String [string],
        7 readonly_rootfs: bool [bool],
        8 supplemental_groups: Vec<i64> [int64, repeated],
        17 supplemental_groups_policy: i32 [int32],
        11 no_new_privs: bool [bool],
        13 masked_paths: Vec<String> [string, repeated],
        14 readonly_paths: Vec<String> [string, repeated],
        15 seccomp: Option<SecurityProfile> [message, optional],
        16 apparmor: Option<SecurityProfile> [message, optional],
    }
    LinuxContainerConfig {
        1 resources: Option<LinuxContainerResources> [message, optional],
        2 security_context: Option<LinuxContainerSecurityContext> [message, optional],
    }
    ContainerMetadata {
        1 name: String [string],
        2 attempt: u32 [uint32],
    }
    ContainerConfig {
        1 metadata: Option<ContainerMetadata> [message, optional],
        2 image: Option<ImageSpec> [message, optional],
        3 command: Vec<String> [string, repeated],
        4 args: Vec<String> [string, repeated],
        5 working_dir: String [string],
        6 envs: Vec<KeyValue> [message, repeated],
        7 mounts: Vec<Mount> [message, repeated],
        8 devices: Vec<Device> [message, repeated],
        9 labels: Map [btree_map = "string, string"],
        10 annotations: Map [btree_map = "string, string"],
        11 log_path: String [string],
        12 stdin: bool [bool],
        13 stdin_once: bool [bool],
        14 tty: bool [bool],
        15 linux: Option<LinuxContainerConfig> [message, optional],
        18 stop_signal: i32 [int32],
    }
    CreateContainerRequest {
        1 pod_sandbox_id: String [string],
        2 config: Option<ContainerConfig> [message, optional],
        3 sandbox_config: Option<PodSandboxConfig> [message, optional],
    }
    CreateContainerResponse {
        1 container_id: String [string],
    }
    ContainerId {
        1 container_id: String [string],
    }
    StopContainerRequest {
        1 container_id: String [string],
        2 timeout: i64 [int64],
    }
    ContainerFilter {
        1 id: String [string],
        2 state: Option<StateValue> [message, optional],
        3 pod_sandbox_id: String [string],
        4 label_selector: Map [btree_map = "string, string"],
    }
    ListContainersRequest {
        1 filter: Option<ContainerFilter> [message, optional],
    }
    Container {
        1 id: String [string],
        2 pod_sandbox_id: String [string],
        3 metadata: Option<ContainerMetadata> [message, optional],
        4 image: Option<ImageSpec> [message, optional],
        5 image_ref: String [string],
        6 state: i32 [int32],
        7 created_at: i64 [int64],
        8 labels: Map [btree_map = "string, string"],
        9 annotations: Map [btree_map = "string, string"],
        10 image_id: String [string],
    }
    ListContainersResponse {
        1 containers: Vec<Container> [message, repeated],
    }
    ContainerStatusRequest {
        1 container_id: String [string],
        2 verbose: bool [bool],
    }
    LinuxContainerUser {
        1 uid: i64 [int64],
        2 gid: i64 [int64],
        3 supplemental_groups: Vec<i64> [int64, repeated],
    }
    ContainerUser {
        1 linux: Option<LinuxContainerUser> [message, optional],
    }
    ContainerResources {
        1 linux: Option<LinuxContainerResources> [message, optional],
    }
    ContainerStatus {
        1 id: String [string],
        2 metadata: Option<ContainerMetadata> [message, optional],
        3 state: i32 [int32],
        4 created_at: i64 [int64],
        5 started_at: i64 [int64],
        6 finished_at: i64 [int64],
        7 exit_code: i32 [int32],
        8 image: Option<ImageSpec> [message, optional],
        9 image_ref: String [string],
        10 reason: String [string],
        11 message: String [string],
        12 labels: Map [btree_map = "string, string"],
        13 annotations: Map [btree_map = "string, string"],
        14 mounts: Vec<Mount> [message, repeated],
        15 log_path: String [string],
        16 resources: Option<ContainerResources> [message, optional],
        17 image_id: String [string],
        18 user: Option<ContainerUser> [message, optional],
        19 stop_signal: i32 [int32],
    }
    ContainerStatusResponse {
        1 status: Option<ContainerStatus> [message, optional],
        2 info: Map [btree_map = "string, string"],
    }
    UpdateContainerResourcesRequest {
        1 container_id: String [string],
        2 linux: Option<LinuxContainerResources> [message, optional],
        4 annotations: Map [btree_map = "string, string"],
    }
    ContainerEvent {
        1 container_id: String [string],
        2 container_event_type: i32 [int32],
        3 created_at: i64 [int64],
        4 pod_sandbox_status: Option<PodSandboxStatus> [message, optional],
        5 containers_statuses: Vec<ContainerStatus> [message, repeated],
    }
    // Commands and streams.
    ExecSyncRequest {
        1 container_id: String [string],
        2 cmd: Vec<String> [string, repeated],
        3 timeout: i64 [int64],
    }
    ExecSyncResponse {
        1 stdout: Vec<u8> [bytes = "vec"],
        2 stderr: Vec<u8> [bytes = "vec"],
        3 exit_code: i32 [int32],
    }
    ExecRequest {
        1 container_id: String [string],
        2 cmd: Vec<String> [string, repeated],
        3 tty: bool [bool],
        4 stdin: bool [bool],
        5 stdout: bool [bool],
        6 stderr: bool [bool],
    }
    AttachRequest {
        1 container_id: String [string],
        2 stdin: bool [bool],
        3 tty: bool [bool],
        4 stdout: bool [bool],
        5 stderr: bool [bool],
    }
    PortForwardRequest {
        1 pod_sandbox_id: String [string],
        2 port: Vec<i32> [int32, repeated],
    }
    StreamUrl {
        1 url: String [string],
    }
    // Images.
    ImageFilter {
        1 image: Option<ImageSpec> [message, optional],
    }
    ListImagesRequest {
        1 filter: Option<ImageFilter> [message, optional],
    }
    Image {
        1 id: String [string],
        2 repo_tags: Vec<String> [string, repeated],
        3 repo_digests: Vec<String> [string, repeated],
        4 size: u64 [uint64],
        5 uid: Option<Int64Value> [message, optional],
        6 username: String [string],
        7 spec: Option<ImageSpec> [message, optional],
        8 pinned: bool [bool],
    }
    ListImagesResponse {
        1 images: Vec<Image> [message, repeated],
    }
    ImageStatusRequest {
        1 image: Option<ImageSpec> [message, optional],
        2 verbose: bool [bool],
    }
    ImageStatusResponse {
        1 image: Option<Image> [message, optional],
        2 info: Map [btree_map = "string, string"],
    }
    AuthConfig {
        1 username: String [string],
        2 password: String [string],
        3 auth: String [string],
        4 server_address: String [string],
        5 identity_token: String [string],
        6 registry_token: String [string],
    }
    PullImageRequest {
        1 image: Option<ImageSpec> [message, optional],
        2 auth: Option<AuthConfig> [message, optional],
        3 sandbox_config: Option<PodSandboxConfig> [message, optional],
    }
    PullImageResponse {
        1 image_ref: String [string],
    }
    RemoveImageRequest {
        1 image: Option<ImageSpec> [message, optional],
    }
    FilesystemIdentifier {
        1 mountpoint: String [string],
    }
    FilesystemUsage {
        1 timestamp: i64 [int64],
        2 fs_id: Option<FilesystemIdentifier> [message, optional],
        3 used_bytes: Option<UInt64Value> [message, optional],
        4 inodes_used: Option<UInt64Value> [message, optional],
    }
    ImageFsInfoResponse {
        1 image_filesystems: Vec<FilesystemUsage> [message, repeated],
        2 container_filesystems: Vec<FilesystemUsage> [message, repeated],
    }
    // Usage.
    CpuUsage {
        1 timestamp: i64 [int64],
        2 usage_core_nano_seconds: Option<UInt64Value> [message, optional],
        3 usage_nano_cores: Option<UInt64Value> [message, optional],
    }
    MemoryUsage {
        1 timestamp: i64 [int64],
        2 working_set_bytes: Option<UInt64Value> [message, optional],
        3 available_bytes: Option<UInt64Value> [message, optional],
        4 usage_bytes: Option<UInt64Value> [message, optional],
        5 rss_bytes: Option<UInt64Value> [message, optional],
        6 page_faults: Option<UInt64Value> [message, optional],
        7 major_page_faults: Option<UInt64Value> [message, optional],
    }
    ContainerAttributes {
        1 id: String [string],
        2 metadata: Option<ContainerMetadata> [message, optional],
        3 labels: Map [btree_map = "string, string"],
        4 annotations: Map [btree_map = "string, string"],
    }
    ContainerStats {
        1 attributes: Option<ContainerAttributes> [message, optional],
        2 cpu: Option<CpuUsage> [message, optional],
        3 memory: Option<MemoryUsage> [message, optional],
        4 writable_layer: Option<FilesystemUsage> [message, optional],
    }
    ContainerStatsResponse {
        1 stats: Option<ContainerStats> [message, optional],
    }
    ContainerStatsFilter {
        1 id: String [string],
        2 pod_sandbox_id: String [string],
        3 label_selector: Map [btree_map = "string, string"],
    }
    ListContainerStatsRequest {
        1 filter: Option<ContainerStatsFilter> [message, optional],
    }
    ListContainerStatsResponse {
        1 stats: Vec<ContainerStats> [message, repeated],
    }
    NetworkInterfaceUsage {
        1 name: String [string],
        2 rx_bytes: Option<UInt64Value> [message, optional],
        3 rx_errors: Option<UInt64Value> [message, optional],
        4 tx_bytes: Option<UInt64Value> [message, optional],
        5 tx_errors: Option<UInt64Value> [message, optional],
    }
    NetworkUsage {
        1 timestamp: i64 [int64],
        2 default_interface: Option<NetworkInterfaceUsage> [message, optional],
        3 interfaces: Vec<NetworkInterfaceUsage> [message, repeated],
    }
    ProcessUsage {
        1 timestamp: i64 [int64],
        2 process_count: Option<UInt64Value> [message, optional],
    }
    LinuxPodSandboxStats {
        1 cpu: Option<CpuUsage> [message, optional],
        2 memory: Option<MemoryUsage> [message, optional],
        3 network: Option<NetworkUsage> [message, optional],
        4 process: Option<ProcessUsage> [message, optional],
        5 containers: Vec<ContainerStats> [message, repeated],
    }
    PodSandboxAttributes {
        1 id: String [string],
        2 metadata: Option<PodSandboxMetadata> [message, optional],
        3 labels: Map [btree_map = "string, string"],
        4 annotations: Map [btree_map = "string, string"],
    }
    PodSandboxStats {
        1 attributes: Option<PodSandboxAttributes> [message, optional],
        2 linux: Option<LinuxPodSandboxStats> [message, optional],
    }
    PodSandboxStatsFilter {
        1 id: String [string],
        2 label_selector: Map [btree_map = "string, string"],
    }
    ListPodSandboxStatsRequest {
        1 filter: Option<PodSandboxStatsFilter> [message, optional],
    }
    ListPodSandboxStatsResponse {
        1 stats: Vec<PodSandboxStats> [message, repeated],
    }

    // grpc.health.v1, not CRI.
    HealthCheckRequest {
        1 service: String [string],
    }
    HealthCheckResponse {
        1 status: i32 [int32],
    }
}
