use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use super::*;

const CLUSTER: &str = "ba6b4a1e-0d6c-4a6f-9a0a-3a0e4b1f2c3d";

fn memory(service: SocketAddrV4) -> Memory {
    Memory::new(service, BTreeSet::new())
}

/// Where nobody listens.
fn nobody() -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    address(&listener)
}

fn address(listener: &TcpListener) -> SocketAddrV4 {
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!("bound to IPv4") };
    address
}

/// A metadata service that gives each question the next of these answers, and the last for ever.
fn service(answers: Vec<String>) -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = address(&listener);
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        let mut answer = String::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            answer = answers.next().unwrap_or(answer);
            let _gone = stream.read(&mut [0; 1024]);
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    at
}

fn said(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Word\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn tags() -> String {
    said(200, &format!("k8s\nk8s:{CLUSTER}\nk8s:worker"))
}

#[test]
fn nameservers_are_read_as_the_resolver_reads_them() {
    let text = "# by kubelet\nsearch example.com\nnameserver 67.207.67.2\n nameserver\t67.207.67.3 \nnameserver fe80::1\n";
    let expected = [Ipv4Addr::new(67, 207, 67, 2), Ipv4Addr::new(67, 207, 67, 3)];
    assert_eq!(nameservers(text), expected.into());
}

#[test]
fn the_name_of_the_api_server_is_the_setting_else_that_of_the_nodes_cluster() {
    let set = Names { api_server: Some("api.example.com".to_owned()), ..Names::default() };
    assert_eq!(api_server_name(&set, Some("c0ffee")).as_deref(), Some("api.example.com"));
    let unset = Names::default();
    assert_eq!(api_server_name(&unset, Some("c0ffee")).as_deref(), Some("c0ffee.k8s.ondigitalocean.com"));
    assert_eq!(api_server_name(&unset, None), None);
}

#[tokio::test]
async fn what_was_found_once_stays_when_a_later_look_finds_nothing() {
    let wanted = Names {
        api_server: Some("localhost".to_owned()),
        protected: BTreeSet::from(["no-such-name.invalid".to_owned()]),
        client: None,
    };
    let mut memory = memory(nobody());
    let found = memory.look(&wanted, &Surroundings::default()).await;
    assert_eq!(found.api_server["localhost"], BTreeSet::from([Ipv4Addr::LOCALHOST]));
    assert!(found.looked && found.is_incomplete());
    assert_eq!(found.unanswered().collect::<Vec<_>>(), ["no-such-name.invalid"]);
    memory
        .addresses
        .get_mut("no-such-name.invalid")
        .unwrap()
        .answer(&BTreeSet::from([Ipv4Addr::new(192, 0, 2, 1)]), Instant::now());
    let again = memory.look(&wanted, &found).await;
    assert_eq!(again.names["no-such-name.invalid"], BTreeSet::from([Ipv4Addr::new(192, 0, 2, 1)]));
    assert!(!again.is_incomplete());
}

#[tokio::test]
async fn a_metadata_service_that_fails_once_is_asked_again() {
    for failure in [said(500, ""), said(503, "k8s:worker"), said(429, ""), String::new()] {
        let answers = vec![failure.clone(), tags(), said(200, "67.207.67.2\n67.207.67.3")];
        let mut memory = memory(service(answers));
        memory.ask_metadata(true).await;
        assert!(memory.metadata.is_none() && memory.waits_for_metadata(), "{failure}");
        memory.ask_metadata(true).await;
        let nameservers = vec![Ipv4Addr::new(67, 207, 67, 2), Ipv4Addr::new(67, 207, 67, 3)];
        assert_eq!(
            memory.metadata,
            Some(Metadata { cluster: Some(CLUSTER.to_owned()), nameservers }),
            "{failure}"
        );
        assert!(!memory.waits_for_metadata(), "{failure}");
    }
}

#[tokio::test]
async fn a_node_that_has_no_tags_yet_is_asked_for_them_again() {
    let none = said(404, "");
    let mut memory = memory(service(vec![none.clone(), none.clone(), tags(), none]));
    memory.ask_metadata(true).await;
    assert_eq!(memory.metadata, Some(Metadata::default()), "no tags is an answer");
    for when in ["now", "then, though the tags are gone"] {
        memory.ask_metadata(true).await;
        assert_eq!(memory.metadata.as_ref().unwrap().cluster.as_deref(), Some(CLUSTER), "{when}");
    }
}

#[tokio::test]
async fn only_what_refuses_or_speaks_no_http_is_no_metadata_service() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (at, waits) in [
        (nobody(), false),
        (service(vec!["203.0.113.11".to_owned()]), false),
        (service(vec![said(403, "")]), true),
        (address(&silent), true),
    ] {
        let mut memory = memory(at);
        memory.ask_metadata(true).await;
        assert_eq!((memory.waits_for_metadata(), memory.metadata), (waits, None), "{at}");
    }
}

#[tokio::test]
async fn resolvers_follow_the_metadata_whatever_the_api_servers_name_is_set_to() {
    let names = Names { api_server: Some("localhost".to_owned()), ..Names::default() };
    let resolver = |last| Ipv4Addr::new(67, 207, 67, last);
    let answers = ["67.207.67.2", "67.207.67.3"].map(|resolver| [tags(), said(200, resolver)]);
    let mut memory = memory(service(answers.into_iter().flatten().chain([said(503, "")]).collect()));
    let found = memory.look(&names, &Surroundings::default()).await;
    assert!(found.resolvers.contains(&resolver(2)), "{found:?}");
    assert_eq!(found.api_server.keys().collect::<Vec<_>>(), ["localhost"], "the setting counts");
    for when in ["others now", "no answer is no news"] {
        let found = memory.look(&names, &found).await;
        assert!(
            found.resolvers.contains(&resolver(3)) && !found.resolvers.contains(&resolver(2)),
            "{when}: {found:?}"
        );
    }
}

#[tokio::test]
async fn with_the_api_servers_name_set_nothing_waits_for_a_silent_metadata_service() {
    let at = service(vec![said(503, "")]);
    let unset = memory(at).look(&Names::default(), &Surroundings::default()).await;
    assert!(unset.metadata_is_silent && unset.is_incomplete(), "{unset:?}");
    let names = Names { api_server: Some("localhost".to_owned()), ..Names::default() };
    let set = memory(at).look(&names, &Surroundings::default()).await;
    assert!(!set.metadata_is_silent && !set.is_incomplete(), "{set:?}");
}

#[tokio::test]
async fn a_minute_after_the_start_a_name_without_an_answer_is_waited_for_no_more() {
    let mut memory = memory(nobody());
    let found = memory.look(&Names::default(), &Surroundings::default()).await;
    assert!(!found.waited);
    memory.start = Instant::now().checked_sub(PATIENCE).unwrap();
    assert!(memory.look(&Names::default(), &found).await.waited);
}
