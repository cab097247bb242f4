//go:build commands

// Package commands names the program, so that go.mod and go.sum pin everything it needs.
package commands

import _ "helm.sh/helm/v4/pkg/cmd"
