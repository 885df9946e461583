"""What the hook reads of a domain's XML."""

import re
import xml.etree.ElementTree as ET
import zlib

from .settings import Trouble

NAMESPACE = "urn:godwit:libvirt:1"
# Names as the NVA takes them.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
# Interfaces that name their VN by alias or target device: ua-vn5001-eth0, vn5001-web1.
BY_NAME = re.compile(r"(?:ua-)?vn([0-9]{1,8})(?:-.*)?\Z")
MAX_VNI = 0xFFFFFF


def attribute(element, tag, key):
    """An attribute of a child, empty where there is none."""
    child = element.find(tag)
    return child.get(key, "") if child is not None else ""


class Interface:
    """A vhost-user interface of a domain: one VM interface of the NVA, one port of the switch."""

    def __init__(self, vm, port, mac, path, server, vni=None, vn=None):
        self.vm, self.port, self.mac, self.path, self.server = vm, port, mac, path, server
        self.vni, self.vn = vni, vn
        self.queues, self.mtu, self.ips = 1, None, []

    def devargs(self):
        """DPDK's device; its name is the port's own, so that a second call names the same one."""
        number = zlib.crc32(self.port.encode())
        text = f"net_vhost{number},iface={self.path}"
        if self.server:
            text += ",client=1"
        return text + (f",queues={self.queues}" if self.queues > 1 else "")


class Domain:
    """What the hook reads of a domain's XML."""

    def __init__(self, text, name, default_vni=""):
        try:
            root = ET.fromstring(text)
        except ET.ParseError as e:
            raise Trouble(f"the XML of domain {name} cannot be read: {e}") from e
        self.name = name
        self.uuid = (root.findtext("uuid") or "").strip()
        if not re.match(r"[0-9a-fA-F-]{32,36}\Z", self.uuid):
            raise Trouble(f"domain {name} has no UUID in its XML: it has to come from libvirt")
        named = [dict(port.attrib) for port in root.iter(f"{{{NAMESPACE}}}port")]
        devices = [i for i in root.findall("devices/interface") if i.get("type") == "vhostuser"]
        self.interfaces, self.skipped = [], []
        for interface in devices:
            self.read(interface, named, len(devices), default_vni)

    def read(self, interface, named, count, default_vni):
        """One <interface type='vhostuser'>."""
        mac, source = attribute(interface, "mac", "address").lower(), interface.find("source")
        if not mac or source is None or not source.get("path"):
            raise Trouble(f"domain {self.name}: a vhost-user interface needs <mac address=…/> and <source path=…/>")
        mine = [n for n in named if n.get("mac", "").lower() == mac or ("mac" not in n and count == 1)]
        if len(mine) > 1:
            raise Trouble(f"domain {self.name}: two godwit:port elements are of the interface {mac}; keep one")
        says = mine[0] if mine else {}
        vni, vn = says.get("vni") or self.vni_by_name(interface) or default_vni or None, says.get("vn")
        if not vni and not vn:
            self.skipped.append(mac)
            return
        if vni and not (vni.isdigit() and 0 < int(vni) <= MAX_VNI):
            raise Trouble(f"domain {self.name}, interface {mac}: {vni!r} is no VNI; use 1 to {MAX_VNI}")
        suffix = "" if not self.interfaces else f"-{len(self.interfaces)}"
        vm = says.get("vm") or self.name + suffix
        port = says.get("name") or vm
        for what, text in (("VM", vm), ("port", port)):
            if not NAME.match(text):
                raise Trouble(
                    f"domain {self.name}, interface {mac}: {text!r} is no name of a {what}: give one of letters,"
                    f" digits, dots, underscores and hyphens by <godwit:port vm=… name=…/>"
                )
        path = source.get("path")
        if "," in path:
            raise Trouble(f"domain {self.name}, interface {mac}: the socket {path} has a comma, which DPDK cannot take")
        read = Interface(vm, port, mac, path, source.get("mode") == "server", int(vni) if vni else None, vn)
        queues, mtu = attribute(interface, "driver", "queues"), attribute(interface, "mtu", "size")
        read.queues, read.mtu = int(queues) if queues.isdigit() else 1, mtu or None
        read.ips = says.get("ips", "").replace(",", " ").split()
        self.interfaces.append(read)

    @staticmethod
    def vni_by_name(interface):
        """The VNI in the interface's alias or target device."""
        for tag, key in (("alias", "name"), ("target", "dev")):
            match = BY_NAME.match(attribute(interface, tag, key))
            if match:
                return match.group(1)
        return None
