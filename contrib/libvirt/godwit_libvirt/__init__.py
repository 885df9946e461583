"""The parts of the hook."""
