"""One engine for many robots: `lisa-ros serve`, and the robot's side of it (docs/serving.md)."""
