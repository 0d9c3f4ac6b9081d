"""The simulated pick: a gripper over the tabletop that lifts what an instruction meant.

`hand.py` is the gripper, `scene.py` a table with it, `grasping.py` turns a mask into a grasp,
`trial.py` asks, picks and judges, `film.py` shows it and `report.py` counts.
"""
