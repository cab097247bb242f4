//! A stream of datagrams to [`LISTED`], and where they arrived: the judge of steps without a gap or a leak.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cloud::{Cloud, until};
use crate::pod::inside;
use crate::scene::LISTED;

pub struct Packets {
    over: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
}

impl Packets {
    /// From the node, and counted from now on where they arrive.
    pub fn start(cloud: &Cloud) -> Self {
        cloud.count_leaks(LISTED);
        cloud.count_arrivals(LISTED);
        Self::uncounted(None)
    }

    /// From a namespace, `None` being the node. Who starts it counts.
    pub fn uncounted(namespace: Option<&str>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let sender = inside(namespace, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                // What is dropped on the node is an error or none, and missing either way.
                let _dropped = socket.send_to(b"x", (LISTED, 9999));
                sent += 1;
                std::thread::sleep(Duration::from_micros(500));
            }
            sent
        });
        Self { over, sender }
    }

    /// Ends the stream: every packet must have arrived, none with the node's own address.
    pub fn all_arrived(self, cloud: &Cloud) {
        let sent = self.end();
        // The last ones may still be on their way.
        until("all arrived", &true, Duration::from_secs(2), || cloud.arrivals() >= sent);
        assert_eq!((cloud.leaks(), cloud.arrivals()), (0, sent), "leaked and arrived of {sent}");
        cloud.stop_counting();
    }

    /// Ends the stream: some may be lost, none may have arrived with the node's own address.
    pub fn none_leaked(self, cloud: &Cloud) {
        let sent = self.end();
        assert_eq!(cloud.leaks(), 0, "of {sent} packets");
        cloud.stop_counting();
    }

    /// Ends the stream; how many were sent.
    pub fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        assert!(sent > 100, "only {sent} packets were sent");
        sent
    }
}
