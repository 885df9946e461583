"""Generates the modules of the protocol when the package is built; the rest is in pyproject.toml."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
# In the project's tree; a source distribution has a copy of its own.
IN_TREE = HERE.parent.parent / "crates" / "api" / "proto"
COPY = HERE / "proto"
FILES = ["common", "routes", "admin", "operator"]


def protocol():
    """The folder that has godwit/v1/*.proto."""
    for folder in (IN_TREE, COPY):
        if (folder / "godwit" / "v1" / "operator.proto").is_file():
            return folder
    raise SystemExit(f"the protocol files are in neither {IN_TREE} nor {COPY}: build from a clone of Godwit")


class Generate(build_py):
    """Modules and type stubs beside the package's own."""

    def run(self):
        super().run()
        from grpc_tools import protoc

        folder, out = protocol(), pathlib.Path(self.build_lib)
        if getattr(self, "editable_mode", False):
            out = HERE / "src"
        (out / "godwit" / "v1").mkdir(parents=True, exist_ok=True)
        files = [str(folder / "godwit" / "v1" / f"{name}.proto") for name in FILES]
        line = ["protoc", f"-I{folder}", f"--python_out={out}", f"--grpc_python_out={out}"]
        if protoc.main([*line, *files]) != 0:
            raise SystemExit("protoc failed: see above")


class WithProtocol(sdist):
    """A source distribution has the protocol files."""

    def run(self):
        if protocol() == IN_TREE:
            target = COPY / "godwit" / "v1"
            target.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                shutil.copy(IN_TREE / "godwit" / "v1" / f"{name}.proto", target)
        super().run()


setup(cmdclass={"build_py": Generate, "sdist": WithProtocol})
