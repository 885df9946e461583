//! Namespaces, switches, an NVA and VMs on one machine; runs scenarios.
