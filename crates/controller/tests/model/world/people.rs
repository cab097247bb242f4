//! What people do to the cloud by hand.

use super::*;

impl State {
    /// A Droplet of somebody else.
    pub fn foreign(&mut self, id: u64, name: &str) {
        let machine = Machine {
            name: name.to_owned(),
            tags: Vec::new(),
            vpc: VPC.to_owned(),
            made: START - 1000,
            ..Machine::default()
        };
        self.machines.insert(id, machine);
    }

    /// A Droplet of somebody else that carries tags, in some VPC.
    pub fn foreign_tagged(&mut self, id: u64, name: &str, tags: &[String], vpc: &str) {
        self.foreign(id, name);
        let machine = self.machines.get_mut(&id).unwrap();
        machine.tags = tags.to_vec();
        vpc.clone_into(&mut machine.vpc);
    }

    pub fn rename(&mut self, id: u64, name: &str) {
        name.clone_into(&mut self.machines.get_mut(&id).unwrap().name);
    }

    /// Takes every tag off; gives what was there.
    pub fn untag(&mut self, id: u64) -> Vec<String> {
        std::mem::take(&mut self.machines.get_mut(&id).unwrap().tags)
    }

    pub fn tag(&mut self, id: u64, tags: Vec<String>) {
        self.machines.get_mut(&id).unwrap().tags = tags;
    }

    pub fn delete_droplet(&mut self, id: u64) {
        let now = self.now;
        self.machines.get_mut(&id).unwrap().deleted = Some(now);
    }

    /// A person deletes what the status says that it is to.
    pub fn delete_by_hand(&mut self) {
        let now = self.now;
        for gateway in self.status().gateways.iter().filter(|gateway| gateway.delete_refused.is_some()) {
            let id = u64::try_from(gateway.droplet_id).unwrap();
            self.machines.get_mut(&id).unwrap().deleted = Some(now);
        }
    }
}
