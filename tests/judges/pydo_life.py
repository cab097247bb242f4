#!/usr/bin/env python3
"""Drive the simulator through the whole life of a Droplet, a reserved IP, a firewall, a project, an SSH key and tags
with pydo, DigitalOcean's own client.

    python3 -m venv VENV && VENV/bin/pip install -r tests/judges/pydo.txt
    VENV/bin/python tests/judges/pydo_life.py --simulator target/debug/do-simulator

Starts a simulator of its own on a free port and stops it; or judges a running one with --endpoint and --token (it must
have room for two Droplets and one reserved IP). Exits 0 when every step showed what it must, 1 at the first that did
not. pydo parses every answer; what it must contain is said here.
"""

import argparse
import os
import sys
import time

from azure.core.exceptions import HttpResponseError
from pydo import Client

import simulator

TAG = "pydo-judge"
VPC = "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11"
FIXTURES = {
    "vpcs": [{"id": VPC, "name": "lab", "region": "nyc1", "ip_range": "10.116.0.0/20", "default": True}],
    "ssh_keys": [{"id": 289794, "name": "ops", "public_key": "ssh-ed25519 AAAA ops",
                  "fingerprint": "3b:16:e4:bf:8b:00:8b:b8:59:8c:a9:d3:f0:19:fa:45"}],
}
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEaQde8iCKizUOiXlowY1iEL1yCufgjb3aiatGQNPcHb judge"
FINGERPRINT = "6e:2c:0a:9a:c3:45:cd:ce:ae:1c:e6:d4:62:46:d3:cf"
# azure-core sends bearer tokens over plain HTTP only when each call says so.
PLAIN = {"enforce_https": False}


def must(condition, what):
    if not condition:
        raise AssertionError(what)


def until(what, probe, seconds=60):
    """Polls until probe() is true."""
    deadline = time.monotonic() + seconds
    while not probe():
        must(time.monotonic() < deadline, f"{what}: not within {seconds} s")
        time.sleep(0.1)


def refused(code, text, call):
    """The call must fail with this status and this text; a documented 404 comes back as a dict instead."""
    try:
        answer = call()
    except HttpResponseError as error:
        must(error.status_code == code, f"expected {code}, got {error.status_code}: {error}")
        must(text in str(error), f"expected {text!r} in {error}")
        return
    must(code == 404 and answer.get("id") == "not_found", f"expected {code}, got {answer}")


class Life:
    def __init__(self, client):
        self.client = client
        self.steps = 0

    def step(self, what):
        self.steps += 1
        print(f"ok {self.steps} {what}", flush=True)

    def whole(self, droplet_id):
        """The Droplet, once its create (or whatever locks it) is through."""
        until(f"Droplet {droplet_id} unlocked", lambda: not self.get(droplet_id)["locked"])
        return self.get(droplet_id)

    def get(self, droplet_id):
        return self.client.droplets.get(droplet_id, **PLAIN)["droplet"]

    def gone(self, droplet_id):
        until(f"Droplet {droplet_id} gone",
              lambda: self.client.droplets.get(droplet_id, **PLAIN).get("id") == "not_found")

    def action(self, droplet_id, body):
        action = self.client.droplet_actions.post(droplet_id, body=body, **PLAIN)["action"]
        must(action["status"] == "in-progress" and action["type"] == body["type"], action)
        until(f"{body['type']} completed",
              lambda: self.client.actions.get(action["id"], **PLAIN)["action"]["status"] == "completed")
        return action

    def run(self):
        client = self.client
        account = client.account.get(**PLAIN)["account"]
        must(account["status"] == "active" and account["droplet_limit"] >= 2, account)
        self.step("account")

        must(any(r["slug"] == "nyc1" for r in client.regions.list(per_page=200, **PLAIN)["regions"]), "region nyc1")
        sizes = client.sizes.list(per_page=200, **PLAIN)["sizes"]
        size = next(s for s in sizes if s["slug"] == "s-1vcpu-1gb")
        must(size["memory"] == 1024 and size["price_monthly"] > 0 and "nyc1" in size["regions"], size)
        image = client.images.get("debian-12-x64", **PLAIN)["image"]
        must(image["distribution"] == "Debian", image)
        must(client.images.list(**PLAIN)["meta"]["total"] >= 1, "images")
        self.step("regions, sizes and images")

        vpc = next(v for v in client.vpcs.list(**PLAIN)["vpcs"] if v["region"] == "nyc1" and v["default"])
        must(client.vpcs.get(vpc["id"], **PLAIN)["vpc"]["ip_range"] == vpc["ip_range"], vpc)
        keys = [key["id"] for key in client.ssh_keys.list(**PLAIN)["ssh_keys"]]
        self.step("VPC and SSH keys")

        keys.append(self.ssh_key())

        must(client.tags.create(body={"name": TAG}, **PLAIN)["tag"]["name"] == TAG, "tag")
        body = {"name": "judge-0", "region": "nyc1", "size": "s-1vcpu-1gb", "image": "debian-12-x64",
                "vpc_uuid": vpc["id"], "ssh_keys": keys, "tags": [TAG], "user_data": "#cloud-config\n",
                "monitoring": False}
        created = client.droplets.create(body=body, **PLAIN)
        droplet_id = created["droplet"]["id"]
        must(created["droplet"]["status"] == "new", created)
        must(created["droplet"]["networks"]["v4"] == [], "addresses right after create")
        must(created["links"]["actions"][0]["rel"] == "create", created["links"])
        self.step("create is accepted: new, without addresses")

        refused(422, "Droplet already has a pending event.",
                lambda: client.droplet_actions.post(droplet_id, body={"type": "reboot"}, **PLAIN))
        self.step("one event at a time")

        droplet = self.whole(droplet_id)
        must(droplet["status"] == "active", droplet["status"])
        kinds = sorted(network["type"] for network in droplet["networks"]["v4"])
        must(kinds == ["private", "public"], kinds)
        must(droplet["vpc_uuid"] == vpc["id"] and droplet["tags"] == [TAG], droplet)
        create = client.droplet_actions.list(droplet_id, **PLAIN)["actions"][0]
        must(create["type"] == "create" and create["status"] == "completed", create)
        same = client.droplet_actions.get(droplet_id, create["id"], **PLAIN)["action"]
        must(same == create, same)
        self.step("active with both addresses, create action completed")

        until("the tag index lists it",
              lambda: [d["id"] for d in client.droplets.list(tag_name=TAG, **PLAIN)["droplets"]] == [droplet_id])
        must(client.droplets.list(name="JUDGE-0", **PLAIN)["meta"]["total"] == 1, "list by name")
        members = client.vpcs.list_members(vpc["id"], resource_type="droplet", **PLAIN)["members"]
        must(any(member["name"] == "judge-0" for member in members), members)
        must(client.tags.get(TAG, **PLAIN)["tag"]["resources"]["droplets"]["count"] == 1, "tag count")
        self.step("found by tag, by name and in the VPC")

        for kind, status in [("power_off", "off"), ("power_on", "active"), ("reboot", "active"),
                             ("power_cycle", "active"), ("shutdown", "off"), ("power_on", "active")]:
            self.action(droplet_id, {"type": kind})
            must(self.get(droplet_id)["status"] == status, f"{kind}: {self.get(droplet_id)['status']}")
        self.action(droplet_id, {"type": "rename", "name": "judge-1"})
        must(self.get(droplet_id)["name"] == "judge-1", "rename")
        self.step("powered off and on, rebooted, cycled, shut down, renamed")

        resources = {"resources": [{"resource_id": str(droplet_id), "resource_type": "droplet"}]}
        client.tags.create(body={"name": TAG + "-2"}, **PLAIN)
        client.tags.assign_resources(TAG + "-2", body=resources, **PLAIN)
        must(TAG + "-2" in self.get(droplet_id)["tags"], "assigned tag")
        client.tags.unassign_resources(TAG + "-2", body=resources, **PLAIN)
        must(self.get(droplet_id)["tags"] == [TAG], "unassigned tag")
        client.tags.delete(TAG + "-2", **PLAIN)
        refused(404, "", lambda: client.tags.get(TAG + "-2", **PLAIN))
        self.step("tagged and untagged")

        self.reserved_ip(droplet_id)
        self.firewall(droplet_id)
        self.project(droplet_id)

        refused(422, "invalid size", lambda: client.droplets.create(body={**body, "size": "s-99"}, **PLAIN))
        refused(422, "hostname", lambda: client.droplets.create(body={**body, "name": "a_b"}, **PLAIN))
        refused(422, "User data", lambda: client.droplets.create(body={**body, "user_data": "x" * 65537}, **PLAIN))
        self.step("bad creates are refused")

        many = {key: value for key, value in body.items() if key != "name"}
        second = client.droplets.create(body={**many, "names": ["judge-2"]}, **PLAIN)["droplets"][0]["id"]
        self.whole(second)
        client.droplets.destroy(droplet_id, **PLAIN)
        refused(404, "", lambda: client.droplets.destroy(droplet_id, **PLAIN))
        self.gone(droplet_id)
        until("the tag index knows both", lambda: [d["id"] for d in client.droplets.list(tag_name=TAG, **PLAIN)["droplets"]] == [second])
        client.droplets.destroy_by_tag(tag_name=TAG, **PLAIN)
        self.gone(second)
        client.tags.delete(TAG, **PLAIN)
        must(client.droplets.list(tag_name=TAG, **PLAIN)["meta"]["total"] == 0, "left by tag")
        self.step("deleted by id and by tag; nothing is left")

        client.ssh_keys.delete(keys[-1], **PLAIN)
        refused(404, "", lambda: client.ssh_keys.get(keys[-1], **PLAIN))
        refused(404, "", lambda: client.ssh_keys.delete(FINGERPRINT, **PLAIN))
        refused(422, f"{keys[-1]} are invalid key identifiers", lambda: client.droplets.create(body={**body, "ssh_keys": keys}, **PLAIN))
        self.step("SSH key deleted")

    def ssh_key(self):
        client = self.client
        refused(422, "Key invalid", lambda: client.ssh_keys.create(body={"name": "judge", "public_key": "ssh-rsa !"}, **PLAIN))
        key = client.ssh_keys.create(body={"name": "judge", "public_key": PUBLIC_KEY}, **PLAIN)["ssh_key"]
        must(key["fingerprint"] == FINGERPRINT and key["public_key"] == PUBLIC_KEY, key)
        refused(422, "already in use", lambda: client.ssh_keys.create(body={"name": "twice", "public_key": PUBLIC_KEY}, **PLAIN))
        must(client.ssh_keys.get(FINGERPRINT, **PLAIN)["ssh_key"] == key, "by fingerprint")
        renamed = client.ssh_keys.update(key["id"], body={"name": "judge-2"}, **PLAIN)["ssh_key"]
        must(renamed == {**key, "name": "judge-2"}, renamed)
        must(renamed in client.ssh_keys.list(per_page=200, **PLAIN)["ssh_keys"], "list")
        self.step("SSH key created, found by id and fingerprint, renamed")
        return key["id"]

    def reserved_ip(self, droplet_id):
        client = self.client
        address = client.reserved_ips.create(body={"region": "nyc1"}, **PLAIN)["reserved_ip"]["ip"]
        body = {"type": "assign", "droplet_id": droplet_id}
        action = client.reserved_ips_actions.post(address, body=body, **PLAIN)["action"]
        must(client.reserved_ips.get(address, **PLAIN)["reserved_ip"]["locked"], "locked while it moves")
        until("assigned", lambda: not client.reserved_ips.get(address, **PLAIN)["reserved_ip"]["locked"])
        must(client.reserved_ips.get(address, **PLAIN)["reserved_ip"]["droplet"]["id"] == droplet_id, "holder")
        must(client.reserved_ips_actions.get(address, action["id"], **PLAIN)["action"]["status"] == "completed", "action")
        client.reserved_ips_actions.post(address, body={"type": "unassign"}, **PLAIN)
        until("unassigned", lambda: client.reserved_ips.get(address, **PLAIN)["reserved_ip"]["droplet"] is None)
        until("unlocked", lambda: not client.reserved_ips.get(address, **PLAIN)["reserved_ip"]["locked"])
        client.reserved_ips.delete(address, **PLAIN)
        left = [ip["ip"] for ip in client.reserved_ips.list(**PLAIN)["reserved_ips"]]
        must(address not in left, left)
        self.step("reserved IP created, assigned, unassigned, deleted")

    def firewall(self, droplet_id):
        client = self.client
        rule = {"protocol": "tcp", "ports": "9181", "sources": {"addresses": ["203.0.113.21"]}}
        body = {"name": "judge-wall", "tags": [TAG], "inbound_rules": [rule], "outbound_rules": [
            {"protocol": "udp", "ports": "all", "destinations": {"addresses": ["0.0.0.0/0"]}}]}
        refused(422, "tag judge-unknown does not exist",
                lambda: client.firewalls.create(body={**body, "tags": ["judge-unknown"]}, **PLAIN))
        wall = client.firewalls.create(body=body, **PLAIN)["firewall"]
        must(wall["pending_changes"] == [{"droplet_id": droplet_id, "removing": False, "status": "waiting"}], wall)
        refused(409, "duplicate name", lambda: client.firewalls.create(body=body, **PLAIN))

        def get():
            return client.firewalls.get(wall["id"], **PLAIN)["firewall"]

        def settled():
            until("the firewall acts", lambda: get()["status"] == "succeeded" and get()["pending_changes"] == [])

        settled()
        must(get()["inbound_rules"] == [rule] and get()["outbound_rules"][0]["ports"] == "0", get())
        must([w["id"] for w in client.droplets.list_firewalls(droplet_id, **PLAIN)["firewalls"]] == [wall["id"]], "of the Droplet")
        must(client.firewalls.list(**PLAIN)["meta"]["total"] == 1, "list")
        more = {"inbound_rules": [{"protocol": "icmp", "ports": "0", "sources": {"droplet_ids": [droplet_id]}}]}
        client.firewalls.assign_droplets(wall["id"], body={"droplet_ids": [droplet_id]}, **PLAIN)
        client.firewalls.delete_tags(wall["id"], body={"tags": [TAG]}, **PLAIN)
        client.firewalls.add_rules(wall["id"], body=more, **PLAIN)
        must(get()["droplet_ids"] == [droplet_id] and get()["tags"] == [] and len(get()["inbound_rules"]) == 2, get())
        client.firewalls.delete_rules(wall["id"], body=more, **PLAIN)
        client.firewalls.add_tags(wall["id"], body={"tags": [TAG]}, **PLAIN)
        client.firewalls.delete_droplets(wall["id"], body={"droplet_ids": [droplet_id]}, **PLAIN)
        settled()
        shorter = client.firewalls.update(wall["id"], body={"name": "judge-wall", "inbound_rules": [rule]}, **PLAIN)["firewall"]
        must(shorter["tags"] == [] and shorter["outbound_rules"] == [] and shorter["pending_changes"][0]["removing"], shorter)
        settled()
        client.firewalls.delete(wall["id"], **PLAIN)
        refused(404, "", lambda: client.firewalls.get(wall["id"], **PLAIN))
        self.step("firewall created, changed part by part and whole, deleted")

    def project(self, droplet_id):
        client = self.client
        body = {"name": "judge", "purpose": "Service or API", "environment": "Staging"}
        project = client.projects.create(body=body, **PLAIN)["project"]
        must(project["environment"] == "Staging" and not project["is_default"], project)
        refused(409, "already in use", lambda: client.projects.create(body=body, **PLAIN))
        must(client.projects.get(project["id"], **PLAIN)["project"] == project, "get")
        must(project in client.projects.list(per_page=200, **PLAIN)["projects"], "list")
        default = client.projects.get_default(**PLAIN)["project"]
        must(default["is_default"] and default["id"] != project["id"], default)

        address = client.reserved_ips.create(body={"region": "nyc1"}, **PLAIN)["reserved_ip"]["ip"]
        members = {"resources": [f"do:droplet:{droplet_id}", f"do:floatingip:{address}"]}

        def inside():
            return [resource["urn"] for resource in client.projects.list_resources(project["id"], **PLAIN)["resources"]]

        assigned = client.projects.assign_resources(project["id"], body=members, **PLAIN)["resources"]
        must([one["status"] for one in assigned] == ["assigned"] * 2 and inside() == members["resources"], assigned)
        must(client.reserved_ips.get(address, **PLAIN)["reserved_ip"]["project_id"] == project["id"], "project of the address")
        self.refused_delete(project["id"])
        client.projects.assign_resources_default(body=members, **PLAIN)
        must(inside() == [], inside())
        client.reserved_ips.delete(address, **PLAIN)

        patched = client.projects.patch(project["id"], body={"description": "of the judge"}, **PLAIN)["project"]
        must(patched["description"] == "of the judge" and patched["name"] == "judge", patched)
        whole = {"name": "judge-2", "description": "", "purpose": "IoT", "environment": "Development", "is_default": False}
        updated = client.projects.update(project["id"], body=whole, **PLAIN)["project"]
        must(all(updated[field] == value for field, value in whole.items()), updated)
        client.projects.delete(project["id"], **PLAIN)
        refused(404, "", lambda: client.projects.get(project["id"], **PLAIN))
        self.step("project created, filled, emptied, changed in part and whole, deleted")

    def refused_delete(self, project_id):
        """A 412 is documented: pydo returns it as it returns a 404."""
        answer = self.client.projects.delete(project_id, **PLAIN)
        must(answer and answer.get("id") == "precondition_failed", answer)


def judge(endpoint, token):
    refused(401, "Unable to authenticate you.",
            lambda: Client(token="wrong", endpoint=endpoint).account.get(**PLAIN))
    Life(Client(token=token, endpoint=endpoint)).run()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--simulator", help="the do-simulator binary, to be started here")
    arguments.add_argument("--endpoint", help="a simulator that runs already")
    arguments.add_argument("--token", default=os.environ.get("DO_SIMULATOR_TOKEN", "dop_v1_judge"))
    chosen = arguments.parse_args()
    if chosen.endpoint:
        judge(chosen.endpoint, chosen.token)
        return
    if not chosen.simulator:
        arguments.error("--simulator or --endpoint is needed")
    with simulator.running(chosen.simulator, chosen.token, FIXTURES, "--burst-limit", "2000") as endpoint:
        judge(endpoint, chosen.token)


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        print(f"not ok: {error}", file=sys.stderr)
        sys.exit(1)
