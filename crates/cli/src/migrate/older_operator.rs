//! From the older StaticRoute operator, as docs/older-operator.md has it, step by step.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use egress_api::condition::{READY, is_true};
use egress_runtime::kubernetes::{self, within_deadline};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::until;
use crate::confirm::confirm;
use crate::doctor::OLDER_OPERATOR;
use crate::output::{say, some};
use crate::view::{View, is_ready, name};

/// Name of the agents' DaemonSet and of its container.
const AGENT: &str = "egress-agent";
/// Has agents take its routes away where theirs are in force.
const FLAG: &str = "--remove-leftovers-of-older-operator";
/// What it puts on every StaticRoute. The controller takes it off once the operator is gone.
const FINALIZER: &str = "kopf.zalando.org/KopfFinalizerMarker";

/// What marks its pods.
const PODS: &str = "name=k8s-staticroute-operator";

/// How.
#[derive(Debug, Args)]
#[command(
    after_help = "StaticRoutes stay as they are, and no packet is lost: ours are in the kernel before its own go, through the same gateways.
Its definition is ours too and stays. The way back, until its routes are gone: apply its DaemonSet again.

Examples:
  kubectl egress migrate older-operator --dry-run
  kubectl egress migrate older-operator"
)]
pub struct Arguments {
    /// Only shows the steps, and what is done already.
    #[arg(long)]
    dry_run: bool,

    /// Does not ask.
    #[arg(short = 'y', long)]
    yes: bool,

    /// Namespace of the agents' DaemonSet.
    #[arg(short = 'n', long, default_value = "egress-gateway")]
    namespace: String,

    /// How long each step may take, in seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
}

/// Where things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Standing {
    /// Ready nodes that say nothing of some StaticRoute.
    unready: Vec<String>,
    /// StaticRoutes there are.
    routes: usize,
    /// StaticRoutes with the older operator's marks.
    marked: Vec<String>,
    /// StaticRoutes that are not in force on every node.
    behind: Vec<String>,
    /// Its DaemonSet is there.
    operator_runs: bool,
    /// Our agents take its routes away.
    has_flag: bool,
}

impl Standing {
    fn of(view: &View, operator_runs: bool, has_flag: bool) -> Self {
        let reported = view.reported();
        let knows = |node: &str| {
            let known = reported.get(node).map(|report| &report.routes);
            view.routes().filter(|route| route.metadata.deletion_timestamp.is_none()).all(|route| {
                let selects = view.nodes.iter().find(|one| name(*one) == node).is_none_or(|one| {
                    route.spec.selects(&one.metadata.labels.clone().unwrap_or_default()).unwrap_or(true)
                });
                !selects
                    || known.is_some_and(|all| {
                        all.iter().any(|entry| Some(&entry.uid) == route.metadata.uid.as_ref())
                    })
            })
        };
        let live = view.nodes.iter().filter(|node| is_ready(node)).map(|node| name(node).to_owned());
        let is_marked =
            |route: &&egress_api::StaticRoute| route.finalizers().iter().any(|one| one == FINALIZER);
        let is_behind = |route: &&egress_api::StaticRoute| {
            !route.status.as_ref().is_some_and(|status| {
                is_true(&status.conditions, READY) && status.observed_generation == route.metadata.generation
            })
        };
        Self {
            unready: live.filter(|node| !reported.contains_key(node.as_str()) || !knows(node)).collect(),
            routes: view.routes().count(),
            marked: view.routes().filter(is_marked).map(|route| name(route).to_owned()).collect(),
            behind: view.routes().filter(is_behind).map(|route| name(route).to_owned()).collect(),
            operator_runs,
            has_flag,
        }
    }

    fn steps(&self) -> String {
        let mark = |done: bool| if done { "done" } else { "to do" };
        let is_over = !self.operator_runs && self.behind.is_empty() && !self.has_flag;
        let (namespace, daemonset) = OLDER_OPERATOR;
        format!(
            "1. [{}] our agents know all {} StaticRoutes on every node{}\n\
             2. [{}] delete daemonset {daemonset} in namespace {namespace}; its routes stay in the kernels\n\
             3. [{}] wait until its finalizer is off the StaticRoutes (the controller does that)\n\
             4. [{}] give the agents {FLAG}: each takes exactly its routes away, where ours are in force\n\
             5. [{}] wait until every StaticRoute is Ready\n\
             6. [{}] take the argument away again\n",
            mark(self.unready.is_empty()),
            self.routes,
            if self.unready.is_empty() {
                String::new()
            } else {
                format!("; not yet: {}", some(&self.unready))
            },
            mark(!self.operator_runs),
            mark(self.marked.is_empty()),
            mark(is_over || self.has_flag),
            mark(!self.operator_runs && self.behind.is_empty()),
            mark(is_over),
        )
    }

    fn is_over(&self) -> bool {
        !self.operator_runs && self.marked.is_empty() && self.behind.is_empty() && !self.has_flag
    }
}

/// Does it.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = kubernetes::client().await?;
    let namespace = &arguments.namespace;
    let standing = look(&client, namespace).await?;
    say(&standing.steps())?;
    if standing.is_over() {
        say("Nothing is left to do.\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(
        standing.unready.is_empty(),
        "our agents must run on every node first, so that its routes have somebody to follow them: kubectl egress doctor"
    );
    if !confirm("The older operator is taken away.", OLDER_OPERATOR.1, arguments.yes)? {
        anyhow::bail!("nothing was changed");
    }
    let patience = Duration::from_secs(arguments.timeout);
    let daemonsets: Api<DaemonSet> = Api::namespaced(client.clone(), OLDER_OPERATOR.0);
    if within_deadline(daemonsets.get_metadata_opt(OLDER_OPERATOR.1)).await?.is_some() {
        say("2. deleting it\n")?;
        within_deadline(daemonsets.delete(OLDER_OPERATOR.1, &DeleteParams::background())).await?;
    }
    until(patience, async || {
        let standing = look(&client, namespace).await?;
        Ok(match (standing.operator_runs, standing.marked.as_slice()) {
            (true, _) => Err("its pods end".to_owned()),
            (false, []) => Ok(()),
            (false, marked) => Err(format!("its finalizer is still on {}", some(marked))),
        })
    })
    .await?;
    let standing = look(&client, namespace).await?;
    if !standing.has_flag && !standing.behind.is_empty() {
        say("4. agents take its routes away\n")?;
        set_flag(&client, namespace, true).await?;
    }
    until(patience, async || {
        let standing = look(&client, namespace).await?;
        Ok(if standing.behind.is_empty() {
            Ok(())
        } else {
            Err(format!("{} not Ready on every node", some(&standing.behind)))
        })
    })
    .await?;
    if look(&client, namespace).await?.has_flag {
        say("6. taking the argument away\n")?;
        set_flag(&client, namespace, false).await?;
    }
    say("Done: every StaticRoute is ours and in force.\n")?;
    Ok(ExitCode::SUCCESS)
}

async fn look(client: &Client, namespace: &str) -> anyhow::Result<Standing> {
    let view = View::read(client).await;
    if let Some(unread) = view.unread.first() {
        anyhow::bail!("{} can't be read: {}", unread.kind, unread.why);
    }
    let theirs: Api<DaemonSet> = Api::namespaced(client.clone(), OLDER_OPERATOR.0);
    let operator = within_deadline(theirs.get_metadata_opt(OLDER_OPERATOR.1)).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), OLDER_OPERATOR.0);
    let pods = within_deadline(pods.list_metadata(&ListParams::default().labels(PODS))).await?;
    let runs = operator.is_some() || !pods.items.is_empty();
    let ours: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let agents = within_deadline(ours.get(AGENT)).await.context("our agents")?;
    Ok(Standing::of(&view, runs, arguments_of(&agents).iter().any(|one| one == FLAG)))
}

fn arguments_of(agents: &DaemonSet) -> Vec<String> {
    let containers = agents.spec.iter().flat_map(|spec| &spec.template.spec).flat_map(|pod| &pod.containers);
    containers
        .filter(|container| container.name == AGENT)
        .flat_map(|one| one.args.clone().unwrap_or_default())
        .collect()
}

async fn set_flag(client: &Client, namespace: &str, on: bool) -> anyhow::Result<()> {
    let daemonsets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let agents = within_deadline(daemonsets.get(AGENT)).await?;
    let mut arguments = arguments_of(&agents);
    arguments.retain(|one| one != FLAG);
    if on {
        arguments.push(FLAG.to_owned());
    }
    let patch = json!({
        "metadata": {"resourceVersion": agents.metadata.resource_version},
        "spec": {"template": {"spec": {"containers": [{"name": AGENT, "args": arguments}]}}},
    });
    within_deadline(daemonsets.patch(AGENT, &PatchParams::default(), &Patch::Strategic(patch))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::view::fixture::{condition, entry, nodes, report, static_route, view};

    fn standing(operator: bool, flag: bool, change: impl FnOnce(&mut Vec<Value>)) -> Standing {
        let has = [entry("mine", "10.116.0.5")];
        let mut objects = nodes();
        objects.extend([
            static_route("mine", 1, &["192.0.2.1"], &["10.116.0.5"]),
            report(1, &has),
            report(2, &has),
        ]);
        change(&mut objects);
        Standing::of(&view(&objects), operator, flag)
    }

    #[test]
    fn each_step_is_known_to_be_done_by_what_is_there() {
        let begun = standing(true, false, |all| {
            all[2]["metadata"]["finalizers"] = json!([FINALIZER]);
            all[2]["status"]["conditions"] = json!([condition("Ready", "False", "NodesFailed", "Shadowed")]);
        });
        assert_eq!(begun.steps().matches("[to do]").count(), 5, "{}", begun.steps());
        let gone = standing(false, false, |all| {
            all[2]["status"]["conditions"] = json!([condition("Ready", "False", "NodesFailed", "Shadowed")]);
        });
        assert!(!gone.is_over() && gone.steps().contains("4. [to do]"), "{}", gone.steps());
        let over = standing(false, false, |_| {});
        assert!(over.is_over() && !over.steps().contains("to do"), "{}", over.steps());
        assert!(!standing(false, true, |_| {}).is_over(), "the argument is still there");
    }

    #[test]
    fn a_node_whose_agent_does_not_know_a_static_route_holds_it_up() {
        let without = standing(true, false, |all| all.truncate(4));
        assert_eq!(without.unready, ["node-2"]);
        let unknown = standing(true, false, |all| all[4]["status"]["routes"] = json!([]));
        assert_eq!(unknown.unready, ["node-2"]);
        let not_its = standing(true, false, |all| {
            all[4]["status"]["routes"] = json!([]);
            all[2]["spec"]["nodeSelector"] = json!({"matchLabels": {"pool": "p1"}});
        });
        assert_eq!(not_its.unready, [""; 0]);
    }

    #[test]
    fn the_arguments_of_the_agents_are_those_of_their_container() {
        let daemonset = json!({"spec": {"selector": {}, "template": {"spec": {"containers": [
            {"name": "other", "args": ["--x"]}, {"name": AGENT, "args": ["--table=2157", FLAG]}]}}}});
        let daemonset: DaemonSet = serde_json::from_value(daemonset).unwrap();
        assert_eq!(arguments_of(&daemonset), ["--table=2157", FLAG]);
    }
}
