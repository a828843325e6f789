"""The folders that commands read, work in and write to."""

from __future__ import annotations

from pathlib import Path

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import BundleError, InputError
from edgeleaf.models.safety import check_data_only


def open_bundle(folder: Path) -> Manifest:
    """Read a bundle whose student is to be loaded; check every hash, and that the student contains only data.

    Raises:
        BundleError: the bundle is damaged, or the student contains a file that the manifest does not list.
        ModelError: the student contains something that is not data, see ``edgeleaf.models.safety.check_data_only``.
    """
    manifest = Manifest.read(folder)
    student = folder / layout.STUDENT
    if student.is_symlink() or not student.is_dir():
        raise BundleError(f"{student}: no folder of a student; build or copy the bundle again")
    check_data_only(student)
    manifest.verify(folder)
    for path in sorted(student.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in manifest.files:
            raise BundleError(f"{path}: {layout.MANIFEST} lists no such file; build or copy the bundle again")
    return manifest


def report_folder(output: str | Path | None) -> Path | None:
    """Return the folder to write a report to; None if no report is requested.

    Raises:
        BundleError: it exists and is not empty.
    """
    if output is None:
        return None
    folder = Path(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BundleError(f"{output} exists and is not an empty folder; give a new one for the report")
    return folder


def work_folder(output: Path) -> Path:
    """Return the folder where the stages of a bundle work, beside the bundle, so that the bundle itself stays clean."""
    output = output.resolve()
    return output.with_name(output.name + ".work")


def check_apart_from(bundle: Path, output: str | Path) -> None:
    """Raise InputError if a bundle would replace its own source."""
    if Path(output).resolve() == bundle.resolve():
        raise InputError(f"{output} is the bundle itself, which stays as it is; give another folder with -o")


def output_folder(path: str | Path) -> Path:
    output = Path(path)
    if output.exists() and not (output / layout.MANIFEST).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise BundleError(f"{path} exists and is not a bundle; give a new folder, or one that edgeleaf wrote")
    return output
