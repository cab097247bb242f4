//! The user data of a gateway, without the controller that makes it.

use std::path::Path;

/// The template with its files, as the controller renders it.
pub fn user_data(version: &str, egress_address: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cloud-init");
    let template = std::fs::read_to_string(folder.join("gateway.yaml")).expect("template");
    let mut text = String::new();
    for line in template.lines() {
        let trimmed = line.trim_start();
        if let Some(name) = trimmed.strip_prefix("{{file:").and_then(|rest| rest.strip_suffix("}}")) {
            let indent = &line[..line.len() - trimmed.len()];
            for line in std::fs::read_to_string(folder.join("files").join(name)).expect("file").lines() {
                if !line.is_empty() {
                    text.push_str(indent);
                    text.push_str(line);
                }
                text.push('\n');
            }
        } else {
            text += &line
                .replace("{{version}}", version)
                .replace("{{egress_address}}", egress_address)
                .replace("{{vpc_range}}", "10.116.0.0/20")
                .replace("{{source_ranges}}", "10.116.0.0/20,10.244.0.0/16");
            text.push('\n');
        }
    }
    text
}
