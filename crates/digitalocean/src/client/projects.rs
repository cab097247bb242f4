//! What a team has for its Droplets: images, SSH keys and projects.

use super::Client;
use crate::error::Error;
use crate::fence::Fence;
use crate::model::catalog::{Image, SshKey};
use crate::model::ids::{DropletId, ProjectId};
use crate::model::project::{AssignResources, AssignedResources, Project};
use crate::transport::Repetition;

impl Client {
    /// All images to boot a distribution from.
    pub async fn distributions(&self) -> Result<Vec<Image>, Error> {
        self.list("images.list", "/v2/images", Some(("type", "distribution".to_owned()))).await
    }

    /// All SSH keys of the team. The API takes ten such calls a minute.
    pub async fn ssh_keys(&self) -> Result<Vec<SshKey>, Error> {
        self.list("ssh_keys.list", "/v2/account/keys", None).await
    }

    /// All projects of the account.
    pub async fn projects(&self) -> Result<Vec<Project>, Error> {
        self.list("projects.list", "/v2/projects", None).await
    }

    /// Moves a Droplet into a project. Safe to repeat.
    pub async fn assign_droplet(
        &self,
        project: &ProjectId,
        droplet: DropletId,
        fence: &dyn Fence,
    ) -> Result<(), Error> {
        const CALL: &str = "projects.assign";
        let path = format!("/v2/projects/{project}/resources");
        let body = AssignResources::droplet(droplet);
        let answer = self.post(CALL, path, &body, Repetition::Harmless, fence).await?;
        match answer.json::<AssignedResources>()?.refusal() {
            None => Ok(()),
            // A success that is none: the Droplet is where it was.
            Some(word) => Err(Error::Lost { call: CALL, reason: format!("the project's answer is {word}") }),
        }
    }
}
