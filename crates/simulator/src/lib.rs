//! The DigitalOcean v2 API and metadata service with state machines and faults on demand.
