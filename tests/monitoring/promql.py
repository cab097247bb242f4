"""As much of PromQL as it takes to see what a query asks for. Whether it is PromQL, promtool says."""

import re

# What Prometheus itself puts on every series, and on those that it makes of alerts.
TARGET_LABELS = {"instance", "job"}
OWN_SERIES = {"ALERTS": {"alertname", "alertstate", "severity", "name", "gateway"}}

KEYWORDS = set("by without on ignoring group_left group_right and or unless bool offset".split())
FUNCTIONS = set("sum max min count avg topk rate increase changes deriv predict_linear absent vector label_replace histogram_quantile "
                "time round".split())


def complaints(expression, series):
    """What is wrong with the names in it. `series`: what there is, by name, with .labels and .words."""
    found, known_labels = [], set(TARGET_LABELS)
    selectors = re.findall(r"([a-zA-Z_:][\w:]*)\s*\{(.*?)\}", expression, re.S)
    bare = re.sub(r"\{.*?\}", "", re.sub(r'"[^"]*"', '""', expression), flags=re.S)
    groupings = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", bare)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    names = [name for name in re.findall(r"(?<![\w.$])[a-zA-Z_:][\w:]*", bare) if name not in KEYWORDS | FUNCTIONS]
    for name in names:
        if name in OWN_SERIES:
            known_labels |= OWN_SERIES[name]
        elif name in series:
            known_labels |= series[name].labels
        else:
            found.append(f"no program exports {name}")
    for name, matchers in selectors:
        if name not in series:
            continue
        for label, value in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers):
            if label in TARGET_LABELS:
                continue
            if label not in series[name].labels:
                found.append(f"{name} has no label {label}")
            for one in value.split("|"):
                if "$" not in one and one not in series[name].words:
                    found.append(f"{name}: no program says {label}=\"{one}\"")
    for grouping in groupings:
        for label in filter(None, re.split(r"[\s,]+", grouping)):
            if label not in known_labels:
                found.append(f"nothing in it has the label {label}")
    if not names:
        found.append("it asks for nothing")
    return found
