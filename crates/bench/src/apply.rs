//! From the API server's answer to the last route in the kernel.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::api::{Api, Shape};
use crate::interruption;
use crate::kernel::Kernel;
use crate::network::A;
use crate::numbers::Samples;
use crate::subject::Running;

/// A program that needs longer has failed the sample.
const DEADLINE: Duration = Duration::from_secs(120);

/// Times of one size.
#[derive(Debug, Default)]
pub struct Times {
    /// From the answer to the create to a dump that shows every route, ms.
    pub apply: Samples,
    /// From the answer to the delete to a dump that shows none, ms.
    pub delete: Samples,
    /// How long the API server took for the create, ms.
    pub server: Samples,
    /// Samples that had not come to an end in time.
    pub failed: u32,
}

/// Makes and deletes a StaticRoute of so many destinations, again and again.
pub fn measure(
    api: &Api<'_>,
    kernel: &mut Kernel,
    running: &mut Running,
    table: u32,
    count: usize,
    repeats: usize,
    rest: Duration,
) -> anyhow::Result<Times> {
    let destinations = destinations(count);
    let mut times = Times::default();
    for repeat in 0..repeats {
        let name = format!("bench-{count}-{repeat}");
        let created = api.create(&name, &destinations, Shape::Bare)?;
        match kernel.until_routed(table, &destinations, A, DEADLINE)? {
            Some(there) => {
                times.apply.push_time(there.saturating_duration_since(created.at));
                times.server.push_time(created.took);
            }
            None => times.failed += 1,
        }
        running.is_alive()?;
        interruption::sleep(rest)?;
        let deleted = api.delete(&name)?;
        match kernel.until_gone(table, &destinations, A, DEADLINE)? {
            Some(gone) => times.delete.push_time(gone.saturating_duration_since(deleted.at)),
            None => times.failed += 1,
        }
        running.is_alive()?;
        interruption::sleep(rest)?;
    }
    Ok(times)
}

/// So many destinations in ascending order, scattered over the address space, half of them single addresses and half /24: lists of
/// users are no neat runs. None is private, reserved, or the lab's.
pub fn destinations(count: usize) -> Vec<Ipv4Net> {
    let first = u32::from(Ipv4Addr::new(11, 0, 0, 0));
    let last = u32::from(Ipv4Addr::new(99, 255, 255, 0));
    let room = (last - first) / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    // A fixed sequence (Numerical Recipes' generator): every run measures the same list.
    let mut random = 1_u32;
    (0..u32::try_from(count).unwrap_or(u32::MAX))
        .filter_map(|index| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // One in each part of the range, so that none contains another.
            let address = (first + index * room) & !0xff;
            let within = ((random >> 8) % (room / 2).max(1)) & !0xff;
            let (address, length) = if index % 2 == 0 {
                (address + within + (random >> 24).clamp(1, 254), 32)
            } else {
                (address + within, 24)
            };
            Ipv4Net::new(address.into(), length).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_as_many_as_asked_and_none_lies_in_another() {
        for count in [1, 100, 2_000, 10_000] {
            let list = destinations(count);
            assert_eq!(list.len(), count);
            assert!(list.is_sorted());
            assert!(list.windows(2).all(|pair| !pair[0].contains(&pair[1])));
        }
    }
}
