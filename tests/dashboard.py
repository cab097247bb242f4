#!/usr/bin/env python3
"""Runs every query of the dashboard in a real Prometheus that scrapes the running lab; fails on one that returns nothing.

    tests/dashboard.py --lab target/release/egress-lab --name demo --kubectl KUBECTL --kubeconfig FILE

The lab's networks have no route to this one, so Prometheus scrapes through a proxy on loopback that fetches each target from inside
the node it is on, headers included. An EgressGateway with proven gateways must be there. Standard library only.
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

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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
            judge(port, len(found))
        finally:
            prometheus.terminate()
            prometheus.wait()


def judge(port, expected):
    def all_up():
        scraped = ask(port, "/api/v1/targets")["activeTargets"]
        down = [f"{one['labels']['instance']}: {one['lastError'] or 'not scraped yet'}" for one in scraped if one["health"] != "up"]
        return "; ".join(down) if len(scraped) == expected else f"{len(scraped)} of {expected} targets"

    until("all targets are scraped", all_up)
    until("a second scrape", lambda: "" if ask(port, "/api/v1/query", query="min(count_over_time(up[1m])) > 2")["result"] else "not yet")
    failed = []
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    for title, expression in queries:
        rows = len(ask(port, "/api/v1/query", query=expression)["result"])
        print(f"{'ok  ' if rows else 'FAIL'}  {title}: {rows} series")
        if not rows:
            failed.append(title)
    print(f"{len(queries) - len(failed)} passed, {len(failed)} failed")
    if failed:
        sys.exit(1)


main()
