//! A host and a port, as people write them.

use std::fmt;
use std::str::FromStr;

/// The longest host name that DNS allows, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// Where something listens: a host name or IP address, and a port. Written `host:port`, or `[address]:port` for IPv6.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The TCP port; not 0.
    pub port: u16,
}

impl Address {
    /// An address of parts that are known to be good.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Address { host: host.into(), port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = String;

    /// # Errors
    /// What is wrong with the text.
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("'{text}' is not of the form host:port"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(format!("'{text}': an IPv6 address goes into brackets, as in [::1]:6379"));
        }
        let host = bare.unwrap_or(host);
        if host.is_empty() || host.len() > HOST_BYTES_MAX {
            return Err(format!("'{text}' has no usable host"));
        }
        // NB: the host ends up in replies and in text files of one line; it must not be able to break out of them.
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte)) {
            return Err(format!("'{text}' has a host with characters that no host name has"));
        }
        match port.parse() {
            Ok(port) if port > 0 => Ok(Address::new(host, port)),
            _ => Err(format!("'{text}' has no port between 1 and 65535")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["127.0.0.1:6379", "[::1]:1", "db-1.example.com:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "host", "host:", "host:0", "host:65536", ":1", "::1:80", "a b:1", "a\r\nb:1", "[]:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
