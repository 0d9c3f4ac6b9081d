"""The demonstration: a recorded camera, the perception node, and questions with known answers.

`tabletop.mcap` is the recording, `questions.yaml` what is asked about it.
"""
