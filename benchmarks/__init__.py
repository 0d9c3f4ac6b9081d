import lisa_ros  # noqa: F401  (before torch: it says how idle threads wait)
