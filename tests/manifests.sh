#!/usr/bin/env bash
# What deploy/ ships, at a real API server: everything is accepted under strict validation, and so is every object that documents show;
# each ServiceAccount may do exactly what deploy/rbac.txt lists, the controller's pod passes the `restricted` Pod Security Standard, and
# removing the installation deletes no object of a user.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/api-server.sh
. tests/api-server.sh

fail() { echo "manifests: $1" >&2; exit 1; }
api_server_start

kubectl apply --server-side --validate=strict -k deploy/crds >/dev/null
kubectl wait --for=condition=Established --timeout=30s crd --all >/dev/null
kubectl apply --validate=strict -k deploy/overlays/lab >/dev/null
# Client-side and server-side apply both: a newcomer may use either.
kubectl apply --server-side --force-conflicts --validate=strict -k deploy/overlays/doks >/dev/null

# What documents and examples show, under the rules that only the API server knows (CEL).
read -ra xtask <<<"${XTASK:-cargo xtask}"
"${xtask[@]}" objects | kubectl create --dry-run=server --validate=strict -f - >/dev/null ||
  fail "a document or an example shows an object that the API server refuses"

# What the API server says an account may do in a namespace, in the words of rbac.txt.
rules() {
  kubectl create --validate=false --as "system:serviceaccount:egress-gateway:$1" -o json -f - <<YAML |
apiVersion: authorization.k8s.io/v1
kind: SelfSubjectRulesReview
spec: {namespace: $2}
YAML
    jq -r '.status
      | (.resourceRules[] | . as $rule | ($rule.apiGroups[] // "") as $group | $rule.resources[] as $resource
        | ($rule.resourceNames // [null])[] as $name | $rule.verbs[] as $verb
        | (if $group == "" then "core" else $group end) + "/" + $resource + (if $name then "[\($name)]" else "" end) + " " + $verb),
        (.nonResourceRules[] | .nonResourceURLs[] as $path | .verbs[] as $verb | $path + " " + $verb)' |
    sort -u
}

# Lines of rbac.txt that a namespace's rules do not bear out, or the other way round; less what every account may do.
difference() {
  diff <(sed -n "s|^$1 cluster ||p; s|^$1 namespace/$2 ||p" deploy/rbac.txt | sort -u) \
    <(comm -23 <(rules "$1" "$2") <(rules nobody "$2"))
}

# Everywhere: a right in a namespace that nobody thinks of is a right.
kubectl create namespace somebodys >/dev/null
mapfile -t namespaces < <(kubectl get namespaces -o name | cut -d/ -f2)
[[ " ${namespaces[*]} " == *" kube-public "*" somebodys "* ]] || fail "the API server lists other namespaces: ${namespaces[*]}"
for account in egress-controller egress-agent; do
  for namespace in "${namespaces[@]}"; do
    different=$(difference "$account" "$namespace") ||
      fail "$account in $namespace (< deploy/rbac.txt, > API server):"$'\n'"$different"
  done
done
# The comparison would see a right in another namespace, and one to a path.
kubectl create clusterrole extra --verb=get --non-resource-url=/debug/pprof >/dev/null
kubectl create clusterrolebinding extra --clusterrole=extra --serviceaccount=egress-gateway:egress-agent >/dev/null
[[ $(difference egress-agent default) == *"> /debug/pprof get" ]] || fail "a right to a path would not be seen"
kubectl create role extra -n somebodys --verb=list --resource=pods >/dev/null
kubectl create rolebinding extra -n somebodys --role=extra --serviceaccount=egress-gateway:egress-controller >/dev/null
[[ $(difference egress-controller somebodys) == *"> core/pods list" ]] || fail "a right in another namespace would not be seen"
[ -z "$(difference egress-controller default)" ] || fail "a right in one namespace is seen in another"
kubectl delete clusterrolebinding/extra clusterrole/extra >/dev/null
kubectl delete -n somebodys rolebinding/extra role/extra >/dev/null
[ -n "$(rules nobody default)" ] || fail "the API server tells no rules, so nothing was compared"
kubectl auth can-i delete nodes --as system:serviceaccount:egress-gateway:egress-controller >/dev/null 2>&1 && fail "may delete nodes"
kubectl auth can-i get secret/other -n egress-gateway --as system:serviceaccount:egress-gateway:egress-controller >/dev/null &&
  fail "the controller may read other Secrets"

# The controller passes the strictest standard; the agent, which needs the node's network, does not, or the check checks nothing.
kubectl create namespace strict >/dev/null
kubectl label namespace strict pod-security.kubernetes.io/enforce=restricted >/dev/null
pod_of() {
  kubectl kustomize deploy/overlays/doks -o "$api_server_work/rendered.yaml"
  kubectl get -f "$api_server_work/rendered.yaml" -o json |
    jq ".items[] | select(.kind == \"$1\") | .spec.template | .apiVersion = \"v1\" | .kind = \"Pod\"
      | .metadata.name = \"probe\" | .metadata.namespace = \"strict\" | .spec.serviceAccountName = \"probe\""
}
kubectl create serviceaccount probe -n strict >/dev/null
pod_of Deployment | jq 'del(.spec.priorityClassName)' | kubectl create --dry-run=server -f - >/dev/null ||
  fail "the controller's pod does not pass the restricted Pod Security Standard"
if refused=$(pod_of DaemonSet | jq 'del(.spec.priorityClassName)' | kubectl create --dry-run=server -f - 2>&1); then
  fail "the agent's pod passes as restricted, so nothing is checked"
fi
[[ $refused == *'violates PodSecurity "restricted'* ]] || fail "the agent's pod is refused for another reason: $refused"

kubectl apply -f examples/staticroute.yaml >/dev/null
routes=$(kubectl get staticroutes -o name)
[ -n "$routes" ] || fail "the example made no StaticRoute"
kubectl delete --wait=false -k deploy/overlays/lab >/dev/null
[ "$(kubectl get staticroutes -o name)" = "$routes" ] || fail "removing the installation deleted StaticRoutes"

echo "manifests: accepted, as are objects of documents, rights as listed, controller restricted, objects outlive the installation"
