"""The protocol; its modules are generated when the package is built."""
