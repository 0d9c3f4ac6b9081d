"""The parts that the tabletop's instructions are composed from."""
