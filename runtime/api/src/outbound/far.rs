//! The way to a gRPC server on another machine: TCP, and TLS with what lies in files. They are read at each dial, so that what is
//! renewed is used by the next connection.
use super::connect::{Endpoint, Place, Tls, Trust, connect_for};
use crate::certs::Issued;
use mote_grpc::{Dial, Dialled};
use std::{path::PathBuf, sync::Arc};

/// PEM.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// None: the authorities this machine trusts.
    pub ca: Option<PathBuf>,
    /// Certificate and key that the client shows.
    pub identity: Option<(PathBuf, PathBuf)>,
}

pub struct Far {
    host: String,
    place: Place,
    /// None: without TLS.
    files: Option<Files>,
}

impl Far {
    pub fn new(host: &str, port: u16, files: Option<Files>) -> Far {
        Far { host: host.to_owned(), place: Place::of(host, port), files }
    }
}

impl Dial for Far {
    fn dial(&self) -> Dialled<'_> {
        Box::pin(async move {
            let tls = match &self.files {
                Some(files) => {
                    let (files, server_name) = (files.clone(), self.host.clone());
                    Some(crate::unblock(move || read(&files, server_name)).await?)
                }
                None => None,
            };
            connect_for(&Endpoint { place: self.place.clone(), tls }, b"h2").await
        })
    }
}

fn read(files: &Files, server_name: String) -> Result<Tls, String> {
    let text = |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let trust = match &files.ca {
        Some(path) => Trust::Bundle(text(path)?.into()),
        None => Trust::System,
    };
    let identity = match &files.identity {
        Some((certificate, key)) => Some(Arc::new(Issued { certificate: text(certificate)?, key: text(key)? })),
        None => None,
    };
    Ok(Tls { server_name, trust, identity })
}
