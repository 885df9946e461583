"""The hook against a switch and an NVA that only remember: `python3 contrib/libvirt/test_hook.py`."""

import io
import json
import os
import stat
import sys
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from unittest import mock

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, FOLDER)
LOADER = SourceFileLoader("hook_program", os.path.join(FOLDER, "qemu"))
hook_program = module_from_spec(spec_from_loader("hook_program", LOADER))
LOADER.exec_module(hook_program)

UUID = "0b0e5c44-94c5-4d3a-8f0c-9f1f8a3f5a10"
MAC = "02:67:77:00:00:10"

# A godwitctl that keeps its world in a file.
FAKE = r'''#!/usr/bin/env python3
import json, os, sys
path = os.environ["FAKE_WORLD"]
world = json.load(open(path))
words = sys.argv[1:]
to_nva = "--nva" in words
for flag in ("--json",):
    words.remove(flag)
for flag in ("--timeout", "--nva", "--socket"):
    if flag in words:
        at = words.index(flag)
        del words[at:at + 2]
def end(value=None, error=None, code=1):
    json.dump(world, open(path, "w"))
    if error:
        sys.stderr.write("godwitctl: " + error + "\n")
        sys.exit(code)
    print(json.dumps(value if value is not None else {}))
    sys.exit(0)
option = lambda name: words[words.index(name) + 1]
if ("nva" if to_nva else "switch") in world["away"]:
    end(error="nobody answers", code=3)
world["orders"].append(" ".join(words))
what = " ".join(words[:2])
if what == "nve show":
    end({"status": {"nve": "b"}})
if what == "port list":
    end({"ports": world["ports"]})
if what == "vn list":
    end({"vns": [{"name": "blue", "vni": 100}]})
if what == "vm list":
    end({"vms": world["vms"]})
if what == "port add":
    world["ports"].append({"name": words[2], "devargs": option("--devargs"), "vni": int(option("--vni")),
                           "vm_mac": option("--mac"), "state": "associated"})
    end()
if what == "port remove":
    world["ports"] = [p for p in world["ports"] if p["name"] != words[2]]
    end()
if what == "port state":
    port = next((p for p in world["ports"] if p["name"] == words[2]), None)
    if port is None:
        end(error="no port " + words[2])
    port["said"] = port.get("said", []) + [words[3]]
    end()
if what == "vm define":
    world["vms"].append({"name": words[2], "vni": 100, "mac": option("--mac"), "nve": None, "version": None,
                         "moving": None})
    end()
if what == "vm move":
    known = world["moves"].get(option("--id"))
    if known is None:
        known = {"id": option("--id"), "from": "a", "to": option("--to"), "phase": world["phase"],
                 "mode": "hot", "is_final": False, "explanation": []}
        world["moves"][known["id"]] = known
        for vm in world["vms"]:
            vm["moving"] = known["id"]
    end(known)
if what == "move show":
    move = world["moves"][words[2]]
    if world["ends"] and not move["is_final"]:
        move.update(phase="done", is_final=True)
        for vm in world["vms"]:
            vm.update(nve=move["to"], moving=None)
    end(move)
if what == "move abort":
    world["moves"][words[2]].update(phase="aborted", is_final=True)
    for vm in world["vms"]:
        vm["moving"] = None
    end(world["moves"][words[2]])
end(error="unknown order " + what)
'''


def domain(port=f'<g:port xmlns:g="urn:godwit:libvirt:1" vn="blue" ips="203.0.113.10 2001:db8::10"/>', more=""):
    """A domain with one vhost-user interface."""
    return (
        f"<domain><name>v</name><uuid>{UUID}</uuid><metadata>{port}</metadata><devices>"
        f"<interface type='network'/><interface type='vhostuser'><mac address='{MAC.upper()}'/>"
        f"<source type='unix' path='/run/godwit/v.vhost' mode='client'/>{more}</interface></devices></domain>"
    )


class HookTest(unittest.TestCase):
    """Each test is a host of its own."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        at = lambda name: os.path.join(self.folder.name, name)
        with open(at("godwitctl"), "w", encoding="utf-8") as file:
            file.write(FAKE)
        os.chmod(at("godwitctl"), stat.S_IRWXU)
        self.conf, self.world_path = at("libvirt.conf"), at("world.json")
        self.settings(f"godwitctl = {at('godwitctl')}\nsocket = /s\nstate_dir = {at('state')}\nsettle_s = 0.3\n")
        self.world(ports=[], vms=[], moves={}, orders=[], away=[], phase="prepared", ends=False)
        os.environ["FAKE_WORLD"] = self.world_path
        self.addCleanup(self.folder.cleanup)

    def settings(self, text, append=False):
        with open(self.conf, "a" if append else "w", encoding="utf-8") as file:
            file.write(text)

    def world(self, **changes):
        """Changes the world and returns it."""
        try:
            with open(self.world_path, encoding="utf-8") as file:
                world = json.load(file)
        except FileNotFoundError:
            world = {}
        world.update(changes)
        with open(self.world_path, "w", encoding="utf-8") as file:
            json.dump(world, file)
        return world

    def lives_at(self, nve):
        vm = {"name": "v", "vni": 100, "mac": MAC, "nve": nve, "version": "1.7", "moving": None}
        self.world(vms=[vm])

    def call(self, operation, xml=None, args=None):
        """The exit code, and what was said."""
        said, out = io.StringIO(), io.StringIO()
        with mock.patch.object(hook_program, "CONF", self.conf), mock.patch("syslog.syslog"):
            with redirect_stderr(said), redirect_stdout(out):
                argv = args or ["qemu", "v", operation, "begin", "-"]
                code = hook_program.main(argv, io.StringIO(domain() if xml is None else xml))
        self.assertEqual(out.getvalue(), "", "libvirt takes standard output for XML")
        return code, said.getvalue()

    def orders(self, *kinds):
        return [o for o in self.world()["orders"] if o.split()[0:2] in [k.split() for k in kinds]]

    def test_r57_a_start_adds_the_port_and_says_that_the_vm_runs(self):
        self.settings("define = yes\n", append=True)
        for operation in ("prepare", "start", "started"):
            for _ in range(2):
                self.assertEqual(self.call(operation)[0], 0)
        ports = self.world()["ports"]
        self.assertEqual(len(ports), 1)
        self.assertEqual((ports[0]["name"], ports[0]["vni"], ports[0]["vm_mac"]), ("v", 100, MAC))
        self.assertIn("iface=/run/godwit/v.vhost", ports[0]["devargs"])
        self.assertEqual(ports[0]["said"], ["running", "running"])
        define = self.orders("vm define")
        self.assertEqual(len(define), 1, "twice is once")
        self.assertIn("--ipv4 203.0.113.10 --ipv6 2001:db8::10", define[0])

    def test_r57_an_incoming_migration_orders_one_move_however_often_it_is_said(self):
        self.lives_at("a")
        for _ in range(3):
            self.assertEqual(self.call("migrate")[0], 0)
        for operation in ("prepare", "start", "started"):
            self.assertEqual(self.call(operation)[0], 0)
        moves = self.world()["moves"]
        self.assertEqual(list(moves), [f"libvirt-{UUID}-0010-1.7"])
        self.assertEqual(len(self.world()["ports"]), 1)
        self.assertNotIn("said", self.world()["ports"][0], "it is said to run by nobody but itself")

    def test_r57_a_migration_that_fails_is_called_off_and_the_next_has_an_id_of_its_own(self):
        self.lives_at("a")
        self.call("migrate")
        self.call("stopped")
        self.call("release")
        world = self.world()
        self.assertEqual([m["phase"] for m in world["moves"].values()], ["aborted"])
        self.assertEqual(world["ports"], [])
        self.assertEqual(self.call("migrate")[0], 0)
        self.assertEqual([m["phase"] for m in self.world()["moves"].values()], ["aborted", "prepared"])

    def test_r57_a_move_that_no_switch_prepares_refuses_the_migration(self):
        self.lives_at("a")
        self.settings("prepare_s = 0.2\n", append=True)
        self.world(phase="preparing")
        code, said = self.call("migrate")
        self.assertEqual(code, 1)
        self.assertIn("is not prepared after 0.2 s", said)
        self.assertEqual(self.world()["ports"], [], "libvirt says nothing more of it: the port goes at once")
        self.assertEqual([m["phase"] for m in self.world()["moves"].values()], ["aborted"])

    def test_r57_the_old_host_keeps_the_port_until_the_move_is_over(self):
        # This host is b; the VM moves from here to a.
        self.lives_at("b")
        self.call("prepare")
        self.call("started")
        world = self.world()
        move = {"id": "m", "from": "b", "to": "a", "phase": "paused", "mode": "hot", "is_final": False}
        world["vms"][0]["moving"] = "m"
        self.world(moves={"m": move}, vms=world["vms"], ends=True)
        self.assertEqual(self.call("stopped")[0], 0)
        self.assertEqual(self.world()["moves"]["m"]["phase"], "done", "it was waited for")
        self.assertEqual(self.world()["ports"][0]["said"], ["running"], "a VM that moved is not shut down")
        self.assertEqual(self.call("release")[0], 0)
        self.assertEqual(self.world()["ports"], [])

    def test_r51_a_cold_move_is_told_of_the_shutdown_that_it_waits_for(self):
        self.lives_at("b")
        self.call("prepare")
        self.call("started")
        world = self.world()
        move = {"id": "m", "from": "b", "to": "a", "phase": "prepared", "mode": "cold", "is_final": False}
        world["vms"][0]["moving"] = "m"
        self.world(moves={"m": move}, vms=world["vms"])
        self.assertEqual(self.call("stopped")[0], 0)
        self.assertEqual(self.world()["ports"][0]["said"], ["running", "shuttingdown", "shutdown"])

    def test_r16_a_stop_says_so_and_a_second_one_does_no_harm(self):
        self.lives_at(None)
        self.call("prepare")
        self.call("started")
        for _ in range(2):
            self.assertEqual(self.call("stopped")[0], 0)
        self.assertEqual(self.world()["ports"][0]["said"][:3], ["running", "shuttingdown", "shutdown"])
        for _ in range(2):
            self.assertEqual(self.call("release")[0], 0)
        self.assertEqual(self.world()["ports"], [])

    def test_r57_a_migration_that_libvirt_never_ended_is_not_remembered_as_one_that_comes_in(self):
        self.lives_at("a")
        self.call("migrate")
        # The host goes down in the midst of it; the move is called off, and the domain is started here later.
        self.world(moves={k: {**m, "phase": "aborted", "is_final": True} for k, m in self.world()["moves"].items()})
        self.lives_at(None)
        for operation in ("prepare", "start", "started"):
            self.assertEqual(self.call(operation)[0], 0)
        self.assertEqual(self.world()["ports"][0]["said"], ["running"])
        # Likewise where there was no move to order, and nothing followed for a while.
        self.call("stopped")
        self.call("release")
        self.call("migrate")
        with mock.patch("time.time", return_value=10**10):
            for operation in ("prepare", "start", "started"):
                self.assertEqual(self.call(operation)[0], 0)
        self.assertEqual(self.world()["ports"][0]["said"], ["running"])

    def test_r57_a_domain_that_went_while_the_switch_was_away_gets_no_port_again(self):
        self.lives_at(None)
        self.call("prepare")
        self.call("started")
        self.world(away=["switch"])
        for operation in ("stopped", "release"):
            self.assertEqual(self.call(operation)[0], 0, "what libvirt only reports must not fail")
        # The switch is back; it may have kept the port, or not.
        for ports in (self.world()["ports"], []):
            self.world(away=[], ports=ports)
            self.assertEqual(self.call("", args=["qemu", "--again"])[0], 0)
            self.assertEqual(self.world()["ports"], [])
        self.assertEqual([n for n in os.listdir(self.folder.name + "/state") if UUID in n and "lock" not in n], [])

    def test_r57_a_domain_that_stopped_while_the_switch_was_away_gets_no_port_before_it_starts(self):
        self.lives_at(None)
        self.call("prepare")
        self.call("started")
        self.world(away=["switch"])
        self.call("stopped")
        self.world(away=[], ports=[])
        self.assertEqual(self.call("", args=["qemu", "--again"])[0], 0)
        self.assertEqual(self.world()["ports"], [])
        self.assertEqual(self.call("prepare")[0], 0)
        self.assertEqual(len(self.world()["ports"]), 1)

    def test_r57_calls_out_of_order_say_what_is_wrong_and_do_no_harm(self):
        self.lives_at(None)
        code, said = self.call("started")
        self.assertEqual(code, 0)
        self.assertIn("started without prepare", said)
        code, said = self.call("release")
        self.assertEqual(code, 0)
        self.assertIn("release without stopped", said)
        self.assertEqual(self.world()["ports"], [])
        self.assertEqual(self.call("stopped")[0], 0)
        self.assertEqual(self.call("invented-by-a-newer-libvirt")[0], 0)

    def test_r57_a_domain_does_not_start_without_its_port_and_stops_without_godwit(self):
        self.lives_at(None)
        self.world(away=["switch"])
        code, said = self.call("prepare")
        self.assertEqual(code, 1)
        self.assertIn("nobody answers (refused)", said)
        self.assertEqual(self.call("stopped")[0], 0)
        self.settings("required = no\n", append=True)
        code, said = self.call("prepare")
        self.assertEqual(code, 0)
        self.assertIn("goes on without Godwit", said)

    def test_r57_a_vn_by_number_starts_without_the_nva_and_one_by_name_does_not(self):
        self.world(away=["nva"])
        by_number = domain('<g:port xmlns:g="urn:godwit:libvirt:1" vni="100" vm="web1"/>')
        self.assertEqual(self.call("prepare", by_number)[0], 0)
        self.assertEqual(self.world()["ports"][0]["name"], "web1")
        self.assertEqual(self.call("prepare")[0], 1)

    def test_r57_an_unknown_vm_is_refused_with_the_command_that_defines_it(self):
        code, said = self.call("prepare")
        self.assertEqual(code, 1)
        self.assertIn(f"godwitctl vm define v --vn blue --mac {MAC} --ipv4 203.0.113.10", said)
        self.assertEqual(self.world()["ports"], [])

    def test_r57_the_vn_is_read_from_alias_or_target_too(self):
        self.lives_at(None)
        for more in ("<alias name='ua-vn100-eth0'/>", "<target dev='vn100-v'/>"):
            self.assertEqual(self.call("prepare", domain("", more))[0], 0)
            self.assertEqual(self.world()["ports"][0]["vni"], 100)
        self.assertEqual(self.call("prepare", domain("", "<target dev='vnet7'/>")), (0, ""), "not Godwit's")

    def test_r57_a_start_that_is_refused_leaves_no_port(self):
        self.lives_at(None)
        self.settings("socket_owner = nobody-of-that-name\n", append=True)
        code, said = self.call("prepare")
        self.assertEqual(code, 1)
        self.assertIn("cannot be given to nobody-of-that-name", said)
        self.assertEqual(self.world()["ports"], [])

    def test_r57_another_vms_port_of_that_name_is_refused_and_stays(self):
        self.lives_at(None)
        other = {"name": "v", "devargs": "net_tap0", "vni": 7, "vm_mac": "02:00:00:00:00:01", "state": "activated"}
        self.world(ports=[other])
        code, said = self.call("prepare")
        self.assertEqual(code, 1)
        self.assertIn("another VM's", said)
        self.assertEqual(self.world()["ports"], [other])

    def test_r57_reconnect_and_again_add_ports_that_are_missing_and_say_nothing(self):
        self.lives_at("b")
        self.call("prepare")
        self.call("started")
        for again in (lambda: self.call("reconnect"), lambda: self.call("", args=["qemu", "--again"])):
            self.world(ports=[])
            self.assertEqual(again()[0], 0)
            self.assertNotIn("said", self.world()["ports"][0])

    def test_r57_an_answer_of_another_version_is_told(self):
        self.world(vms=[{"name": "v"}])
        code, said = self.call("prepare")
        self.assertEqual(code, 1)
        self.assertIn("compare the versions of godwitctl and of this hook", said)

    def test_r57_bad_input_is_told_and_nothing_is_done(self):
        for xml in ("", "<domain", "<domain><name>v</name></domain>", domain(more="<mtu/>").replace(MAC.upper(), "")):
            code, said = self.call("prepare", xml)
            self.assertEqual(code, 1, xml)
            self.assertTrue(said.startswith("godwit: "), said)
        for bad in ('vni="0"', 'vni="16777216"', 'vni="x"', 'vn="blue" vm="a b"'):
            code, _ = self.call("prepare", domain(f'<g:port xmlns:g="urn:godwit:libvirt:1" {bad}/>'))
            self.assertEqual(code, 1, bad)
        self.assertEqual(self.world()["ports"], [])
        self.settings("nonsense\n", append=True)
        code, said = self.call("prepare")
        self.assertEqual(code, 1)
        self.assertIn("line 5", said)

    def test_r57_settings_that_cannot_be_read_end_no_domain_that_runs(self):
        self.settings("nonsense\n", append=True)
        for operation in ("reconnect", "started", "stopped", "release", "attach"):
            code, said = self.call(operation)
            self.assertEqual(code, 0, operation)
            self.assertIn("line 5", said)
        self.assertEqual(self.call("start")[0], 1)



if __name__ == "__main__":
    unittest.main()
