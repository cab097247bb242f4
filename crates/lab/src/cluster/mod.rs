//! A real Kubernetes cluster: control plane in the provider's namespace, kubelet and containerd in the nodes'.

mod api_name;
mod certificates;
mod control_plane;
mod dns;
mod images;
mod node;

pub use api_name::move_api_name;
pub use certificates::{issue, kubeconfig};
pub use control_plane::{
    ApiServerPlace, start_api_server, start_controllers, stop_processes, wait_until_ready, write_admin_config,
};
pub use dns::{install_dns, wait_until_dns_ready};
pub use images::{load, pod_process, write_standard_images};
pub use node::{anchor, register, start_containerd, start_kubelet, wait_until_nodes_ready};

use std::process::Command;

use crate::error::Result;
use crate::netns::output_of;
use crate::state::Lab;

/// Runs kubectl as administrator from outside; what it prints.
pub fn kubectl(lab: &Lab, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(lab.asset("kubectl")?);
    command.arg("--kubeconfig").arg(lab.dir.kubeconfig()).args(arguments);
    output_of(command, input)
}
