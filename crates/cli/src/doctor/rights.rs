//! Whether the ServiceAccounts may do all that they must: what is shipped, line by line, asked of the API server.

use egress_runtime::kubernetes::{CallError, within_deadline};
use futures::StreamExt as _;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::Finding;
use crate::output::some;
use crate::view::why;

/// Everything that an account may do, as it is shipped.
const SHIPPED: &str = include_str!("../../../../deploy/rbac.txt");
/// The namespace that the list names.
const NAMESPACE: &str = "egress-gateway";
/// The Secret that the list names.
const TOKEN_SECRET: &str = egress_controller::credentials::SECRET;
/// Questions that are asked at a time.
const AT_ONCE: usize = 8;

/// A right of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Right {
    account: String,
    /// `None`: in the whole cluster.
    namespace: Option<String>,
    group: String,
    resource: String,
    subresource: String,
    name: String,
    verb: String,
}

pub(super) async fn look(client: &Client, namespace: &str, token_secret: &str) -> Vec<Finding> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let asked = futures::stream::iter(rights(SHIPPED, namespace, token_secret)).map(|right| {
        let reviews = reviews.clone();
        async move {
            let review = review(&right, namespace);
            let answer = within_deadline(reviews.create(&PostParams::default(), &review)).await;
            (right, answer.map(|answer| answer.status.is_some_and(|status| status.allowed)))
        }
    });
    let answers: Vec<(Right, Result<bool, CallError>)> = asked.buffered(AT_ONCE).collect().await;
    summary(answers)
}

fn summary(answers: Vec<(Right, Result<bool, CallError>)>) -> Vec<Finding> {
    let many = answers.len();
    let mut lacking = Vec::new();
    for (right, answer) in answers {
        match answer {
            Ok(true) => {}
            Ok(false) => lacking.push(format!("{} may not {} {}", right.account, right.verb, right.object())),
            Err(error) => {
                let message = format!("what the ServiceAccounts may do can't be asked: {}", why(&error));
                return vec![Finding::unknown(
                    "rights",
                    message,
                    "ask as somebody who may create SubjectAccessReviews",
                )];
            }
        }
    }
    if lacking.is_empty() {
        return vec![Finding::fine(
            "rights",
            format!("the ServiceAccounts have all {many} rights that they need"),
        )];
    }
    vec![Finding::wrong(
        "rights",
        some(&lacking),
        "kubectl apply -f install.yaml, or helm upgrade: the roles are in there",
    )]
}

impl Right {
    fn object(&self) -> String {
        let part = |before: &str, text: &str| {
            if text.is_empty() { String::new() } else { format!("{before}{text}") }
        };
        format!("{}{}{}", self.resource, part("/", &self.subresource), part(" ", &self.name))
    }
}

fn rights(shipped: &str, namespace: &str, token_secret: &str) -> Vec<Right> {
    let lines = shipped.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| right(line, namespace, token_secret)).collect()
}

fn right(line: &str, namespace: &str, token_secret: &str) -> Option<Right> {
    let mut words = line.split_whitespace();
    let (account, scope, object, verb) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (group, rest) = object.split_once('/')?;
    let (resource, name) = match rest.split_once('[') {
        Some((resource, name)) => (resource, name.trim_end_matches(']')),
        None => (rest, ""),
    };
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let scope = scope.strip_prefix("namespace/");
    let name = match (resource, name) {
        ("namespaces", NAMESPACE) => namespace,
        ("secrets", TOKEN_SECRET) => token_secret,
        _ => name,
    };
    Some(Right {
        account: account.to_owned(),
        namespace: scope.map(|scope| if scope == NAMESPACE { namespace } else { scope }.to_owned()),
        group: if group == "core" { String::new() } else { group.to_owned() },
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        name: name.to_owned(),
        verb: verb.to_owned(),
    })
}

fn review(right: &Right, namespace: &str) -> SubjectAccessReview {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let attributes = ResourceAttributes {
        namespace: right.namespace.clone(),
        group: Some(right.group.clone()),
        resource: some(&right.resource),
        subresource: some(&right.subresource),
        name: some(&right.name),
        verb: some(&right.verb),
        ..ResourceAttributes::default()
    };
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{}", right.account)),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Level;
    use super::*;

    #[test]
    fn every_line_of_what_is_shipped_is_a_right() {
        let lines = SHIPPED.lines().filter(|line| !line.starts_with('#')).count();
        assert!(lines > 50);
        assert_eq!(rights(SHIPPED, "elsewhere", "my-token").len(), lines);
        let read = |line: &str| right(line, "elsewhere", "my-token").unwrap();
        let found = read("egress-agent namespace/egress-gateway apps/daemonsets[egress-agent] get");
        assert_eq!(
            (found.namespace.as_deref(), found.group.as_str(), found.name.as_str()),
            (Some("elsewhere"), "apps", "egress-agent")
        );
        let found = read("egress-agent cluster networking.digitalocean.com/nodeegresses/status patch");
        assert_eq!((found.namespace, found.subresource.as_str()), (None, "status"));
        let events = read("egress-controller namespace/default events.k8s.io/events create");
        assert_eq!(events.namespace.as_deref(), Some("default"));
    }

    #[test]
    fn names_of_the_installation_are_those_that_it_has() {
        let names = |namespace: &str, token_secret: &str| -> BTreeSet<(String, String)> {
            let all = rights(SHIPPED, namespace, token_secret).into_iter();
            all.filter(|one| {
                ["namespaces", "secrets"].contains(&one.resource.as_str()) && !one.name.is_empty()
            })
            .map(|one| (one.resource, one.name))
            .collect()
        };
        let told = |namespace: &str, token_secret: &str| {
            [("namespaces", "kube-system"), ("namespaces", namespace), ("secrets", token_secret)]
                .map(|(resource, name)| (resource.to_owned(), name.to_owned()))
                .into()
        };
        assert_eq!(names(NAMESPACE, TOKEN_SECRET), told(NAMESPACE, TOKEN_SECRET));
        assert_eq!(names("elsewhere", "my-token"), told("elsewhere", "my-token"));
    }

    #[test]
    fn a_right_that_is_lacking_is_named() {
        let all = rights(SHIPPED, "n", TOKEN_SECRET);
        let answers = |lacking: &str| -> Vec<(Right, Result<bool, CallError>)> {
            all.iter().map(|one| (one.clone(), Ok(one.resource != lacking))).collect()
        };
        assert_eq!(summary(answers("none"))[0].level, Level::Fine);
        let found = &summary(answers("servicecidrs"))[0];
        assert!(
            found.level == Level::Wrong && found.message.contains("egress-agent may not list servicecidrs"),
            "{found:?}"
        );
    }
}
