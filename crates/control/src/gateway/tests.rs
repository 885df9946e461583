//! Frames of the gateway as others read them.
