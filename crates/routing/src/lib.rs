//! What a node's kernel should hold: prefix sets, protected ranges, conflicts, the plan; pure.

pub mod kernel_state;
