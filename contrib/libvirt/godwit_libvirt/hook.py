"""What each of libvirt's operations means to Godwit."""

import grp
import os
import pwd
import syslog
import time

from .settings import CONF, Trouble, Unreachable, log

# A migration that comes in is followed by the domain's start within so many seconds.
INCOMING_S = 60


class Hook:
    """What each operation means."""

    def __init__(self, domain, godwit, memory, settings, sleep=time.sleep, clock=time.monotonic):
        self.domain, self.godwit, self.memory, self.settings = domain, godwit, memory, settings
        self.sleep, self.clock = sleep, clock

    def handle(self, operation):
        """Carries an operation out; `Trouble` where it cannot be."""
        return getattr(self, operation)()

    # The domain comes.

    def comes_in(self):
        """A migration brings the domain. What was remembered of one that libvirt did not end is old: its moves are
        over, or nothing followed."""
        values = self.memory.values
        if values.get("phase") != "incoming":
            return False
        moves = values.get("moves", {}).values()
        try:
            if moves:
                return any(not self.godwit.move(move)["is_final"] for move in moves)
        except Trouble as e:
            log(syslog.LOG_WARNING, f"domain {self.domain.name}: whether it comes in is not known: {e}")
        return time.time() - values.get("since", 0) < INCOMING_S

    def migrate(self):
        """A migration comes in: the move is ordered, and the ports are there before QEMU is."""
        moves, added = dict(self.memory.values.get("moves", {})), []
        try:
            for interface in self.domain.interfaces:
                move = self.order_move(interface, self.known(interface))
                if move:
                    moves[interface.port] = move
                self.memory.save(phase="incoming", moves=moves, name=self.domain.name, since=time.time())
                added += self.add(interface)
            for move in moves.values():
                self.wait_prepared(move)
        except (Trouble, OSError):
            # libvirt says nothing more of a migration that this refuses.
            for move in moves.values():
                self.did_not_come(move)
            self.take_back(added)
            self.memory.forget()
            raise

    def prepare(self):
        """Before QEMU: the ports."""
        incoming, added = self.comes_in(), []
        try:
            for interface in self.domain.interfaces:
                if not incoming:
                    self.known(interface, anywhere=True)
                added += self.add(interface)
        except (Trouble, OSError):
            self.take_back(added)
            raise
        if not incoming:
            self.memory.save(phase="prepared", moves={}, name=self.domain.name)

    def start(self):
        """Just before QEMU: nothing but to see that the ports are there, if `prepare` was not called."""
        if self.memory.values.get("phase") not in ("incoming", "prepared"):
            log(syslog.LOG_WARNING, f"domain {self.domain.name}: start without prepare; the ports are added now")
            self.prepare()

    def started(self):
        """It runs, unless it is yet to come in: that one says so itself, or QEMU does."""
        phase = self.memory.values.get("phase")
        if self.comes_in():
            return
        if phase is None:
            log(syslog.LOG_WARNING, f"domain {self.domain.name}: started without prepare; the ports are added now")
        for interface in self.domain.interfaces:
            self.add(interface)
            self.godwit.state(interface.port, "running")
        self.memory.save(phase="started", moves={}, name=self.domain.name)

    def restore(self):
        """A saved domain: `prepare` and `started` follow."""

    def reconnect(self):
        """libvirt came back: a port that is missing is added, and its VM speaks for itself."""
        for interface in self.domain.interfaces:
            self.add(interface)
        if not self.memory.values:
            self.memory.save(phase="started", moves={}, name=self.domain.name)

    attach = reconnect

    def again(self):
        """The switch was started anew: the ports, unless the domain went meanwhile; true where nothing is left of
        it."""
        phase = self.memory.values.get("phase")
        if phase == "released":
            self.release()
            return True
        if phase != "stopped":
            self.reconnect()
        return False

    # The domain goes.

    def stopped(self):
        """QEMU is gone: the VM moved away, did not come in, or is down."""
        phase, moves = self.memory.values.get("phase"), self.memory.values.get("moves", {})
        errors = []
        for interface in self.domain.interfaces:
            try:
                self.one_stopped(interface, moves.get(interface.port))
            except Trouble as e:
                errors.append(str(e))
        self.memory.save(phase="stopped", moves={}, name=self.domain.name)
        if phase == "stopped":
            log(syslog.LOG_INFO, f"domain {self.domain.name}: stopped was said before")
        if errors:
            raise Trouble("; ".join(errors))

    def one_stopped(self, interface, incoming):
        """The same of one interface; `incoming` is the move that brought it, or was to."""
        port = self.godwit.port(interface.port)
        if port is None:
            return
        if incoming and self.did_not_come(incoming):
            return
        if port["state"] == "departed" or self.moves_away(interface):
            return
        # Neither may follow from what was said before; the port goes all the same.
        for state in ("shuttingdown", "shutdown"):
            try:
                self.godwit.state(interface.port, state)
            except Unreachable:
                raise
            except Trouble as e:
                log(syslog.LOG_DEBUG, f"port {interface.port}: {e}")

    def did_not_come(self, move):
        """Calls a move off whose VM never came; false where it did."""
        try:
            record = self.godwit.move(move)
            if record["phase"] in ("granted", "done"):
                return False
            if not record["is_final"]:
                self.godwit.run("move", "abort", move, to_nva=True)
                log(syslog.LOG_NOTICE, f"move {move} is called off: its VM did not come")
            return True
        except Trouble as e:
            log(syslog.LOG_WARNING, f"move {move}: {e}")
            return False

    def moves_away(self, interface):
        """Waits until the VM is where it moves to, so that its old port holds and forwards until then; whether it
        moves."""
        give_up = self.clock() + float(self.settings["settle_s"])
        while True:
            try:
                record = self.godwit.vm(interface)
                moving = record and record.get("moving")
                move = self.godwit.move(moving) if moving else None
                away = record and record.get("nve") not in (None, "", self.godwit.nve())
            except Trouble as e:
                log(syslog.LOG_WARNING, f"VM {interface.vm}: whether it moves is not known: {e}")
                return False
            if move is None or move["from"] != self.godwit.nve():
                return bool(away)
            if move["is_final"]:
                # The record is older than this.
                return move["phase"] == "done"
            if move["mode"] != "hot":
                # A warm or cold move waits for this shutdown.
                return False
            if self.clock() > give_up:
                log(syslog.LOG_WARNING, f"move {moving} is not over after {self.settings['settle_s']} s")
                return True
            self.sleep(0.05)

    def release(self):
        """All of the domain is gone from this host: its ports, too."""
        if self.memory.values.get("phase") not in ("stopped", "released", None):
            log(syslog.LOG_WARNING, f"domain {self.domain.name}: release without stopped; both are done now")
            self.stopped()
        # Whether or not the switch is there to hear it.
        self.memory.save(phase="released", moves={}, name=self.domain.name)
        errors = []
        for interface in self.domain.interfaces:
            try:
                if self.godwit.port(interface.port):
                    self.godwit.run("port", "remove", interface.port)
            except Trouble as e:
                errors.append(str(e))
        if errors:
            raise Trouble("; ".join(errors))
        self.memory.forget()

    # Parts of these.

    def known(self, interface, anywhere=False):
        """The VM's record; it is defined where that is set. `anywhere`: the NVA may be away."""
        try:
            record = self.godwit.vm(interface)
        except Unreachable as e:
            if not anywhere or interface.vni is None:
                raise
            log(syslog.LOG_WARNING, f"VM {interface.vm}: the NVA could not be asked: {e}")
            return None
        if record:
            return record
        vni = self.godwit.vni(interface)
        vn = self.godwit.vn_name(vni)
        words = ["vm", "define", interface.vm, "--vn", vn, "--mac", interface.mac]
        for ip in interface.ips:
            words += ["--ipv6" if ":" in ip else "--ipv4", ip]
        if self.settings["define"] != "yes":
            raise Trouble(
                f"the NVA has no VM with MAC {interface.mac} in VNI {vni}: `godwitctl {' '.join(words)}` defines it,"
                f" or `define = yes` in {CONF} has the hook do it"
            )
        self.godwit.run(*words, to_nva=True)
        log(syslog.LOG_NOTICE, f"VM {interface.vm} is defined in VN {vn}")
        return self.godwit.vm(interface)

    def order_move(self, interface, record):
        """Orders the move of a VM to this host. The id is of the domain, the interface and the version of its location,
        so that a second call orders the same move."""
        if not record or not record.get("nve") or record["nve"] == self.godwit.nve():
            # It lives nowhere, or here by what the NVA has: it is claimed when it speaks.
            return None
        if record.get("moving"):
            move = self.godwit.move(record["moving"])
            if move["to"] == self.godwit.nve():
                return move["id"]
        place = f"{interface.mac.replace(':', '')[-4:]}-{record.get('version') or 0}"
        for attempt in range(1, 100):
            again = f"-{attempt}" if attempt > 1 else ""
            move_id = f"libvirt-{self.domain.uuid}-{place}{again}"
            move = self.godwit.run(
                "vm", "move", record["name"], "--to", self.godwit.nve(), "--id", move_id, to_nva=True
            )
            if not move["is_final"]:
                return move_id
        raise Trouble(f"VM {interface.vm}: a hundred moves of this location were called off; see `godwitctl move list`")

    def wait_prepared(self, move_id):
        """Until both switches are prepared: QEMU may stop the VM any time from then on."""
        give_up = self.clock() + float(self.settings["prepare_s"])
        while True:
            move = self.godwit.move(move_id)
            if move["is_final"] and move["phase"] != "done":
                why = " ".join(move.get("explanation", []))
                raise Trouble(f"move {move_id} was called off: {why}")
            if move["phase"] != "preparing":
                return
            if self.clock() > give_up:
                raise Trouble(
                    f"move {move_id} is not prepared after {self.settings['prepare_s']} s:"
                    f" `godwitctl move show {move_id}` says which switch is not"
                )
            self.sleep(0.02)

    def take_back(self, added):
        """Nothing is to be half done."""
        for name in added:
            try:
                self.godwit.run("port", "remove", name)
            except Trouble as e:
                log(syslog.LOG_WARNING, f"port {name}: {e}")

    def add(self, interface):
        """Adds the port, unless it is there; the names of ports that are new."""
        added, vni, there = [], self.godwit.vni(interface), self.godwit.port(interface.port)
        if there is None:
            words = ["port", "add", interface.port, "--devargs", interface.devargs()]
            words += ["--vni", str(vni), "--mac", interface.mac, "--rx-queues", str(interface.queues)]
            words += ["--mtu", interface.mtu] if interface.mtu else []
            self.godwit.run(*words)
            added.append(interface.port)
        elif (there["vni"], there["vm_mac"]) != (vni, interface.mac) or there["devargs"] != interface.devargs():
            raise Trouble(
                f"port {interface.port} of this host is another VM's ({there['vni']}/{there['vm_mac']},"
                f" {there['devargs']}): give this one a name of its own by <godwit:port name=…/>, or remove that one:"
                f" `godwitctl --socket {self.godwit.socket()} port remove {interface.port}`"
            )
        try:
            self.hand_over(interface)
        except Trouble:
            self.take_back(added)
            raise
        return added

    def hand_over(self, interface):
        """The socket's owner, where QEMU does not run as root."""
        owner = self.settings["socket_owner"]
        if not owner or interface.server:
            return
        user, _, group = owner.partition(":")
        try:
            os.chown(interface.path, pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid if group else -1)
        except (KeyError, OSError) as e:
            raise Trouble(f"{interface.path} cannot be given to {owner} (`socket_owner` in {CONF}): {e}") from e
