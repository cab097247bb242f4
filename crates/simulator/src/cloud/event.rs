//! Time: what becomes due, and what machines are told.
//!
//! Responsibility: start events, complete them, and say when the next one is due. An event completes when its delay
//! has passed *and* its machine commands have succeeded; a failed command makes the action `errored`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::action::{ActionStatus, Machine, Outcome};
use super::{Action, Cloud, Droplet, Phase, Status, later};

/// What a machine command is asked to do (docs/architecture.md, the machine hook).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineVerb {
    /// Start the machine; the disk is kept.
    Boot,
    /// Cut the power.
    PowerOff,
    /// Ask the system to stop.
    Shutdown,
    /// Remove machine and disk.
    Destroy,
}

impl MachineVerb {
    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::PowerOff => "power-off",
            Self::Shutdown => "shutdown",
            Self::Destroy => "destroy",
        }
    }
}

/// Commands for one machine, to be run one after the other; the first failure ends it.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The action that waits for the result, for [`Cloud::machine_finished`].
    pub action: u64,
    /// The Droplet.
    pub droplet: u64,
    /// What to do, in order.
    pub verbs: Vec<MachineVerb>,
    /// What the command gets on standard input.
    pub machine: Value,
}

impl Cloud {
    /// Starts an event of a Droplet and takes its one slot. `due: None` never completes.
    pub(super) fn start_droplet_event(
        &mut self,
        droplet: u64,
        kind: &str,
        outcome: Outcome,
        verbs: &[MachineVerb],
        due: Option<Timestamp>,
        now: Timestamp,
    ) -> u64 {
        let id = self.counters.action;
        self.counters.action += 1;
        let found = self.droplets.get(&droplet);
        let with_machine =
            self.machines && !verbs.is_empty() && found.is_some_and(|droplet| droplet.has_machine);
        let action = Action {
            id,
            kind: kind.into(),
            status: ActionStatus::InProgress,
            started_at: now,
            completed_at: None,
            resource_id: droplet,
            resource_type: "droplet".into(),
            region: found.map(|droplet| droplet.region.clone()).unwrap_or_default(),
            project_id: None,
            droplet: Some(droplet),
            due,
            machine: if with_machine { Machine::Running } else { Machine::None },
            verbs: if with_machine { verbs.to_vec() } else { Vec::new() },
            outcome,
            fails: false,
        };
        self.actions.insert(id, action);
        if let Some(droplet) = self.droplets.get_mut(&droplet) {
            droplet.pending = Some(id);
        }
        self.emit(id);
        id
    }

    fn emit(&mut self, action: u64) {
        let Some(action) = self.actions.get(&action).filter(|action| action.machine == Machine::Running)
        else {
            return;
        };
        let Some(droplet) = self.droplets.get(&action.resource_id) else { return };
        let machine = match &action.outcome {
            // The new disk is made of the new image, which the Droplet only shows once the action is through.
            Outcome::Rebuild(image) => self.machine_json(&Droplet { image: *image, ..droplet.clone() }),
            _ => self.machine_json(droplet),
        };
        self.outbox.push(Effect {
            action: action.id,
            droplet: droplet.id,
            verbs: action.verbs.clone(),
            machine,
        });
    }

    /// After a restart from a snapshot: the commands whose result was never seen are due again.
    /// The machine command must therefore be idempotent.
    pub fn resume(&mut self) {
        let unfinished: Vec<u64> = self
            .actions
            .values()
            .filter(|action| action.machine == Machine::Running)
            .map(|action| action.id)
            .collect();
        for action in unfinished {
            self.emit(action);
        }
    }

    /// The result of an [`Effect`].
    pub fn machine_finished(&mut self, action: u64, succeeded: bool, now: Timestamp) {
        if let Some(action) = self.actions.get_mut(&action)
            && action.machine == Machine::Running
        {
            action.machine = if succeeded { Machine::Done } else { Machine::Failed };
            // A slow machine moves the end, a fast one does not.
            action.due = action.due.map(|due| due.max(now));
        }
        self.advance(now);
    }

    /// The machine room's own view: a machine went down (or came up) without an action, as after a crash or a
    /// `poweroff` inside. False when there is no such Droplet, or an event on it will settle the matter anyway.
    pub fn machine_changed(&mut self, droplet: u64, running: bool, now: Timestamp) -> bool {
        self.advance(now);
        match self.droplets.get_mut(&droplet) {
            Some(droplet) if droplet.phase == Phase::Live && droplet.pending.is_none() => {
                droplet.status = if running { Status::Active } else { Status::Off };
                true
            }
            _ => false,
        }
    }

    /// Lets time pass until `now`, in the order in which things fall due.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some(due) = self.next_step().filter(|due| *due <= now) {
            self.step(due);
        }
        self.droplets
            .retain(|_, droplet| !matches!(droplet.phase, Phase::Gone { ghost_until } if ghost_until <= now));
    }

    /// When [`Cloud::advance`] has something to do next, unless a machine is done before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.next_step()
    }

    fn next_step(&self) -> Option<Timestamp> {
        let actions = self.actions.values().filter_map(Action::ripe_at);
        let droplets = self.droplets.values().filter_map(|droplet| match droplet.phase {
            Phase::Gone { .. } => None,
            Phase::Provisioning { active_at } if droplet.status == Status::New && self.booted(droplet) => {
                [active_at, droplet.vanish_at].into_iter().flatten().min()
            }
            _ => droplet.vanish_at,
        });
        actions.chain(droplets).chain(self.next_firewall_step()).min()
    }

    /// Whether the boot command of the create action is through.
    fn booted(&self, droplet: &Droplet) -> bool {
        let create = droplet.pending.and_then(|action| self.actions.get(&action));
        create.is_none_or(|action| matches!(action.machine, Machine::None | Machine::Done))
    }

    /// Everything that is due at exactly `at` or before.
    fn step(&mut self, at: Timestamp) {
        let vanishing: Vec<u64> = self
            .droplets
            .values()
            .filter(|droplet| droplet.exists() && droplet.vanish_at.is_some_and(|time| time <= at))
            .map(|droplet| droplet.id)
            .collect();
        for id in vanishing {
            if let Some(pending) = self.droplets.get(&id).and_then(|droplet| droplet.pending) {
                if let Some(action) = self.actions.get_mut(&pending) {
                    action.fails = true;
                }
                // Whatever it locks besides the Droplet is set free.
                self.complete(pending, at);
            }
            self.forget(id, at);
        }

        let starting: Vec<u64> = self
            .droplets
            .values()
            .filter(|droplet| droplet.status == Status::New && self.booted(droplet))
            .filter(|droplet| {
                matches!(droplet.phase, Phase::Provisioning { active_at: Some(time) } if time <= at)
            })
            .map(|droplet| droplet.id)
            .collect();
        for id in starting {
            if let Some(droplet) = self.droplets.get_mut(&id) {
                droplet.status = Status::Active;
            }
        }

        let ripe: Vec<u64> = self
            .actions
            .values()
            .filter(|action| action.ripe_at().is_some_and(|time| time <= at))
            .map(|action| action.id)
            .collect();
        for id in ripe {
            self.complete(id, at);
        }
        self.step_firewalls(at);
        self.bring_firewalls_after(at);
    }

    fn complete(&mut self, id: u64, at: Timestamp) {
        let Some(action) = self.actions.get_mut(&id) else { return };
        let failed = action.fails || action.machine == Machine::Failed;
        action.finish(if failed { ActionStatus::Errored } else { ActionStatus::Completed }, at);
        let outcome = action.outcome.clone();
        let machine_failed = action.machine == Machine::Failed;
        let target = action.droplet;
        if let Some(droplet) = target.and_then(|id| self.droplets.get_mut(&id)) {
            droplet.pending = None;
        }
        self.settle(&outcome, target, failed, machine_failed, at);
    }

    /// What an action leaves behind.
    fn settle(
        &mut self,
        outcome: &Outcome,
        target: Option<u64>,
        failed: bool,
        machine_failed: bool,
        at: Timestamp,
    ) {
        match (outcome, target) {
            // A create that fails in the machine room looks like this from outside: an id, then 404 for ever.
            (Outcome::Create, Some(id)) if machine_failed => {
                let left = later(at, self.delays.delete);
                self.start_droplet_event(
                    id,
                    "destroy",
                    Outcome::Destroy,
                    &[MachineVerb::Destroy],
                    Some(left),
                    at,
                );
                self.forget_but_keep_addresses(id);
            }
            (Outcome::Destroy, Some(id)) => {
                if machine_failed && let Some(droplet) = self.droplets.get(&id) {
                    self.lost_addresses.extend(droplet.addresses().collect::<Vec<_>>());
                }
                self.forget(id, at);
            }
            (Outcome::AssignIp { ip, droplet }, _) => {
                if let Some(address) = self.reserved_ips.get_mut(ip) {
                    address.locked_by = None;
                    // The Droplet may have been deleted meanwhile.
                    let there = self.droplets.get(droplet).is_some_and(Droplet::exists);
                    if !failed && there {
                        address.droplet = Some(*droplet);
                    }
                }
            }
            (Outcome::UnassignIp { ip }, _) => {
                if let Some(address) = self.reserved_ips.get_mut(ip) {
                    address.locked_by = None;
                    if !failed {
                        address.droplet = None;
                    }
                }
            }
            (_, Some(id)) if !failed => {
                if let Some(droplet) = self.droplets.get_mut(&id) {
                    match outcome {
                        Outcome::Create => {
                            droplet.phase = Phase::Live;
                            droplet.status = Status::Active;
                            droplet.networked = true;
                        }
                        Outcome::Power(status) => droplet.status = *status,
                        Outcome::Rename(name) => droplet.name.clone_from(name),
                        Outcome::Resize(size) => droplet.size.clone_from(size),
                        Outcome::Rebuild(image) => {
                            droplet.image = *image;
                            droplet.status = Status::Active;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// 404 at once, while the machine is still being taken away and its addresses stay in use.
    fn forget_but_keep_addresses(&mut self, id: u64) {
        if let Some(droplet) = self.droplets.get_mut(&id) {
            droplet.phase = Phase::Gone { ghost_until: Timestamp::MAX };
            droplet.tags.clear();
        }
    }

    /// Standard input of the machine command (docs/architecture.md, the machine hook).
    pub fn machine_json(&self, droplet: &Droplet) -> Value {
        let image =
            self.images.iter().find(|image| image.id == droplet.image).map(|image| image.slug.as_str());
        let keys: Vec<&str> = self
            .ssh_keys
            .iter()
            .filter(|key| droplet.ssh_keys.contains(&key.id))
            .map(|key| key.public_key.as_str())
            .collect();
        json!({
            "id": droplet.id, "name": droplet.name, "image": image, "size": droplet.size,
            "user_data": droplet.user_data.as_deref().unwrap_or_default(), "region": droplet.region,
            "vpc_uuid": droplet.vpc, "public": droplet.public, "private": droplet.private, "anchor": droplet.anchor,
            "ssh_keys": keys,
            "tags": droplet.tags.iter().map(|tagged| tagged.name.as_str()).collect::<Vec<_>>(),
        })
    }
}
