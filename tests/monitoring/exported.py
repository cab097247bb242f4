"""What the programs of this project export, read from their sources: name of each series, its labels, and the words of its program.

The two programs in Rust register every metric in a metrics.rs, in one form; what is written there in another form is an error here. The
gateways' program is asked itself. That what is read here is what a running program says, tests/dashboard.py shows in a lab.
"""

import dataclasses
import importlib.machinery
import importlib.util
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent.parent
# Each with the folders in whose sources the values of its labels are written.
RUST = {"crates/controller/src/metrics.rs": ("crates/controller/src", "crates/digitalocean/src", "crates/api/src"),
        "crates/agent/src/metrics.rs": ("crates/agent/src",)}
GATEWAY = "cloud-init/files/egress-gateway-health"


@dataclasses.dataclass
class Series:
    """One name that a query can ask for."""
    labels: set
    words: set  # of its program's sources: where the values of its labels are written


def words_of(folders):
    sources = (path.read_text(encoding="utf-8") for folder in folders for path in sorted((ROOT / folder).rglob("*.rs")))
    return set(re.findall(r"\w+", " ".join(sources)))


def of_rust(path, text, words):
    prefix = re.search(r'PREFIX: &str = "(\w+)"', text)[1]
    label_sets = {name: set(re.findall(r"^\s*(?:pub )?(\w+): ", body, re.M))
                  for name, body in re.findall(r"EncodeLabelSet\)\]\n(?:pub )?struct (\w+) \{\n(.*?)\n\}", text, re.S)}
    kinds = {field: (kind or family_kind, label_sets[labels] if labels else set()) for field, labels, family_kind, kind in re.findall(
        r"^    (?:pub )?(\w+): (?:Family<(\w+), (Counter|Gauge|Histogram)\b.*>|(Counter|Gauge|Histogram)(?:<.*>)?),$", text, re.M)}
    registered = re.findall(r'(\w+): metrics\.register(_seconds)?\(\s*"(\w+)",', text)
    if len(registered) != len(re.findall(r"metrics\.register", text)):
        raise SystemExit(f"{path}: a metric is not registered as `field: metrics.register(\"name\", ...)`")
    series = {f"{prefix}_build_info": Series({"version"}, words), f"{prefix}_start_time_seconds": Series(set(), words)}
    for field, seconds, name in registered:
        if field not in kinds:
            raise SystemExit(f"{path}: the type of {field} is none that tests/monitoring/exported.py knows")
        kind, labels = kinds[field]
        full = f"{prefix}_{name}{seconds}"
        if kind == "Histogram":
            series |= {f"{full}_bucket": Series(labels | {"le"}, words), f"{full}_sum": Series(labels, words),
                       f"{full}_count": Series(labels, words)}
        else:
            series[full + ("_total" if kind == "Counter" else "")] = Series(labels, words)
    return series


def of_gateway(path):
    loader = importlib.machinery.SourceFileLoader("gateway_health", str(path))
    program = importlib.util.module_from_spec(importlib.util.spec_from_loader("gateway_health", loader))
    loader.exec_module(program)
    report = {"ready": True, "secondsToReady": 1.0, "userDataVersion": "v", "errors": [], "warnings": [], "interfaces": {"public": "lo"},
              "destinations": [{"protocol": "tcp", "address": "192.0.2.1", "port": 443, "connections": 1000, "portsUsed": 0.5}]}
    text = program.metrics(report, dict.fromkeys(program.Conntrack.STATS.values(), 1))
    words = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    series = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
            series.setdefault(name, Series(set(), words)).labels.update(re.findall(r"(\w+)=", labels or ""))
    return series


def exported():
    """By name."""
    series = of_gateway(ROOT / GATEWAY)
    for path, folders in RUST.items():
        series |= of_rust(path, (ROOT / path).read_text(encoding="utf-8"), words_of(folders))
    return series
