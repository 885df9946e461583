"""The client against an NVA and a switch that answer from a list: `python -m unittest` in contrib/python/tests."""

import os
import tempfile
import unittest
from concurrent import futures

import grpc

from godwit import Nva, Refused, Switch, Unreachable, ip, mac, phase, phase_name
from godwit.v1 import admin_pb2, admin_pb2_grpc, common_pb2, operator_pb2_grpc


class FakeNva(operator_pb2_grpc.OperatorServicer):
    """Moves are what the test says; the first calls may fail."""

    def __init__(self):
        self.failures, self.phases, self.asked = [], [], []

    def _may_fail(self, context):
        if self.failures:
            context.abort(*self.failures.pop(0))

    def StartMove(self, request, context):  # pylint: disable=invalid-name
        self._may_fail(context)
        self.asked.append(request)
        return common_pb2.MoveRecord(id=request.id, vm=request.vm, to=request.to, mode=request.mode)

    def ShowMove(self, request, _context):  # pylint: disable=invalid-name
        now = self.phases.pop(0) if len(self.phases) > 1 else self.phases[0]
        return common_pb2.MoveRecord(id=request.id, phase=phase(now), steps=[common_pb2.MoveStep(note="because")])

    def DefineVm(self, request, _context):  # pylint: disable=invalid-name
        self.asked.append(request)
        return common_pb2.VmRecord(name=request.name)

    def AskNve(self, request, _context):  # pylint: disable=invalid-name
        self.asked.append(request)
        return FakeSwitch.answer(request.request)


class FakeSwitch(admin_pb2_grpc.NveAdminServicer):
    """A switch with one port, which refuses all but to show it."""

    @staticmethod
    def answer(request):
        """An answer to a request."""
        if request.WhichOneof("kind") == "list_ports":
            return admin_pb2.AdminResponse(ports=admin_pb2.PortList(ports=[admin_pb2.PortInfo(name="web1")]))
        if request.WhichOneof("kind") == "remove_port":
            return admin_pb2.AdminResponse(done=admin_pb2.Done(text="removed"))
        return admin_pb2.AdminResponse(error=admin_pb2.AdminError(text="no: do this"))

    def Call(self, request, _context):  # pylint: disable=invalid-name
        return self.answer(request)


class ClientTest(unittest.TestCase):
    """Each test has an NVA and a switch of its own."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.fake = FakeNva()
        server = grpc.server(futures.ThreadPoolExecutor(4))
        operator_pb2_grpc.add_OperatorServicer_to_server(self.fake, server)
        admin_pb2_grpc.add_NveAdminServicer_to_server(FakeSwitch(), server)
        self.socket = os.path.join(self.folder.name, "a.sock")
        port = server.add_insecure_port("127.0.0.1:0")
        server.add_insecure_port(f"unix:{self.socket}")
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        self.nva = Nva(f"http://127.0.0.1:{port}", timeout=5)
        self.addCleanup(self.nva.close)

    def test_r57_an_order_is_repeated_while_nobody_answers_and_not_when_it_is_refused(self):
        self.fake.failures = [(grpc.StatusCode.UNAVAILABLE, "restarting")] * 2
        self.assertEqual(self.nva.start_move("web1", "b", id="m1").id, "m1")
        self.assertEqual([r.id for r in self.fake.asked], ["m1"])
        self.fake.failures = [(grpc.StatusCode.FAILED_PRECONDITION, "VM web1 is frozen")]
        with self.assertRaises(Refused) as refused:
            self.nva.start_move("web1", "b", id="m2")
        self.assertEqual((refused.exception.code, str(refused.exception)),
                         (grpc.StatusCode.FAILED_PRECONDITION, "VM web1 is frozen"))
        with self.assertRaises(Unreachable):
            Nva("http://127.0.0.1:1", timeout=0.3).start_move("web1", "b", id="m3")

    def test_r57_a_move_is_waited_for_and_its_bad_end_is_told(self):
        self.fake.phases = ["preparing", "preparing", "prepared"]
        self.assertEqual(phase_name(self.nva.wait_move("m", "prepared")), "PREPARED")
        self.fake.phases = ["preparing", "aborted"]
        with self.assertRaisesRegex(Refused, "move m is aborted: because"):
            self.nva.wait_move("m", "prepared")
        self.fake.phases = ["preparing"]
        with self.assertRaises(Unreachable):
            self.nva.wait_move("m", "prepared", timeout=0.1)

    def test_r57_a_switch_answers_by_its_socket_and_by_the_nva(self):
        for switch in (Switch(self.socket), self.nva.switch("a")):
            self.assertEqual(list(switch.ports()), ["web1"])
            switch.remove_port("gone already")
            switch.remove_port("web1")
            with self.assertRaisesRegex(Refused, "no: do this"):
                switch.vm_state("web1", "running")
        self.assertEqual({r.nve for r in self.fake.asked}, {"a"})

    def test_r57_addresses_are_written_as_people_write_them(self):
        self.nva.define_vm("web1", vn="blue", mac="02:0:00:00:00:0A", ips=["10.0.0.1", "2001:db8::1"])
        sent = self.fake.asked[0]
        self.assertEqual((sent.mac, list(sent.ipv4), list(sent.ipv6)),
                         (0x02000000000A, [ip("10.0.0.1")], [ip("2001:db8::1")]))
        for bad in ("", "02:00", "02-00-00-00-00-01", "02:00:00:00:00:100", "x:0:0:0:0:0"):
            with self.assertRaises(ValueError):
                mac(bad)


if __name__ == "__main__":
    unittest.main()
