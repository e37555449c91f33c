//! Volume and its sources.
use super::{ObjectFieldSelector, Quantity, ResourceFieldSelector, Selector, fields};

fields! {
    Volume {
        config_map "configMap": Option<ConfigMapVolumeSource>,
        downward_api "downwardAPI": Option<DownwardAPIVolumeSource>,
        empty_dir "emptyDir": Option<EmptyDirVolumeSource>,
        ephemeral "ephemeral": Option<EphemeralVolumeSource>,
        host_path "hostPath": Option<HostPathVolumeSource>,
        image "image": Option<ImageVolumeSource>,
        name "name": String,
        persistent_volume_claim "persistentVolumeClaim": Option<PersistentVolumeClaimVolumeSource>,
        projected "projected": Option<ProjectedVolumeSource>,
        secret "secret": Option<SecretVolumeSource>,
    }

    KeyToPath {
        key "key": String,
        mode "mode": Option<i32>,
        path "path": String,
    }

    ConfigMapVolumeSource {
        default_mode "defaultMode": Option<i32>,
        items "items": Option<Vec<KeyToPath>>,
        name "name": String,
        optional "optional": Option<bool>,
    }

    SecretVolumeSource {
        default_mode "defaultMode": Option<i32>,
        items "items": Option<Vec<KeyToPath>>,
        optional "optional": Option<bool>,
        secret_name "secretName": Option<String>,
    }

    DownwardAPIVolumeSource {
        default_mode "defaultMode": Option<i32>,
        items "items": Option<Vec<DownwardAPIVolumeFile>>,
    }

    DownwardAPIVolumeFile {
        field_ref "fieldRef": Option<ObjectFieldSelector>,
        mode "mode": Option<i32>,
        path "path": String,
        resource_field_ref "resourceFieldRef": Option<ResourceFieldSelector>,
    }

    EmptyDirVolumeSource {
        medium "medium": Option<String>,
        size_limit "sizeLimit": Option<Quantity>,
    }

    HostPathVolumeSource {
        path "path": String,
        type_ "type": Option<String>,
    }

    ImageVolumeSource {
        pull_policy "pullPolicy": Option<String>,
        reference "reference": Option<String>,
    }

    EphemeralVolumeSource {
    }

    PersistentVolumeClaimVolumeSource {
        claim_name "claimName": String,
        read_only "readOnly": Option<bool>,
    }

    ProjectedVolumeSource {
        default_mode "defaultMode": Option<i32>,
        sources "sources": Option<Vec<VolumeProjection>>,
    }

    VolumeProjection {
        cluster_trust_bundle "clusterTrustBundle": Option<ClusterTrustBundleProjection>,
        config_map "configMap": Option<ConfigMapProjection>,
        downward_api "downwardAPI": Option<DownwardAPIProjection>,
        pod_certificate "podCertificate": Option<PodCertificateProjection>,
        secret "secret": Option<SecretProjection>,
        service_account_token "serviceAccountToken": Option<ServiceAccountTokenProjection>,
    }

    ClusterTrustBundleProjection {
        label_selector "labelSelector": Option<Selector>,
        name "name": Option<String>,
        optional "optional": Option<bool>,
        path "path": String,
        signer_name "signerName": Option<String>,
    }

    ConfigMapProjection {
        items "items": Option<Vec<KeyToPath>>,
        name "name": String,
        optional "optional": Option<bool>,
    }

    DownwardAPIProjection {
        items "items": Option<Vec<DownwardAPIVolumeFile>>,
    }

    PodCertificateProjection {
        signer_name "signerName": String,
    }

    SecretProjection {
        items "items": Option<Vec<KeyToPath>>,
        name "name": String,
        optional "optional": Option<bool>,
    }

    ServiceAccountTokenProjection {
        audience "audience": Option<String>,
        expiration_seconds "expirationSeconds": Option<i64>,
        path "path": String,
    }
}
