//! A whole cloud and cluster on one machine.
