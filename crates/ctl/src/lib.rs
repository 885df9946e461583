//! godwitctl: the operator's hand.
