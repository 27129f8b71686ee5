"""The typed example does what its types say."""

from __future__ import annotations

import typed


def test_typed_example_runs():
    typed.main()
