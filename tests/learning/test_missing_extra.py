"""Without Lightning the room says which extra to install."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
sys.modules["lightning"] = None
sys.modules["lightning.pytorch"] = None
from medmargin.errors import MissingExtraError
try:
    import medmargin.learning.training
except MissingExtraError as error:
    print(error, error.exit_code)
"""


def test_a_missing_lightning_is_named_with_its_extra():
    answer = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    expected = "training needs the package 'lightning'. Install it with: pip install 'medmargin[train]' 2"
    assert answer.stdout.strip() == expected
