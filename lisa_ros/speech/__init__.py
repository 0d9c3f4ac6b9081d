"""Voice in and out: `lisa-ros listen` hears instructions, `lisa-ros speak` says answers."""
