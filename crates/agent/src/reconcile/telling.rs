//! What the loop tells of the node: the report, with what is wrong with the node as a whole.

use egress_netlink::reading::Interface;
use egress_routing::clash::{Clash, SeenRule, clashes, port_clash};
use egress_routing::{Layout, NodeView};

use super::Reconciler;
use crate::concerns::{self, Concern};
use crate::neighbours::EphemeralPorts;
use crate::report::Report;
use crate::{inbound, neighbours, packet_size, report, reverse_path};

/// What was seen beside the view: it tells people something, and changes no plan.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Every rule of the node.
    rules: Vec<SeenRule>,
    /// The node's links.
    interfaces: Vec<Interface>,
    /// The kernel may give other connections the ports of our probes.
    ports: Option<Clash>,
    /// The ports that the node's own connections get.
    ephemeral: Option<EphemeralPorts>,
    /// The public interface and the mode of its reverse path filter.
    reverse_path: Option<(String, u8)>,
}

impl Beside {
    /// Looks at sysctls too; reading these never waits.
    pub(super) fn look(
        rules: Vec<SeenRule>,
        interfaces: Vec<Interface>,
        view: &NodeView,
        layout: &Layout,
    ) -> Self {
        let ephemeral = neighbours::ephemeral_ports();
        let ports = ephemeral.as_ref().and_then(|ports| port_clash(&ports.range, &ports.reserved, layout));
        let public = reverse_path::public_interface(&interfaces, view).map(|link| link.name.clone());
        let reverse_path = public.and_then(|name| {
            let mode = reverse_path::mode(&name)?;
            Some((name, mode))
        });
        Self { rules, interfaces, ports, ephemeral, reverse_path }
    }
}

impl Beside {
    /// Name of the link with that index.
    pub(super) fn link(&self, index: u32) -> Option<&str> {
        self.interfaces.iter().find(|link| link.index == index).map(|link| link.name.as_str())
    }
}

impl Reconciler {
    /// Hands the report on where it says something new.
    pub(super) fn publish(&mut self) {
        let observations = self.gateways.observations().map(|(_, said)| said.clone()).collect();
        let mut status = report::status(&self.plan.routes, &self.objects, &self.refused, observations);
        let drift = self.drift.told(self.now()).clone();
        status.repairs = drift.repairs;
        status.boot_id.clone_from(&self.boot_id);
        status.cut_off = self.gateways.is_cut_off();
        status.last_failover.clone_from(&self.last_failover);
        let concerns: Vec<Concern> = self.concerns().into_iter().chain(drift.concern).collect();
        self.with.metrics.export(&status, &self.plan.routes, &concerns);
        let report = Report { status, concerns };
        self.with.reports.send_if_modified(|current| {
            let is_new = *current != report;
            *current = report;
            is_new
        });
    }

    /// What is wrong with the node as a whole.
    fn concerns(&self) -> Vec<Concern> {
        let Beside { rules, interfaces, ports, ephemeral, reverse_path } = &self.beside;
        let mut clashes = clashes(&self.observed, rules, &self.plan.routes, &self.layout);
        clashes.extend(ports.clone());
        let mut concerns = neighbours::concerns(&clashes);
        concerns.extend(self.not_moved());
        concerns.extend(concerns::not_probed(&self.plan.unprobed));
        concerns.extend(inbound::not_answered(&self.plan.unserved));
        concerns.extend(inbound::ephemeral(&self.plan.state, &self.layout, ephemeral.as_ref()));
        concerns.extend(self.departed.concern());
        concerns.extend(concerns::unreadable_gateways(&self.objects.unreadable_gateways));
        concerns.extend(concerns::protected_list(&self.list));
        concerns.extend(concerns::api_server(self.view.as_ref().and_then(|view| view.uncertain.as_ref())));
        concerns.extend(concerns::protected_names(&self.with.surroundings.borrow()));
        concerns.extend(reverse_path.as_ref().and_then(|(name, mode)| reverse_path::strict(name, *mode)));
        concerns.extend(reverse_path::ebpf(interfaces, &self.plan.state));
        concerns.extend(concerns::not_reported(report::known(&self.plan.routes, &self.objects)));
        let view = self.view.as_ref();
        concerns.extend(view.and_then(|view| packet_size::concern(interfaces, view)));
        concerns.extend(
            view.and_then(|view| reverse_path::no_public_address(view, &self.plan.state, &self.layout)),
        );
        concerns
    }
}
