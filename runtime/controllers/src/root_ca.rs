//! The ConfigMap `kube-root-ca.crt` in every namespace: what a pod trusts when it calls the API server
//! (pkg/controller/certificates/rootcacertpublisher). Put back when it is changed or deleted.
use crate::{Config, pod_control, session::Session};
use mote_api::{
    Change, Client, Kind, Sub,
    certs::Certificates,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::json;
use std::sync::Arc;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "CA bundle that verifies the API server at its in-cluster addresses, such as \
    kubernetes.default.svc; meant for nothing else.";

struct Controller {
    session: Session,
    pem: String,
    certificates: Option<Arc<Certificates>>,
    namespaces: Arc<Kind>,
    config_maps: Arc<Kind>,
}

pub fn start(client: &Client, config: &Config) {
    let session = Session::new(client, "root-ca-cert-publisher");
    let namespaces = session.kind("", "v1", "namespaces");
    let config_maps = session.kind("", "v1", "configmaps");
    let pem = config.root_ca_pem.clone();
    let certificates = config.certificates.clone();
    let controller = Controller {
        session: session.clone(),
        pem,
        certificates: certificates.clone(),
        namespaces: namespaces.clone(),
        config_maps,
    };
    let queue = session.start(controller);
    let Some(certificates) = certificates else { return };
    client.spawn(async move {
        loop {
            let renewed = certificates.renewed();
            for namespace in session.list(&namespaces, None).unwrap_or_default() {
                queue.add(Key::new("", namespace.name()));
            }
            renewed.await;
        }
    });
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "namespaces"), ("", "v1", "configmaps")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        match &*change.kind.plural {
            "namespaces" if change.new.is_some() => queue.add(Key::new("", object.name())),
            "configmaps" if object.name() == NAME => queue.add(Key::new("", object.namespace())),
            _ => {}
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let namespace = &*key.name;
            if !self.session.get(&self.namespaces, "", namespace).is_ok_and(|n| !n.is_deleting()) {
                return Ok(Next::Done);
            }
            let pem = self.certificates.as_ref().map_or_else(|| self.pem.clone(), |own| own.authority());
            let data = json!({"ca.crt": pem});
            let annotations = json!({DESCRIPTION: DESCRIPTION_TEXT});
            let result = match self.session.get(&self.config_maps, namespace, NAME) {
                Ok(map) => {
                    let described = map.meta().get("annotations").get(DESCRIPTION).exists();
                    if described && map.root().get("data").to_value() == data {
                        return Ok(Next::Done);
                    }
                    let mut value = map.to_value();
                    value["data"] = data;
                    value["metadata"]["annotations"][DESCRIPTION] = DESCRIPTION_TEXT.into();
                    self.session.update(&self.config_maps, Sub::Main, value).await
                }
                Err(_) => {
                    let value = json!({
                        "metadata": {"name": NAME, "namespace": namespace, "annotations": annotations}, "data": data,
                    });
                    self.session.create(&self.config_maps, namespace, value).await
                }
            };
            match result {
                Err(status) if !status.is_already_exists() && !pod_control::namespace_terminating(&status) => {
                    Err(status.into())
                }
                _ => Ok(Next::Done),
            }
        })
    }
}
