#!/usr/bin/env python3
"""Writes Grafana's dashboards, deploy/monitoring/dashboards/*.json, from the panels below. `make generate` runs it.

    scripts/dashboards.py [--check]    with --check: writes nothing, fails where a file is not what would be written

Standard library only. A panel is a title, what it tells a person, queries with the words of their legend, and how it is drawn.
A panel that shows nothing while all is well says so (`calm`), for tests and for whoever looks at an empty frame.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent.parent / "deploy" / "monitoring" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # of Grafana's grid
RED, ORANGE, GREEN = "red", "orange", "green"

YES_NO = {"min": 0, "max": 1, "mappings": [{"type": "value", "options": {
    "0": {"text": "no", "color": RED, "index": 0}, "1": {"text": "yes", "color": GREEN, "index": 1}}}]}
NO_YES = {"min": 0, "max": 1, "mappings": [{"type": "value", "options": {
    "0": {"text": "no", "color": GREEN, "index": 0}, "1": {"text": "yes", "color": RED, "index": 1}}}]}


def steps(*levels):
    """Colours by value: the first one from below, then (from, colour) each."""
    first, *others = levels
    return {"thresholds": {"mode": "absolute", "steps": [{"color": first, "value": None}] + [
        {"color": color, "value": value} for value, color in others]}}


def panel(kind, title, tells, *queries, width=12, height=7, calm=False, options=None, transformations=None, **defaults):
    """`queries`: (expression, legend) each. `calm`: empty while all is well."""
    targets = []
    for number, (expression, legend) in enumerate(queries):
        target = {"refId": "ABCDEFGH"[number], "datasource": SOURCE, "expr": expression, "legendFormat": legend}
        if kind in ("table", "stat"):
            target["instant"] = True
        if kind == "table":
            target["format"] = "table"
        targets.append(target)
    made = {"type": kind, "title": title, "description": tells + (" Empty while all is well." if calm else ""), "datasource": SOURCE,
            "gridPos": {"w": width, "h": height}, "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options or {}}
    if transformations:
        made["transformations"] = transformations
    return made


def table(title, tells, expression, names, **rest):
    """`names`: what a column of a label is called. Time and Value are left out unless `names` has them."""
    hidden = {column: True for column in ("Time", "Value") if column not in names}
    organize = [{"id": "organize", "options": {"excludeByName": hidden, "renameByName": names}}]
    return panel("table", title, tells, (expression, ""), transformations=organize, **rest)


def drop_down(name, label, query):
    return {"name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name},
            "refresh": 2, "sort": 1, "multi": False, "includeAll": False, "current": {}}


def bandwidth():
    """What the Droplet's class carries, in bit/s (DigitalOcean's documentation, "Droplet limits")."""
    choices = [("2 Gbit/s", "2000000000"), ("10 Gbit/s (Premium CPU)", "10000000000")]
    options = [{"text": text, "value": value, "selected": number == 0} for number, (text, value) in enumerate(choices)]
    return {"name": "bandwidth", "label": "bandwidth of the Droplets' class", "type": "custom", "current": options[0],
            "query": ", ".join(f"{text} : {value}" for text, value in choices), "options": options}


# ---- what is shown -------------------------------------------------------------------------------------------

PROVEN = 'sum by (name) (max by (name, role) (egress_controller_gateways{role=~"active|standby"}))'

OVERVIEW = ("Egress Gateway: all gateways", [], [
    table("Alerts", "What Prometheus' rules of this project say now.",
          'ALERTS{alertname=~"Egress.*", alertstate="firing"}',
          {"alertname": "alert", "severity": "severity", "name": "EgressGateway", "gateway": "gateway", "instance": "instance"},
          width=24, height=5, calm=True),
    table("EgressGateways", "Active gateway and egress address of each EgressGateway.",
          "max by (name, active, egress_ip) (egress_controller_egress_gateway_info)",
          {"name": "EgressGateway", "active": "active gateway", "egress_ip": "egress address"}, width=12, height=6),
    panel("stat", "Proven gateways / asked for", "Below 1 there is no redundancy; 0 means that nothing works.",
          (f"{PROVEN} / max by (name) (egress_controller_gateways_wanted)", "{{name}}"),
          width=6, height=6, unit="percentunit", **steps(RED, (0.01, ORANGE), (1, GREEN))),
    panel("stat", "Nodes applied / total", "Nodes that have every route of the EgressGateway in their kernel.",
          ("max by (name) (egress_controller_nodes_applied) / max by (name) (egress_controller_nodes_total)", "{{name}}"),
          width=6, height=6, unit="percentunit", **steps(RED, (1, GREEN))),
    table("Conditions", "Conditions of each EgressGateway: Ready should be 1, the others 0. kubectl describe has the sentence.",
          "max by (name, condition, reason) (egress_controller_condition)",
          {"name": "EgressGateway", "condition": "condition", "reason": "reason", "Value": "true"}, width=12),
    panel("stat", "Nodes for which no gateway works", "Their traffic is lost, or leaves as onNoGateway says.",
          ("count(egress_agent_static_routes_without_gateway > 0) or vector(0)", "nodes"), width=4, **steps(GREEN, (1, RED))),
    panel("stat", "Nodes without agent", "Nodes that should have the routes and whose agent is not Ready.",
          ("max by (name) (egress_controller_nodes_without_agent)", "{{name}}"), width=4, **steps(GREEN, (1, ORANGE))),
    panel("stat", "A controller leads", "Without one, nodes fail over all the same, and nothing is repaired.",
          ("max(egress_controller_leader)", "leads"), width=4, **YES_NO),
    panel("timeseries", "Gateways by role", "One active, the others standing by; starting and failed ones should be few and brief.",
          ("max by (name, role) (egress_controller_gateways)", "{{name}} {{role}}")),
    panel("timeseries", "Nodes by gateway in use", "How many nodes send through each gateway.",
          ("count by (gateway) (egress_agent_gateway_in_use == 1)", "{{gateway}}"), min=0),
    panel("timeseries", "Failovers", "Switches to other gateways that nodes made, per 5 minutes; planned moves and returns count, too.",
          ("sum by (instance) (increase(egress_agent_failovers_total[5m]))", "{{instance}}"), width=8, unit="short", min=0),
    panel("timeseries", "Last failover took", "From the first unanswered probe to the switch, the slowest node.",
          ("max(egress_agent_last_failover_seconds)", "slowest"), width=8, unit="s", min=0),
    panel("timeseries", "Nodes that condemn a gateway", "They do not use it while another one works.",
          ("sum by (gateway) (egress_agent_gateway_condemned)", "{{gateway}}"), width=8, min=0),
    panel("timeseries", "Traffic of all gateways", "Bytes per second on the public side.",
          ('sum by (direction) (rate(egress_gateway_machine_interface_bytes_total{side="public"}[5m]))', "{{direction}}"),
          width=8, unit="Bps", min=0),
    panel("timeseries", "Calls of DigitalOcean's API", "By result, per second.",
          ("sum by (result) (rate(egress_controller_cloud_requests_total[5m]))", "{{result}}"), width=8, unit="reqps", min=0),
    panel("timeseries", "Calls of DigitalOcean's API left", "In this hour, for all programs with the same token.",
          ("max(egress_controller_cloud_quota_remaining)", "left"), width=8, min=0),
    panel("timeseries", "Droplets made and deleted", "Per hour; many of both is trouble, and costs.",
          ("sum(increase(egress_controller_droplets_created_total[1h]))", "made"),
          ("sum(increase(egress_controller_droplets_deleted_total[1h]))", "deleted"), min=0),
    table("Versions", "Of controller and agents: one, except during an upgrade.",
          "count by (version) (egress_agent_build_info or egress_controller_build_info)",
          {"version": "version", "Value": "programs"}, width=12),
])

# The label `gateway` of the agents is the address at which Prometheus scrapes the gateway.
MACHINE = 'instance=~"$gateway(:[0-9]+)?"'

GATEWAY = ("Egress Gateway: one gateway", [
    drop_down("gateway", "gateway", "label_values(egress_agent_gateway_reachable, gateway)")], [
    panel("stat", "Gateway says it is ready", "The gateway's own word: forwarding, rules, uplink.",
          (f"egress_gateway_machine_ready{{{MACHINE}}}", "{{instance}}"), width=4, height=5, **YES_NO),
    panel("stat", "Errors and warnings", "What keeps it from working, and what is not as asked for. Its /healthz says them in words.",
          (f"egress_gateway_machine_errors{{{MACHINE}}}", "errors"),
          (f"egress_gateway_machine_warnings{{{MACHINE}}}", "warnings"), width=4, height=5, **steps(GREEN, (1, ORANGE))),
    panel("stat", "Forwarding, rules, uplink", "Each as it reads it from its kernel.",
          (f"egress_gateway_machine_forwarding{{{MACHINE}}}", "forwarding"),
          (f"egress_gateway_machine_rules{{{MACHINE}}}", "rules"),
          (f"egress_gateway_machine_uplink{{{MACHINE}}}", "uplink"), width=6, height=5, **YES_NO),
    panel("stat", "Up for", "Since the machine started, and how long it took until it was ready.",
          (f"egress_gateway_machine_uptime_seconds{{{MACHINE}}}", "up"),
          (f"egress_gateway_machine_time_to_ready_seconds{{{MACHINE}}}", "until ready"), width=5, height=5, unit="s"),
    table("User data", "Version of what it was set up with.",
          f"max by (version) (egress_gateway_machine_info{{{MACHINE}}})", {"version": "version"}, width=5, height=5),
    panel("timeseries", "Nodes that use it", "And nodes that do not use it because they find that it does not work.",
          ('sum(egress_agent_gateway_in_use{gateway="$gateway"})', "use it"),
          ('sum(egress_agent_gateway_condemned{gateway="$gateway"})', "condemn it"), width=8, min=0),
    panel("timeseries", "How many nodes get through", "Level by level: nodes to which it answers, that get out through it, with its address, in full size.",
          ('sum(egress_agent_gateway_reachable{gateway="$gateway"})', "answers"),
          ('sum(egress_agent_gateway_forwards{gateway="$gateway"})', "forwards"),
          ('sum(egress_agent_gateway_expected_source{gateway="$gateway"})', "expected address"),
          ('sum(egress_agent_gateway_full_size{gateway="$gateway"})', "full size"), width=16, min=0),
    panel("timeseries", "Gateway traffic", "Bytes per second on the public side.",
          (f'rate(egress_gateway_machine_interface_bytes_total{{{MACHINE}, side="public"}}[5m])', "{{direction}}"),
          width=8, unit="Bps", min=0),
    panel("timeseries", "Gateway packets", "Per second, by side and direction.",
          (f"rate(egress_gateway_machine_interface_packets_total{{{MACHINE}}}[5m])", "{{side}} {{direction}}"),
          width=8, unit="pps", min=0),
    panel("timeseries", "Connections", "In its table, and how many have a place in it.",
          (f"egress_gateway_machine_conntrack_entries{{{MACHINE}}}", "connections"),
          (f"egress_gateway_machine_conntrack_entries_limit{{{MACHINE}}}", "places"), width=8, min=0),
    panel("timeseries", "Busiest destinations", "Connections to each, of the 64,512 that one public address can have; those with a hundredth of them at least.",
          (f"egress_gateway_machine_destination_connections{{{MACHINE}}}", "{{protocol}} {{destination}}"), width=12, min=0, calm=True),
    panel("timeseries", "Connections lost", "Per second: for want of a place in the table, of a port, or forgotten to make room.",
          (f"rate(egress_gateway_machine_conntrack_drop_total{{{MACHINE}}}[5m])", "table full"),
          (f"rate(egress_gateway_machine_conntrack_insert_failed_total{{{MACHINE}}}[5m])", "no port, or a clash"),
          (f"rate(egress_gateway_machine_conntrack_early_drop_total{{{MACHINE}}}[5m])", "forgotten"), width=12, unit="short", min=0),
    panel("timeseries", "Disk free", "Of the machine.",
          (f"egress_gateway_machine_disk_free_bytes{{{MACHINE}}}", "free"), width=12, height=5, unit="bytes", min=0),
    panel("stat", "Waits for a reboot", "A security update is installed and works from the next boot on.",
          (f"egress_gateway_machine_reboot_required{{{MACHINE}}}", "reboot"), width=12, height=5, **NO_YES),
])

NODE_ = 'instance="$node"'

NODE = ("Egress Gateway: one node", [drop_down("node", "node", "label_values(egress_agent_destinations, instance)")], [
    panel("stat", "StaticRoutes by state", "Applied: every destination is in the kernel.",
          (f"egress_agent_static_routes{{{NODE_}}}", "{{state}}"), width=6, height=5),
    panel("stat", "StaticRoutes without a gateway", "For these no gateway works.",
          (f"egress_agent_static_routes_without_gateway{{{NODE_}}}", "without"), width=4, height=5, **steps(GREEN, (1, RED))),
    panel("stat", "Conditions", "Trouble of the node as a whole; kubectl describe nodeegress has the sentence.",
          (f"egress_agent_condition{{{NODE_}}}", "{{condition}}"), width=8, height=5, calm=True, **NO_YES),
    table("Version", "Of the agent.", f"max by (version) (egress_agent_build_info{{{NODE_}}})", {"version": "version"}, width=6, height=5),
    panel("state-timeline", "Gateway in use", "Which gateway the node sends its traffic through.",
          (f"egress_agent_gateway_in_use{{{NODE_}}}", "{{gateway}}"), **YES_NO),
    panel("state-timeline", "Gateway condemned", "The node finds that it does not work, and does not use it while another works.",
          (f"egress_agent_gateway_condemned{{{NODE_}}}", "{{gateway}}"), **NO_YES),
    panel("state-timeline", "Gateway answers", "Level 1: the gateway's kernel answers in the VPC.",
          (f"egress_agent_gateway_reachable{{{NODE_}}}", "{{gateway}}"), **YES_NO),
    panel("state-timeline", "Way out through the gateway", "Level 2: a connection through the gateway reached the outside.",
          (f"egress_agent_gateway_forwards{{{NODE_}}}", "{{gateway}}"), **YES_NO),
    panel("state-timeline", "Expected address", "Level 3: another gateway saw the address that it should.",
          (f"egress_agent_gateway_expected_source{{{NODE_}}}", "{{gateway}}"), **YES_NO),
    panel("state-timeline", "Packets of full size", "Level 4: large packets get through.",
          (f"egress_agent_gateway_full_size{{{NODE_}}}", "{{gateway}}"), **YES_NO),
    panel("timeseries", "Probe answers, 99th percentile", "Time to the answer of a probe.",
          (f"histogram_quantile(0.99, sum by (le, level) (rate(egress_agent_probe_duration_seconds_bucket{{{NODE_}}}[5m])))", "{{level}}"),
          width=8, unit="s", min=0),
    panel("timeseries", "Probes answered", "Share of probes that were answered; below 1 something is lost.",
          (f'sum by (level) (rate(egress_agent_probes_total{{{NODE_}, outcome="answered"}}[5m])) '
           f"/ sum by (level) (rate(egress_agent_probes_total{{{NODE_}}}[5m]))", "{{level}}"), width=8, unit="percentunit", max=1),
    panel("timeseries", "Switches", "To other gateways, per 5 minutes.",
          (f"increase(egress_agent_failovers_total{{{NODE_}}}[5m])", "switches"), width=8, min=0),
    panel("timeseries", "Destinations in the kernel", "Of this node and of all; they should agree, where no nodeSelector tells them apart.",
          ("egress_agent_destinations", "{{instance}}"), width=8, min=0),
    panel("timeseries", "Repairs", "Kernel objects that somebody took away or changed and the agent put right, per 5 minutes.",
          (f"increase(egress_agent_repairs_total{{{NODE_}}}[5m])", "repairs"), width=8, min=0),
    panel("timeseries", "Changes, refusals, rollbacks", "Of the kernel, per 5 minutes: accepted, refused; and StaticRoutes that were taken back.",
          (f"increase(egress_agent_kernel_changes_total{{{NODE_}}}[5m])", "accepted"),
          (f"increase(egress_agent_netlink_errors_total{{{NODE_}}}[5m])", "refused"),
          (f"increase(egress_agent_rollbacks_total{{{NODE_}}}[5m])", "taken back"), width=8, min=0),
    panel("timeseries", "Tests of the node itself", "Made while no gateway answers: is it this node that is cut off? Per 5 minutes.",
          (f"increase(egress_agent_self_tests_total{{{NODE_}}}[5m])", "{{outcome}}"), width=12, min=0, calm=True),
    panel("stat", "Routed before its guards stood", "After its last boot; 0 with the startup taint.",
          (f"egress_agent_unguarded_seconds{{{NODE_}}}", "seconds"), width=6, unit="s"),
    panel("stat", "Last failover took", "From the first unanswered probe to the switch; 0: there was none since the agent started.",
          (f"egress_agent_last_failover_seconds{{{NODE_}}}", "seconds"), width=6, unit="s"),
])

USED = "egress_gateway_machine_busiest_destination_ports_used_ratio"
ENTRIES, PLACES = "egress_gateway_machine_conntrack_entries", "egress_gateway_machine_conntrack_entries_limit"

CAPACITY = ("Egress Gateway: capacity", [bandwidth()], [
    panel("timeseries", "Ports of the busiest destination in use",
          "Of the connections that one public address can have to one destination; from 0.8 on new ones are lost.",
          (USED, "{{instance}}"), unit="percentunit", min=0, max=1, **steps(GREEN, (0.6, ORANGE), (0.8, RED))),
    panel("timeseries", "Time until ports run out", "At the rate of the last 15 minutes, until four fifths are used.",
          (f"(0.8 - {USED}) / (deriv({USED}[15m]) > 0)", "{{instance}}"), unit="s", min=0, calm=True),
    table("Busiest destinations", "Connections to each from all gateways; those with a hundredth of a gateway's ports at least.",
          "topk(20, sum by (protocol, destination) (egress_gateway_machine_destination_connections))",
          {"protocol": "protocol", "destination": "destination", "Value": "connections"}, width=24, height=6, calm=True),
    panel("timeseries", "Connection table in use", "Share of the gateway's connection table; at 1 new connections fail.",
          (f"{ENTRIES} / {PLACES}", "{{instance}}"), unit="percentunit", min=0, max=1, **steps(GREEN, (0.7, ORANGE), (0.85, RED))),
    panel("timeseries", "Time until the connection table is full", "At the rate of the last 15 minutes.",
          (f"({PLACES} - {ENTRIES}) / (deriv({ENTRIES}[15m]) > 0)", "{{instance}}"), unit="s", min=0, calm=True),
    panel("timeseries", "Bandwidth in use", "Of what the Droplets' class carries, by direction, on the public side.",
          ('rate(egress_gateway_machine_interface_bytes_total{side="public"}[5m]) * 8 / $bandwidth', "{{instance}} {{direction}}"),
          unit="percentunit", min=0, **steps(GREEN, (0.7, ORANGE), (0.9, RED))),
    panel("timeseries", "Packets", "Per second on the public side: one processor forwards a few hundred thousand.",
          ('rate(egress_gateway_machine_interface_packets_total{side="public"}[5m])', "{{instance}} {{direction}}"), unit="pps", min=0),
    panel("timeseries", "Connections lost", "Per second, of all gateways, for want of a place or a port.",
          ("sum(rate(egress_gateway_machine_conntrack_drop_total[5m]))", "table full"),
          ("sum(rate(egress_gateway_machine_conntrack_insert_failed_total[5m]))", "no port, or a clash"), min=0),
    panel("timeseries", "Sent to the internet in a day", "By gateway: what DigitalOcean counts against the Droplets' transfer.",
          ('increase(egress_gateway_machine_interface_bytes_total{side="public", direction="transmit"}[1d])', "{{instance}}"),
          unit="bytes", min=0),
])

DASHBOARDS = {"overview": OVERVIEW, "gateway": GATEWAY, "node": NODE, "capacity": CAPACITY}


# ---- how it is written ---------------------------------------------------------------------------------------

def arranged(panels):
    """From left to right, the next row below the highest of the last."""
    x, y, highest = 0, 0, 0
    for number, one in enumerate(panels, start=1):
        if x + one["gridPos"]["w"] > WIDTH:
            x, y, highest = 0, y + highest, 0
        yield {"id": number, **one, "gridPos": {"x": x, "y": y, **one["gridPos"]}}
        x, highest = x + one["gridPos"]["w"], max(highest, one["gridPos"]["h"])


def dashboard(key, title, variables, panels):
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus", "current": {}}
    others = [{"type": "link", "title": DASHBOARDS[other][0].split(": ")[1], "url": f"/d/egress-gateway-{other}", "keepTime": True}
              for other in DASHBOARDS if other != key]
    return {"title": title, "uid": f"egress-gateway-{key}", "tags": ["egress-gateway"], "schemaVersion": 39, "version": 1,
            "editable": True, "graphTooltip": 1, "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
            "links": others, "templating": {"list": [source, *variables]}, "annotations": {"list": []}, "panels": list(arranged(panels))}


def main():
    stale = []
    for key, content in DASHBOARDS.items():
        path, text = FOLDER / f"{key}.json", json.dumps(dashboard(key, *content), indent=1) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"not as scripts/dashboards.py writes it: {', '.join(stale)}; `make generate` writes them anew")


if __name__ == "__main__":
    main()
