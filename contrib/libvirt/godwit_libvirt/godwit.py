"""The switch of this host and the NVA, by way of godwitctl; and what is remembered between two calls."""

import glob
import json
import os
import subprocess

from .settings import CONF, NotFound, Trouble, Unreachable


class Godwit:
    """The switch of this host and the NVA, by way of godwitctl."""

    def __init__(self, settings):
        self.settings, self.names = settings, None

    def socket(self):
        """The switch's admin socket: the one that is set, or the only one of this host."""
        if self.settings["socket"]:
            return self.settings["socket"]
        found = sorted(glob.glob("/run/godwit/*.sock"))
        if len(found) != 1:
            what = "no admin socket" if not found else "several admin sockets"
            raise Unreachable(f"{what} in /run/godwit: is godwit running? `socket = PATH` in {CONF} names it")
        return found[0]

    def run(self, *words, to_nva=False):
        """One order; its answer."""
        where = ["--nva", self.settings["nva"]] if to_nva else ["--socket", self.socket()]
        argv = [self.settings["godwitctl"], "--json", "--timeout", self.settings["timeout_s"], *where, *words]
        environment = {k: v for k, v in os.environ.items() if k not in ("GODWIT_SOCKET", "GODWIT_NVA")}
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                env=environment,
                timeout=float(self.settings["timeout_s"]) * 3 + 30,
            )
        except subprocess.TimeoutExpired as e:
            raise Unreachable(f"`{' '.join(words)}` did not end: look at the log of godwit") from e
        except OSError as e:
            raise Trouble(f"{argv[0]} cannot be run ({e}): install it, or set `godwitctl = PATH` in {CONF}") from e
        if done.returncode == 0:
            try:
                return json.loads(done.stdout) if done.stdout.strip() else {}
            except ValueError as e:
                raise Trouble(f"{argv[0]} printed no JSON for `{' '.join(words)}`: compare its version") from e
        said = " ".join(done.stderr.replace("godwitctl: ", "").split()) or f"it ended with {done.returncode}"
        if done.returncode == 3:
            raise Unreachable(said)
        raise Trouble(said)

    def nve(self):
        """The name of this host's NVE."""
        if not self.settings["nve"]:
            self.settings["nve"] = self.run("nve", "show")["status"]["nve"]
        return self.settings["nve"]

    def port(self, name):
        """The switch's port of that name, or None."""
        return next((p for p in self.run("port", "list")["ports"] if p["name"] == name), None)

    def state(self, port, state):
        """Says how the VM on a port is."""
        self.run("port", "state", port, state)

    def vm(self, interface):
        """The NVA's record of an interface, or None."""
        vni = self.vni(interface)
        vms = self.run("vm", "list", to_nva=True)["vms"]
        return next((v for v in vms if v["vni"] == vni and v["mac"] == interface.mac), None)

    def vni(self, interface):
        """The VNI of an interface; that of a VN by name is asked of the NVA."""
        if interface.vni is None:
            if self.names is None:
                self.names = {v["name"]: v["vni"] for v in self.run("vn", "list", to_nva=True)["vns"]}
            if interface.vn not in self.names:
                raise NotFound(f"there is no VN {interface.vn}: `godwitctl vn create {interface.vn} --vni N` makes it")
            interface.vni = self.names[interface.vn]
        return interface.vni

    def vn_name(self, vni):
        """The name of a VN."""
        for vn in self.run("vn", "list", to_nva=True)["vns"]:
            if vn["vni"] == vni:
                return vn["name"]
        raise NotFound(f"there is no VN with VNI {vni}: `godwitctl vn create NAME --vni {vni}` makes it")

    def move(self, move_id):
        """A move's record."""
        return self.run("move", "show", move_id, to_nva=True)


class Memory:
    """What the hook remembers of a domain between two calls."""

    def __init__(self, directory, uuid):
        self.path = os.path.join(directory, uuid + ".json")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        try:
            with open(self.path, encoding="utf-8") as file:
                self.values = json.load(file)
        except (FileNotFoundError, ValueError):
            self.values = {}
        if not isinstance(self.values, dict):
            self.values = {}

    def save(self, **values):
        """Remembers these, too."""
        self.values.update(values)
        part = self.path + ".part"
        with open(part, "w", encoding="utf-8") as file:
            json.dump(self.values, file)
        os.replace(part, self.path)

    def forget(self):
        """The domain is gone from this host."""
        self.values = {}
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
