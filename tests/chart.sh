#!/usr/bin/env bash
# The chart at a real API server, with Helm: installed, upgraded (definitions, too), uninstalled and installed again, over definitions
# and over a whole installation that kubectl made. No nodes; what becomes of routes is shown in the lab (crates/lab/tests/end_to_end).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/api-server.sh
. tests/api-server.sh

fail() { echo "chart: $1" >&2; exit 1; }
program=$(tests/helm/build.sh)
api_server_start
export HELM_CACHE_HOME=$api_server_work/helm HELM_CONFIG_HOME=$api_server_work/helm HELM_DATA_HOME=$api_server_work/helm
release=egress-gateway
helm() { "$program" --namespace egress-gateway "$@"; }
install() { helm install "$release" "${chart:-deploy/chart}" --create-namespace -f tests/helm/lab.yaml "$@" >/dev/null; }
upgrade() { helm upgrade "$release" deploy/chart -f tests/helm/lab.yaml "$@" >/dev/null; }
definitions=(egressgateways staticroutes nodeegresses)
definitions=("${definitions[@]/%/.networking.digitalocean.com}")

# Everything of ours but definitions and their objects: kind and name, and what a change of it would change.
ours() {
  kubectl get -A -l app.kubernetes.io/part-of=egress-gateway -o json \
    serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings,deployments,daemonsets,poddisruptionbudgets,networkpolicies,validatingadmissionpolicies,validatingadmissionpolicybindings |
    jq -r '.items[] | "\(.kind) \(.metadata.name) \(.metadata.uid) \(.metadata.generation // .metadata.resourceVersion)"' | sort
}
column() { kubectl get crd egressgateways.networking.digitalocean.com -o jsonpath='{.spec.names.shortNames}'; }
# What an object is, whoever applied it.
is_of_release() { # KIND NAME
  [ "$(kubectl get "$1" "$2" -n egress-gateway -o jsonpath='{.metadata.annotations.meta\.helm\.sh/release-name}')" = "$release" ]
}

# A version before this one, whose definition of EgressGateways had no short name.
cp -r deploy/chart "$api_server_work/before"
sed -i '/^    shortNames:/d; /^    - egw$/d' "$api_server_work/before/templates/crds/egressgateways.yaml"
chart=$api_server_work/before install
kubectl wait --for=condition=Established --timeout=30s crd "${definitions[@]}" >/dev/null
[ -z "$(column)" ] || fail "the version before has the short name, too, so nothing is upgraded"
# What an installation by kubectl has, less the namespace, and nothing else.
kubectl kustomize deploy/overlays/lab -o "$api_server_work/manifests.yaml"
diff <(kubectl get -f "$api_server_work/manifests.yaml" -o json |
  jq -r '.items[] | select(.kind != "Namespace") | "\(.kind) \(.metadata.name)"' | sort) \
  <(ours | cut -d' ' -f1,2) || fail "other objects than the manifests' (< manifests, > release)"
kubectl auth can-i get namespace/egress-gateway -n egress-gateway --as system:serviceaccount:egress-gateway:egress-agent >/dev/null ||
  fail "an agent cannot ask whether its namespace is being deleted"

kubectl apply -f examples/staticroute.yaml >/dev/null
routes=$(kubectl get staticroutes -o name)
[ -n "$routes" ] || fail "the example made no StaticRoute"

before=$(ours)
upgrade
[ "$(column)" = '["egw"]' ] || fail "an upgrade left the definition as it was: '$(column)'"
[ "$(ours)" = "$before" ] || fail "an upgrade that changes nothing changed:"$'\n'"$(diff <(echo "$before") <(ours))"
upgrade --set agent.maxUnavailable=2
[ "$(kubectl get daemonset egress-agent -n egress-gateway -o jsonpath='{.spec.updateStrategy.rollingUpdate.maxUnavailable}')" = 2 ] ||
  fail "an upgrade did not change the DaemonSet"

config_maps() { kubectl get configmaps -n egress-gateway -l app.kubernetes.io/part-of=egress-gateway -o name | wc -l; }
monitoring=(--set monitoring.dashboards.enabled=true --set monitoring.rules.enabled=true --set monitoring.rules.kind=ConfigMap)
upgrade "${monitoring[@]}"
[ "$(config_maps)" = $(($(find deploy/monitoring/dashboards -name '*.json' | wc -l) + 1)) ] || fail "not each dashboard and the alerts are there"
kubectl get configmap egress-gateway-rules -n egress-gateway -o jsonpath='{.data.rules\.yaml}' | diff - deploy/monitoring/rules.yaml ||
  fail "the alerts arrived otherwise than they are"
upgrade
[ "$(config_maps)" = 0 ] || fail "dashboards and alerts that are off stay"

helm uninstall "$release" >/dev/null
left() { # for a while: what is deleted in the background
  local tries
  for tries in $(seq 50); do [ -z "$(ours)" ] && return; sleep 0.2; done
  fail "left after $tries looks:"$'\n'"$(ours)"
}
left
[ "$(kubectl get crd "${definitions[@]}" -o name | wc -l)" = 3 ] || fail "uninstalling took definitions along"
[ "$(kubectl get staticroutes -o name)" = "$routes" ] || fail "uninstalling took objects along"
kubectl get namespace egress-gateway >/dev/null || fail "uninstalling took the namespace along"

# Again, over the definitions that it left.
install
helm uninstall "$release" >/dev/null
left

# Over definitions that kubectl applied: refused in words that name the object, and two ways on.
kubectl delete crd "${definitions[@]}" >/dev/null
kubectl apply --server-side -k deploy/crds >/dev/null
kubectl wait --for=condition=Established --timeout=30s crd "${definitions[@]}" >/dev/null
if refused=$(install 2>&1); then fail "the release took definitions that are not its own"; fi
[[ $refused == *egressgateways.networking.digitalocean.com* || $refused == *staticroutes.networking.digitalocean.com* ||
  $refused == *nodeegresses.networking.digitalocean.com* ]] || fail "refused without saying what is in the way: $refused"
helm uninstall "$release" >/dev/null 2>&1 || true
install --set crds.install=false
if is_of_release crd egressgateways.networking.digitalocean.com; then fail "crds.install=false took the definitions"; fi
helm uninstall "$release" >/dev/null
left

# Over a whole installation by kubectl: the same objects go on, nothing is deleted and made anew.
kubectl apply -k deploy/overlays/lab >/dev/null
before=$(ours | cut -d' ' -f1-3)
[ -n "$before" ] || fail "kubectl installed nothing"
# Not their generations: a Deployment has another one with every change of its annotations.
workloads() { kubectl get daemonset,deployment -n egress-gateway -o jsonpath='{.items[*].spec}'; }
specs=$(workloads)
install --take-ownership --force-conflicts
[ "$(ours | cut -d' ' -f1-3)" = "$before" ] || fail "taking over an installation made objects anew"
[ "$(workloads)" = "$specs" ] || fail "taking over an installation changed the workloads"
is_of_release crd egressgateways.networking.digitalocean.com || fail "the definitions were not taken over"
is_of_release daemonset egress-agent || fail "the DaemonSet was not taken over"
helm uninstall "$release" >/dev/null
left

# With the namespace in the release: its labels are there, and it and the token in it stay.
kubectl delete namespace egress-gateway --wait=false >/dev/null
kubectl get namespace egress-gateway -o json | jq '.spec.finalizers = []' |
  kubectl replace --raw /api/v1/namespaces/egress-gateway/finalize -f - >/dev/null
install --take-ownership --force-conflicts --set namespace.create=true
[ "$(kubectl get namespace egress-gateway -o jsonpath='{.metadata.labels.pod-security\.kubernetes\.io/enforce}')" = privileged ] ||
  fail "the namespace has no Pod Security labels"
helm uninstall "$release" >/dev/null
left
[ -z "$(kubectl get namespace egress-gateway -o jsonpath='{.metadata.deletionTimestamp}')" ] || fail "uninstalling deleted the namespace"

echo "chart: installed, upgraded with its definitions, uninstalled without them, over what kubectl installed, and with its namespace"
