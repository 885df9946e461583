"""QEMU's control socket, as far as a migration needs it."""

import json
import socket
import time

PATIENCE_S = 60.0


class QmpError(Exception):
    """QEMU is not there, or said no."""


class Qmp:
    """A connection to `-qmp unix:PATH,server=on,wait=off`; events are kept until they are asked for."""

    def __init__(self, path, timeout=PATIENCE_S):
        self.timeout, self.events = timeout, []
        give_up = time.monotonic() + timeout
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(path)
                break
            except OSError as e:
                self._socket.close()
                if time.monotonic() > give_up:
                    raise QmpError(f"no QEMU answers at {path}: {e}") from e
                time.sleep(0.05)
        self._socket.settimeout(timeout)
        self._lines = self._socket.makefile("r", encoding="utf-8")
        if "QMP" not in self._next():
            raise QmpError(f"{path} is no control socket of a QEMU")
        self.execute("qmp_capabilities")

    def _next(self):
        try:
            line = self._lines.readline()
        except OSError as e:
            raise QmpError(f"QEMU is silent: {e}") from e
        if not line:
            raise QmpError("QEMU has ended")
        return json.loads(line)

    def execute(self, command, **arguments):
        """Gives an order and returns its answer; `_` in names stands for `-`."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            message = self._next()
            if "error" in message:
                raise QmpError(f"QEMU refuses {command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
            self.events.append(message)

    def event(self, *names):
        """The oldest event of these names; waits for it."""
        while True:
            for n, message in enumerate(self.events):
                if message.get("event") in names:
                    return self.events.pop(n)
            self.events.append(self._next())

    def wait_migrated(self):
        """Waits until the migration out of this QEMU is completed; QEMU's figures."""
        give_up = time.monotonic() + self.timeout
        while True:
            state = self.execute("query-migrate")
            if state.get("status") == "completed":
                return state
            if state.get("status") in ("failed", "cancelled"):
                raise QmpError(f"the migration {state['status']}: {state.get('error-desc', 'no reason given')}")
            if time.monotonic() > give_up:
                raise QmpError(f"the migration is {state.get('status')} after {self.timeout:g} s")
            time.sleep(0.02)

    def wait_running(self):
        """Waits until the guest runs here."""
        give_up = time.monotonic() + self.timeout
        while self.execute("query-status")["status"] != "running":
            if time.monotonic() > give_up:
                raise QmpError(f"the guest does not run after {self.timeout:g} s")
            time.sleep(0.01)

    def end(self):
        """Ends QEMU."""
        try:
            self.execute("quit")
        except QmpError:
            pass
        self._socket.close()
