//! SSH keys of the team.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::paging::page;
use super::{Answer, Cloud, Refusal, Request, request};

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

    pub(super) fn create_ssh_key(&mut self, request: &Request) -> Result<Answer, Refusal> {
        let body = request.object()?;
        let required = |field: &str| {
            let given = request::text(&body, field)?.filter(|text| !text.is_empty());
            given
                .map(ToOwned::to_owned)
                .ok_or_else(|| Refusal::unprocessable(format!("{field} is required.")))
        };
        let (name, public_key) = (required("name")?, required("public_key")?);
        let fingerprint = fingerprint(&public_key).ok_or_else(|| {
            Refusal::unprocessable("Key invalid, key should be of the format `type key [comment]`")
        })?;
        if self.ssh_keys.iter().any(|key| key.fingerprint == fingerprint) {
            return Err(Refusal::unprocessable("SSH Key is already in use on your account"));
        }
        while self.ssh_keys.iter().any(|key| key.id == self.counters.ssh_key) {
            self.counters.ssh_key += 1;
        }
        let key = SshKey { id: self.counters.ssh_key, fingerprint, public_key, name };
        let answer = Answer::json(201, json!({"ssh_key": key.json()}));
        self.ssh_keys.push(key);
        Ok(answer)
    }

    pub(super) fn rename_ssh_key(&mut self, named: &str, request: &Request) -> Result<Answer, Refusal> {
        let key = self.ssh_keys.iter_mut().find(|key| key.answers_to(named)).ok_or(Refusal::NotFound)?;
        let body = request.object()?;
        if let Some(name) = request::text(&body, "name")? {
            name.clone_into(&mut key.name);
        }
        Ok(Answer::json(200, json!({"ssh_key": key.json()})))
    }

    /// Droplets that were made with it keep it.
    pub(super) fn delete_ssh_key(&mut self, named: &str) -> Result<Answer, Refusal> {
        let at = self.ssh_keys.iter().position(|key| key.answers_to(named)).ok_or(Refusal::NotFound)?;
        self.ssh_keys.remove(at);
        Ok(Answer::no_content())
    }
}

/// MD5 over the key itself, as `ssh-keygen -l -E md5` has it; `None` for what is no public key.
fn fingerprint(public_key: &str) -> Option<String> {
    let mut words = public_key.split_whitespace();
    let kind = words.next()?;
    let blob = BASE64.decode(words.next()?).ok()?;
    // The key begins with the length of its kind, and its kind.
    let length = u32::try_from(kind.len()).ok()?.to_be_bytes();
    blob.strip_prefix(length.as_slice())?.strip_prefix(kind.as_bytes())?;
    let hex: Vec<String> = Md5::digest(&blob).iter().map(|byte| format!("{byte:02x}")).collect();
    Some(hex.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_that_of_ssh_keygen_and_what_is_no_key_has_none() {
        let blob = "AAAAC3NzaC1lZDI1NTE5AAAAIEaQde8iCKizUOiXlowY1iEL1yCufgjb3aiatGQNPcHb";
        let expected = Some("6e:2c:0a:9a:c3:45:cd:ce:ae:1c:e6:d4:62:46:d3:cf".to_owned());
        assert_eq!(fingerprint(&format!("ssh-ed25519 {blob} somebody")), expected);
        assert_eq!(fingerprint(&format!("ssh-ed25519  {blob}\n")), expected);
        for none in ["", "ssh-ed25519", "ssh-ed25519 !", "ssh-ed25519 AAAA", &format!("ssh-rsa {blob}")] {
            assert_eq!(fingerprint(none), None, "{none}");
        }
    }
}
