//! IPv4 prefixes: parsing what users write, and set difference.
//!
//! Responsibility: the only place where text becomes a prefix (the agent trusts nobody, also not the API server's own
//! checks), and the prefix arithmetic that `ipnet` does not have.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Parses a destination: an address (`203.0.113.7`, the same as `/32`) or a prefix with its host bits zero.
///
/// `field` is the field's path in the object, such as `spec.destinations[3]`; errors name it, the value and the fix.
pub fn parse_destination(field: &str, value: &str) -> Result<Ipv4Net, InvalidValue> {
    let refuse = |fault| InvalidValue { field: field.to_owned(), value: value.to_owned(), fault };
    let (address, length) = match value.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (value, None),
    };
    let address = parse_v4(address).map_err(|v6| refuse(if v6 { Fault::Ipv6 } else { Fault::NotAPrefix }))?;
    let length = match length {
        None => 32,
        Some(digits) => parse_length(digits).ok_or_else(|| refuse(Fault::NotAPrefix))?,
    };
    let prefix = Ipv4Net::new(address, length).map_err(|_| refuse(Fault::NotAPrefix))?;
    if prefix.addr() != prefix.network() {
        return Err(refuse(Fault::HostBits { masked: prefix.trunc() }));
    }
    if prefix == Ipv4Net::from(Ipv4Addr::UNSPECIFIED) {
        return Err(refuse(Fault::Unspecified));
    }
    Ok(prefix)
}

/// Parses the address of a gateway. `field` as for [`parse_destination`].
pub fn parse_gateway(field: &str, value: &str) -> Result<Ipv4Addr, InvalidValue> {
    parse_v4(value).map_err(|v6| InvalidValue {
        field: field.to_owned(),
        value: value.to_owned(),
        fault: if v6 { Fault::Ipv6 } else { Fault::NotAnAddress },
    })
}

/// Parses the public address behind a gateway. `field` as for [`parse_destination`].
pub fn parse_egress_address(field: &str, value: &str) -> Result<Ipv4Addr, InvalidValue> {
    parse_v4(value).map_err(|v6| InvalidValue {
        field: field.to_owned(),
        value: value.to_owned(),
        fault: if v6 { Fault::Ipv6 } else { Fault::NotPublic },
    })
}

/// A value that was refused: which field, what stood there, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: '{value}' {fault}")]
pub struct InvalidValue {
    /// Path of the field, such as `spec.destinations[3]`.
    pub field: String,
    /// What stood there.
    pub value: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a value, and the fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Neither address nor prefix.
    #[error("is neither an IPv4 address nor a prefix; write it like 203.0.113.7 or 203.0.113.0/24")]
    NotAPrefix,
    /// Not an address.
    #[error("is not an IPv4 address; write the gateway's private address, like 10.116.0.5")]
    NotAnAddress,
    /// Not the address that the outside sees.
    #[error("is not an IPv4 address; write the gateway's public address, like 203.0.113.7, or leave it out")]
    NotPublic,
    /// An IPv6 address or prefix.
    #[error("is IPv6, which DigitalOcean Kubernetes nodes do not have; remove it")]
    Ipv6,
    /// Bits set behind the prefix length.
    #[error("has bits set behind its prefix length; write {masked} or, for one host, leave the length out")]
    HostBits {
        /// The same prefix with the bits cleared.
        masked: Ipv4Net,
    },
    /// A weight that is none.
    #[error("is no weight; write a number from 1 to 256")]
    Weight,
    /// 0.0.0.0, which routes nothing.
    #[error("is no destination; write 0.0.0.0/0 for all egress")]
    Unspecified,
}

/// What is in `prefix` and in none of `holes`, as the fewest prefixes, in ascending order.
///
/// Recursive halving: a prefix that a hole lies inside of is cut in two until halves are free of holes or covered.
pub fn difference(prefix: Ipv4Net, holes: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let mut rest = Vec::new();
    subtract(prefix, holes, &mut rest);
    rest
}

/// The longest of `prefixes` that contains `address`.
pub fn longest_match<'a>(
    prefixes: impl IntoIterator<Item = &'a Ipv4Net>,
    address: Ipv4Addr,
) -> Option<&'a Ipv4Net> {
    prefixes.into_iter().filter(|prefix| prefix.contains(&address)).max_by_key(|prefix| prefix.prefix_len())
}

fn subtract(prefix: Ipv4Net, holes: &[Ipv4Net], rest: &mut Vec<Ipv4Net>) {
    if holes.iter().any(|hole| hole.contains(&prefix)) {
        return;
    }
    let inside: Vec<Ipv4Net> = holes.iter().copied().filter(|hole| prefix.contains(hole)).collect();
    if inside.is_empty() {
        rest.push(prefix);
        return;
    }
    // A hole strictly inside means length < 32, so there are halves.
    if let Ok(halves) = prefix.subnets(prefix.prefix_len() + 1) {
        for half in halves {
            subtract(half, &inside, rest);
        }
    }
}

/// `Err(true)` is an IPv6 address, `Err(false)` nothing we know.
fn parse_v4(text: &str) -> Result<Ipv4Addr, bool> {
    text.parse::<Ipv4Addr>().map_err(|_| text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Digits only, no sign, no leading zeros: what the API server's `isCIDR` takes.
fn parse_length(digits: &str) -> Option<u8> {
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|length| plain && *length <= 32)
}

#[cfg(test)]
mod tests;
