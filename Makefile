# lisa_ros without a ROS installation: everything lands in .venv. With ROS 2, use colcon (docs/install.md).
#   make demo     from a fresh clone to answered instructions
#   make web      the same in a browser
#   make test     the whole test suite
# Needed beforehand: Python 3.10 or newer with venv, a C++ compiler, cmake, make.
# PYTHON=/path/to/python3 chooses the interpreter.

VENV := .venv
export PYTHON

# A shell that has sourced a ROS installation, or runs inside another environment with ROS wheels, would mix its
# packages with ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
ifneq ($(ROS_DISTRO)$(_ROS_WHEELS_BOOTSTRAP_COMPLETE),)
unexport LD_LIBRARY_PATH
endif
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: help setup demo web test test-kilted test-ros lint bench fleet soak clean system-packages
.DEFAULT_GOAL := help

help:
	@sed -n 's/^## //p' Makefile

## make setup            install everything into .venv (does nothing when it is up to date)
setup:
	@.ci/setup $(VENV)

## make demo             play a recorded camera to the node, ask it, show table and images (demo_output/)
demo: setup
	@$(VENV)/bin/lisa-ros demo

## make test             run the whole test suite; ARGS="-k name" is handed to pytest
test: setup
	@$(VENV)/bin/python -m pytest $(ARGS)

## make test-kilted      build with the wheels of ROS 2 Kilted, in build/kilted, and run the node's tests there
test-kilted:
	@.ci/kilted build/kilted test/node $(ARGS)

## make test-ros         build with colcon in an installed ROS 2 (ROS_DISTRO), in build/ros, and run the tests there
test-ros:
	@EXTRA="pytest pytest-timeout hypothesis" .ci/colcon build/ros
	@bash -c '. build/ros/venv/bin/activate && . /opt/ros/$$ROS_DISTRO/setup.bash && . build/ros/install/setup.bash && \
		python -m pytest test/node test/engine test/model test/geometry test/recordings $(ARGS)'

## make lint             check style and formatting
lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

## make bench            measure the engine beside the reference schedule, and what the node adds; ARGS for the first
bench: setup
	@$(VENV)/bin/lisa-ros bench $(ARGS)
	@PYTHONPATH=test $(VENV)/bin/python -m benchmarks.node_bench

## make fleet           eight robots and one server, which is killed and comes back; the table goes to docs/serving.md
fleet: setup
	@$(VENV)/bin/python -m benchmarks.fleet --write docs/serving.md

## make soak             100,000 queries with faults at random; the report goes to docs/reliability.md
soak: setup
	@PYTHONPATH=test $(VENV)/bin/python -m benchmarks.soak --queries 100000 --write docs/reliability.md

## make web              a page in the browser that asks a recorded camera; ARGS="--port 8081" is handed on
web: setup
	@$(VENV)/bin/lisa-ros web --demo $(ARGS)

## make system-packages  install the Debian packages for drawing without a screen, browser tests, speech
SYSTEM_PACKAGES := libegl1 libgl1-mesa-dri chromium espeak-ng libportaudio2
system-packages:
	@if dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1; then \
		echo "$(SYSTEM_PACKAGES): all there."; \
	elif ! command -v apt-get >/dev/null; then \
		echo "No apt-get here: install EGL, Mesa, Chromium, espeak-ng and PortAudio yourself. Tests that need one are skipped without it."; \
	elif [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(SYSTEM_PACKAGES) >/dev/null \
			|| echo "$(SYSTEM_PACKAGES) could not be installed: tests that need one are skipped."; \
	else \
		echo "Run 'sudo apt install $(SYSTEM_PACKAGES)'. Tests that need one are skipped without it."; \
	fi

## make clean            remove everything that was built or installed here
clean:
	rm -rf $(VENV) build install log demo_output sim_pick_output .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
