//! The flags of a program as its `settings.rs` states them, as part of the schema of the chart's values: `--roll-pause-seconds` is
//! `settings.rollPauseSeconds`, explained in the program's own words.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

/// Flags that the manifests set themselves.
const OF_THE_MANIFESTS: [&str; 7] =
    ["admin-listen", "daemonset", "namespace", "node-name", "pod-name", "protected-list", "token-secret"];

/// What a flag's type does not say. A bound here is one that is of use, within what the program takes.
fn bounds(flag: &str) -> Option<Value> {
    let between = |minimum: u64, maximum: u64| Some(json!({"minimum": minimum, "maximum": maximum}));
    match flag {
        "digitalocean-api" => Some(json!({"pattern": "^https?://[^/ ]+$"})),
        "settle-seconds" => between(1, 3600),
        "bring-up-seconds" => between(60, 7200),
        "replace-after-seconds" => between(5, 3600),
        "power-on-seconds" | "lost-after-seconds" | "forget-node-after-seconds" => between(10, 3600),
        "user-data-spread-seconds" => between(0, 2_592_000),
        "max-droplets" => between(1, 10_000),
        "roll-pause-seconds" | "firewall-age-seconds" | "reserved-ip-age-seconds" => between(5, 86_400),
        "table" => Some(json!({"minimum": 1, "not": {"enum": [135, 200, 253, 254, 255, 2004, 2005]}})),
        "probe-tables" => between(1, 4_294_967_264),
        "rule-priorities" => between(113, 15_033),
        "probe-ports" => between(61_000, 63_424),
        "nexthop-ids" => {
            Some(json!({"minimum": 241_000_000, "maximum": 249_000_000, "multipleOf": 1_000_000}))
        }
        _ => None,
    }
}

/// One flag.
#[derive(Debug, Default)]
struct Flag {
    words: Vec<String>,
    attribute: String,
    name: String,
    kind: String,
}

/// The schema of `settings` of a program: an object with a property for each flag.
pub fn schema(root: &Path, program: &str) -> Result<Value> {
    let file = format!("crates/{program}/src/settings.rs");
    let source = std::fs::read_to_string(root.join(&file)).with_context(|| file.clone())?;
    let mut properties = Map::new();
    for flag in flags(&source).with_context(|| file.clone())? {
        if !OF_THE_MANIFESTS.contains(&flag.flag().as_str()) {
            properties.insert(flag.key(), flag.schema().with_context(|| format!("{file}: {}", flag.name))?);
        }
    }
    ensure!(!properties.is_empty(), "{file} has no flags");
    Ok(json!({
        "type": "object",
        "description": format!(
            "Flags of egress-{program}, by their names: `logFormat` is `--log-format`. What is left out is the program's own default."
        ),
        "default": {},
        "additionalProperties": false,
        "properties": properties,
    }))
}

fn flags(source: &str) -> Result<Vec<Flag>> {
    let (_, body) = source.split_once("pub struct Settings {").context("no struct Settings")?;
    let (body, _) = body.split_once("\n}").context("struct Settings does not end")?;
    let mut flags = Vec::new();
    let mut flag = Flag::default();
    for line in body.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("/// ") {
            flag.words.push(words.to_owned());
        } else if let Some((name, kind)) =
            line.strip_prefix("pub ").and_then(|line| line.trim_end_matches(',').split_once(": "))
        {
            let Flag { words, attribute, .. } = std::mem::take(&mut flag);
            ensure!(attribute.contains("long"), "{name} is no flag");
            flags.push(Flag { words, attribute, name: name.to_owned(), kind: kind.to_owned() });
        } else if !line.is_empty() {
            // `#[arg(...)]`, on one line or several.
            flag.attribute += line;
        }
    }
    Ok(flags)
}

impl Flag {
    fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    fn key(&self) -> String {
        let mut parts = self.name.split('_');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |key, part| {
            let (head, tail) = part.split_at(part.len().min(1));
            key + &head.to_uppercase() + tail
        })
    }

    fn schema(&self) -> Result<Value> {
        let cidr = r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}$";
        let mut schema = match self.kind.as_str() {
            "bool" => json!({"type": "boolean"}),
            "u16" => json!({"type": "integer", "minimum": 0, "maximum": u16::MAX}),
            // Larger ones no number in JSON holds exactly.
            "u32" | "u64" => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            "String" => json!({"type": "string", "minLength": 1}),
            "Option<Host>" => {
                json!({"type": "string", "pattern": r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?$"})
            }
            "Ipv4Net" | "Option<Ipv4Net>" => json!({"type": "string", "pattern": cidr}),
            "Vec<Ipv4Net>" => {
                json!({"type": "array", "uniqueItems": true, "items": {"type": "string", "pattern": cidr}})
            }
            "Vec<String>" => json!({"type": "array", "uniqueItems": true,
                "items": {"type": "string", "pattern": "^[^, ]+$"}}),
            kind if kind.ends_with("Format") => json!({"type": "string", "enum": ["json", "text"]}),
            kind => {
                bail!("what the chart's values should take for {kind} is not known: xtask/src/chart/flags.rs")
            }
        };
        let object = schema.as_object_mut().context("a schema is an object")?;
        self.range(object)?;
        if let Some(Value::Object(bounds)) = bounds(&self.flag()) {
            object.extend(bounds);
        }
        object.insert("description".to_owned(), self.description().into());
        Ok(schema)
    }

    // `value_parser = clap::value_parser!(u32).range(5..)`
    fn range(&self, schema: &mut Map<String, Value>) -> Result<()> {
        let Some((_, range)) = self.attribute.split_once(".range(") else { return Ok(()) };
        let range = range.split(')').next().unwrap_or_default();
        let (first, last) = range.split_once("..").context("a range has two dots")?;
        let last = last.trim_start_matches('=');
        for (bound, number) in [("minimum", first), ("maximum", last)] {
            if !number.is_empty() {
                schema.insert(bound.to_owned(), number.replace('_', "").parse::<u64>()?.into());
            }
        }
        Ok(())
    }

    fn description(&self) -> String {
        let words = self.words.join(" ");
        match self.stated_default() {
            Some(default) => format!("{words} Default: `{default}`."),
            None => words,
        }
    }

    // Where the attribute states it as a literal.
    fn stated_default(&self) -> Option<String> {
        if let Some((_, rest)) = self.attribute.split_once("default_value = \"") {
            return rest.split('"').next().map(str::to_owned);
        }
        let (_, rest) = self.attribute.split_once("default_value_t = ")?;
        let number = rest.split([',', ')']).next()?.replace('_', "");
        number.parse::<u64>().is_ok().then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
pub struct Settings {
    /// Namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "egress-gateway")]
    pub namespace: String,

    /// Address of DigitalOcean's API; another one
    /// only for a proxy.
    #[arg(long, value_name = "URL", default_value = Client::DEFAULT_ADDRESS)]
    pub digitalocean_api: String,

    /// How long.
    #[arg(
        long,
        default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(5..=100)
    )]
    pub some_pause_seconds: u32,

    /// Names.
    #[arg(long, value_delimiter = ',', default_value = "a.example,b.example")]
    pub names: Vec<String>,
}
"#;

    #[test]
    fn each_flag_is_a_value_with_the_programs_own_words_bounds_and_default() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("crates/x/src")).unwrap();
        std::fs::write(folder.path().join("crates/x/src/settings.rs"), SOURCE).unwrap();
        let schema = schema(folder.path(), "x").unwrap();
        assert_eq!(
            schema["properties"],
            json!({
                "digitaloceanApi": {"type": "string", "minLength": 1, "pattern": "^https?://[^/ ]+$",
                    "description": "Address of DigitalOcean's API; another one only for a proxy."},
                "somePauseSeconds": {"type": "integer", "minimum": 5, "maximum": 100,
                    "description": "How long. Default: `86400`."},
                "names": {"type": "array", "uniqueItems": true, "items": {"type": "string", "pattern": "^[^, ]+$"},
                    "description": "Names. Default: `a.example,b.example`."},
            })
        );
    }

    #[test]
    fn a_flag_of_an_unknown_type_must_be_thought_of() {
        let source = SOURCE.replace("pub names: Vec<String>", "pub names: Url");
        let flags = flags(&source).unwrap();
        let error = flags.iter().find_map(|flag| flag.schema().err()).unwrap();
        assert!(error.to_string().contains("Url is not known"), "{error}");
    }
}
