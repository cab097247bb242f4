//go:build commands

// Package commands names the containerd commands the lab's nodes run, so that go.mod and go.sum pin everything they need.
package commands

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins"
	_ "github.com/containerd/containerd/v2/cmd/containerd/command"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	_ "github.com/containerd/containerd/v2/cmd/ctr/app"
)
