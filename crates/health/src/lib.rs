//! Probe results in, verdicts out; pure, time is an argument.
