//! Where the page is served: the value of a flag.

use std::net::SocketAddr;
use std::str::FromStr;

/// Addresses, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(pub Vec<SocketAddr>);

/// A value that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no address with a port; write it like 127.0.0.1:9192, several with commas between them, or off"
)]
pub struct InvalidListen(String);

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        if text == "off" {
            return Ok(Self(Vec::new()));
        }
        let address = |part: &str| part.trim().parse().map_err(|_| InvalidListen(part.trim().to_owned()));
        text.split(',').map(address).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_what_is_none_is_named_with_the_way_out() {
        let listen = |text: &str| text.parse::<Listen>();
        assert_eq!(listen("off"), Ok(Listen(Vec::new())));
        let two = listen("127.0.0.1:9192, [::]:9193").unwrap();
        assert_eq!(two.0.iter().map(SocketAddr::port).collect::<Vec<_>>(), [9192, 9193]);
        for bad in ["", "9192", "localhost:9192", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:9192,"] {
            let error = listen(bad).unwrap_err().to_string();
            assert!(error.contains("write it like 127.0.0.1:9192"), "{error}");
        }
        assert!(listen("127.0.0.1:9192,here").unwrap_err().to_string().starts_with("'here'"));
    }
}
