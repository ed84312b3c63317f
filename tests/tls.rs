//! What was asked for by https never comes by plain http, and nothing goes out by it: against a server with a
//! certificate of its own authority, which leads to a plain one wherever it can.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Ran, Workspace, recipe};

/// Both servers; whatever reaches the plain one is written to `plain.log`.
const SERVERS: &str = r#"
import http.server, ssl, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def answer(self):
        plain = f'http://localhost:{plain_server.server_address[1]}'
        self.rfile.read(int(self.headers.get('Content-Length') or 0))
        if self.path.startswith('/simple/linked/'):
            body = f'<a href="{plain}/linked-1.0-py3-none-any.whl#sha256={"0" * 64}">linked-1.0-py3-none-any.whl</a>'.encode()
            self.send_response(200)
            self.send_header('Content-Type', 'text/html')
        elif self.path.startswith('/empty/simple/'):
            body = b''
            self.send_response(404)
        else:
            body = b''
            self.send_response(302)
            self.send_header('Location', plain + self.path)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = do_HEAD = answer
class Plain(Handler):
    def answer(self):
        open('plain.log', 'a').write(f'{self.command} {self.path} {self.headers}\n')
        self.send_response(404)
        self.end_headers()
    do_GET = do_POST = do_HEAD = answer
plain_server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Plain)
threading.Thread(target=plain_server.serve_forever, daemon=True).start()
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('server.pem', 'server.key')
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], plain_server.server_address[1], flush=True)
server.serve_forever()
"#;

struct Servers {
    child: Child,
    dir: PathBuf,
    url: String,
    plain: String,
}

impl Servers {
    fn start(dir: &Path) -> Self {
        let openssl = |args: &[&str]| {
            let out = Command::new("openssl").args(args).current_dir(dir).output().expect("openssl");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        };
        let key = ["-newkey", "rsa:2048", "-nodes"];
        let ca = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca"];
        openssl(&[&ca[..], &key].concat());
        let asked = ["req", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"];
        openssl(&[&asked[..], &key].concat());
        let about = "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n";
        std::fs::write(dir.join("extensions"), about).unwrap();
        let signed = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        openssl(&[&signed[..], &["-days", "2", "-extfile", "extensions", "-out", "server.pem"]].concat());
        let mut child = Command::new("python3")
            .args(["-c", SERVERS])
            .current_dir(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ports = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ports).unwrap();
        let (tls, plain) = ports.trim().split_once(' ').unwrap();
        let url = |scheme: &str, port: &str| format!("{scheme}://localhost:{port}");
        Self { child, dir: dir.to_owned(), url: url("https", tls), plain: url("http", plain) }
    }

    fn reached_in_the_clear(&self) -> String {
        std::fs::read_to_string(self.dir.join("plain.log")).unwrap_or_default()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn https_never_becomes_http() {
    let w = Workspace::new();
    let servers = Servers::start(w.path());
    let run = |args: &[&str]| {
        let mut command = w.xtask(args);
        command.env("SSL_CERT_FILE", w.path().join("ca.pem")).env("HOME", w.path());
        command.env("PIP_INDEX_URL", format!("{}/simple", servers.url));
        command.env("TORCHMILL_UPLOAD_PASSWORD", "a-password-of-ours");
        Ran::of(&mut command, w.path())
    };
    let refused = |args: &[&str]| {
        let ran = run(args);
        assert!(matches!(ran.code, Some(2 | 3)), "{args:?}: {ran:?}");
        assert_eq!(servers.reached_in_the_clear(), "", "{args:?}");
        ran
    };
    // Redirects of downloads, of what is inspected, of git.
    refused(&["inspect", &format!("{}/torch-2.6.0-py3-none-any.whl", servers.url)]);
    let commit = "0123456789012345678901234567890123456789";
    for (source, why) in [
        (format!("{}/uv.tar", servers.url), format!("configured for https only: {}/uv.tar", servers.plain)),
        (
            format!("git+{}/libuv#{commit}", servers.url),
            format!("redirects to plain http ({}/libuv/info/refs", servers.plain),
        ),
    ] {
        w.write("recipes/r.toml", recipe("").replace("file:uv.tar", &source));
        refused(&["lock", "--recipe", "r"]).says(&why);
        assert!(!w.path().join("recipes/r.lock").exists(), "{source} was locked");
    }
    // Links and redirects of an index.
    refused(&["mirror", "add", "--index", "index", "pypi:linked==1.0"]).says("leads to plain http");
    refused(&["mirror", "add", "--index", "index", "pypi:elsewhere==1.0"]);
    // The server that wheels are pushed to: what it shows, and where it wants them.
    let wheel = crate::mirror::wheel(w.path(), "demo", "1.0", "");
    let wheel = wheel.to_str().unwrap();
    for to in ["simple", "empty/simple"] {
        refused(&["mirror", "push", "--to", &format!("{}/{to}/", servers.url), wheel]);
    }
    // The plain server would have answered, and notes who asks.
    let ran = run(&["inspect", &format!("{}/torch-2.6.0-py3-none-any.whl", servers.plain)]);
    assert_ne!(ran.code, Some(0));
    assert!(servers.reached_in_the_clear().contains("/torch-2.6.0"));
}
