#!/usr/bin/env bash
# What a person reads when Rust, Go or a program is missing or too old, and where the control plane's programs come from. With
# programs that only pretend to be Rust and Go, in folders of its own; builds and installs nothing. Run by `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
# Every program of this machine but those that are asked about.
mkdir "$work/machine"
ln -s /usr/bin/* "$work/machine"
rm -f "$work"/machine/{cargo,go,rustc,kubectl,skopeo}

# pretend NAME VERSION-LINE: a program that says so whatever it is asked, in a folder of its own whose path is printed.
pretend() {
  local folder
  folder=$(mktemp -d "$work/pretended-XXXX")
  printf '#!/bin/sh\necho "%s"\n' "$2" >"$folder/$1"
  chmod +x "$folder/$1"
  echo "$folder"
}

# says WHAT PATH EXPECTED COMMAND...: the command fails, and what it says has the expected text in it, letter by letter.
says() {
  local what=$1 path=$2 expected=$3 said code=0; shift 3
  said=$(env -u KUBEBUILDER_ASSETS PATH="$path" "$@" 2>&1) || code=$?
  if [ "$code" = 1 ] && [[ $said == *"$expected"* ]]; then
    echo "ok   $what"
  else
    printf 'FAIL %s: ended with %s and said\n%s\nexpected\n%s\n' "$what" "$code" "$said" "$expected"
    failed=1
  fi
}
is() { # WHAT FOUND EXPECTED
  if [ "$2" = "$3" ]; then echo "ok   $1"; else printf 'FAIL %s: %s instead of %s\n' "$1" "$2" "$3"; failed=1; fi
}

machine=$work/machine
rust=$(pretend cargo "cargo 1.99.0 (pretended)")
old_rust=$(pretend cargo "cargo 1.70.0 (pretended)")
old_go=$(pretend go go1.21.0)
rustup="    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal && . \"\$HOME/.cargo/env\"

Then start again."
go=$(tests/control-plane/build.sh go-version)
go_line="    curl -fsSL https://go.dev/dl/go$go.linux-$(dpkg --print-architecture).tar.gz | sudo tar -C /usr/local -xz && export PATH=/usr/local/go/bin:\$PATH

Then start again."

says "Rust is missing" "$machine" $'Rust 1.89 or newer is needed and there is none. This line gets it:\n\n'"$rustup" scripts/setup.sh --check-only
says "Rust is too old" "$old_rust:$machine" $'Rust 1.89 or newer is needed, this is 1.70.0. This line gets it:\n\n'"$rustup" scripts/setup.sh --check-only
says "Go is missing" "$rust:$machine" "Go $go or newer is needed and there is none. This line gets it:"$'\n\n'"$go_line" scripts/setup.sh --check-only
says "Go is too old" "$rust:$old_go:$machine" "Go $go or newer is needed, this is 1.21.0. This line gets it:"$'\n\n'"$go_line" scripts/setup.sh --check-only
no_packages=$(pretend dpkg-query "")
new_go=$(pretend go go1.99.0)
says "packages are missing" "$no_packages:$rust:$new_go:$machine" $'Packages are missing. This line gets them:\n\n    scripts/setup.sh\n' scripts/setup.sh --check-only
says "Go is missing where the control plane is built" "$machine" "Go $go or newer is needed" env EGRESS_LAB_CACHE="$work/empty" tests/control-plane/build.sh api
rm "$machine/curl"
says "a line that fetches gets curl first" "$machine" "    sudo apt-get install -y curl ca-certificates && curl --proto" scripts/setup.sh --check-only

skopeo=$(pretend skopeo "")
says "push without skopeo" "$rust:$machine" $'skopeo is needed and there is none. On Debian and Ubuntu this line gets it:\n\n    sudo apt-get install -y skopeo\n' scripts/setup.sh --for-push
says "push without kubectl" "$rust:$skopeo:$machine" $'kubectl is needed and there is none. How to get it:\n\n    https://' scripts/setup.sh --for-push
# Neither Go nor apt nor the lab's packages.
rm "$machine"/{apt-get,dpkg-query}
kubectl=$(pretend kubectl "")
is "push needs nothing else" "$(PATH=$rust:$skopeo:$kubectl:$machine scripts/setup.sh --for-push | paste -sd' ')" "Rust 1.99.0 cc skopeo kubectl"

# The control plane: the variable, then the cache, then a build, which is asked for once.
builds=$work/builds
mkdir "$work/compiler"
cat >"$work/compiler/go" <<SH
#!/bin/sh
while [ "\$1" != -o ]; do shift; done
echo "\${2##*/.}" >>"$builds"
touch "\$2" && chmod +x "\$2"
SH
chmod +x "$work/compiler/go"
programs() { # VALUE-OF-THE-VARIABLE
  KUBEBUILDER_ASSETS=$1 EGRESS_LAB_CACHE=$work/cache PATH=$work/compiler:$machine tests/control-plane/build.sh api 2>/dev/null
}
mkdir "$work/half" "$work/named"
touch "$work"/named/{etcd,kube-apiserver,kubectl} "$work/half/etcd"
chmod +x "$work"/named/* "$work/half/etcd"
is "the variable comes first" "$(programs "$work/named")" "$work/named"
is "and builds nothing" "$(find "$work/cache" "$builds" 2>/dev/null | wc -l)" 0
built=$(programs "$work/half")
is "a folder that lacks a program is no answer, and nothing cached is built" "$(paste -sd' ' "$builds")" "etcd kube-apiserver kubectl"
is "into a folder of the cache" "${built%-*}" "$work/cache/control-plane"
is "which is the answer from then on" "$(programs "")" "$built"
is "without another build" "$(wc -l <"$builds")" 3
exit $failed
