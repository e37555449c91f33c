//! A webhook of a test's own: an HTTPS server on every address of this machine, whose answers a function gives. It can be
//! slow, silent, wrong and rude, as real ones are.
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

pub enum Reply {
    Json(u16, Value),
    Text(u16, &'static str),
    /// Keeps the connection and says nothing.
    Silence,
    /// Closes the connection.
    Hangup,
}

/// One request as it came: method, target, headers in lower case, body.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
    /// What an AdmissionReview asks.
    pub fn request(&self) -> Value {
        self.json()["request"].clone()
    }
}

type Answer = dyn Fn(&Call) -> Reply + Send + Sync;

pub struct Webhook {
    pub port: u16,
    /// For `caBundle`.
    pub ca_bundle: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Webhook {
    /// Its certificate is for the loopback, `localhost` and `names`.
    pub fn start(names: &[&str], answer: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Webhook {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        let mut sans: Vec<SanType> = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        for name in ["localhost"].iter().chain(names) {
            sans.push(SanType::DnsName((*name).try_into().expect("a name")));
        }
        params.subject_alt_names = sans;
        // As `openssl req -x509` makes them: an authority that serves.
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .expect("TLS");
        let socket = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (config, answer): (_, Arc<Answer>) = (Arc::new(config), Arc::new(answer));
        let seen = calls.clone();
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let (config, answer, seen) = (config.clone(), answer.clone(), seen.clone());
                thread::spawn(move || serve(stream, config, &*answer, &seen));
            }
        });
        Webhook { port, ca_bundle: STANDARD.encode(certificate.pem()), calls }
    }

    pub fn client_config(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.ca_bundle})
    }

    /// All there were so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().map(|calls| calls.clone()).unwrap_or_default()
    }
}

/// An AdmissionReview that answers `call`; `response` is laid over `allowed: true`.
pub fn review(call: &Call, response: Value) -> Reply {
    let mut answer = json!({"uid": call.request()["uid"], "allowed": true});
    for (key, value) in response.as_object().into_iter().flatten() {
        answer[key] = value.clone();
    }
    Reply::Json(200, json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}))
}

/// A JSON patch as `response.patch` carries it.
pub fn patch(operations: Value) -> Value {
    json!({"patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

/// An address of this machine that other machines could use: endpoints are never on the loopback.
pub fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only chooses a source.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, answer: &Answer, seen: &Mutex<Vec<Call>>) {
    let Ok(connection) = ServerConnection::new(config) else { return };
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    while let Some(call) = read(&mut reader) {
        if let Ok(mut seen) = seen.lock() {
            seen.push(call.clone());
        }
        let (code, media, body) = match answer(&call) {
            Reply::Json(code, value) => (code, "application/json", value.to_string()),
            Reply::Text(code, text) => (code, "text/plain", text.to_owned()),
            Reply::Hangup => return,
            Reply::Silence => {
                // Until the other side has had enough.
                let _ = reader.read(&mut [0]);
                return;
            }
        };
        let head = format!("HTTP/1.1 {code} X\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n", body.len());
        let stream = reader.get_mut();
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).is_err() {
            return;
        }
        let _ = stream.flush();
    }
}

fn read(reader: &mut impl BufRead) -> Option<Call> {
    let mut line = String::new();
    let mut next = |reader: &mut dyn BufRead| {
        line.clear();
        reader.read_line(&mut line).ok().filter(|count| *count > 0).map(|_| line.trim_end().to_owned())
    };
    let first = next(reader)?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = next(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Call { method, target, headers, body })
}
