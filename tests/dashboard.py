#!/usr/bin/env python3
"""Runs every query of the dashboards and every rule in a real Prometheus that scrapes the running lab, compares what it returns with
what the lab has by kubectl's word, then kills an active gateway and looks for the failover and its alert. Fails on a panel that shows
nothing or something else, on a rule that does not run, and on an alert in a lab that is well.

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

sys.path.insert(0, str(pathlib.Path(__file__).parent / "monitoring"))
from exported import exported
from panels import BEHIND, each, expectations

MONITORING = pathlib.Path(__file__).parent.parent / "deploy" / "monitoring"
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
            address = f"{one['privateAddress']}:9180"
            found.append(("gateway", address, node, f"http://{address}/metrics"))
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
    rules = str((MONITORING / "rules.yaml").resolve())
    return json.dumps({"global": {"evaluation_interval": "1s"}, "rule_files": [rules], "scrape_configs": jobs})  # JSON is YAML


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
        self.machines = {one["privateAddress"] for status in self.gateways.values() for one in status["gateways"]}
        demo = self.gateways["demo"]
        # What the drop-downs are set to.
        self.gateway = next(one["privateAddress"] for one in demo["gateways"] if one["name"] == demo["active"])
        self.node = min(self.nodes)
        self.in_use = {(node, one["gateway"]) for node, status in self.nodes.items() for one in status["routes"] if one.get("gateway")}


def chosen(expression, truth):
    """With the drop-downs set."""
    return expression.replace("$gateway", truth.gateway).replace("$node", truth.node).replace("$bandwidth", "2000000000")


def told(failed):
    return "; ".join(f"{': '.join(key)}: {complaint}" for key, complaint in failed.items())


def alerts_of(port, *states):
    """Names of the alerts in one of these states."""
    return {one["labels"]["alertname"] for one in ask(port, "/api/v1/alerts")["alerts"] if one["state"] in states}


def judge(port, expected, kubectl, kill):
    def query(expression):
        return ask(port, "/api/v1/query", query=expression)["result"]

    def all_up():
        scraped = ask(port, "/api/v1/targets")["activeTargets"]
        down = [f"{one['labels']['instance']}: {one['lastError'] or 'not scraped yet'}" for one in scraped if one["health"] != "up"]
        return "; ".join(down) if len(scraped) == expected else f"{len(scraped)} of {expected} targets"

    until("all targets are scraped", all_up)
    until("a second scrape", lambda: "" if query("min(count_over_time(up[1m])) > 2") else "not yet")
    panels = {(path.stem, panel["title"]): [target["expr"] for target in panel["targets"]]
              for path in sorted((MONITORING / "dashboards").glob("*.json")) for panel in json.loads(path.read_text())["panels"]}
    failed = {}

    def look():
        truth = Truth(kubectl)
        checks = expectations(truth)
        failed.clear()
        for panel, expressions in panels.items():
            check = checks.get(panel[0], {}).get(panel[1])
            if check is None:
                failed[panel] = "tests/dashboard.py does not say what it should show"
                continue
            for expression in expressions:
                series = query(chosen(expression, truth))
                complaint = check(series)
                for position, part in enumerate(expression.split(" / ") if panel[1] in BEHIND else []):
                    values = {one["metric"]["name"]: float(one["value"][1]) for one in query(part)}
                    numbers = {name: both[position] for name, both in BEHIND[panel[1]](truth).items()}
                    if not complaint and values != numbers:
                        complaint = f"{part} is {values} instead of {numbers}"
                if complaint:
                    failed[panel] = complaint
        return told(failed)

    def try_until(what, condition, key):
        try:
            until(what, condition)
        except SystemExit as obstacle:
            failed[key] = str(obstacle)

    try:
        until("every panel shows what the lab has", look)
    except SystemExit as obstacle:
        print(obstacle)
    try_until("no alert in a lab that is well", lambda: alerts_of(port, "firing") and f"{alerts_of(port, 'firing')}", ("alerts", "none"))
    kill(Truth(kubectl).gateways["demo"]["active"])
    afterwards = {("overview", "Failovers"): each(("instance",), Truth(kubectl).nodes, lambda value: value > 0),
                  ("overview", "Calls of DigitalOcean's API"): each(("result",), {"ok"}, lambda value: value > 0)}
    for panel, check in afterwards.items():
        try_until(f"after the active gateway of demo died: {panel[1]}",
                  lambda panel=panel, check=check: check(query(panels[panel][0])), panel)
    # The others wait for longer than this test may.
    for name, states in {"EgressFailoverHappened": ("firing",), "EgressNoRedundancy": ("pending", "firing")}.items():
        try_until(f"after the active gateway of demo died: alert {name}",
                  lambda name=name, states=states: "" if name in alerts_of(port, *states) else "it is silent", ("alerts", name))
    broken = {rule["name"]: rule.get("lastError", rule["health"]) for group in ask(port, "/api/v1/rules")["groups"] for rule in group["rules"]
              if rule["health"] != "ok"}
    if broken:
        failed["alerts", "rules run"] = str(broken)
    # What tests/monitoring/check.py takes for what our programs export is what they do.
    ours = {name for name in ask(port, "/api/v1/label/__name__/values")
            if name.startswith(("egress_agent", "egress_controller", "egress_gateway_machine"))}
    unread = sorted(ours - exported().keys())
    if unread:
        failed["metrics", "read from the sources"] = f"not found there: {unread}"
    judged = [("metrics", "read from the sources"), *panels, ("alerts", "none"), ("alerts", "EgressFailoverHappened"), ("alerts", "EgressNoRedundancy"), ("alerts", "rules run")]
    for key in judged:
        name = ": ".join(key)
        print(f"FAIL  {name}: {failed[key]}" if key in failed else f"ok    {name}")
    print(f"{len(judged) - len(failed)} passed, {len(failed)} failed")
    if failed:
        sys.exit(1)


main()
