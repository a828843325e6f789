"""Every error that a user can cause. Each message is one line: what came, what was needed, what to do.

The command line prints the message and exits with ``exit_code``: 2 for bad input, 1 for a gate that failed.
"""

from __future__ import annotations

import re

LONGEST_MESSAGE = 1000
"""Characters."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class EdgeleafError(Exception):
    """Base of all errors that edgeleaf raises on purpose."""

    exit_code = 2

    def __str__(self) -> str:
        """The message: one line, whatever a name in it holds; a very long one loses its middle."""
        text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), super().__str__())
        return text if len(text) <= LONGEST_MESSAGE else reason_of(text, limit=LONGEST_MESSAGE)


def fault_line(error: BaseException) -> str:
    """Return the line for an error that is nobody's input: a fault of edgeleaf or of what it runs on."""
    return f"edgeleaf: {type(error).__name__}: {reason_of(error)}".removesuffix(": ")


class MissingExtra(EdgeleafError):
    """A package of an optional extra is not installed."""


class RecipeError(EdgeleafError):
    """A recipe with an unknown key, a wrong type or a value out of range."""


class ModelError(EdgeleafError):
    """A model that cannot be found, fetched, verified or used."""


class DriftError(ModelError):
    """A teacher behind an endpoint that gives other vectors for the same texts than before."""


class TextsError(EdgeleafError):
    """Texts that cannot be read, or too few of them."""


class TrainingError(EdgeleafError):
    """A distillation that diverged or cannot start."""


class ExportError(EdgeleafError):
    """A graph that fails the validation ladder."""


class TokenizerNotSupported(ExportError):
    """A tokenizer whose behaviour the fused graph cannot reproduce exactly."""


class BundleError(EdgeleafError):
    """A bundle that is missing or damaged, or has another schema version or vector space."""


class SpaceError(BundleError):
    """Queries of one vector space for documents of another; the message names both, and no place."""


class PlaceError(EdgeleafError):
    """A folder or URL that cannot be reached, read or written, or a shard there that is damaged."""


class ClusterError(EdgeleafError):
    """A cluster that cannot be reached, or processes of one run that cannot work together."""


class InputError(EdgeleafError, TypeError):
    """An argument of the wrong kind, shape or range, or two options that exclude each other."""


class ColumnError(InputError):
    """A filter over a column, or with a kind of value, that a store's documents do not have."""


class EmulationError(EdgeleafError):
    """A processor that is unknown or that this machine cannot emulate, or a set-up that failed."""


class EdgeleafWarning(UserWarning):
    """Something was cut, chosen or dropped, but the result is valid."""


class ProcessorWarning(EdgeleafWarning):
    """A bundle runs on a kind of processor that its certificate does not cover."""


class TelemetryWarning(UserWarning):
    """A package that reports to its maker was loaded before edgeleaf could switch its reports off."""


class SpaceWarning(EdgeleafWarning):
    """Two vector spaces agree in everything that both record, but one of them does not record everything."""


class GateFailed(EdgeleafError):
    """A certificate below one of its gates."""

    exit_code = 1


class NamesMismatch(ExportError):
    """Validation ladder, first rung: inputs or outputs do not have the required names."""


class AxesMismatch(ExportError):
    """Validation ladder, second rung: an axis that must be dynamic is fixed, or the other way round."""


class ShapesMismatch(ExportError):
    """Validation ladder, third rung: the shapes of outputs differ from torch's."""


class ValuesMismatch(ExportError):
    """Validation ladder, last rung: the values of outputs differ from torch's."""


def reason_of(error: object, *, limit: int = 240) -> str:
    """Return an error's text as one line of at most ``limit`` characters; a long text loses its middle.

    The middle, because libraries put the place of an error first and its cause last.
    """
    text = " ".join(str(error).split())
    if len(text) <= limit:
        return text
    kept = limit - 3
    return f"{text[: kept // 3]} … {text[len(text) - (kept - kept // 3) :]}"
