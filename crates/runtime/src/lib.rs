//! What every binary needs: telemetry, metrics, admin server, Kubernetes client, lease, shutdown.
