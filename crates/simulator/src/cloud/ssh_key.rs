//! SSH keys of the team.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::paging::page;
use super::{Answer, Cloud, Refusal, Request};

/// A public key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshKey {
    /// Identity.
    pub id: u64,
    /// MD5 fingerprint with colons; also an identity.
    pub fingerprint: String,
    /// The key in OpenSSH form.
    pub public_key: String,
    /// Display name.
    pub name: String,
}

impl SshKey {
    /// Whether an id or a fingerprint names this key.
    pub fn answers_to(&self, named: &str) -> bool {
        self.fingerprint == named || named.parse() == Ok(self.id)
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id, "fingerprint": self.fingerprint, "public_key": self.public_key, "name": self.name,
        })
    }
}

impl Cloud {
    pub(super) fn list_ssh_keys(&self, request: &Request) -> Result<Answer, Refusal> {
        page(request, "ssh_keys", self.ssh_keys.len(), |i| self.ssh_keys[i].json())
    }

    pub(super) fn get_ssh_key(&self, named: &str) -> Result<Answer, Refusal> {
        let key = self.ssh_keys.iter().find(|key| key.answers_to(named)).ok_or(Refusal::NotFound)?;
        Ok(Answer::json(200, json!({"ssh_key": key.json()})))
    }
}
