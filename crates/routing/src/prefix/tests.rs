use proptest::prelude::*;

use super::*;

fn refusal(value: &str) -> String {
    parse_destination("spec.destinations[0]", value).unwrap_err().to_string()
}

#[test]
fn an_address_is_the_prefix_of_that_host() {
    for (text, prefix) in [
        ("203.0.113.7", "203.0.113.7/32"),
        ("203.0.113.7/32", "203.0.113.7/32"),
        ("10.9.0.0/24", "10.9.0.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("0.0.0.0/1", "0.0.0.0/1"),
    ] {
        assert_eq!(parse_destination("f", text).unwrap(), prefix.parse().unwrap(), "{text}");
    }
}

#[test]
fn refusals_name_field_value_and_fix() {
    assert_eq!(
        refusal("10.9.0.1/24"),
        "spec.destinations[0]: '10.9.0.1/24' has bits set behind its prefix length; write 10.9.0.0/24 or, for one host, \
         leave the length out"
    );
    assert_eq!(
        refusal("2001:db8::/32"),
        "spec.destinations[0]: '2001:db8::/32' is IPv6, which DigitalOcean Kubernetes nodes do not have; remove it"
    );
    assert_eq!(
        refusal("0.0.0.0"),
        "spec.destinations[0]: '0.0.0.0' is no destination; write 0.0.0.0/0 for all egress"
    );
    for nonsense in [
        "999.0.0.1",
        "1.2.3",
        "",
        "1.2.3.4/33",
        "1.2.3.4/",
        "1.2.3.4/+8",
        "1.2.3.4/08",
        " 1.2.3.4",
        "01.2.3.4",
        "1.2.3.4/24/8",
        "db.example.com",
    ] {
        assert!(refusal(nonsense).contains("is neither an IPv4 address nor a prefix"), "{nonsense}");
    }
    assert_eq!(
        parse_gateway("spec.gateway", "gw").unwrap_err().to_string(),
        "spec.gateway: 'gw' is not an IPv4 address; write the gateway's private address, like 10.116.0.5"
    );
    assert!(parse_gateway("spec.gateway", "::1").unwrap_err().to_string().contains("IPv6"));
    assert!(parse_gateway("spec.gateway", "10.116.0.5/20").is_err());
}

#[test]
fn a_hole_in_the_middle_leaves_its_siblings() {
    let rest = difference("10.0.0.0/8".parse().unwrap(), &["10.64.0.0/10".parse().unwrap()]);
    assert_eq!(rest, ["10.0.0.0/10".parse().unwrap(), "10.128.0.0/9".parse().unwrap()]);
}

fn prefix() -> impl Strategy<Value = Ipv4Net> {
    // A small corner of the address space, so that prefixes meet.
    (0u32..256, 20u8..=32).prop_map(|(host, length)| {
        Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 | (host << 4)), length).unwrap().trunc()
    })
}

proptest! {
    #[test]
    fn difference_is_what_is_in_the_prefix_and_in_no_hole(
        whole in prefix(),
        holes in proptest::collection::vec(prefix(), 0..6),
        host in 0u32..0x2000,
    ) {
        let rest = difference(whole, &holes);
        let address = Ipv4Addr::from(0x0a00_0000 | host);
        let expected = whole.contains(&address) && !holes.iter().any(|hole| hole.contains(&address));
        prop_assert_eq!(rest.iter().filter(|part| part.contains(&address)).count(), usize::from(expected));
        prop_assert!(rest.is_sorted());
    }

    #[test]
    fn parsing_never_panics_and_round_trips(text in "[0-9./:a-f]{0,20}") {
        if let Ok(prefix) = parse_destination("f", &text) {
            prop_assert_eq!(parse_destination("f", &prefix.to_string()), Ok(prefix));
            prop_assert_eq!(prefix, prefix.trunc());
        }
    }
}
