//! What extension API servers need to know of us: the ConfigMap kube-system/extension-apiserver-authentication
//! (kubernetes/pkg/controlplane/controller/clusterauthenticationtrust). Written when it is missing or says other things.
use super::front_proxy;
use crate::{Client, Patch, Sub, certs::Certificates};
use mote_schema::Status;
use mote_schema::{Value, json};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

pub async fn publish(client: &Client, certificates: &Certificates) -> Result<(), Status> {
    let Some(kind) = client.kind("", "v1", "configmaps") else { return Ok(()) };
    let data = data(&certificates.authority(), &certificates.front_proxy_authority());
    match client.get(&kind, NAMESPACE, NAME) {
        Ok(found) => {
            let is_same = data
                .as_object()
                .into_iter()
                .flatten()
                .all(|(key, value)| found.root().get("data").get(key).as_str() == value.as_str());
            if is_same {
                return Ok(());
            }
            client.patch(&kind, NAMESPACE, NAME, Sub::Main, Patch::Merge(json!({"data": data}))).await.map(drop)
        }
        Err(_) => {
            let map = json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": data});
            client.create_value(&kind, NAMESPACE, map).await.map(drop)
        }
    }
}

/// Publishes anew what a renewal changes.
pub async fn follow(client: Client, certificates: std::sync::Arc<Certificates>) {
    loop {
        certificates.renewed().await;
        if let Err(status) = publish(&client, &certificates).await {
            tracing::warn!(%status, "publishing the renewed authorities");
        }
    }
}

fn data(authority: &str, front_proxy: &str) -> Value {
    json!({
        "client-ca-file": authority,
        "requestheader-allowed-names": format!("[{:?}]", front_proxy::ALLOWED_NAME),
        "requestheader-client-ca-file": front_proxy,
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
    })
}
