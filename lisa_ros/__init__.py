"""LISA reasoning segmentation for ROS 2: `load_engine().segment(image, "the red mug")`."""

import logging
import os
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lisa_ros.engine.load import load_engine as load_engine

# The generated messages (lisa_ros.msg, lisa_ros.action) and these sources share one package name;
# this lets a source tree and an installed tree be seen together.
__path__ = extend_path(__path__, __name__)

# Idle threads of OpenMP spin: with any neighbour on the cores they make a model 10 to 100 times
# slower. Read once, when torch is imported, so it is said here, which every entrance passes before.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

# accelerate and transformers import torchao where they find it, and the two then complain about
# kernels for other hardware and about each other; none of it is for the person at the terminal.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    if name == "load_engine":
        from lisa_ros.engine.load import load_engine

        return load_engine
    raise AttributeError(f"module {__name__} has no attribute {name}")
