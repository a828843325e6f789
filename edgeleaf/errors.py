"""Every error a user can cause. One line each: what came, what was needed, what to do.

The command line prints the message and exits with ``exit_code``: 2 for bad input, 1 for a gate that failed.
"""

from __future__ import annotations


class EdgeleafError(Exception):
    """Base of all errors that edgeleaf raises on purpose."""

    exit_code = 2


def fault_line(error: BaseException) -> str:
    """Return the line for an error that is nobody's input: a fault of edgeleaf or of what it runs on."""
    return f"edgeleaf: {type(error).__name__}: {reason_of(error)}".removesuffix(": ")


class MissingExtra(EdgeleafError):
    """A package of an optional extra is not installed."""


class RecipeError(EdgeleafError):
    """A recipe with an unknown key, a wrong type or a value out of range."""


class ModelError(EdgeleafError):
    """A model that cannot be found, fetched, verified or used."""


class TextsError(EdgeleafError):
    """Texts that cannot be read, or too few of them."""


class TrainingError(EdgeleafError):
    """A distillation that diverged or cannot start."""


class ExportError(EdgeleafError):
    """A graph that fails the validation ladder."""


class TokenizerNotSupported(ExportError):
    """A tokenizer whose behaviour the fused graph cannot reproduce exactly."""


class BundleError(EdgeleafError):
    """A bundle that is missing, damaged, of another schema version or of another vector space."""


class InputError(EdgeleafError, TypeError):
    """An argument of the wrong kind, shape or range, or two options that exclude each other."""


class EmulationError(EdgeleafError):
    """A processor that is unknown or that this machine cannot emulate, or a set-up that failed."""


class EdgeleafWarning(UserWarning):
    """Something was cut, chosen or dropped, and the result stands."""


class ProcessorWarning(EdgeleafWarning):
    """A bundle runs on a kind of processor that its certificate does not cover."""


class TelemetryWarning(UserWarning):
    """A part that reports to its maker was loaded before edgeleaf could keep it silent."""


class SpaceWarning(EdgeleafWarning):
    """Two vector spaces agree in all that both records say, and one of the two does not say all."""


class GateFailed(EdgeleafError):
    """A certificate below one of its gates."""

    exit_code = 1


class NamesMismatch(ExportError):
    """Validation ladder, first rung: inputs or outputs are not called as they must be."""


class AxesMismatch(ExportError):
    """Validation ladder, second rung: an axis that must be free is fixed, or the other way round."""


class ShapesMismatch(ExportError):
    """Validation ladder, third rung: outputs have another shape than torch's."""


class ValuesMismatch(ExportError):
    """Validation ladder, last rung: outputs have other values than torch's."""


def reason_of(error: object, *, limit: int = 240) -> str:
    """Return an error's text as one line of at most ``limit`` characters; a long one loses its middle.

    Libraries put where it happened first and the cause last.
    """
    text = " ".join(str(error).split())
    if len(text) <= limit:
        return text
    kept = limit - 3
    return f"{text[: kept // 3]} … {text[len(text) - (kept - kept // 3) :]}"
