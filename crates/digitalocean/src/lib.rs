//! Typed client for the part of the DigitalOcean v2 API that the controller uses.
