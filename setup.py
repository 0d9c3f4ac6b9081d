"""The pip front end of CMakeLists.txt: builds the ROS interfaces, packs them with the sources.

Everything else about the package stands in pyproject.toml.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build
from setuptools.dist import Distribution

SOURCES = Path(__file__).resolve().parent
GENERATOR = Path("share/rosidl_default_generators/cmake")


def ros_prefixes() -> list[Path]:
    """Folders with the ROS build tools: a sourced installation, or an environment with the wheels.

    pip's build isolation keeps the wheels outside `sys.prefix`, in a folder that only `sys.path`
    tells.
    """
    sourced = [Path(entry) for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if entry]
    if any((prefix / GENERATOR).is_dir() for prefix in sourced):
        return sourced
    packages = [Path(entry) for entry in sys.path if entry.endswith("-packages")]
    # <prefix>/lib/python3.x/site-packages
    prefixes = dict.fromkeys([Path(sys.prefix), *(folder.parents[2] for folder in packages)])
    found = [prefix for prefix in prefixes if (prefix / GENERATOR).is_dir()]
    if not found:
        sys.exit(
            "lisa_ros: the ROS 2 wheels that generate the messages are not in this environment. "
            "Leave --no-build-isolation out, or install what [build-system] in pyproject.toml "
            "lists. On a machine with ROS 2, source it and build with colcon."
        )
    return found


def require_tools() -> None:
    """Stop with one sentence where a program is missing that pip cannot install."""
    packages = {os.environ.get("CXX", "c++"): "g++", "cmake": "cmake", "make": "make"}
    for tool, package in packages.items():
        if not shutil.which(tool):
            sys.exit(f"lisa_ros: {tool} is missing (Debian, Ubuntu: apt install {package}).")


def build_environment(prefixes: list[Path]) -> dict[str, str]:
    """The environment in which CMake and the generators find ROS."""
    environment = dict(os.environ)
    environment["AMENT_PREFIX_PATH"] = ":".join(map(str, prefixes))
    libraries = [str(prefix / "lib") for prefix in prefixes]
    inherited = environment.get("LD_LIBRARY_PATH")
    environment["LD_LIBRARY_PATH"] = ":".join(libraries + ([inherited] if inherited else []))
    # With the path set here the wheels' start-up hook need not restart every Python of the build.
    environment["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
    return environment


def ascii_folder(folder: Path) -> Path:
    """A folder for CMake to build in: `folder`, or a new one whose path has ASCII letters alone.

    rosidl's CMake reads lists of paths by `file(STRINGS)`, which drops all other letters.
    """
    if str(folder).isascii() and str(SOURCES).isascii():
        return folder
    new = Path(tempfile.mkdtemp(prefix="lisa_ros_build_"))
    if not str(new).isascii():
        sys.exit(f"lisa_ros: CMake cannot build in {new}: set TMPDIR to a path of ASCII letters.")
    atexit.register(shutil.rmtree, new, ignore_errors=True)
    return new


def run_cmake(build_folder: Path, stage: Path) -> None:
    """Configure, build and install CMakeLists.txt into the folder `stage`."""
    sources = SOURCES
    if not str(SOURCES).isascii():
        sources = build_folder.parent / "sources"
        sources.symlink_to(SOURCES)
    prefixes = ros_prefixes()
    environment = build_environment(prefixes)
    configure = ["cmake", "-S", str(sources), "-B", str(build_folder), "-DCMAKE_BUILD_TYPE=Release"]
    configure += [f"-DCMAKE_PREFIX_PATH={';'.join(map(str, prefixes))}", "-DBUILD_TESTING=OFF"]
    configure += [f"-DPython3_EXECUTABLE={sys.executable}", f"-DCMAKE_INSTALL_PREFIX={stage}"]
    compile_and_install = ["cmake", "--build", str(build_folder), "--target", "install"]
    compile_and_install += ["--parallel", str(os.cpu_count() or 1)]
    for command in (configure, compile_and_install):
        if subprocess.run(command, env=environment).returncode:
            failed = " ".join(command[:2])
            sys.exit(f"lisa_ros: `{failed}` could not build the messages; the reason stands above.")


class BuildInterfaces(Command):
    """`build` step: packs what CMake installs, Python parts as modules, the rest as data."""

    def initialize_options(self) -> None:
        self.build_lib = None
        self.build_temp = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        folders = ("build_lib", "build_temp")
        self.set_undefined_options("build", *((folder, folder) for folder in folders))

    def run(self) -> None:
        require_tools()
        folder = ascii_folder(Path(self.build_temp).resolve())
        stage = folder / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        run_cmake(folder / "cmake", stage)
        (package,) = stage.glob("l*/**/lisa_ros/msg/__init__.py")
        self.copy_generated_modules(package.parent.parent)
        self.pack_prefix_files(stage, python_folder=package.parents[2])

    def copy_generated_modules(self, generated: Path) -> None:
        """The interface modules and their type supports, beside our own modules.

        An editable install leaves ours in the source tree. The generated ones then stand alone in
        site-packages, without an `__init__.py`, so that Python goes on to ours, which looks back
        (`extend_path`).
        """
        site_packages = self.get_finalized_command("install").install_lib
        target = Path(site_packages if self.editable_mode else self.build_lib) / "lisa_ros"
        for name in ("msg", "action"):
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(
                generated / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.c")
            )
        for library in generated.glob("lisa_ros_s__*.so"):
            shutil.copy2(library, target)

    def pack_prefix_files(self, stage: Path, python_folder: Path) -> None:
        """Shared libraries, interface definitions, launch files and so on keep their places."""
        for path in sorted(stage.rglob("*")):
            if path.is_dir() or python_folder in path.parents:
                continue
            folder = path.parent.relative_to(stage)
            if self.editable_mode:
                # Editable wheels take no data files, but all that lies in the folder for them.
                data = Path(self.get_finalized_command("install").install_data) / folder
                data.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, data)
            else:
                self.distribution.data_files.append((str(folder), [str(path)]))

    def get_source_files(self) -> list[str]:
        interfaces = [*Path("msg").glob("*.msg"), *Path("action").glob("*.action")]
        return ["CMakeLists.txt", "package.xml", *map(str, interfaces)]

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Build(build):
    sub_commands = (*build.sub_commands, ("build_interfaces", None))


class BinaryDistribution(Distribution):
    """Says that the type supports belong to one Python version and one processor."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    cmdclass={"build": Build, "build_interfaces": BuildInterfaces},
    distclass=BinaryDistribution,
    data_files=[],
)
