//! Firewalls of the model's cloud: names need not be unique, changes take a while, a Droplet that is gone is taken out.

use egress_controller::firewall::OwnedFirewall;
use egress_digitalocean::{DropletId, Firewall, FirewallId, FirewallRule, FirewallSpec, FirewallStatus};

use crate::world::{Failed, OWNER, State, firewall_name};

/// Until a change acts on packets.
const DELAY: i64 = 3;

#[derive(Clone)]
pub struct Wall {
    pub name: String,
    pub droplets: Vec<u64>,
    pub tags: Vec<String>,
    pub inbound: Vec<FirewallRule>,
    pub outbound: Vec<FirewallRule>,
    pub made: i64,
    pub settled: i64,
    pub fails: bool,
}

impl State {
    /// A firewall of somebody else.
    pub fn foreign_wall(&mut self, id: &str, name: &str, droplets: &[u64]) {
        let wall = Wall {
            name: name.to_owned(),
            droplets: droplets.to_vec(),
            tags: Vec::new(),
            inbound: Vec::new(),
            outbound: Vec::new(),
            made: 0,
            settled: 0,
            fails: false,
        };
        self.walls.insert(id.to_owned(), wall);
        self.foreign_walls.insert(id.to_owned());
    }

    /// Those with our name that somebody can see, but for foreign ones.
    pub fn our_walls(&self) -> Vec<(&String, &Wall)> {
        let shown = |(id, wall): &(&String, &Wall)| {
            wall.name == firewall_name() && wall.made <= self.now && !self.foreign_walls.contains(*id)
        };
        self.walls.iter().filter(shown).collect()
    }

    /// What the API shows.
    pub fn shown_walls(&self) -> Vec<Firewall> {
        let there = |id: &&u64| self.machines.get(id).is_some_and(|machine| self.is_there(machine));
        let shown = self.walls.iter().filter(|(_, wall)| wall.made <= self.now);
        shown
            .map(|(id, wall)| Firewall {
                id: FirewallId::new(id.as_str()).unwrap(),
                name: wall.name.clone(),
                status: match wall.settled <= self.now {
                    true if wall.fails => FirewallStatus::Failed,
                    true => FirewallStatus::Succeeded,
                    false => FirewallStatus::Waiting,
                },
                droplet_ids: wall.droplets.iter().filter(there).map(|id| DropletId(*id)).collect(),
                tags: Some(wall.tags.clone()),
                inbound: wall.inbound.clone(),
                outbound: wall.outbound.clone(),
            })
            .collect()
    }

    pub fn make_wall(&mut self, wanted: &FirewallSpec, late: i64) -> FirewallId {
        let id = format!("wall-{}", self.walls.len() + self.walls_gone);
        self.only_our_droplets(wanted);
        let made = self.now + late;
        self.walls.insert(id.clone(), wall_of(wanted, made));
        self.journal.push(format!("wall made {}", wanted.name));
        FirewallId::new(id).unwrap()
    }

    pub fn change_wall(&mut self, firewall: &OwnedFirewall, wanted: &FirewallSpec) -> Result<(), Failed> {
        let id = firewall.id().as_str();
        self.only_ours(id);
        let fails = self.walls_fail;
        let Some(wall) = self.walls.get_mut(id) else { return Err(Failed::Conflict) };
        *wall = Wall { made: wall.made, fails, ..wall_of(wanted, self.now) };
        self.journal.push(format!("wall changed {}", wanted.droplets.len()));
        Ok(())
    }

    pub fn take_wall(&mut self, firewall: &OwnedFirewall) {
        let id = firewall.id().as_str();
        self.only_ours(id);
        let last = self.our_walls().len() == 1;
        if last && !self.ours().is_empty() {
            self.violations.push("a firewall was deleted while gateways were there".into());
        }
        self.walls_gone += usize::from(self.walls.remove(id).is_some());
        self.journal.push("wall gone".into());
    }

    fn only_ours(&mut self, id: &str) {
        if self.foreign_walls.contains(id) {
            self.violations.push(format!("I1: foreign firewall {id} was touched"));
        }
    }

    pub fn only_our_droplets(&mut self, wanted: &FirewallSpec) {
        let ours: Vec<u64> = self.ours().into_iter().map(|(id, _)| *id).collect();
        for id in wanted.droplets.iter().filter(|id| !ours.contains(&id.0)) {
            self.violations.push(format!("Droplet {id} got our firewall and is not ours"));
        }
    }
}

fn wall_of(wanted: &FirewallSpec, made: i64) -> Wall {
    assert!(wanted.name.as_str().ends_with(OWNER));
    Wall {
        name: wanted.name.to_string(),
        droplets: wanted.droplets.iter().map(|id| id.0).collect(),
        tags: Vec::new(),
        inbound: wanted.inbound.clone(),
        outbound: wanted.outbound.clone(),
        made,
        settled: made + DELAY,
        fails: false,
    }
}
