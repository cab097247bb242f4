//! A manifest becomes a template. The manifest is the source; it says in comments where the template differs:
//!
//! ```yaml
//! replicas: 2 # chart: {{ .Values.controller.replicas }}     the template has that instead of the value
//! resources: # chart: {{- toYaml .Values.x | nindent 2 }}    and of all that is nested in it
//!   requests: {cpu: 20m}
//! # chart: {{- with .Values.labels }}                        a line that only the template has
//! ```
//!
//! The namespace of the installation is that of the release, without a mark.

use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};

use super::Marked;

const MARK: &str = "# chart: ";

/// Where the namespace stands in the manifests.
const NAMESPACE: [(&str, &str); 3] = [("namespace: ", ""), ("--namespace=", ""), ("serviceaccount:", ":")];
const NAME: &str = "egress-gateway";
const RELEASE: &str = "{{ .Release.Namespace }}";

/// What a manifest becomes.
pub struct Template {
    /// The template.
    pub text: String,
    /// Values of `.Values` that stand in the manifest alone, with what the manifest has.
    pub marked: Marked,
}

/// The template of a manifest.
pub fn of_manifest(manifest: &str) -> Result<Template> {
    let mut template = Template { text: String::new(), marked: Marked::new() };
    let lines: Vec<&str> = manifest.lines().collect();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let number = at + 1;
        at += 1;
        if let Some(text) = line.trim_start().strip_prefix(MARK) {
            writeln!(template.text, "{}{text}", &line[..indentation(line)])?;
        } else if let Some((before, text)) = line.split_once(&format!(" {MARK}")) {
            let (head, value) = head_and_value(before).with_context(|| format!("line {number}"))?;
            let nested = lines[at..]
                .iter()
                .take_while(|below| value.is_empty() && indentation(below) > indentation(line))
                .count();
            writeln!(template.text, "{head} {text}")?;
            if let Some(path) = path_of(text) {
                let yaml =
                    if value.is_empty() { lines[at..at + nested].join("\n") } else { value.to_owned() };
                let value = serde_saphyr::from_str(&yaml).with_context(|| format!("line {number}"))?;
                template.marked.push((path, value));
            }
            at += nested;
        } else {
            ensure!(!line.contains("# chart"), "line {number}: a mark is written `{MARK}...`");
            let line = plain(line).with_context(|| format!("line {number}"))?;
            writeln!(template.text, "{line}")?;
        }
    }
    Ok(template)
}

/// The template of a CRD: not removed with the release, and left out where somebody else installs them.
pub fn of_definition(definition: &str) -> Result<String> {
    let (head, body) = definition.split_once("\nmetadata:\n").context("a CRD has metadata")?;
    let (metadata, _) = body.split_once("\nspec:").context("a CRD has a spec")?;
    ensure!(!metadata.contains("annotations:"), "a CRD has annotations now, beside which ours must go");
    let body = escaped(body);
    let head = escaped(head.split_once('\n').map_or(head, |(_, head)| head));
    Ok(format!(
        "{{{{- if .Values.crds.install }}}}\n{head}\nmetadata:\n  annotations: {{helm.sh/resource-policy: keep}}\n{body}{{{{- end }}}}\n"
    ))
}

// `key:` or `-`, with its indentation, and what stands behind it.
fn head_and_value(before: &str) -> Result<(&str, &str)> {
    let before = before.trim_end();
    if before.ends_with(':') {
        return Ok((before, ""));
    }
    let start = indentation(before);
    let item = before[start..].starts_with("- ");
    if let Some(colon) = before.find(": ").filter(|colon| !before[start..*colon].contains(['\'', '"', '{'])) {
        return Ok((&before[..=colon], before[colon + 1..].trim()));
    }
    ensure!(item, "a mark stands behind the value of a key or behind an item of a list");
    Ok((&before[..=start], before[start + 1..].trim()))
}

// `a.b` of a text that is that value and nothing else.
fn path_of(text: &str) -> Option<String> {
    let inner = text.strip_prefix("{{")?.trim_start_matches('-').strip_suffix("}}")?.trim();
    let inner = inner.strip_prefix("toYaml ").unwrap_or(inner);
    let (path, filters) = inner.split_once(" | ").unwrap_or((inner, "quote"));
    let path = path.strip_prefix(".Values.")?;
    (filters == "quote" || filters.starts_with("nindent ")).then(|| path.to_owned())
}

fn plain(line: &str) -> Result<String> {
    let mut text = escaped(line);
    for (before, after) in NAMESPACE {
        text = text.replace(&format!("{before}{NAME}{after}"), &format!("{before}{RELEASE}{after}"));
    }
    let known = text.replace(&format!("app.kubernetes.io/part-of: {NAME}"), "");
    if known.contains(NAME) && !known.trim_start().starts_with('#') {
        bail!("'{NAME}' stands where the namespace of a release would not be put: {line:?}");
    }
    Ok(text)
}

fn escaped(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn marks_say_where_the_template_differs_and_the_rest_is_the_same() {
        let manifest = "\
# Why.
kind: Deployment
metadata:
  namespace: egress-gateway
  labels: {app.kubernetes.io/part-of: egress-gateway}
spec:
  # One leads.
  replicas: 2 # chart: {{ .Values.replicas }}
  # chart: {{- with .Values.more }}
  # chart: more: {{ . }}
  # chart: {{- end }}
  resources: # chart: {{- toYaml .Values.resources | nindent 4 }}
    # Measured.
    requests: {cpu: 20m}
  names:
    - first # chart: {{ .Values.name | quote }}
    - --namespace=egress-gateway
    - is '{{ braces }}' 'system:serviceaccount:egress-gateway:agent'
";
        let expected = "\
# Why.
kind: Deployment
metadata:
  namespace: {{ .Release.Namespace }}
  labels: {app.kubernetes.io/part-of: egress-gateway}
spec:
  # One leads.
  replicas: {{ .Values.replicas }}
  {{- with .Values.more }}
  more: {{ . }}
  {{- end }}
  resources: {{- toYaml .Values.resources | nindent 4 }}
  names:
    - {{ .Values.name | quote }}
    - --namespace={{ .Release.Namespace }}
    - is '{{ \"{{\" }} braces }}' 'system:serviceaccount:{{ .Release.Namespace }}:agent'
";
        let template = of_manifest(manifest).unwrap();
        assert_eq!(template.text, expected);
        let marked = [
            ("replicas", json!(2)),
            ("resources", json!({"requests": {"cpu": "20m"}})),
            ("name", json!("first")),
        ];
        assert_eq!(template.marked, marked.map(|(path, value)| (path.to_owned(), value)));
    }

    #[test]
    fn what_would_be_lost_on_the_way_is_refused() {
        for (manifest, complaint) in [
            ("name: a # chart {{ .Values.name }}", "a mark is written"),
            ("name: egress-gateway", "the namespace of a release"),
            ("text # chart: {{ .Values.name }}", "a mark stands behind"),
        ] {
            let error = format!("{:#}", of_manifest(manifest).err().unwrap());
            assert!(error.starts_with("line 1: ") && error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_definition_outlives_the_release() {
        let definition = "# Header\nkind: CustomResourceDefinition\nmetadata:\n  name: a\nspec: {x: 1}\n";
        assert_eq!(
            of_definition(definition).unwrap(),
            "{{- if .Values.crds.install }}\nkind: CustomResourceDefinition\nmetadata:\n  \
            annotations: {helm.sh/resource-policy: keep}\n  name: a\nspec: {x: 1}\n{{- end }}\n"
        );
        let with = definition.replace("  name: a", "  annotations: {b: c}\n  name: a");
        assert!(of_definition(&with).is_err());
    }
}
