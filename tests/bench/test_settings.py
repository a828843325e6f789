"""bench.settings on a tiny bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.studies import settings
from bench.studies.settings import OURS, Setting


@pytest.mark.slow
def test_settings_take_turns_and_say_whether_vectors_stay(tiny_bundle: Path, tmp_path: Path) -> None:
    chosen = [setting for setting in settings.SETTINGS if setting.name in (OURS, "ahead", "flatbuffers", "two-files")]
    broken = Setting("broken", "no such option", session={"enable_magic": True})
    plan = {"repeats": 4, "sessions": 1, "visits": 2, "visit_s": 0.2}
    found = settings.measure(tiny_bundle, tmp_path / "files", settings=[*chosen, broken], plan=plan)
    assert {name: peer["same"] for name, peer in found["peers"].items()} == dict.fromkeys(
        (setting.name for setting in chosen), True
    )
    assert list(found["absent"]) == ["broken"]
    assert "SessionOptions' object has no attribute 'enable_magic'" in found["absent"]["broken"]
    assert len(found["systems"]) == 2 * len(chosen)
    lines = settings.table(found).splitlines()
    assert lines[2].startswith("| as it ships | 1.00 (1.00 to 1.00) |")
    assert sum(line.endswith("| same |") for line in lines) == len(chosen)
    assert any("broken" in line and line.startswith("- left out") for line in lines)
