#!/usr/bin/env python3
"""Checks deploy/monitoring/: that alerts and panels ask only for what our programs export, that every alert tells a person what is the
matter and leads to a runbook, that it fires when it must and is silent when it must not (promtool), and that no panel is empty in a
cluster that is well. Reads sources; builds and starts nothing but promtool. A few seconds.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

from exported import ROOT, Series, exported
from promql import complaints

HERE = pathlib.Path(__file__).parent
RULES = ROOT / "deploy" / "monitoring" / "rules.yaml"
DASHBOARDS = ROOT / "deploy" / "monitoring" / "dashboards"
RUNBOOKS = ROOT / "docs" / "runbooks"
SEVERITIES = {"critical", "warning", "info"}
RUNBOOK_BEGINS = ("## What to look at first", "## What to do")
# Of what a drop-down offers: what tests/monitoring/healthy.yaml has.
CHOSEN = {"$gateway": "10.116.0.5", "$node": "pool-1", "$bandwidth": "2000000000"}

failed = 0


def judge(what, wrong):
    global failed
    failed += bool(wrong)
    print(f"FAIL  {what}: {'; '.join(wrong)}" if wrong else f"ok    {what}", flush=True)


def promtool(*words):
    """What it complains of."""
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=600, check=False)
    return [] if done.returncode == 0 else [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def panels():
    """(dashboard, panel) of all."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            yield path.stem, panel


def chosen(expression):
    for variable, value in CHOSEN.items():
        expression = expression.replace(variable, value)
    return expression


# ---- alerts --------------------------------------------------------------------------------------------------

def alert_faults(alert):
    found, annotations = [], alert.get("annotations", {})
    if alert.get("labels", {}).get("severity") not in SEVERITIES:
        found.append(f"severity is none of {', '.join(sorted(SEVERITIES))}")
    for name in ("summary", "description"):
        text = annotations.get(name, "")
        if not re.match(r"(?s)^[A-Z{'].{30,}\.$", text):
            found.append(f"{name} is no sentence")
    if "{{" in annotations.get("description", ""):
        found.append("description has a template: what changes belongs into summary")
    runbook = ROOT / annotations.get("runbook_url", "missing")
    if not runbook.is_file():
        return found + [f"there is no runbook {annotations.get('runbook_url')}"]
    text = runbook.read_text(encoding="utf-8")
    if alert["alert"] not in text.split("##")[0]:
        found.append(f"{runbook.name} does not name it at its beginning")
    headings = tuple(re.findall(r"^## .*$", text, re.M))[:len(RUNBOOK_BEGINS)]
    if headings != RUNBOOK_BEGINS:
        found.append(f"{runbook.name} does not begin with {' and '.join(RUNBOOK_BEGINS)}")
    return found


def strings(path):
    """What a file of cases says. Not as YAML has it: to that, 0x20 is 32, and to promtool it is twenty times more 0."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def seconds(time):
    return int(time[:-1]) * {"s": 1, "m": 60, "h": 3600}[time[-1]]


def test_of(case, alert, expected):
    """One test for promtool: of the moment at which it fires, or of every moment of the time in which it is silent."""
    pace, last = seconds(case.get("interval", "1m")), seconds(case["at"])
    moments = [last] if expected else range(seconds(case.get("from", "0s")), last + 1, pace)
    return {"name": f"{alert}: {case['why']}", "interval": case.get("interval", "1m"),
            "input_series": [{"series": name, "values": values} for name, values in case["series"].items()],
            "alert_rule_test": [{"eval_time": f"{moment}s", "alertname": alert, "exp_alerts": expected} for moment in moments]}


def tests_of(entry, rule):
    for case in entry["fires"]:
        labels = {"severity": rule["labels"]["severity"], **case["labels"]}
        yield test_of(case, entry["alert"], [{"exp_labels": labels, "exp_annotations": {**rule["annotations"], "summary": case["summary"]}}])
    for case in entry["silent"]:
        yield test_of(case, entry["alert"], [])


def outcome(folder, rules_file, tests):
    """What promtool complains of."""
    wrong, tests = [], list(tests)
    # Rules are looked at as often as values come: further apart than five minutes they would be missing in between.
    for pace in sorted({test["interval"] for test in tests}):
        some = [test for test in tests if test["interval"] == pace]
        path = folder / f"tests-{pace}.yaml"
        path.write_text(json.dumps({"rule_files": [str(rules_file)], "evaluation_interval": pace, "tests": some}), encoding="utf-8")
        wrong += promtool("test", "rules", path)
    return wrong


def check_alerts(folder, known):
    judge("rules are rules", promtool("check", "rules", RULES))
    by_name = {rule["alert"]: rule for rule in known if "alert" in rule}
    cases = strings(HERE / "alerts.yaml")
    tested = [case["alert"] for case in cases]
    judge("every alert has its test", [f"{name} has none or two" for name in by_name if tested.count(name) != 1]
          + [f"there is no alert {name}" for name in tested if name not in by_name])
    # All rules at every moment of every test would take half a minute.
    alone, recorded = folder / "alone.yaml", [rule for rule in known if "record" in rule]
    for name, rule in by_name.items():
        judge(f"{name} tells a person what to do", alert_faults(rule))
        case = next((case for case in cases if case["alert"] == name), None)
        if case is None or not case.get("fires") or not case.get("silent"):
            judge(f"{name} fires when it must and not otherwise", ["it needs cases of both kinds"])
            continue
        alone.write_text(json.dumps({"groups": [{"name": "alone", "rules": [*recorded, rule]}]}), encoding="utf-8")
        judge(f"{name} fires when it must and not otherwise", outcome(folder, alone, tests_of(case, rule)))
    linked = {rule["annotations"].get("runbook_url") for rule in by_name.values()}
    judge("no runbook without an alert", [
        f"{path.name} is nobody's" for path in RUNBOOKS.glob("*.md")
        if path.name != "README.md" and str(path.relative_to(ROOT)) not in linked])


# ---- names, and a cluster that is well ----------------------------------------------------------------------

def check_names(known):
    series = exported()
    recorded = {}
    for rule in known:
        if "record" in rule:
            origin = next(name for name in series if name in rule["expr"])
            recorded[rule["record"]] = Series(series[origin].labels, series[origin].words)
    for rule in known:
        judge(f"{rule.get('alert') or rule['record']} asks for what there is", complaints(rule["expr"], series | recorded))
    # Without our rules loaded, dashboards work all the same.
    for dashboard, panel in panels():
        wrong = [complaint for target in panel["targets"] for complaint in complaints(target["expr"], series)]
        judge(f"{dashboard}: {panel['title']} asks for what there is", wrong)
    judge("what must be refused is refused", [] if all((
        complaints("egress_agent_nonsense > 0", series), complaints('egress_agent_condition{kind="Clash"}', series),
        complaints('egress_agent_condition{condition="Clahs"}', series), complaints("sum by (colour) (egress_agent_destinations)", series),
        complaints("sum(egress_agent_failovers)", series), complaints("1", series))) else ["a wrong name was let through"])
    return series


def check_healthy(folder, series, known):
    """No alert, and no empty panel; and every name of ours is there, so that nothing is silent for want of it."""
    healthy = strings(HERE / "healthy.yaml")
    names = {re.match(r"\w+", one)[0] for one in healthy}
    asked = {name for name in series for expression in [rule["expr"] for rule in known] + [
        target["expr"] for _, panel in panels() for target in panel["targets"]] if re.search(rf"\b{name}\b", expression)}
    judge("the healthy cluster has all that is asked for", [f"{name} is missing" for name in sorted(asked - names)]
          + [f"no program exports {name}" for name in sorted(names - series.keys())])
    empty, calm = [], []
    for dashboard, panel in panels():
        for target in panel["targets"]:
            title = f"{dashboard}: {panel['title']} {target['legendFormat']}"
            rule = {"alert": f"Panel{len(empty)}", "expr": f"(count({chosen(target['expr'])}) or vector(0)) == 0", "labels": {"panel": re.sub(r"[{}]", "", title)}}
            empty.append(rule)
            if "Empty while all is well." in panel["description"]:
                calm.append(rule["alert"])
    path = folder / "panels.yaml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": empty}]}), encoding="utf-8")
    at = "70m"

    def silent(rule):
        return {"eval_time": at, "alertname": rule["alert"], "exp_alerts": []}

    def complaints_of(rules_file, expected, data):
        return outcome(folder, rules_file, [{"interval": "1m", "input_series": data, "alert_rule_test": expected}])

    data = [{"series": name, "values": values} for name, values in healthy.items()]
    judge("no alert fires in a healthy cluster", complaints_of(RULES, [silent(rule) for rule in known if "alert" in rule], data))
    judge("no panel is empty in a healthy cluster", complaints_of(path, [silent(rule) for rule in empty if rule["alert"] not in calm], data))
    fires = [{"eval_time": at, "alertname": rule["alert"], "exp_alerts": [{"exp_labels": rule["labels"]}]} for rule in empty
             if "vector(0)" not in rule["expr"].removesuffix(" or vector(0)) == 0")]
    judge("an empty panel is noticed", complaints_of(path, fires, []))


def check_documents():
    """Links of what a person is led to lead somewhere."""
    pages = [*sorted(RUNBOOKS.glob("*.md")), RULES.parent / "README.md"]
    judge("links lead somewhere", [f"{page.name}: {link}" for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
                                   if not link.startswith("http") and not (page.parent / link).is_file()])
    listed = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    judge("the list of runbooks is complete", [rule["alert"] for rule in rules() if "alert" in rule and (
        f"`{rule['alert']}` | {rule['labels']['severity']} |" not in listed or rule["annotations"]["runbook_url"].rsplit("/", 1)[1] not in listed)])


def check_configuration(folder):
    """But for what Debian's Prometheus was built without."""
    configuration = yaml.safe_load((RULES.parent / "prometheus.yaml").read_text(encoding="utf-8"))
    configuration["rule_files"] = [str(RULES.parent / name) for name in configuration["rule_files"]]
    for job in configuration["scrape_configs"]:
        job.pop("kubernetes_sd_configs", None)
    path = folder / "prometheus.yaml"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    judge("the configuration is one", promtool("check", "config", path))


def main():
    done = subprocess.run([ROOT / "scripts" / "dashboards.py", "--check"], capture_output=True, text=True, timeout=60, check=False)
    judge("dashboards are as their source has them", [done.stderr.strip()] if done.returncode else [])
    known = rules()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_alerts(folder, known)
        check_healthy(folder, check_names(known), known)
        check_configuration(folder)
    check_documents()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
