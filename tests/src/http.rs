//! A plain HTTP/1.1 client over TLS, with the administrator's certificate, a token, or nothing: for requests kubectl
//! would not send. One request a connection.
use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use std::{
    io::{self, BufRead, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::Duration,
};

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    with_certificate: Arc<ClientConfig>,
    without: Arc<ClientConfig>,
    roots: RootCertStore,
    token: Option<String>,
    anonymous: bool,
}

#[derive(Debug)]
pub struct Response {
    pub code: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

impl Response {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// From a kubeconfig with one cluster and one user, whose certificates (or token) stand in it.
    pub fn new(kubeconfig: &Path) -> Client {
        let text = std::fs::read_to_string(kubeconfig).expect("the kubeconfig is there");
        let find = |key: &str| {
            let line = text
                .lines()
                .find_map(|line| line.trim().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(": "));
            line.map(|line| line.trim_matches('"').to_owned())
        };
        let value = |key: &str| find(key).unwrap_or_else(|| panic!("no {key} in {}", kubeconfig.display()));
        let pem = |key: &str| BASE64_STANDARD.decode(value(key)).expect("base64");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem("certificate-authority-data")) {
            roots.add(certificate.expect("a PEM certificate")).expect("a usable CA certificate");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            let builder = ClientConfig::builder_with_provider(provider.clone());
            builder.with_safe_default_protocol_versions().expect("TLS versions").with_root_certificates(roots.clone())
        };
        let without = Arc::new(builder().with_no_client_auth());
        let token = find("token");
        let with_certificate = match &token {
            Some(_) => without.clone(),
            None => {
                let chain = CertificateDer::pem_slice_iter(&pem("client-certificate-data")).collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data")).expect("a PEM key");
                Arc::new(builder().with_client_auth_cert(chain.expect("PEM"), key).expect("a matching key"))
            }
        };
        let server = value("server");
        let host = server.strip_prefix("https://").expect("an https server").trim_end_matches('/');
        let address = host.to_socket_addrs().ok().and_then(|mut all| all.find(SocketAddr::is_ipv4));
        let address = address.expect("an address and port");
        Client { address, with_certificate, without, roots, token, anonymous: false }
    }

    pub fn with_token(&self, token: &str) -> Client {
        Client { token: Some(token.to_owned()), anonymous: true, ..self.clone() }
    }

    /// The same server, with another client certificate.
    pub fn with_certificate(&self, certificate: &str, key: &str) -> Client {
        let chain: Result<_, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a PEM key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("TLS versions").with_root_certificates(self.roots.clone());
        let config = builder.with_client_auth_cert(chain.expect("PEM"), key).expect("a matching key");
        Client { with_certificate: Arc::new(config), token: None, anonymous: false, ..self.clone() }
    }

    pub fn anonymous(&self) -> Client {
        Client { token: None, anonymous: true, ..self.clone() }
    }

    /// An open connection, to send bytes of one's own on.
    pub fn connect(&self) -> io::Result<Stream> {
        self.connect_with(&[])
    }

    /// The same, for one of these protocols.
    pub fn connect_with(&self, protocols: &[&[u8]]) -> io::Result<Stream> {
        let socket = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let config = if self.anonymous { &self.without } else { &self.with_certificate };
        let mut config = config.clone();
        if !protocols.is_empty() {
            Arc::make_mut(&mut config).alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        }
        let name = ServerName::IpAddress(self.address.ip().into());
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, socket))
    }

    pub fn try_request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
        let mut stream = self.connect()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes())?;
        // A server may answer and close before it has read a body it does not want.
        let _ = stream.write_all(body).and_then(|()| stream.flush());
        read_response(&mut stream)
    }

    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_request(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[("Accept", "application/json")], b"")
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }
}

/// One connection for many requests, for measuring what the server does and not what a handshake costs.
pub struct Connection {
    stream: std::io::BufReader<Stream>,
    host: String,
    token: Option<String>,
}

impl Connection {
    pub fn open(client: &Client) -> io::Result<Connection> {
        let stream = client.connect()?;
        stream.sock.set_nodelay(true)?;
        Ok(Connection {
            stream: std::io::BufReader::with_capacity(64 * 1024, stream),
            host: client.address.to_string(),
            token: client.token.clone(),
        })
    }

    /// Status code and body of a request in JSON.
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, Vec<u8>)> {
        let response = self.send(method, path, &[("Content-Type", "application/json")], body.as_bytes())?;
        Ok((response.code, response.body))
    }

    /// JSON is asked for unless a header says otherwise.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept")) {
            request.push_str("Accept: application/json\r\n");
        }
        if let Some(token) = &self.token {
            request.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let stream = self.stream.get_mut();
        stream.write_all(&[request.as_bytes(), body].concat())?;
        stream.flush()?;
        let (mut code, mut length, mut chunked, mut headers, mut line) = (0, None, false, String::new(), String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            } else if let Some(bytes) = header.strip_prefix("content-length: ") {
                length = bytes.parse().ok();
            } else if header == "transfer-encoding: chunked" {
                chunked = true;
            } else if header.starts_with("http/1.1 ") {
                code = header.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
            }
            headers.push_str(&line);
        }
        let mut body = Vec::new();
        if chunked {
            self.read_chunks(&mut body)?;
        } else if let Some(bytes) = length.filter(|_| method != "HEAD") {
            body.resize(bytes, 0);
            self.stream.read_exact(&mut body)?;
        }
        Ok(Response { code, headers, body })
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let bytes = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + bytes, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.stream.read_exact(&mut [0; 2])?;
            if bytes == 0 {
                return Ok(());
            }
        }
    }
}

/// The body up to where the server says it ends, or closes.
pub fn read_response(stream: &mut impl Read) -> io::Result<Response> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        // Closed without TLS' farewell, which is enough after a whole answer.
        if bytes.is_empty() {
            return Err(error);
        }
    }
    let end = find(&bytes, b"\r\n\r\n").ok_or_else(|| io::Error::other("no answer"))?;
    let headers = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let code =
        headers.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| io::Error::other("no status"))?;
    let body = &bytes[end + 4..];
    let chunked = headers.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok(Response { code, headers, body: if chunked { unchunk(body) } else { body.to_vec() } })
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = find(rest, b"\r\n") {
        let bytes = usize::from_str_radix(String::from_utf8_lossy(&rest[..end]).trim(), 16).unwrap_or(0);
        let start = end + 2;
        if bytes == 0 || rest.len() < start + bytes {
            break;
        }
        body.extend_from_slice(&rest[start..start + bytes]);
        rest = rest.get(start + bytes + 2..).unwrap_or_default();
    }
    body
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
