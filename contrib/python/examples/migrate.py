#!/usr/bin/env python3
"""A VM manager in one file: moves a VM of QEMU from one host to another, hot, warm or cold.

The VM runs on a port of one switch, and its QEMU has a control socket. The command after `--` starts the QEMU at the
new host, with `ssh` in front where that is another machine; `{incoming}` stands for what QEMU needs to wait for a
migration, nothing in a cold move.

    migrate.py hot --nva http://192.0.2.10:6640 --vm web1 --to nve-b --qmp /run/a/web1.qmp --to-qmp /run/b/web1.qmp \\
        --port web1 --to-socket /run/b/web1.vhost --uri tcp:198.51.100.2:4444 -- \\
        qemu-system-x86_64 ... -qmp unix:/run/b/web1.qmp,server=on,wait=off {incoming}

| Mode | What the VM notices |
|---|---|
| hot | a pause of some milliseconds |
| warm | it is shut down and started anew from its last mirror: its connections end |
| cold | it is shut down, its disk carried, and started anew: its connections end |
"""

import argparse
import shlex
import subprocess
import sys
import time
import zlib

from godwit import Nva, Refused, Unreachable
from godwit.qmp import Qmp, QmpError

# How long a guest may take to switch itself off.
POWERDOWN_S = 30.0


def say(text):
    """One line with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


class Manager:
    """What a move needs to know."""

    def __init__(self, args):
        self.args = args
        self.nva = Nva(args.nva, timeout=args.timeout)
        record = self.nva.show_vm(args.vm)
        self.vni, self.mac = record.key.vni, record.key.mac
        self.old_nve = record.location.nve
        self.new_qemu = None
        # A name of one's own makes the order one that may be repeated.
        self.id = args.id or f"{args.vm}-{record.version.epoch}-{record.version.seq}"
        self.old, self.new = self.nva.switch(self.old_nve), self.nva.switch(args.to)

    def add_port(self):
        """The port at the new switch, before QEMU."""
        number = zlib.crc32(self.args.port.encode())
        devargs = f"net_vhost{number},iface={self.args.to_socket}"
        self.new.add_port(self.args.port, devargs, vni=self.vni, mac=self.mac)
        say(f"port {self.args.port} is at {self.args.to}")

    def start_qemu(self, incoming):
        """The QEMU at the new host."""
        words = []
        for word in self.args.command:
            if word == "{incoming}":
                words += ["-incoming", "defer"] if incoming else []
            else:
                words.append(word)
        say("starting " + shlex.join(words))
        self.new_qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL)  # pylint: disable=consider-using-with
        return Qmp(self.args.to_qmp)

    def order(self, mode):
        """The order, and both switches prepared."""
        interrupts = mode != "hot"
        self.nva.start_move(self.args.vm, self.args.to, id=self.id, mode=mode, accept_interruption=interrupts)
        say(f"move {self.id} is ordered: {self.args.vm} from {self.old_nve} to {self.args.to}, {mode}")
        self.add_port()
        self.nva.wait_move(self.id, "prepared")
        say("both switches are prepared")

    def finish(self):
        """The old port goes when every switch knows."""
        record = self.nva.wait_move(self.id, "done")
        self.old.remove_port(self.args.port)
        say(f"move {self.id} is done; version {record.version.epoch}.{record.version.seq}")

    def hot(self):
        """QEMU carries memory while the guest runs; the switches hold what arrives in between."""
        self.order("hot")
        old = Qmp(self.args.qmp)
        new = self.start_qemu(incoming=True)
        new.execute("migrate-incoming", uri=self.args.uri)
        old.execute("migrate", uri=self.args.uri)
        figures = old.wait_migrated()
        new.wait_running()
        # The VM's announcement says the same; this is for guests that are silent.
        self.new.activate_port(self.args.port)
        say(f"migrated in {figures.get('total-time')} ms, downtime {figures.get('downtime')} ms")
        self.finish()
        old.end()

    def warm(self):
        """The state is at the new host already: it is mirrored, the VM is shut down, and started there."""
        self.nva.set_mirror(self.args.vm, self.args.to, interval_s=self.args.interval)
        self.mirror()
        self.order("warm")
        self.shut_down()
        self.nva.report_move(self.id, "stopped")
        self.mirror()
        self.nva.report_move(self.id, "instantiated")
        self.start_anew()

    def cold(self):
        """The five steps: the VM is stopped, its state packaged, sent, instantiated, and started."""
        self.order("cold")
        self.shut_down()
        self.nva.report_move(self.id, "stopped")
        self.nva.report_move(self.id, "packaged")
        self.carry()
        self.nva.report_move(self.id, "sent")
        self.nva.report_move(self.id, "instantiated")
        self.start_anew()

    def mirror(self):
        """One mirror of the VM's state."""
        self.carry()
        self.nva.vm_mirrored(self.args.vm)
        say(f"{self.args.vm} is mirrored")

    def carry(self):
        """What brings the VM's disk to the new host, as the caller has it."""
        if self.args.carry:
            say(self.args.carry)
            subprocess.run(self.args.carry, shell=True, check=True)

    def shut_down(self):
        """The guest switches itself off; the switch is told that it is down."""
        old = Qmp(self.args.qmp, timeout=POWERDOWN_S)
        self.old.vm_state(self.args.port, "shuttingdown")
        old.execute("system_powerdown")
        try:
            old.event("SHUTDOWN")
        except QmpError as e:
            say(f"the guest does not switch itself off ({e}): QEMU is ended")
        old.end()
        self.old.vm_state(self.args.port, "shutdown")
        say(f"{self.args.vm} is shut down at {self.old_nve}")

    def start_anew(self):
        """The VM begins at the new host with the same addresses."""
        self.start_qemu(incoming=False).wait_running()
        self.new.vm_state(self.args.port, "running")
        self.finish()

    def give_up(self):
        """Nothing is to be half done: the VM is where it was, if it did not get to run at its new place."""
        try:
            self.nva.abort_move(self.id)
        except (Refused, Unreachable) as e:
            say(f"move {self.id}: {e}")
            return
        if self.new_qemu is not None:
            self.new_qemu.terminate()
            self.new_qemu.wait()
        self.new.remove_port(self.args.port)
        say(f"move {self.id} is called off")


def arguments(argv):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["hot", "warm", "cold"])
    parser.add_argument("--nva", default="http://[::1]:6640", help="where the NVA listens")
    parser.add_argument("--vm", required=True, help="the VM's name at the NVA")
    parser.add_argument("--to", required=True, help="the new NVE")
    parser.add_argument("--port", required=True, help="the port's name at both switches")
    parser.add_argument("--to-socket", required=True, help="vhost-user socket at the new host")
    parser.add_argument("--qmp", required=True, help="control socket of the QEMU that runs")
    parser.add_argument("--to-qmp", required=True, help="control socket of the QEMU to be started")
    parser.add_argument("--uri", default="tcp:127.0.0.1:4444", help="where a hot migration comes in")
    parser.add_argument("--carry", help="shell command that brings the VM's disk to the new host")
    parser.add_argument("--interval", type=int, default=30, help="seconds between mirrors")
    parser.add_argument("--id", help="name of the move; the same name is the same move")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds to wait for an answer")
    parser.add_argument("command", nargs="+", help="QEMU's command line at the new host, after --")
    return parser.parse_args(argv)


def main(argv):
    """The exit code."""
    try:
        manager = Manager(arguments(argv))
    except (Refused, Unreachable) as e:
        say(str(e))
        return 1
    try:
        getattr(manager, manager.args.mode)()
        return 0
    except (Refused, Unreachable, QmpError, OSError, subprocess.CalledProcessError) as e:
        say(f"{manager.args.mode} move failed: {e}")
        manager.give_up()
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
