"""The simulated pick: a gripper over the tabletop that lifts what an instruction meant.

`scene.py` is a table with the gripper of `world/hand.py`, `trial.py` asks, grasps and judges,
`disturb.py` pushes the thing meanwhile, `film.py` shows it, `series.py` makes many and counts.
"""
