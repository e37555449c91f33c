//! Signs the ConfigMap `cluster-info` in kube-public with every bootstrap token that may, so that a machine that holds a
//! token can tell the real cluster's address and authority from a forged one
//! (pkg/controller/bootstrap/bootstrapsigner.go). The ConfigMap itself is made by whoever sets machines up.
use crate::session::Session;
use mote_api::{
    Change, Client, Kind, Sub,
    auth::bootstrap_token::{self, NAMESPACE, TYPE},
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Gather as _;
use mote_schema::Value;
use std::{collections::BTreeMap, sync::Arc};

const PLACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const SIGNED: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

struct Controller {
    session: Session,
    config_maps: Arc<Kind>,
    secrets: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "bootstrap-signer");
    let config_maps = session.kind("", "v1", "configmaps");
    let secrets = session.kind("", "v1", "secrets");
    session.clone().start(Controller { session, config_maps, secrets });
}

impl Controller {
    /// The signatures that the text should have, by key.
    fn signatures(&self, text: &str) -> Result<BTreeMap<String, String>, Error> {
        let secrets = self.session.list(&self.secrets, Some(NAMESPACE))?;
        let tokens = secrets.iter().filter_map(bootstrap_token::signing);
        Ok(tokens.map(|(id, secret)| (format!("{SIGNATURE}{id}"), bootstrap_token::sign(text, &id, &secret))).gather())
    }
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "bootstrap-signer"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "configmaps"), ("", "v1", "secrets")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        let concerns = match &*change.kind.plural {
            "configmaps" => object.namespace() == PLACE && object.name() == NAME && change.new.is_some(),
            _ => object.namespace() == NAMESPACE && object.root().get("type").str() == TYPE,
        };
        if concerns {
            queue.add(Key::new(PLACE, NAME));
        }
    }

    fn reconcile<'a>(&'a self, _key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Ok(map) = self.session.get(&self.config_maps, PLACE, NAME) else { return Ok(Next::Done) };
            let data = map.root().get("data");
            let Some(text) = data.get(SIGNED).as_str() else { return Ok(Next::Done) };
            let wanted = self.signatures(text)?;
            let found = data.entries().filter(|(key, _)| key.starts_with(SIGNATURE));
            let found: BTreeMap<String, String> = found.map(|(key, text)| (key.into(), text.str().into())).gather();
            if found == wanted {
                return Ok(Next::Done);
            }
            let mut value = map.to_value();
            let Some(data) = value["data"].as_object_mut() else { return Ok(Next::Done) };
            for key in found.keys() {
                data.remove(key);
            }
            for (key, signature) in wanted {
                data.insert(key.into(), Value::String(signature.into()));
            }
            match self.session.update(&self.config_maps, Sub::Main, value).await {
                Err(status) if !status.is_conflict() && !status.is_not_found() => Err(status.into()),
                _ => Ok(Next::Done),
            }
        })
    }
}
