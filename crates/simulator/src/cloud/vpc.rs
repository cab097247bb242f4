//! VPCs: read only, but for the default VPC that a region gets with its first Droplet.

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::address::Pool;
use super::paging::page;
use super::{Answer, Cloud, Refusal, Request, written};

/// A VPC.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vpc {
    /// Id (a UUID).
    pub id: String,
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Slug of the region.
    pub region: String,
    /// Whether the region's Droplets land here unless told otherwise.
    pub default: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its range, and the addresses to hand out.
    pub pool: Pool,
}

impl Vpc {
    fn json(&self) -> Value {
        json!({
            "id": self.id, "urn": format!("do:vpc:{}", self.id), "name": self.name, "description": self.description,
            "region": self.region, "ip_range": self.pool.range.to_string(), "default": self.default,
            "created_at": self.created_at.to_string(),
        })
    }
}

impl Cloud {
    pub(super) fn list_vpcs(&self, request: &Request) -> Result<Answer, Refusal> {
        page(request, "vpcs", self.vpcs.len(), |i| self.vpcs[i].json())
    }

    pub(super) fn get_vpc(&self, id: &str) -> Result<Answer, Refusal> {
        let vpc = self.vpc(id).ok_or(Refusal::NotFound)?;
        Ok(Answer::json(200, json!({"vpc": vpc.json()})))
    }

    pub(super) fn list_vpc_members(&self, id: &str, request: &Request) -> Result<Answer, Refusal> {
        let vpc = self.vpc(id).ok_or(Refusal::NotFound)?;
        let members: Vec<Value> = self
            .droplets
            .values()
            .filter(|droplet| droplet.exists() && droplet.vpc == vpc.id)
            .filter(|_| request.parameter("resource_type").is_none_or(|kind| kind == "droplet"))
            .map(|droplet| {
                json!({
                    "urn": format!("do:droplet:{}", droplet.id), "name": droplet.name,
                    "created_at": written(droplet.created_at),
                })
            })
            .collect();
        page(request, "members", members.len(), |i| members[i].clone())
    }

    /// The region's default VPC, made when there is none.
    pub(super) fn default_vpc(&mut self, region: &str, now: Timestamp) -> Result<String, Refusal> {
        if let Some(vpc) = self.vpcs.iter().find(|vpc| vpc.default && vpc.region == region) {
            return Ok(vpc.id.clone());
        }
        let range = (100..=199)
            .filter_map(|octet| Ipv4Net::new([10, octet, 0, 0].into(), 20).ok())
            .find(|range| !self.vpcs.iter().any(|vpc| overlap(vpc.pool.range, *range)))
            .ok_or_else(|| Refusal::unprocessable("No range is left for a default VPC."))?;
        let id = self.next_uuid();
        self.vpcs.push(Vpc {
            id: id.clone(),
            name: format!("default-{region}"),
            description: String::new(),
            region: region.into(),
            default: true,
            created_at: now,
            pool: Pool::of(range),
        });
        Ok(id)
    }
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}
