//! What would come of an EgressGateway if all went well from here on: which Droplets are made, rolled and deleted, and what they cost.
//!
//! The steps are the controller's own: [`decide`] says each, [`perform`] carries it out, and what it is carried out on is a copy of
//! what was seen ([`world`]). In the copy every request succeeds at once, what is made works, and nodes follow every list. So a
//! forecast says what would be done, not how long it takes; what has to wait for its hour (a greatest age, the spread of user data
//! over a day) counts as soon as it is due, the spread at once.
//!
//! Nothing is sent to anybody.

mod nodes;
mod world;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::{EgressGatewayStatus, StaticRouteSpec};
use futures::FutureExt as _;
use jiff::Timestamp;
use serde::Serialize;

use crate::act::perform;
use crate::decide::decide;
use crate::decision::Limits;
use crate::observation::Observation;
use world::World;

/// US dollars a month for one Droplet, by size.
pub type Prices = BTreeMap<String, f64>;

/// What would come of it.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// What would be done in the cloud, in its order.
    pub changes: Vec<Change>,
    /// What would become of the routes of the nodes, if anything.
    pub routes: Option<Routes>,
    /// The status at the end: its conditions say what is left to be wished for.
    pub status: EgressGatewayStatus,
    /// Whether the EgressGateway would be gone.
    pub is_gone: bool,
    /// Whether the end was reached. What waits for hours and nothing comes is cut off.
    pub is_settled: bool,
    /// The Droplets that there are.
    pub now: Bill,
    /// The most that there would be at a time.
    pub most: Bill,
    /// Those at the end.
    pub then: Bill,
}

/// One thing that would be done in the cloud.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Change {
    /// A Droplet is made.
    CreateDroplet {
        /// Its name.
        name: String,
        /// Size slug.
        size: String,
        /// Image slug or number.
        image: String,
        /// Region slug.
        region: String,
    },
    /// A Droplet is deleted.
    DeleteDroplet {
        /// Its name.
        name: String,
        /// Its id; none for one that would be made first.
        id: Option<u64>,
        /// Why.
        why: Why,
    },
    /// A Droplet that is off is powered on.
    PowerOn {
        /// Its name.
        name: String,
    },
    /// A Droplet that is dead is power-cycled.
    PowerCycle {
        /// Its name.
        name: String,
    },
    /// A Droplet is put into a project.
    AssignToProject {
        /// Its name.
        name: String,
        /// The project.
        project: String,
    },
    /// A Droplet is left in the cloud, without our tags.
    LeaveDroplet {
        /// Its name.
        name: String,
    },
    /// An address is reserved.
    ReserveAddress {
        /// Name of the Droplet that it is for.
        name: String,
    },
    /// A reserved address moves.
    MoveAddress {
        /// The address.
        address: Ipv4Addr,
        /// Name of the Droplet that gets it.
        name: String,
    },
    /// A reserved address is given back.
    ReleaseAddress {
        /// The address.
        address: Ipv4Addr,
    },
    /// A firewall is made.
    CreateFirewall {
        /// Its name.
        name: String,
    },
    /// A firewall is changed, in whatever many steps.
    UpdateFirewall {
        /// Its name.
        name: String,
    },
    /// A firewall is deleted.
    DeleteFirewall {
        /// Its name.
        name: String,
    },
}

/// Why a Droplet is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "because", rename_all = "camelCase")]
pub enum Why {
    /// It works, and is not as the spec has it, or too old: another one takes its place before.
    Rolled {
        /// The other one.
        by: String,
        /// In a sentence.
        reason: String,
    },
    /// It does not work, and another one takes its place.
    Replaced {
        /// The other one, if it is there by then.
        by: Option<String>,
        /// In a sentence.
        reason: String,
    },
    /// There are more than are asked for.
    Surplus,
    /// Its EgressGateway is deleted.
    Deleted,
}

/// What becomes of the nodes' routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Routes {
    /// There were none.
    Made,
    /// They are others than before, beyond the list of gateways.
    Changed,
    /// They are taken away.
    TakenAway,
}

/// Droplets of the controller for one EgressGateway, and what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bill {
    /// How many.
    pub droplets: usize,
    /// US dollars a month; `None` if the price of one is not known.
    #[serde(rename = "monthlyPriceUSD")]
    pub monthly_usd: Option<f64>,
}

impl Bill {
    fn of<'a>(sizes: impl Iterator<Item = Option<&'a str>>, prices: &Prices) -> Self {
        sizes.fold(Self { droplets: 0, monthly_usd: Some(0.0) }, |bill, size| Self {
            droplets: bill.droplets + 1,
            monthly_usd: bill.monthly_usd.and_then(|sum| Some(sum + prices.get(size?)?)),
        })
    }
}

// Whoever waits for something looks more often than this.
const STILL: Duration = Duration::from_secs(10);

// Longer than everything that the controller waits for by itself.
const IN_VAIN: Duration = Duration::from_secs(2 * 3600);

// More than a roll of the largest EgressGateway takes, by far.
const MOST_STEPS: usize = 20_000;

/// Leads what was seen to its end.
pub fn forecast(seen: &Observation, limits: &Limits, prices: &Prices, now: Timestamp) -> Forecast {
    let limits = Limits { roll_pause: Duration::ZERO, user_data_spread: Duration::ZERO, ..*limits };
    let before = seen.route.as_ref().map(|route| route.spec.clone());
    let world = World::new(seen.clone(), now);
    let bill_now = world.bill(prices);
    let mut most = bill_now;
    let mut is_settled = false;
    let mut idle = Duration::ZERO;
    for _ in 0..MOST_STEPS {
        let decision = world.look(|seen, now| decide(seen, &limits, now));
        idle = if decision.effect.is_some() { Duration::ZERO } else { idle + decision.requeue_after };
        is_settled = decision.effect.is_none() && decision.requeue_after >= STILL;
        if is_settled || idle > IN_VAIN {
            break;
        }
        // In this world nobody has to wait for an answer, and nothing fails.
        let _done = perform(&decision, &world, world.now()).now_or_never();
        let bill = world.bill(prices);
        if bill.droplets > most.droplets || bill.monthly_usd > most.monthly_usd {
            most = bill;
        }
        is_settled = world.is_gone();
        if is_settled {
            break;
        }
        world.pass(decision.requeue_after);
    }
    let (changes, status, route) = world.end();
    let is_gone = status.is_none();
    Forecast {
        changes,
        routes: routes(before, route),
        status: status.unwrap_or_default(),
        is_gone,
        is_settled,
        now: bill_now,
        most,
        then: world.bill(prices),
    }
}

// The list of gateways follows the gateways, of which is told already.
fn routes(before: Option<StaticRouteSpec>, after: Option<StaticRouteSpec>) -> Option<Routes> {
    match (before, after) {
        (None, Some(_)) => Some(Routes::Made),
        (Some(_), None) => Some(Routes::TakenAway),
        (Some(before), Some(after)) => {
            let before = StaticRouteSpec { gateways: after.gateways.clone(), ..before };
            (before != after).then_some(Routes::Changed)
        }
        (None, None) => None,
    }
}
