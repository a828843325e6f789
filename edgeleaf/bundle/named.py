"""What a name given to ``QueryEncoder.load`` stands for: a path, else an installed bundle, else one on the hub.

A bundle is installed by pip from a wheel that ``edgeleaf ship --format wheel`` wrote. The wheel names its folder in the
entry point group ``edgeleaf.bundles``. The folder is looked up and read; nothing in it is ever imported or run.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeleaf.bundle import hub
from edgeleaf.bundle.manifest import MANIFEST
from edgeleaf.errors import BundleError
from edgeleaf.records import shown

GROUP = "edgeleaf.bundles"
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_PACKAGE = re.compile(r"[A-Za-z0-9_]{1,128}")


def find(name: str, *, revision: str | None = None) -> Path:
    """Return the path that a name stands for; the name itself if nothing is found.

    Args:
        name: a path, the name of an installed bundle, or ``owner/name`` on the hub; tried in this order.
        revision: branch, tag or commit, for a bundle on the hub only.

    Raises:
        BundleError: two installed packages have a bundle of this name, or one is not whole; the hub has no such bundle,
            or cannot be reached and it is not in the cache; a revision for what is on this machine.
        MissingExtra: it can only be on the hub, and huggingface_hub is not installed.
    """
    found = Path(name)
    is_here = found.exists()
    if not is_here and NAME.fullmatch(name) and (installed := installed_bundle(name)):
        is_here, found = True, installed
    if not is_here and hub.NAME.fullmatch(name):
        return hub.fetch(name, revision=revision)
    if revision is not None:
        raise BundleError(f"{shown(name)} is not a name on the hub, so it has no revision; leave it out")
    return found


def installed_bundle(name: str) -> Path | None:
    """Return the folder of an installed bundle; None if no package has one of this name.

    Upper case, and ``-``, ``_`` and ``.``, make no difference, as in names of packages.

    Raises:
        BundleError: several packages have one of this name, or the package is damaged.
    """
    from importlib.metadata import entry_points  # takes a while, and paths do not need it

    found = {point.dist.name: point for point in entry_points(group=GROUP) if point.dist and same(point.name, name)}
    if not found:
        return None
    if len(found) > 1:
        raise BundleError(f"{name} is in several installed packages: {', '.join(sorted(found))}; uninstall all but one")
    package, point = found.popitem()
    if not _PACKAGE.fullmatch(point.value):
        raise BundleError(f"{package}: its entry point {name} is {shown(point.value)}, not the name of a folder")
    assert point.dist is not None  # others were left out above
    folder = Path(str(point.dist.locate_file(point.value)))
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{package} says that it holds the bundle {name}, but {folder} has no {MANIFEST}; reinstall")
    return folder


def same(one: str, other: str) -> bool:
    """Return whether two names are equal by the rules for names of packages."""
    return normal(one) == normal(other)


def normal(name: str) -> str:
    """Return a name in lower case, with ``-`` for every run of ``-``, ``_`` and ``.``.

    Source: the PyPA's specification "Names and normalization".
    """
    return re.sub(r"[-_.]+", "-", name).lower()
