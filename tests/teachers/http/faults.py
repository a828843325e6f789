"""Prints what the client says to each fault of an endpoint: ``python -m tests.teachers.http.faults``."""

from __future__ import annotations

import os

from edgeleaf import progress
from edgeleaf.errors import EdgeleafError
from edgeleaf.recipe.teachers import HttpSpec, TeacherSpec
from edgeleaf.teachers.http import client
from edgeleaf.teachers.http.teacher import HttpTeacher
from tests.teachers.http.endpoint import Fault, serving, silence, status
from tests.teachers.http.test_teacher import KEY, PASSING, PERMANENT, TEXTS


def main() -> None:
    """Let a request meet each fault twice, and then each fault that does not pass."""
    os.environ["THE_KEY"] = KEY
    client._sleep = lambda seconds: None
    lines: list[str] = []
    progress.say = lines.append  # type: ignore[assignment]
    passing: dict[str, Fault] = {**PASSING, "a timeout": silence(0.5), "Retry-After": status(429, Retry_After="7")}
    faults = {**{name: [fault] * 2 for name, fault in passing.items()}, **{n: [f] for n, (f, _) in PERMANENT.items()}}
    faults["503 six times"] = [status(503)] * 6
    with serving("openai") as endpoint:
        http = HttpSpec(endpoint.url, "openai", key="THE_KEY", batch_size=8, timeout_s=0.3)
        for name, met in faults.items():
            teacher = HttpTeacher(TeacherSpec("some/model", kind="http", http=http))
            lines.clear()
            endpoint.faults = list(met)
            try:
                teacher.encode(TEXTS[:8], kind="document")
                end = f"vectors after {teacher._client.bill.requests - 1} requests"
            except EdgeleafError as error:
                end = str(error)
            shown = " | ".join([*lines[:1], end]).replace(teacher._client.host, "HOST").replace(KEY, "THE KEY")
            print(f"{name}: {shown}")


if __name__ == "__main__":
    main()
