"""Client of the Godwit NVA and of its switches, for VM managers.

    from godwit import Nva, Switch, mac

    nva = Nva("https://192.0.2.10:6640")
    nva.define_vm("web1", vn="blue", mac="02:00:00:00:00:01", ips=["10.0.0.1"])
    here = nva.switch("nve-a")           # relayed by the NVA; Switch("/run/godwit/nve-a.sock") on its host
    here.add_port("web1", "net_vhost1,iface=/run/godwit/web1.vhost", vni=5001, mac="02:00:00:00:00:01")
    move = nva.start_move("web1", "nve-b", id="maintenance-17")

The calls, their states and their errors: docs/API.md.
"""

from .client import Nva, Refused, Switch, Unreachable, ip, mac, phase, phase_name

__all__ = ["Nva", "Refused", "Switch", "Unreachable", "ip", "mac", "phase", "phase_name"]
