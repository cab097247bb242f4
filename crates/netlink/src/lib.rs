//! Kernel state over netlink: rules, routes, nexthop objects, monitor, snapshot; no Kubernetes.
