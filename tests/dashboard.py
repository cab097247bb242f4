#!/usr/bin/env python3
"""Runs every query of the dashboard in a real Prometheus that scrapes the running lab, compares what it returns with what the lab
has by kubectl's word, then kills an active gateway and looks for the failover. Fails on a panel that shows nothing or something else.

    tests/dashboard.py --lab target/release/egress-lab --name demo --kubectl KUBECTL --kubeconfig FILE

The lab's networks have no route to this one, so Prometheus scrapes through a proxy on loopback that fetches each target from inside
the node it is on, headers included. The examples must be applied and Ready. Standard library only.
"""

import argparse
import http.server
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

DASHBOARD = pathlib.Path(__file__).parent.parent / "deploy" / "monitoring" / "gateway-health.json"
# A rate needs two scrapes; a busy machine may need a while for the first.
PATIENCE_S = 60


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def targets(kubectl):
    """(job, instance, lab node to fetch from, URL) of everything that has metrics."""
    found = []
    pods = json.loads(kubectl("-n", "egress-gateway", "get", "pods", "-o", "json"))["items"]
    for pod in pods:
        app = pod["metadata"]["labels"]["app.kubernetes.io/name"]
        port = {"egress-controller": 9190, "egress-agent": 9191}[app]
        address = f"{pod['status']['podIP']}:{port}"
        found.append((app, pod["spec"]["nodeName"], pod["spec"]["nodeName"], f"http://{address}/metrics"))
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    node = nodes[0]["metadata"]["name"]
    for gateway in json.loads(kubectl("get", "egressgateways", "-o", "json"))["items"]:
        for one in gateway["status"]["gateways"]:
            found.append(("gateway", one["name"], node, f"http://{one['privateAddress']}:9180/metrics"))
    return found


def proxy(lab, by_path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            node, url = by_path[self.path]
            fetched = subprocess.run(
                [*lab, "exec", node, "--", "curl", "-sSi", "--http1.0", "--max-time", "5", url], capture_output=True, timeout=20)
            head, _, body = fetched.stdout.partition(b"\r\n\r\n")
            if fetched.returncode != 0 or b" 200 " not in head.split(b"\r\n")[0] + b" ":
                self.send_error(502, fetched.stderr.decode(errors="replace")[:200])
                return
            kind = [line.split(b":", 1)[1].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"content-type:")]
            self.send_response(200)
            self.send_header("Content-Type", kind[0].decode())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            if not isinstance(sys.exc_info()[1], ConnectionError):  # Prometheus gave up waiting: it says so itself
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def configuration(found, port):
    jobs = []
    for number, (job, instance, _, _) in enumerate(found):
        jobs.append({
            "job_name": f"{job}-{number}", "metrics_path": f"/{number}", "scrape_interval": "1s", "scrape_timeout": "1s",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"instance": instance, "job": job}}],
        })
    return json.dumps({"scrape_configs": jobs})  # JSON is YAML


def ask(port, path, **query):
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def until(what, condition):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            obstacle = condition()
        except OSError as error:
            obstacle = str(error)
        if not obstacle:
            return
        if time.monotonic() > deadline:
            sys.exit(f"{what}: {obstacle}")
        time.sleep(0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--lab", "--name", "--kubectl", "--kubeconfig"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    lab = [arguments.lab, "--name", arguments.name]

    def kubectl(*words):
        return run(arguments.kubectl, "--kubeconfig", arguments.kubeconfig, *words)

    found = targets(kubectl)
    jobs = {job for job, *_ in found}
    if jobs != {"egress-controller", "egress-agent", "gateway"}:
        sys.exit(f"only {sorted(jobs)} are there to be scraped")
    proxied = proxy(lab, {f"/{number}": (node, url) for number, (_, _, node, url) in enumerate(found)})
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "prometheus.yaml")
        config.write_text(configuration(found, proxied))
        port = free_port()
        with open(pathlib.Path(folder, "log"), "w", encoding="utf-8") as log:
            prometheus = subprocess.Popen(
                ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"],
                stdout=log, stderr=log)
        try:
            judge(port, len(found), kubectl, lambda machine: run(*lab, "kill", machine))
        finally:
            prometheus.terminate()
            prometheus.wait()


class Truth:
    """What the lab has, by kubectl's word."""

    def __init__(self, kubectl):
        def items(kind):
            return json.loads(kubectl("get", kind, "-o", "json"))["items"]

        self.gateways = {one["metadata"]["name"]: one["status"] for one in items("egressgateways")}
        self.nodes = {one["metadata"]["name"]: one["status"] for one in items("nodeegresses")}
        self.machines = {one["name"]: one["privateAddress"] for status in self.gateways.values() for one in status["gateways"]}
        self.in_use = {(node, one["gateway"]) for node, status in self.nodes.items() for one in status["routes"] if one.get("gateway")}


def each(labels, keys, fits=lambda value: value == 1):
    """Exactly these series by these labels, or at least them where more may be there, and every one of them fits."""
    wanted = {key if isinstance(key, tuple) else (key,) for key in keys}

    def check(series):
        values = {tuple(one["metric"].get(label) for label in labels): float(one["value"][1]) for one in series}
        absent = wanted - values.keys()
        wrong = {key: value for key, value in values.items() if key in wanted and not fits(value)}
        return f"missing {sorted(absent)}" if absent else f"unexpected {wrong}" if wrong else "" if wanted else "nothing to compare with"

    return check


def expectations(truth):
    """By panel: its complaint about the series, empty when all is as it should be."""
    names, machines = truth.gateways.keys(), truth.machines
    on_every_node = {(node, address) for node in truth.nodes for address in machines.values()}
    counts = {}
    for name, status in truth.gateways.items():
        for one in status["gateways"]:
            role = (name, one["role"].lower())
            counts[role] = counts.get(role, 0) + 1
    destinations = {node: sum(one["applied"] for one in status["routes"]) for node, status in truth.nodes.items()}

    def equal(label, truths):
        def check(series):
            values = {tuple(one["metric"].get(each) for each in label): float(one["value"][1]) for one in series}
            wrong = {key: (values.get(key), value) for key, value in truths.items() if values.get(key) != value}
            return f"(shown, true): {wrong}" if wrong else "" if truths else "nothing to compare with"

        return check

    def share(value):
        return 0 < value <= 1

    return {
        "EgressGateways": each(
            ("name", "active", "egress_ip"), {(name, one["active"], one["egressIP"]) for name, one in truth.gateways.items()}),
        "Proven gateways / asked for": each(("name",), names),
        "Nodes applied / total": each(("name",), names),
        "Gateways by role": equal(("name", "role"), counts),
        "Gateway in use, by node": each(("instance", "gateway"), truth.in_use & on_every_node),
        "Gateway answers, by node": each(("instance", "gateway"), on_every_node),
        "Way out through the gateway, by node": each(("instance", "gateway"), on_every_node),
        "Failovers": each(("instance",), truth.nodes, lambda value: value >= 0),
        "Probe answers, 99th percentile": each(("level",), {"reachability", "forwarding"}, share),
        "Probes answered": each(("level",), {"reachability", "forwarding"}, share),
        "Destinations in the kernel": equal(("instance",), {(node,): count for node, count in destinations.items()}),
        "Repairs": each(("instance",), truth.nodes, lambda value: value >= 0),
        "Calls of DigitalOcean's API": each(("result",), {"ok"}, lambda value: value >= 0),
        "Gateway says it is ready": each(("instance",), machines),
        "Gateway traffic": each(
            ("instance", "direction"), {(name, way) for name in machines for way in ("receive", "transmit")}, lambda value: value > 0),
        "Connection table in use": each(("instance",), machines, lambda value: 0 <= value < 1),
        "Ports of the busiest destination in use": each(("instance",), machines, lambda value: 0 <= value < 1),
    }


# The two numbers behind a quotient: a half of nothing is right by chance.
BEHIND = {
    "Nodes applied / total": lambda truth: {name: [float(part) for part in one["nodes"].split("/")] for name, one in truth.gateways.items()},
    "Proven gateways / asked for": lambda truth: {
        name: [float(part) for part in one["gatewaysReady"].split("/")] for name, one in truth.gateways.items()},
}


def judge(port, expected, kubectl, kill):
    def query(expression):
        return ask(port, "/api/v1/query", query=expression)["result"]

    def all_up():
        scraped = ask(port, "/api/v1/targets")["activeTargets"]
        down = [f"{one['labels']['instance']}: {one['lastError'] or 'not scraped yet'}" for one in scraped if one["health"] != "up"]
        return "; ".join(down) if len(scraped) == expected else f"{len(scraped)} of {expected} targets"

    until("all targets are scraped", all_up)
    until("a second scrape", lambda: "" if query("min(count_over_time(up[1m])) > 2") else "not yet")
    panels = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in json.loads(DASHBOARD.read_text())["panels"]}
    failed = {}

    def look():
        truth = Truth(kubectl)
        checks = expectations(truth)
        failed.clear()
        for title, expressions in panels.items():
            if title not in checks:
                failed[title] = "tests/dashboard.py does not say what it should show"
                continue
            for expression in expressions:
                series = query(expression)
                complaint = checks[title](series) if series else "no series"
                for position, part in enumerate(expression.split(" / ") if title in BEHIND else []):
                    values = {one["metric"]["name"]: float(one["value"][1]) for one in query(part)}
                    numbers = {name: both[position] for name, both in BEHIND[title](truth).items()}
                    if not complaint and values != numbers:
                        complaint = f"{part} is {values} instead of {numbers}"
                if complaint:
                    failed[title] = complaint
        return "; ".join(f"{title}: {complaint}" for title, complaint in failed.items())

    try:
        until("every panel shows what the lab has", look)
    except SystemExit as obstacle:
        print(obstacle)
    kill(Truth(kubectl).gateways["demo"]["active"])
    afterwards = {"Failovers": each(("instance",), Truth(kubectl).nodes, lambda value: value > 0),
                  "Calls of DigitalOcean's API": each(("result",), {"ok"}, lambda value: value > 0)}
    for title, check in afterwards.items():
        try:
            until(f"after the active gateway of demo died: {title}", lambda title=title, check=check: check(query(panels[title][0])))
        except SystemExit as obstacle:
            failed[title] = str(obstacle)
    for title in panels:
        print(f"FAIL  {title}: {failed[title]}" if title in failed else f"ok    {title}")
    print(f"{len(panels) - len(failed)} passed, {len(failed)} failed")
    if failed:
        sys.exit(1)


main()
