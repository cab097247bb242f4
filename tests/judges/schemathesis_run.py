#!/usr/bin/env python3
"""Let schemathesis judge the simulator by DigitalOcean's description.

It makes up requests from the description, good ones and bad ones, and judges every answer by it. So that it gets beyond
404s, one thing of every kind is made first and named to it; its deletes take others. What is not judged, and why:

- that a request which the description allows is taken: the API refuses many for its state (an unknown tag, a size that a
  region has not, a page beyond what a number can say), here as there;
- what becomes of methods that a path does not have: the description does not say.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request

import simulator

TOKEN = "dop_v1_judge"
VPC = "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11"
DROPLET = 412345601
FIXTURES = {
    "account": {"droplet_limit": 100000, "floating_ip_limit": 50},
    "vpcs": [{"id": VPC, "name": "lab", "region": "nyc1", "ip_range": "10.116.0.0/16", "default": True}],
    "ssh_keys": [{"id": 289794, "name": "ops", "public_key": "ssh-ed25519 AAAA ops",
                  "fingerprint": "3b:16:e4:bf:8b:00:8b:b8:59:8c:a9:d3:f0:19:fa:45"}],
    "tags": ["judged", "base-image", "frontend"],
    "droplets": [{"id": DROPLET, "name": "judged", "vpc": VPC, "tags": ["judged"], "public_address": "203.0.113.11",
                  "private_address": "10.116.0.2", "anchor_address": "10.17.0.77"}],
}
# Of what the simulator does not have (docs/digitalocean-description.md) there is nothing to judge but its 404.
PATHS = "^/v2/(account|actions|droplets|firewalls|images|projects|regions|sizes|reserved_ips|reserved_ipv6|tags|vpcs)"
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
          "response_schema_conformance", "negative_data_rejection", "ignored_auth", "use_after_free",
          "ensure_resource_availability"]


def ask(endpoint, method, path, body=None):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(endpoint + path, data, headers, method=method)) as answer:
        return json.load(answer)


def made(endpoint):
    """Something of every kind, as the values of the parameters that name it."""
    rule = {"protocol": "tcp", "ports": "80", "sources": {"addresses": ["0.0.0.0/0"]}}
    wall = ask(endpoint, "POST", "/v2/firewalls", {"name": "judged", "droplet_ids": [DROPLET], "inbound_rules": [rule]})
    address = ask(endpoint, "POST", "/v2/reserved_ips", {"region": "nyc1"})["reserved_ip"]["ip"]
    assign = {"type": "assign", "droplet_id": DROPLET}
    action = ask(endpoint, "POST", f"/v2/reserved_ips/{address}/actions", assign)["action"]["id"]
    project = ask(endpoint, "POST", "/v2/projects", {"name": "judged", "purpose": "IoT"})["project"]["id"]
    return {"droplet_id": DROPLET, "project_id": project, "firewall_id": wall["firewall"]["id"], "reserved_ip": address, "action_id": action,
            "tag_id": "judged", "vpc_id": VPC, "ssh_key_identifier": 289794,
            "image_id": "debian-12-x64"}


def configuration(values):
    lines = ["[[operations]]", "exclude-method = \"DELETE\"", "[operations.parameters]"]
    return "\n".join([*lines, *(f"\"path.{name}\" = {json.dumps(value)}" for name, value in values.items()), ""])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--simulator", required=True, help="the do-simulator binary")
    arguments.add_argument("--description", required=True, help="openapi.yaml")
    arguments.add_argument("--seconds", default="120")
    arguments.add_argument("--seed", default="1")
    chosen = arguments.parse_args()
    options = ["--burst-limit", "100000000", "--hourly-limit", "100000000"]
    with simulator.running(chosen.simulator, TOKEN, FIXTURES, *options) as endpoint, tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "schemathesis.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(configuration(made(endpoint)))
        command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "--config-file", path, "run",
                   chosen.description, "--url", endpoint, "--header", f"Authorization: Bearer {TOKEN}",
                   "--include-path-regex", PATHS, "--phases", "examples,coverage,fuzzing", "--max-examples", "1000",
                   "--max-time", chosen.seconds, "--seed", chosen.seed, "--generation-database", "none",
                   "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off",
                   "--checks", ",".join(CHECKS)]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
