//! Answers as the kernel gives them rarely, and as it never should.

use nix::errno::Errno;

use crate::error::{Error, KernelError, Refusal};
use crate::exchange::{Exchange, Reply};
use crate::wire::{Request, flag, kind, put_attribute};

const PORT: u32 = 77;

/// A message from the kernel.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Request { kind, flags, body: body.to_vec() }.write(sequence, PORT, &mut bytes);
    bytes
}

fn ack(sequence: u32) -> Vec<u8> {
    let mut body = 0_i32.to_ne_bytes().to_vec();
    body.extend([0; 16]);
    message(kind::ERROR, 0, sequence, &body)
}

fn take(exchange: &mut Exchange, datagram: &[u8]) -> Result<usize, Error> {
    let mut data = 0;
    exchange.take(datagram, |_| data += 1)?;
    Ok(data)
}

#[test]
fn answers_are_matched_by_number_in_any_order() {
    let mut exchange = Exchange::new(PORT, 5, 3);
    let refused = message(kind::ERROR, 0, 6, &[&(-17_i32).to_ne_bytes()[..], &[0; 16]].concat());
    assert_eq!(
        take(&mut exchange, &[ack(7), message(kind::NEW_ROUTE, 0, 5, &[]), refused].concat()).unwrap(),
        1
    );
    assert!(!exchange.is_complete());
    take(&mut exchange, &ack(5)).unwrap();
    assert!(exchange.is_complete());
    let taken = KernelError { refusal: Refusal::Taken, errno: Errno::EEXIST, text: None };
    assert_eq!(exchange.into_replies(), [Reply::Done, Reply::Refused(taken), Reply::Done]);
}

#[test]
fn a_dump_that_was_disturbed_is_told_from_a_whole_one() {
    for (on_data, on_done) in [(flag::DUMP_INTERRUPTED, 0), (0, flag::DUMP_INTERRUPTED)] {
        let mut exchange = Exchange::new(PORT, 1, 1);
        take(&mut exchange, &message(kind::NEW_ROUTE, on_data, 1, &[])).unwrap();
        take(&mut exchange, &message(kind::DONE, on_done, 1, &[0; 4])).unwrap();
        assert_eq!(exchange.into_replies(), [Reply::Interrupted]);
    }
    let mut exchange = Exchange::new(PORT, 1, 1);
    take(&mut exchange, &message(kind::DONE, 0, 1, &[0; 4])).unwrap();
    assert_eq!(exchange.into_replies(), [Reply::Done]);
}

#[test]
fn the_kernels_words_are_read_from_errors_with_and_without_the_request() {
    let text = |mut body: Vec<u8>| {
        put_attribute(&mut body, 2, &[0; 4]);
        put_attribute(&mut body, 1, b"Nexthop has invalid gateway\0");
        body
    };
    let code = (-(Errno::ENETUNREACH as i32)).to_ne_bytes();
    let echoed = message(kind::NEW_NEXTHOP, 0, 1, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let capped = text([&code[..], &echoed[..16]].concat());
    let whole = text([&code[..], &echoed].concat());
    let done = text(code.to_vec());
    for datagram in [
        message(kind::ERROR, flag::ACK_ATTRIBUTES | flag::CAPPED, 1, &capped),
        message(kind::ERROR, flag::ACK_ATTRIBUTES, 1, &whole),
        message(kind::DONE, flag::ACK_ATTRIBUTES, 1, &done),
    ] {
        let mut exchange = Exchange::new(PORT, 1, 1);
        take(&mut exchange, &datagram).unwrap();
        let [Reply::Refused(error)] = &exchange.into_replies()[..] else { panic!() };
        assert_eq!(error.refusal, Refusal::GatewayNotOnLink);
        assert_eq!(error.text.as_deref(), Some("Nexthop has invalid gateway"));
    }
}

#[test]
fn answers_that_fit_no_open_request_are_errors() {
    let mut other_port = ack(1);
    other_port[12] = 78;
    let twice = [ack(1), ack(1)].concat();
    for datagram in
        [ack(0), ack(3), other_port, twice, ack(1)[..18].to_vec(), message(kind::ERROR, 0, 1, &[0])]
    {
        let mut exchange = Exchange::new(PORT, 1, 2);
        let error = take(&mut exchange, &datagram).unwrap_err();
        assert!(matches!(error, Error::OutOfStep(_) | Error::Malformed(_)), "{error:?}");
        assert!(error.spoils_socket());
    }
}

#[test]
fn long_batches_are_sent_in_several_datagrams_of_whole_messages() {
    let requests: Vec<_> =
        (0..10).map(|_| Request { kind: kind::NEW_NEXTHOP, flags: 0, body: vec![0; 100] }).collect();
    let datagrams = Exchange::new(PORT, 1, 10).datagrams(&requests, 300);
    let counts: Vec<_> = datagrams.iter().map(|datagram| crate::wire::frames(datagram).count()).collect();
    assert_eq!(counts, [3, 3, 3, 1]);
}
