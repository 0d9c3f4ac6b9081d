"""LISA reasoning segmentation for ROS 2."""

from pkgutil import extend_path

# The generated messages (lisa_ros.msg, lisa_ros.action) and these sources share one package name;
# this lets a source tree and an installed tree be seen together.
__path__ = extend_path(__path__, __name__)
