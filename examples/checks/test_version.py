"""What the step "unit tests" of release.yaml runs."""

import re
import unittest
from pathlib import Path

PLAN = Path(__file__).parents[1] / "release.yaml"


class VersionTest(unittest.TestCase):
    """The version that the plan releases."""

    def test_is_a_semantic_version(self) -> None:
        """Three numbers, so that the next one can be told from it."""
        self.assertRegex(PLAN.read_text(), re.compile(r"VERSION: \d+\.\d+\.\d+$", re.MULTILINE))

    def test_is_written_once(self) -> None:
        """Every step gets it from one place."""
        self.assertEqual(PLAN.read_text().count("VERSION: "), 1)
