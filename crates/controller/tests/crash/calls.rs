//! Every call that changes something, and whose it is: an effect that `decide` returns, or the verdict of another pure function. The
//! table of `docs/crash-points.md`; what is not in it changes something behind the decision's back.

const KNOWN: &[(&str, &str)] = &[
    ("PATCH egressgateways/*", "AddFinalizer, RemoveFinalizer"),
    ("PATCH egressgateways/*/status", "WriteStatus"),
    ("PATCH staticroutes/*", "ApplyStaticRoute"),
    ("DELETE staticroutes/*", "DeleteStaticRoute"),
    ("POST /v2/droplets", "CreateDroplet"),
    ("DELETE /v2/droplets/*", "DeleteDroplet"),
    ("POST /v2/droplets/*/actions", "PowerOn, PowerCycle"),
    ("POST /v2/firewalls", "CreateFirewall"),
    ("PUT /v2/firewalls/*", "UpdateFirewall"),
    ("DELETE /v2/firewalls/*", "DeleteFirewall"),
    ("POST /v2/reserved_ips", "ReserveIp"),
    ("POST /v2/reserved_ips/*/actions", "AssignIp"),
    ("DELETE /v2/reserved_ips/*", "ReleaseIp"),
    ("POST /v2/tags", "MarkIp"),
    ("POST /v2/tags/*/resources", "MarkIp"),
    ("DELETE /v2/tags/*/resources", "Untag"),
    ("PUT http://*/peers", "AdmitPeers"),
    ("PATCH staticroutes/*/status", "route_status::sum"),
    ("POST namespaces/default/events", "Decision::events"),
    ("PATCH namespaces/default/events/*", "Decision::events"),
];

/// Whose a call is.
pub fn owner(call: &str) -> Option<&'static str> {
    let like = |pattern: &str| {
        let (mut wanted, mut parts) = (pattern.split('/'), call.split('/'));
        loop {
            match (wanted.next(), parts.next()) {
                (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(wanted), Some(part)) if wanted == part => {}
                _ => return false,
            }
        }
    };
    // The query says who writes, not what.
    KNOWN.iter().find(|(pattern, _)| like(pattern)).map(|(_, owner)| *owner)
}
