"""Runs what documents tell people to run: every `kubectl` command that reads, or changes one of our objects, in a block of shell or in
backticks. Each must succeed, and one with a template must print something. The API server has the definitions and nothing else; run by
tests/documents.sh."""

import json
import pathlib
import re
import subprocess
import sys

DOCUMENTS = [pathlib.Path("README.md"), *sorted(pathlib.Path("docs").glob("*.md")), *sorted(pathlib.Path("docs/runbooks").glob("*.md"))]

# What else commands do, with pods, files or the cloud, an API server alone cannot do.
VERBS = ("get", "describe", "explain", "annotate", "patch", "wait")

# Of others, or of an installation that does not run here.
FOREIGN = re.compile(r"-n egress-gateway|crossplane|\bpods?\b|\bdaemonset\b|--watch|-w\b|\$\(|\| ")

PLACEHOLDERS = {"<name>": "demo", "<node>": "node-1", "<gateway>": "demo-0-1a2b3c4d", "NODE": "node-1"}

TIME = "2026-01-01T00:00:00Z"


def main():
    make_objects()
    commands = {}
    for document in DOCUMENTS:
        for command in commands_of(document.read_text()):
            commands.setdefault(command, document)
    if len(commands) < 20:
        sys.exit(f"documents: only {len(commands)} commands were found, so the search is broken")
    failed = [complaint for complaint in map(run, commands, commands.values()) if complaint]
    for complaint in failed:
        print(complaint, file=sys.stderr)
    if failed:
        sys.exit(f"documents: {len(failed)} of {len(commands)} commands fail")
    print(f"documents: {len(commands)} commands of documents do what they should")


def commands_of(text):
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.S | re.M)
    shell = [block.replace("\\\n", " ") for language, block in blocks if language in ("", "sh", "console")]
    lines = [line for block in shell for line in block.splitlines()]
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M)
    lines += [span.replace("\n", " ").replace("\\|", "|") for span in re.findall(r"`([^`]+)`", prose)]
    for line in lines:
        command = re.sub(r"\s+#.*$", "", line.strip().removeprefix("$ "))
        words = command.split()
        if words[:1] == ["kubectl"] and len(words) > 2 and words[1] in VERBS and not FOREIGN.search(command):
            for placeholder, value in PLACEHOLDERS.items():
                command = command.replace(placeholder, value)
            yield re.sub(r"--timeout=\d+m", "--timeout=5s", command)


def run(command, document):
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        return f"{document}: {command}\n  {done.stderr.strip()}"
    if re.search("jsonpath=|custom-columns=", command) and not done.stdout.strip():
        return f"{document}: {command}\n  prints nothing"
    return None


def make_objects():
    ours = "networking.digitalocean.com"
    for name in ("demo", "database", "all-egress", "whoami", "egress"):
        spec = {"destinations": ["192.0.2.80"], "publicIP": "Ephemeral", "nodeSelector": {"matchLabels": {"a": "b"}}}
        make(f"{ours}/v1alpha1", "EgressGateway", name, spec, egress_gateway_status())
    for name in ("demo", "partner"):
        spec = {"destinations": ["192.0.2.10"], "gateway": "10.116.0.5"}
        make(f"{ours}/v1", "StaticRoute", name, spec, {"conditions": conditions("Ready")})
    make("v1", "Node", "node-1", {}, None)
    make(f"{ours}/v1alpha1", "NodeEgress", "node-1", None, node_egress_status())


def make(version, kind, name, spec, status):
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": name}}
    kubectl("create", "-f", "-", text=json.dumps(body if spec is None else {**body, "spec": spec}))
    if status:
        patch = json.dumps({"status": status})
        kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch)


def kubectl(*arguments, text=None):
    subprocess.run(["kubectl", *arguments], input=text, text=True, check=True, stdout=subprocess.DEVNULL)


def conditions(*types):
    shared = {"status": "True", "reason": "Test", "message": "a sentence", "lastTransitionTime": TIME}
    return [{"type": type_, **shared} for type_ in types]


def egress_gateway_status():
    gateway = {"name": "demo-0-1a2b3c4d", "slot": 0, "dropletID": 1, "role": "Active", "ready": True}
    return {
        "conditions": conditions("Ready", "Progressing", "Degraded"),
        "active": gateway["name"],
        "egressIP": "203.0.113.100",
        "publicIPs": ["203.0.113.100"],
        "reservedIPs": [{"ip": "203.0.113.100", "dropletID": 1, "since": TIME}],
        "gatewaysReady": "2/2",
        "gateways": [{**gateway, "publicAddress": "203.0.113.100", "message": "a sentence"}],
        "nextRoll": {"notBefore": TIME, "gateway": gateway["name"], "reason": "a sentence", "impact": "a sentence"},
    }


def node_egress_status():
    moved = {"staticRoute": "demo", "from": "10.116.0.5", "to": "10.116.0.12", "seconds": 0.4}
    return {
        "conditions": conditions("Clash"),
        "lastFailover": {**moved, "time": TIME, "reason": "Unreachable", "evidence": "a sentence"},
    }


main()
