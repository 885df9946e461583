"""The NVA and the switches as a VM manager sees them. Every call may be repeated."""

import ipaddress
import os
import string
import time

import grpc

from .v1 import admin_pb2, admin_pb2_grpc, common_pb2, operator_pb2, operator_pb2_grpc

# No more follows, but late counts.
FINAL = ("DONE", "ABORTED", "FAILED")
PATIENCE_S = 10.0
RETRY_S = 0.2


class Refused(Exception):
    """The NVA or the switch said no: `code` is a gRPC status (None from a switch), the text says what to do."""

    def __init__(self, text, code=None):
        super().__init__(text)
        self.code = code


class Unreachable(Exception):
    """The NVA or the switch did not answer. The call may have been carried out: repeat it."""


def mac(text):
    """A MAC address as the protocol has it: `02:00:00:00:00:01` as 0x020000000001."""
    if isinstance(text, int):
        return text
    octets = text.split(":")
    if len(octets) != 6 or not all(1 <= len(o) <= 2 and set(o) <= set(string.hexdigits) for o in octets):
        raise ValueError(f"{text!r} is no MAC address: write six octets, as 02:00:00:00:00:01")
    return int("".join(o.zfill(2) for o in octets), 16)


def ip(address):
    """An IP address as the protocol has it: 4 or 16 bytes."""
    return ipaddress.ip_address(address).packed


def phase(name):
    """The number of a phase: `prepared`."""
    return common_pb2.MovePhase.Value("MOVE_PHASE_" + name.upper())


def phase_name(record):
    """The phase of a move's record as a word."""
    return common_pb2.MovePhase.Name(record.phase).removeprefix("MOVE_PHASE_")


def _call(function, request, timeout):
    """One call, repeated while nobody answers."""
    give_up = time.monotonic() + timeout
    while True:
        left = give_up - time.monotonic()
        try:
            return function(request, timeout=max(left, 0.1))
        except grpc.RpcError as e:
            away = e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            if not away:
                raise Refused(e.details(), e.code()) from e
            if left <= RETRY_S:
                raise Unreachable(e.details()) from e
        time.sleep(RETRY_S)


def _read(folder, name):
    """A file's bytes; None where there is none."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _credentials(folder):
    """What the NVA is shown, of an operator's folder."""
    authority = _read(folder, "authority.pem")
    if authority is None:
        raise ValueError(f"{folder} has no authority.pem: put the files of `godwitctl pki operator` there")
    certificate, key, token = (_read(folder, name) for name in ("certificate.pem", "key.pem", "token"))
    if certificate is None and token is None:
        raise ValueError(f"{folder} has neither certificate.pem nor token: put the operator's files there")
    if certificate is not None:
        return grpc.ssl_channel_credentials(authority, key, certificate)
    by_token = grpc.access_token_call_credentials(token.decode().strip())
    return grpc.composite_channel_credentials(grpc.ssl_channel_credentials(authority), by_token)


def _usual_folder():
    """The first of godwitctl's folders that has an authority, or the user's own."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    folders = [os.path.join(config, "godwit"), "/etc/godwit/operator"]
    return next((f for f in folders if os.path.exists(os.path.join(f, "authority.pem"))), folders[0])


def _channel(url, files):
    """A connection that is made with the first call."""
    scheme, _, host = url.rstrip("/").rpartition("://")
    if scheme == "https":
        return grpc.secure_channel(host, _credentials(files or _usual_folder()))
    if scheme not in ("", "http"):
        raise ValueError(f"{url!r} is no NVA: write https://HOST:PORT")
    return grpc.insecure_channel(host)


class Nva:
    """The directory. `url` is https://HOST:PORT, or http:// for one in clear; `files` is an operator's folder."""

    def __init__(self, url="http://[::1]:6640", timeout=PATIENCE_S, files=None):
        self._channel = _channel(url, files)
        self._stub = operator_pb2_grpc.OperatorStub(self._channel)
        self._timeout = timeout

    def close(self):
        """Ends the connection."""
        self._channel.close()

    def call(self, name, request):
        """Any call of the service `Operator` by its name, as `call("ListVms", operator_pb2.ListVmsRequest())`."""
        return _call(getattr(self._stub, name), request, self._timeout)

    def switch(self, nve):
        """One NVE, relayed by the NVA."""
        return Switch(nve=nve, nva=self)

    # Networks and VMs.

    def create_vn(self, name, vni, **settings):
        """Creates a VN; the same again changes nothing."""
        given = common_pb2.VnSettings(**settings)
        return self.call("CreateVn", operator_pb2.Vn(name=name, vni=vni, settings=given))

    def define_vm(self, name, vn, mac, ips=(), **more):  # pylint: disable=redefined-outer-name
        """Defines a VM's interface, or changes its definition to this."""
        packed = [ip(address) for address in ips]
        request = operator_pb2.DefineVmRequest(
            name=name,
            vn=vn,
            mac=globals()["mac"](mac),
            ipv4=[a for a in packed if len(a) == 4],
            ipv6=[a for a in packed if len(a) == 16],
            **more,
        )
        return self.call("DefineVm", request)

    def show_vm(self, name):
        """A VM's record."""
        return self.call("ShowVm", operator_pb2.VmName(name=name))

    def delete_vm(self, name):
        """Deletes a VM that runs nowhere."""
        return self.call("DeleteVm", operator_pb2.VmName(name=name))

    # Moves.

    def start_move(self, vm, to, id, mode="hot", accept_interruption=False):  # pylint: disable=redefined-builtin
        """Orders a move. The same `id` again is the same move, so that the order may be repeated."""
        request = operator_pb2.StartMoveRequest(vm=vm, to=to, id=id)
        request.mode = common_pb2.MoveMode.Value("MOVE_MODE_" + mode.upper())
        if accept_interruption:
            request.accept_interruption = True
        return self.call("StartMove", request)

    def show_move(self, id):  # pylint: disable=redefined-builtin
        """A move's record, with its steps."""
        return self.call("ShowMove", operator_pb2.MoveName(id=id))

    def abort_move(self, id):  # pylint: disable=redefined-builtin
        """Calls a move off; refused once it has its grant."""
        return self.call("AbortMove", operator_pb2.MoveName(id=id))

    def report_move(self, id, reached):  # pylint: disable=redefined-builtin
        """Says how far a warm or cold move is: `stopped`, `packaged`, `sent`, `instantiated`."""
        return self.call("ReportMove", operator_pb2.ReportMoveRequest(id=id, phase=phase(reached)))

    def set_mirror(self, vm, nve, interval_s=30):
        """Records where the manager mirrors a VM's state to, as a warm move needs it; an empty `nve`: nowhere."""
        request = operator_pb2.SetMirrorRequest(vm=vm, nve=nve, interval_s=interval_s)
        return self.call("SetMirror", request)

    def vm_mirrored(self, vm, at_us=0):
        """Says that the VM was mirrored."""
        return self.call("VmMirrored", operator_pb2.VmMirroredRequest(vm=vm, at_us=at_us))

    def pause_vm(self, vm, drop=False, limit_s=60):
        """Pauses a VM's connections: frames for it are held, or dropped, until they go on or the time is over."""
        kind = common_pb2.WhilePaused.Value("WHILE_PAUSED_DROP" if drop else "WHILE_PAUSED_HOLD")
        return self.call("PauseVm", operator_pb2.PauseVmRequest(vm=vm, treatment=kind, limit_s=limit_s))

    def resume_vm(self, vm):
        """A VM's connections go on; what was held is delivered in order."""
        return self.call("ResumeVm", operator_pb2.VmName(name=vm))

    def wait_move(self, id, *phases, timeout=60.0):  # pylint: disable=redefined-builtin
        """Waits until a move is in one of these phases (`prepared`, ...); `Refused` where it ends otherwise."""
        wanted = {p.upper() for p in phases}
        give_up = time.monotonic() + timeout
        while True:
            record = self.show_move(id)
            if phase_name(record) in wanted:
                return record
            if phase_name(record) in FINAL:
                why = "; ".join(s.note for s in record.steps[-1:])
                raise Refused(f"move {id} is {phase_name(record).lower()}: {why}")
            if time.monotonic() > give_up:
                raise Unreachable(f"move {id} is still {phase_name(record).lower()} after {timeout:g} s")
            time.sleep(0.02)


class Switch:
    """One switch: by its admin socket on its host, or relayed by the NVA (`Nva.switch`)."""

    def __init__(self, socket=None, nve=None, nva=None, timeout=PATIENCE_S):
        self._nve, self._nva, self._timeout = nve, nva, timeout
        if nva is None:
            # The authority of a Unix socket is its path otherwise, which HTTP/2 servers refuse.
            options = [("grpc.default_authority", "localhost")]
            self._channel = grpc.insecure_channel(f"unix:{socket}", options=options)
            self._stub = admin_pb2_grpc.NveAdminStub(self._channel)

    def ask(self, **kind):
        """Any request by its field: `ask(get_status=admin_pb2.GetStatus())`; the answer's field."""
        answer = self._page(0, kind)
        whole = getattr(answer, answer.WhichOneof("kind"))
        while answer.next:
            answer = self._page(answer.next, kind)
            # Lists of several pages are joined.
            whole.MergeFrom(getattr(answer, answer.WhichOneof("kind")))
        return whole

    def _page(self, start, kind):
        request = admin_pb2.AdminRequest(**kind, **{"from": start})
        if self._nva is None:
            answer = _call(self._stub.Call, request, self._timeout)
        else:
            answer = self._nva.call("AskNve", operator_pb2.AskNveRequest(nve=self._nve, request=request))
        field = answer.WhichOneof("kind")
        if field == "error":
            raise Refused(answer.error.text)
        if field is None:
            raise Refused("the switch gave an answer that this client does not know: compare the versions")
        return answer

    def status(self):
        """The switch itself."""
        return self.ask(get_status=admin_pb2.GetStatus())

    def ports(self):
        """All ports by name."""
        return {p.name: p for p in self.ask(list_ports=admin_pb2.ListPorts()).ports}

    def add_port(self, name, devargs, vni, mac, **more):  # pylint: disable=redefined-outer-name
        """Adds a port; the same again changes nothing."""
        request = admin_pb2.AddPort(name=name, devargs=devargs, vni=vni, mac=globals()["mac"](mac), **more)
        return self.ask(add_port=request)

    def remove_port(self, name):
        """Removes a port; one that is not there changes nothing."""
        if name in self.ports():
            self.ask(remove_port=admin_pb2.RemovePort(name=name))

    def pause_port(self, name, move_id=""):
        """The VM stands still for its move: what arrives is held."""
        return self.ask(pause_port=admin_pb2.PausePort(name=name, move_id=move_id))

    def activate_port(self, name):
        """The VM runs on this port: deliver and claim; after a pause, go on."""
        return self.ask(activate_port=admin_pb2.ActivatePort(name=name))

    def vm_state(self, port, state):
        """How the VM is, in the words of RFC 7666: `running`, `paused`, `shutdown`, ..."""
        number = admin_pb2.VmOperState.Value("VM_OPER_STATE_" + state.upper())
        return self.ask(set_vm_state=admin_pb2.SetVmState(port=port, state=number))
