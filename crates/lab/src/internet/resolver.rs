//! The provider's resolvers: addresses of the names in a file, and nothing else exists.
//!
//! The file has one `address name` a line and is read for each question, so that a test can change what a name means.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

use crate::error::{Doing, Result};
use crate::network::addresses::{NAMES, RESOLVERS};
use crate::state::{StateDir, write_file};

const A: u16 = 1;
const INTERNET: u16 = 1;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
/// Seconds that an answer may be kept.
const LIFETIME: u32 = 5;

/// The file with the names.
pub fn names_path(dir: &StateDir) -> PathBuf {
    dir.join("names")
}

/// Writes the names that everything starts with.
pub fn write_names(dir: &StateDir) -> Result<()> {
    let lines = NAMES.map(|(name, address)| format!("{address} {name}\n")).concat();
    write_file(&names_path(dir), lines.as_bytes())
}

/// `egress-lab resolver`: answers on UDP until it is killed. Runs inside the provider's namespace.
pub fn run(dir: &StateDir) -> Result<()> {
    let names = names_path(dir);
    let mut threads = Vec::new();
    for address in RESOLVERS {
        let socket = UdpSocket::bind((address, 53)).doing(|| format!("listen on {address}:53"))?;
        let names = names.clone();
        threads.push(std::thread::spawn(move || serve(&socket, &names)));
    }
    for thread in threads {
        let _panicked = thread.join();
    }
    Ok(())
}

fn serve(socket: &UdpSocket, names: &Path) {
    let mut query = [0; 1500];
    loop {
        let Ok((length, caller)) = socket.recv_from(&mut query) else { continue };
        let names = fs::read_to_string(names).unwrap_or_default();
        if let Some(answer) = query.get(..length).and_then(|query| answer(query, &names)) {
            let _gone = socket.send_to(&answer, caller);
        }
    }
}

/// The answer to one question according to the text of such a file; `None` if it is none.
pub fn answer(query: &[u8], names: &str) -> Option<Vec<u8>> {
    let question = parse_question(query)?;
    let addresses = addresses_of(names, &question.name);
    let wants_address = question.kind == A && question.class == INTERNET;
    let code = match (query[2] & 0x78, addresses.is_empty()) {
        (0, true) => NO_SUCH_NAME,
        (0, false) => 0,
        _ => NOT_IMPLEMENTED,
    };
    let answers: &[Ipv4Addr] = if wants_address && code == 0 { &addresses } else { &[] };
    let mut reply = Vec::with_capacity(question.end + 16 * answers.len());
    reply.extend_from_slice(&query[..2]);
    // Response, with the caller's opcode and wish for recursion; recursion is available.
    reply.extend([0x80 | (query[2] & 0x79), 0x80 | code]);
    for count in [1, u16::try_from(answers.len()).ok()?, 0, 0] {
        reply.extend(count.to_be_bytes());
    }
    reply.extend_from_slice(query.get(12..question.end)?);
    for address in answers {
        // A pointer to the question's name.
        reply.extend([0xc0, 12]);
        reply.extend(A.to_be_bytes());
        reply.extend(INTERNET.to_be_bytes());
        reply.extend(LIFETIME.to_be_bytes());
        reply.extend(4_u16.to_be_bytes());
        reply.extend(address.octets());
    }
    Some(reply)
}

struct Question {
    name: String,
    kind: u16,
    class: u16,
    end: usize,
}

fn parse_question(query: &[u8]) -> Option<Question> {
    let is_response = query.get(2)? & 0x80 != 0;
    if is_response || query.get(4..6)? != [0, 1] {
        return None;
    }
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if length > 63 {
            return None;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let number = |at: usize| Some(u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]));
    Some(Question { name: labels.join("."), kind: number(at)?, class: number(at + 2)?, end: at + 4 })
}

/// What a name means according to the file's text.
pub fn addresses_of(names: &str, wanted: &str) -> Vec<Ipv4Addr> {
    let pairs = names.lines().filter_map(|line| {
        let (address, name) = line.trim().split_once(' ')?;
        (name.trim() == wanted).then(|| address.parse().ok())?
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    const FILE: &str = "192.0.2.10 db.example.com\n192.0.2.80 whoami.example.com\n";

    #[test]
    fn a_known_name_has_its_address() {
        let answer = answer(&query("DB.example.com", A), FILE).unwrap();
        assert_eq!(answer[..8], [7, 8, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[answer.len() - 4..], [192, 0, 2, 10]);
    }

    #[test]
    fn a_known_name_has_no_ipv6_address_but_exists() {
        let answer = answer(&query("db.example.com", 28), FILE).unwrap();
        assert_eq!(answer[2..8], [0x81, 0x80, 0, 1, 0, 0]);
    }

    #[test]
    fn other_names_do_not_exist() {
        let answer = answer(&query("example.com", A), FILE).unwrap();
        assert_eq!(answer[3] & 0xf, NO_SUCH_NAME);
    }

    #[test]
    fn what_is_no_question_has_no_answer() {
        for broken in
            [&[][..], &[0; 11], &query("db.example.com", A)[..20], &answer(&query("a", A), FILE).unwrap()]
        {
            assert!(answer(broken, FILE).is_none(), "{broken:?}");
        }
    }
}
