"""The example manager against an NVA and hosts that only remember what they were asked for."""

import os
import sys
import types
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from unittest import mock

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
LOADER = SourceFileLoader("migrate", os.path.join(FOLDER, "..", "examples", "migrate.py"))
migrate = module_from_spec(spec_from_loader("migrate", LOADER))
LOADER.exec_module(migrate)


class ModesTest(unittest.TestCase):
    """What the NVA is told, in order."""

    def reports(self, mode):
        """The phases that a move of this mode reports."""
        manager = migrate.Manager.__new__(migrate.Manager)
        manager.nva, manager.id = mock.Mock(), "m"
        manager.args = types.SimpleNamespace(vm="web1", to="nve-b", interval=30, carry=None)
        for part in ("order", "shut_down", "start_anew", "carry"):
            setattr(manager, part, mock.Mock())
        with mock.patch.object(migrate, "say"):
            getattr(manager, mode)()
        return [call.args for call in manager.nva.report_move.call_args_list]

    def test_r50_a_warm_move_says_that_the_vm_is_down_before_it_is_there_again(self):
        self.assertEqual(self.reports("warm"), [("m", "stopped"), ("m", "instantiated")])

    def test_r51_a_cold_move_says_each_of_its_steps(self):
        steps = ["stopped", "packaged", "sent", "instantiated"]
        self.assertEqual(self.reports("cold"), [("m", step) for step in steps])


if __name__ == "__main__":
    unittest.main()
