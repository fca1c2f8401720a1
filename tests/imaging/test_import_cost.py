"""Reading images must not cost the start of a program, nor pull in what only some formats need."""

from __future__ import annotations

import subprocess
import sys

PROBE = """
import sys, time
start = time.perf_counter()
import medmargin.imaging
print(time.perf_counter() - start)
heavy = ("torch", "highdicom", "SimpleITK", "cv2", "tifffile", "scipy.ndimage")
print(*(name for name in heavy if name in sys.modules))
"""


def test_import_is_light():
    runs = [subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds, loaded = zip(*(run.stdout.split("\n")[:2] for run in runs), strict=True)
    assert set(loaded) == {""}
    assert min(map(float, seconds)) < 0.5
