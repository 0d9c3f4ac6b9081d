# The perception node in a container with ROS 2, for a robot or a server beside it (docs/install.md).
#   docker build --target cpu -t lisa_ros:cpu .
#   docker build --target cuda -t lisa_ros:cuda .            run it with --gpus all
# ROS_DISTRO: humble, jazzy, kilted or lyrical. PIP_EXTRA_INDEX_URL: PyTorch's index of CPU builds, which makes `cpu` two
# gigabytes smaller; without it both stages hold the same build of PyTorch.
ARG ROS_DISTRO=jazzy

FROM ros:${ROS_DISTRO}-ros-base AS build
ARG ROS_DISTRO
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        python3-numpy python3-opencv python3-pip python3-venv python3-yaml \
        "ros-${ROS_DISTRO}-foxglove-bridge" "ros-${ROS_DISTRO}-tf2-ros-py" "ros-${ROS_DISTRO}-vision-msgs" \
        "ros-${ROS_DISTRO}-visualization-msgs" "ros-${ROS_DISTRO}-diagnostic-msgs" "ros-${ROS_DISTRO}-shape-msgs" \
    && rm -rf /var/lib/apt/lists/*
COPY . /ws/src/lisa_ros
COPY .ci/entrypoint /entrypoint
ENTRYPOINT ["/entrypoint"]
CMD ["ros2", "launch", "lisa_ros", "perception.launch.py"]

FROM build AS cpu
ARG PIP_EXTRA_INDEX_URL
RUN /ws/src/lisa_ros/.ci/colcon /ws

FROM build AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN /ws/src/lisa_ros/.ci/colcon /ws

# What .devcontainer/ opens: the tools of `make`, and the sources from outside.
FROM build AS development
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ git libegl1 libgl1-mesa-dri make \
    && rm -rf /var/lib/apt/lists/*
