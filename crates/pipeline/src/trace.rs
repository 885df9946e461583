//! What would happen to a frame, and why.
