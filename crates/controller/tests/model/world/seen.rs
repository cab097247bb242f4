//! What the controller sees of the world: the cloud late and in part, nodes by their reports.

use egress_controller::reserved_ip::recorded as recorded_ip;
use egress_digitalocean::ReservedIp;

use super::*;

impl State {
    pub fn observe(&self) -> Option<Observation> {
        let gateway = self.gateway.clone()?;
        let status = self.status();
        let there = || self.machines.iter().filter(|(_, machine)| self.is_there(machine));
        let recorded: BTreeSet<u64> = status.gateways.iter().filter_map(droplet_id).map(|id| id.0).collect();
        let looked_up: BTreeSet<String> = status.creating.iter().map(|intent| intent.name.clone()).collect();
        let cluster_tag = format!("egress-cluster:{CLUSTER}");
        let droplets: BTreeMap<DropletId, Droplet> = there()
            .map(|(id, machine)| (*id, self.droplet(*id, machine)))
            .filter(|(id, droplet)| {
                let listed = droplet.has_tag(&cluster_tag) == Some(true);
                let named = gateway.spec.existing_droplets.contains(&i64::try_from(*id).unwrap());
                listed || named || recorded.contains(id) || looked_up.contains(&droplet.name)
            })
            .map(|(id, droplet)| (DropletId(id), droplet))
            .collect();
        let gone = recorded.iter().map(|id| DropletId(*id)).filter(|id| !droplets.contains_key(id)).collect();
        let theirs: BTreeSet<u64> =
            status.gateways.iter().filter(|one| one.existing).filter_map(droplet_id).map(|id| id.0).collect();
        let health = there()
            .filter(|(id, _)| !theirs.contains(id))
            .map(|(id, machine)| {
                let public_address = self.held_by(*id);
                let health = if !self.is_up(machine) {
                    HealthSeen::Silent("no connection".into())
                } else if machine.complains {
                    HealthSeen::NotReady("the metadata service does not answer".into())
                } else if self.leaves_with(*id).is_some() {
                    HealthSeen::Ready { version: None, public_address, peers: Some(self.admitted(machine)) }
                } else {
                    HealthSeen::Awaiting { version: None }
                };
                (DropletId(*id), health)
            })
            .collect();
        let probed = || there().filter(|(id, _)| recorded.contains(id));
        let forwards = |id: &u64, machine: &Machine| {
            let leads = self.has_one_address() || self.leaves_with(*id).is_some();
            self.is_up(machine) && !machine.is_gray() && leads
        };
        // Of an address that moves: where it is seen, and where it should be and is not.
        let shown = |id: &u64, machine: &Machine| {
            let is_asked = self.has_one_address() && self.is_up(machine);
            let held = self.held_by(*id).filter(|_| is_asked && !machine.is_gray());
            held.map(|_| !machine.blind)
        };
        let another = |id: u64| probed().any(|(other, machine)| *other != id && forwards(other, machine));
        let views: Vec<GatewayObservation> = probed()
            .map(|(id, machine)| GatewayObservation {
                address: private(*id),
                reachable: self.is_up(machine),
                forwards: self.is_up(machine).then_some(forwards(id, machine)),
                full_size: forwards(id, machine).then_some(!machine.swallows),
                expected_source: shown(id, machine),
                condemned: !forwards(id, machine) && another(*id) || shown(id, machine) == Some(false),
                ..GatewayObservation::default()
            })
            .collect();
        let routes = self.applied.iter().map(|(uid, generation)| NodeRoute {
            name: "demo".into(),
            uid: uid.clone(),
            observed_generation: *generation,
            state: NodeRouteState::Applied,
            applied: 1,
            total: 1,
            gateway: self.uses.map(private),
            gateways: Vec::new(),
            reason: None,
            message: None,
            guarded: true,
            no_gateway: false,
            draining: self.drains.map(|(id, _)| private(id)),
            unusable_gateways: Vec::new(),
            failures: Vec::new(),
        });
        let follower = self.follower.iter().map(|follower| follower_entry(follower.uses.clone()));
        let report = NodeEgressStatus {
            routes: routes.chain(follower).collect(),
            gateways: views,
            boot_id: Some("boot".into()),
            ..NodeEgressStatus::default()
        };
        let node = |name: &str, id: u64| NodeSeen {
            name: name.into(),
            live: true,
            labels: BTreeMap::from([("pool".into(), name.into())]),
            droplet: Some(DropletId(id)),
            agent_ready: Some(true),
            report: Some(match self.said.get(name) {
                Some(said) => NodeEgressStatus {
                    gateways: said.gateways.clone(),
                    cut_off: said.cut_off,
                    ..report.clone()
                },
                None => report.clone(),
            }),
            heard: Some(timestamp(self.said.get(name).map_or(self.now, |said| said.heard))),
        };
        let recorded: Vec<&str> = status.firewall.iter().flat_map(recorded_ids).collect();
        let ours = |id: &str, name: &str| name == firewall_name() || recorded.contains(&id);
        let firewalls =
            self.shown_walls().into_iter().filter(|wall| ours(wall.id.as_str(), &wall.name)).collect();
        let given = |ip: &std::net::Ipv4Addr| gateway.spec.reserved_ips.contains(&ip.to_string());
        let known = |ip: &std::net::Ipv4Addr| recorded_ip(&status, *ip).is_some();
        let holder = |shown: &ReservedIp| shown.droplet.is_some_and(|id| droplets.contains_key(&id));
        let addresses = self
            .shown_addresses()
            .into_iter()
            .filter(|shown| given(&shown.ip) || known(&shown.ip) || holder(shown))
            .collect();
        let user_data = UserData { text: "#cloud-config".into(), version: "v1".into() };
        Some(Observation {
            gateway,
            cluster: CLUSTER.into(),
            route: self.route.clone(),
            followers: self.follower.iter().map(|_| followed()).collect(),
            nodes: NODES
                .into_iter()
                .zip([1, 900, 901])
                .take(if self.third_node { 3 } else { 2 })
                .map(|(name, id)| node(name, id))
                .collect(),
            definition: None,
            undefined: Vec::new(),
            cloud: Ok(CloudSeen {
                taken: timestamp(self.now),
                missing: BTreeSet::new(),
                fleet: self.fleet(),
                droplets,
                gone,
                looked_up,
            }),
            delete_accepted: self.delete_accepted.clone(),
            firewalls: Ok(FirewallsSeen { taken: timestamp(self.now), firewalls }),
            reserved_ips: Ok(ReservedIpsSeen { taken: timestamp(self.now), addresses }),
            health,
            failing_since: BTreeMap::new(),
            site: Ok(Site {
                region: "nyc1".into(),
                vpc: VPC.into(),
                sources: vec!["10.116.0.0/20".parse().unwrap()],
                user_data,
            }),
            offer: self.offer.clone(),
            failure: None,
        })
    }

    // Every Droplet of the cluster, whoever's.
    fn fleet(&self) -> usize {
        let cluster = format!("egress-cluster:{CLUSTER}");
        self.machines
            .values()
            .filter(|machine| self.is_there(machine) && machine.tags.contains(&cluster))
            .count()
    }

    fn droplet(&self, id: u64, machine: &Machine) -> Droplet {
        let age = self.now - machine.made;
        let networks = if age >= 2 {
            json!({"v4": [{"ip_address": public(id), "type": "public"}, {"ip_address": private(id), "type": "private"}]})
        } else {
            json!({})
        };
        let status = if machine.off {
            "off"
        } else if age >= 1 {
            "active"
        } else {
            "new"
        };
        // Tags land late.
        let tags: Vec<&String> = machine.tags.iter().filter(|_| age >= 4).collect();
        serde_json::from_value(json!({
            "id": id, "name": machine.name, "status": status, "networks": networks, "tags": tags, "vpc_uuid": machine.vpc,
            "locked": self.is_busy(id)
        }))
        .unwrap()
    }
}

fn followed() -> Follower {
    Follower { name: "payments".into(), uid: "uid-payments".into() }
}

/// What a node reports of a StaticRoute that follows: routed through that gateway, or not at all.
pub fn follower_entry(gateway: Option<String>) -> NodeRoute {
    let state = if gateway.is_some() { NodeRouteState::Applied } else { NodeRouteState::NotApplied };
    NodeRoute {
        name: followed().name,
        uid: followed().uid,
        observed_generation: 1,
        state,
        applied: u32::from(gateway.is_some()),
        total: 1,
        gateway,
        gateways: Vec::new(),
        reason: None,
        message: None,
        guarded: true,
        no_gateway: false,
        draining: None,
        unusable_gateways: Vec::new(),
        failures: Vec::new(),
    }
}

impl State {
    fn admitted(&self, machine: &Machine) -> BTreeSet<std::net::Ipv4Addr> {
        machine.admits.iter().filter_map(|id| self.leaves_with(*id)?.parse().ok()).collect()
    }
}
