"""What says something of the simulator alone is collected only under it; on a GPU it has nothing to say."""

from __future__ import annotations

import hostgpu

collect_ignore = [] if hostgpu.simulated() else ["test_simulator.py"]
