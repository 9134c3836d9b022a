//! Where to connect and how patient to be.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::decode::Limits;
use crate::error::Error;

/// The port that Redis servers listen on by habit.
const PORT_DEFAULT: u16 = 6379;

/// A host name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name, an IPv4 or an IPv6 address (without brackets).
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Address {
    /// An address from its parts.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Address { host: host.into(), port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Reads `host:port`, `host`, `:port`, `[ipv6]:port` or `[ipv6]`. What is left out is 127.0.0.1 and 6379.
    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = |why: &str| {
            Error::Invalid(format!("`{text}` is not an address ({why}): write HOST:PORT, for example 127.0.0.1:6379"))
        };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(|| malformed("the bracket is not closed"))?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(malformed("a colon must follow the bracket")),
            }
        } else {
            match text.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(malformed("an IPv6 address needs [brackets]")),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.chars().any(|letter| letter.is_whitespace() || letter == '/') {
            return Err(malformed("a host has no spaces or slashes"));
        }
        let port = match port {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| malformed("a port is a number up to 65535"))?,
            None if text.is_empty() => return Err(malformed("it is empty")),
            None => PORT_DEFAULT,
        };
        Ok(Address::new(if host.is_empty() { "127.0.0.1" } else { host }, port))
    }
}

/// How often and how fast a [`crate::Client`] repeats what is safe to repeat.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Tries in all, the first included; 1 means never again.
    pub attempts_max: u32,
    /// The pause before the second try; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts_max: 4, backoff_min: Duration::from_millis(20), backoff_max: Duration::from_secs(1) }
    }
}

/// Everything that a connection needs to know.
#[derive(Clone)]
pub struct Config {
    /// The server, or the node of a cluster that is asked first.
    pub address: Address,
    /// Other nodes of the same cluster, which a [`crate::Client`] turns to when that one can't be reached.
    pub seeds: Vec<Address>,
    /// The user to authenticate as; `default` if only a password is given.
    pub user: Option<String>,
    /// The password; never shown by `Debug`.
    pub password: Option<String>,
    /// What the server should list this connection as (`CLIENT LIST`).
    pub name: Option<String>,
    /// The database to select.
    pub database: u32,
    /// How long a connection may take to be made, greeting included.
    pub connect_timeout: Duration,
    /// How long a command may take, waiting in the client's queue and (for [`crate::Client`]) retries included.
    pub timeout: Duration,
    /// Retries of a [`crate::Client`].
    pub retry: Retry,
    /// Bounds on what a reply may be.
    pub limits: Limits,
    /// How many requests may wait for their replies on a connection before further ones wait to be sent.
    pub inflight_requests_max: usize,
}

impl Config {
    /// The defaults: no password, five seconds for everything.
    pub fn new(address: Address) -> Self {
        Config {
            address,
            seeds: Vec::new(),
            user: None,
            password: None,
            name: None,
            database: 0,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            retry: Retry::default(),
            limits: Limits::default(),
            inflight_requests_max: 1024,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("address", &self.address)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_takes_the_usual_forms() {
        for (text, host, port) in [
            ("10.0.0.1:7000", "10.0.0.1", 7000),
            ("db.example", "db.example", 6379),
            (":7001", "127.0.0.1", 7001),
            ("[::1]:7000", "::1", 7000),
            ("[fe80::1]", "fe80::1", 6379),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), Address::new(host, port), "{text}");
        }
        assert_eq!(Address::new("::1", 7000).to_string(), "[::1]:7000");
    }

    #[test]
    fn malformed_address_is_refused_with_the_reason() {
        for text in ["", "host:", "host:0", "host:70000", "::1", "[::1", "[::1]7000", "a b:1", "redis://host"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{text}: {error}");
        }
    }

    #[test]
    fn password_is_not_printed() {
        let mut config = Config::new(Address::new("h", 1));
        config.password = Some("sesame".into());
        assert!(!format!("{config:?}").contains("sesame"));
    }
}
