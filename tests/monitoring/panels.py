"""What each panel of the dashboards must show of a lab that is well, by kubectl's word: `truth` of tests/dashboard.py."""


def each(labels, keys, fits=lambda value: value == 1):
    """Exactly these series by these labels, or at least them where more may be there, and every one of them fits."""
    wanted = {key if isinstance(key, tuple) else (key,) for key in keys}

    def check(series):
        values = {tuple(one["metric"].get(label) for label in labels): float(one["value"][1]) for one in series}
        absent = wanted - values.keys()
        wrong = {key: value for key, value in values.items() if key in wanted and not fits(value)}
        return f"missing {sorted(absent)}" if absent else f"unexpected {wrong}" if wrong else "" if wanted else "nothing to compare with"

    return check


def equal(labels, truths):
    """These series by these labels have these values."""
    def check(series):
        values = {tuple(one["metric"].get(each) for each in labels): float(one["value"][1]) for one in series}
        wrong = {key: (values.get(key), value) for key, value in truths.items() if values.get(key) != value}
        return f"(shown, true): {wrong}" if wrong else "" if truths else "nothing to compare with"

    return check


def every(fits):
    """Each value fits, and there is one."""
    def check(series):
        wrong = [one for one in series if not fits(float(one["value"][1]))]
        return f"unexpected {wrong}" if wrong else "" if series else "no series"

    return check


def may_be_empty(series):
    """Empty while all is well."""
    return ""


def share(value):
    return 0 < value <= 1


def counted(value):
    return value >= 0


def expectations(truth):
    """By dashboard and panel: its complaint about the series, empty when all is as it should be."""
    names, nodes = truth.gateways.keys(), len(truth.nodes)
    ports = {f"{address}:9180" for address in truth.machines}
    seen = {(address,) for address in truth.machines}
    counts = {}
    for name, status in truth.gateways.items():
        for one in status["gateways"]:
            role = (name, one["role"].lower())
            counts[role] = counts.get(role, 0) + 1
    destinations = {node: sum(one["applied"] for one in status["routes"]) for node, status in truth.nodes.items()}
    users = {gateway: sum(one == gateway for _, one in truth.in_use) for gateway in {gateway for _, gateway in truth.in_use} & truth.machines}
    conditions = {(name, one["type"], one["reason"]): float(one["status"] == "True")
                  for name, status in truth.gateways.items() for one in status["conditions"]}
    in_use = {(gateway,) for node, gateway in truth.in_use if node == truth.node} & seen
    yes, no = every(lambda value: value == 1), every(lambda value: value == 0)
    return {
        "overview": {
            "Alerts": may_be_empty,
            "EgressGateways": each(
                ("name", "active", "egress_ip"), {(name, one["active"], one["egressIP"]) for name, one in truth.gateways.items()}),
            "Proven gateways / asked for": each(("name",), names),
            "Nodes applied / total": each(("name",), names),
            "Conditions": equal(("name", "condition", "reason"), conditions),
            "Nodes for which no gateway works": no,
            "Nodes without agent": each(("name",), names, lambda value: value == 0),
            "A controller leads": yes,
            "Gateways by role": equal(("name", "role"), counts),
            "Nodes by gateway in use": equal(("gateway",), {(gateway,): float(count) for gateway, count in users.items()}),
            "Failovers": each(("instance",), truth.nodes, counted),
            "Last failover took": every(counted),
            "Nodes that condemn a gateway": each(("gateway",), seen, lambda value: value == 0),
            "Traffic of all gateways": each(("direction",), {"receive", "transmit"}, lambda value: value > 0),
            "Calls of DigitalOcean's API": each(("result",), {"ok"}, counted),
            "Calls of DigitalOcean's API left": every(lambda value: value > 0),
            "Droplets made and deleted": every(counted),
            "Versions": every(lambda value: value >= nodes),
        },
        "gateway": {
            "Gateway says it is ready": yes,
            "Errors and warnings": every(counted),
            "Forwarding, rules, uplink": yes,
            "Up for": every(lambda value: value > 0),
            "User data": yes,
            "Nodes that use it": every(lambda value: 0 <= value <= nodes),
            "How many nodes get through": every(lambda value: value == nodes),
            "Gateway traffic": each(("direction",), {"receive", "transmit"}, lambda value: value > 0),
            "Gateway packets": each(
                ("side", "direction"), {(side, way) for side in ("public", "private") for way in ("receive", "transmit")}, counted),
            "Connections": every(counted),
            "Busiest destinations": may_be_empty,
            "Connections lost": every(counted),
            "Disk free": every(lambda value: value > 0),
            "Waits for a reboot": every(counted),
        },
        "node": {
            "StaticRoutes by state": every(counted),
            "StaticRoutes without a gateway": no,
            "Conditions": may_be_empty,
            "Version": yes,
            "Gateway in use": each(("gateway",), in_use),
            "Gateway condemned": each(("gateway",), seen, lambda value: value == 0),
            "Gateway answers": each(("gateway",), seen),
            "Way out through the gateway": each(("gateway",), seen),
            "Expected address": each(("gateway",), {truth.gateway}),
            "Packets of full size": each(("gateway",), {truth.gateway}),
            "Probe answers, 99th percentile": each(("level",), {"reachability", "forwarding"}, share),
            "Probes answered": each(("level",), {"reachability", "forwarding"}, share),
            "Switches": every(counted),
            "Destinations in the kernel": equal(("instance",), {(truth.node,): destinations[truth.node]}),
            "Repairs": every(counted),
            "Changes, refusals, rollbacks": every(counted),
            "Tests of the node itself": may_be_empty,
            "Routed before its guards stood": every(counted),
            "Last failover took": every(counted),
        },
        "capacity": {
            "Ports of the busiest destination in use": each(("instance",), ports, lambda value: 0 <= value < 1),
            "Time until ports run out": may_be_empty,
            "Busiest destinations": may_be_empty,
            "Connection table in use": each(("instance",), ports, lambda value: 0 <= value < 1),
            "Time until the connection table is full": may_be_empty,
            "Bandwidth in use": each(
                ("instance", "direction"), {(name, way) for name in ports for way in ("receive", "transmit")}, lambda value: 0 < value < 1),
            "Packets": each(("instance", "direction"), {(name, way) for name in ports for way in ("receive", "transmit")}, counted),
            "Connections lost": every(counted),
            "Sent to the internet in a day": each(("instance",), ports, counted),
        },
    }


# The two numbers behind a quotient: a half of nothing is right by chance.
BEHIND = {
    "Nodes applied / total": lambda truth: {name: [float(part) for part in one["nodes"].split("/")] for name, one in truth.gateways.items()},
    "Proven gateways / asked for": lambda truth: {
        name: [float(part) for part in one["gatewaysReady"].split("/")] for name, one in truth.gateways.items()},
}
