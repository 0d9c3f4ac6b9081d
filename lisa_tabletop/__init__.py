"""The simulated tabletop: scenes, their camera, and what is asked about them."""

import os

import lisa_ros  # noqa: F401  (before torch: it says how idle threads wait)

# MuJoCo chooses its way of drawing when it is imported; robots and servers have no screen.
os.environ.setdefault("MUJOCO_GL", "egl")
