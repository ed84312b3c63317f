//! A farm: other machines that compile. Its engine is sccache-dist; what compiles here has no network all the same. The
//! engine's daemon runs in a closed room, in which every address leads to a forwarder of ours; that asks at a door, and
//! this program, outside of the room, connects to the scheduler and to the workers that the scheduler named, and to
//! nobody else.
//!
//! What a worker answers decides what the daemon writes, and where. So the room shows it all that it reads, and one
//! folder that it can write: nothing else that a worker sends can end up anywhere. The token of the farm is added
//! outside: the room does not know it. Which objects came from the farm, the launcher notes ([`crate::toolchain::farm`]);
//! a sample of them is compiled again ([`super::objects::audit`]).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ureq::Agent;
use url::Url;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::source::{http_agent_within, minutes_apart};

pub mod daemon;
pub mod door;
pub mod inside;
pub mod wire;

/// Where a scheduler says how its farm is.
const STATUS: &str = "/api/v1/scheduler/status";
/// Until the scheduler must have taken a connection; and until it must have answered. It asks a worker before it answers.
const PATIENCE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(20)];
/// Seconds that the farm may take for an object beside what its compile is expected to take, where nobody says otherwise.
pub const OBJECT_PATIENCE: u16 = 30;

/// A farm, and how it is asked.
pub struct Farm {
    scheduler: Url,
    token: Option<Zeroizing<String>>,
    agent: Agent,
    /// Seconds that an object may take there beside what its compile is expected to take.
    pub patience: u16,
}

impl std::fmt::Debug for Farm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Farm({}, …)", self.shown())
    }
}

/// What a scheduler says of its farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// Workers that were heard of within the last 90 seconds.
    pub num_servers: usize,
    /// Their cores.
    pub num_cpus: usize,
    /// Objects that are with them.
    pub in_progress: usize,
    /// Minutes between the scheduler's clock and this machine's, where those are too many.
    #[serde(skip_deserializing)]
    pub minutes_apart: Option<u64>,
}

impl Status {
    /// What follows from clocks that differ: a place that the scheduler gives is good for a time, and so is a worker's
    /// certificate.
    pub fn clocks(&self) -> Option<String> {
        let apart = self.minutes_apart?;
        Some(format!(
            "the scheduler's clock and this machine's are {apart} minutes apart: certificates of workers, and the places that \
             it gives, may be taken for too old or too young; set the clock that is wrong"
        ))
    }
}

impl Farm {
    /// The farm whose scheduler answers at `text`, and the token that it wants to hear.
    ///
    /// # Errors
    /// Misuse: it is no address, has a password in it, or what is sent there could be read and changed on its way; or
    /// nobody can be that patient.
    pub fn parse(text: &str, token: Option<Zeroizing<String>>, patience: Option<u16>) -> Result<Self> {
        let scheduler = scheduler_url(text, "--farm")?;
        let token = token.filter(|token| !token.is_empty());
        if let Some(token) = &token
            && !token.chars().all(|c| c.is_ascii_graphic())
        {
            return Err(Error::misuse("farm-token", "the token of the farm has characters that no header can carry")
                .next("copy the one line of the scheduler's file client.token"));
        }
        if let Some(seconds) = patience.filter(|s| !(1..=3600).contains(s)) {
            return Err(Error::misuse("farm-patience", format!("a patience of {seconds} seconds for the farm"))
                .next("from 1 to 3600: patience in [farm] of the settings, or --farm-patience"));
        }
        let agent = http_agent_within(PATIENCE[0], PATIENCE[1]);
        Ok(Self { scheduler, token, agent, patience: patience.unwrap_or(OBJECT_PATIENCE) })
    }

    /// For people.
    pub fn shown(&self) -> String {
        self.scheduler.as_str().trim_end_matches('/').to_owned()
    }

    /// Asks the scheduler how its farm is.
    ///
    /// # Errors
    /// The world: it is away, or answers like no scheduler.
    pub fn status(&self) -> Result<Status> {
        let away = |why: String| {
            Error::world("farm", format!("the farm {} does not answer: {why}", self.shown()))
                .next("is its scheduler up, and is this its address? cargo xtask farm scheduler starts one")
        };
        let url = self.scheduler.join(STATUS).map_err(|e| away(e.to_string()))?;
        let request = self.agent.get(url.as_str()).header("Accept", "application/json");
        let mut response = request.call().map_err(|e| away(e.to_string()))?;
        let (status, minutes_apart) = (response.status().as_u16(), minutes_apart(&response));
        let text = response.body_mut().with_config().limit(1 << 16).read_to_string();
        match (status, text.ok().and_then(|text| serde_json::from_str(&text).ok())) {
            (200, Some(said)) => Ok(Status { minutes_apart, ..said }),
            (200, None) => Err(away("what answers there is no scheduler of sccache-dist".into())),
            (status, _) => Err(away(format!("it answered {status}"))),
        }
    }
}

/// The address of a scheduler, if it is one that can be used safely.
///
/// # Errors
/// Misuse: it is no address, has a password in it, or leads past this machine's own networks without TLS.
pub fn scheduler_url(text: &str, argument: &str) -> Result<Url> {
    let bad = |what: &str| Error::misuse("farm-url", format!("{argument} {text}: {what}"));
    let example = "name the scheduler: http://10.0.0.1:10600, or https://HOST behind a server with TLS";
    let url = Url::parse(text).map_err(|e| bad(&e.to_string()).next(example))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("a user or a password has no place in an address").next("TORCHMILL_FARM_TOKEN names the token"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.path().trim_matches('/').is_empty() {
        return Err(bad("a scheduler answers at the top of its address").next(example));
    }
    let host = url.host_str().ok_or_else(|| bad("it names no host").next(example))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_own_host(host) => Ok(url),
        "http" => Err(bad("without TLS, token and objects can be read and changed on their way there")
            .next("put a server with TLS before the scheduler, and name it as https://HOST")
            .next("or go through a tunnel (WireGuard, ssh -L), and name the scheduler's address in it")),
        other => Err(bad(&format!("'{other}' is no kind of farm that is known here")).next(example)),
    }
}

/// Whether the host of an address, an IPv6 one in brackets or not, is `localhost` or one that [`is_own`] says so of.
pub fn is_own_host(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(is_own)
}

/// What is said of a password for `address` that can be read on its way there: without TLS, past this machine's own
/// networks.
pub fn in_clear_text(address: &str) -> String {
    // A Redis has no https.
    let https = if address.starts_with("http:") { "https, or " } else { "" };
    format!(
        "the password for {address} goes through the network in clear text: use {https}a tunnel (WireGuard, ssh -L)"
    )
}

/// Whether an address is this machine's own or one of a private network: those that are not routed on the Internet
/// (RFC 1918, RFC 6598, RFC 4193) and link-local ones.
pub fn is_own(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = u32::from(v4) & 0xffc0_0000 == u32::from(Ipv4Addr::new(100, 64, 0, 0));
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            v6.is_loopback() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_whose_clock_differs_is_told() {
        use std::io::{Read, Write};
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let farm = Farm::parse(&format!("http://{}", server.local_addr().unwrap()), None, None).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let body = r#"{"num_servers":3,"num_cpus":24,"in_progress":0}"#;
            let head = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nConnection: close\r\n";
            write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        let status = farm.status().unwrap();
        answering.join().unwrap();
        assert_eq!(status.num_cpus, 24);
        assert!(status.clocks().unwrap().contains("minutes apart"), "{status:?}");
        assert_eq!(Status { minutes_apart: None, ..status }.clocks(), None);
    }

    #[test]
    fn an_address_past_the_own_networks_wants_tls_and_a_password_has_no_place_in_any() {
        let parse = |text: &str| Farm::parse(text, None, None).map(|farm| farm.shown());
        for good in ["http://127.0.0.1:10600", "http://10.1.2.3:10600", "http://100.100.0.1:1", "https://farm.example"]
        {
            assert_eq!(parse(good).unwrap(), good);
        }
        for (bad, says) in [
            ("http://farm.example:10600", "without TLS"),
            ("http://8.8.8.8:10600", "without TLS"),
            ("http://100.128.0.1:1", "without TLS"),
            ("http://u:s3cret@10.0.0.1/", "no place in an address"),
            ("http://10.0.0.1/x", "at the top of its address"),
            ("redis://10.0.0.1", "no kind of farm"),
            ("10.0.0.1:10600", "--farm 10.0.0.1:10600"),
        ] {
            let e = parse(bad).unwrap_err();
            assert!(e.what().contains(says) && !format!("{e:?}").contains("s3cret"), "{e}");
        }
        let e = Farm::parse("http://10.0.0.1", Some(Zeroizing::new("a b".into())), None).unwrap_err();
        assert!(e.what().contains("no header can carry"));
    }
}
