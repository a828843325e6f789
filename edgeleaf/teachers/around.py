"""What a decoder reads around a text: examples, instruction, suffix, first and last token."""

from __future__ import annotations

from dataclasses import dataclass

from edgeleaf.errors import RecipeError
from edgeleaf.recipe.sources import Kind
from edgeleaf.recipe.teachers import TeacherSpec
from edgeleaf.records import shown

TEXT, INSTRUCTION = "{text}", "{instruction}"
BETWEEN_EXAMPLES = "\n\n"


@dataclass(frozen=True)
class Around:
    """What is put around the texts of one kind.

    Args:
        context: in-context examples, which come first; empty for documents.
        prompt: the text before each text; a student reads it too.
        suffix: the text after it.
    """

    context: str = ""
    prompt: str = ""
    suffix: str = ""

    @property
    def before(self) -> str:
        """All that comes before a text."""
        return self.context + self.prompt


def around_of(spec: TeacherSpec) -> dict[Kind, Around]:
    """Return what a recipe's decoder reads around queries and around documents.

    Examples are rendered as in BGE-en-ICL (https://github.com/FlagOpen/FlagEmbedding): each is a query in the query's
    own template, its response after it, and a blank line.

    Raises:
        RecipeError: a template without its placeholder, a template and a prompt, an instruction that is not used,
            examples without a place for the response, an example that is empty or whose response is its query.
    """
    query = _rendered(spec.query_template, spec.query_prompt, spec.instruction, "query")
    document = _rendered(spec.document_template, spec.document_prompt, spec.instruction, "document")
    templates = [template or "" for template in (spec.query_template, spec.document_template)]
    if spec.instruction is not None and not any(INSTRUCTION in template for template in templates):
        raise RecipeError(
            f"teacher.instruction is {shown(spec.instruction)}, and no template has {INSTRUCTION}: "
            f'put it there, as in query_template = "Instruct: {INSTRUCTION}\\nQuery: {TEXT}"'
        )
    return {"query": Around(_context(spec, query), query.prompt, query.suffix), "document": document}


def _rendered(template: str | None, prompt: str, instruction: str | None, kind: Kind) -> Around:
    if template is None:
        return Around(prompt=prompt)
    key = f"teacher.{kind}_template"
    if prompt:
        raise RecipeError(f"{key} and teacher.{kind}_prompt are both there: leave one out")
    if template.count(TEXT) != 1:
        raise RecipeError(f"{key} is {shown(template)}; {TEXT} is needed in it, once, where the {kind} goes")
    if INSTRUCTION in template and instruction is None:
        raise RecipeError(f"{key} has {INSTRUCTION}, and teacher.instruction is missing: add it")
    if instruction is not None and (TEXT in instruction or INSTRUCTION in instruction):
        raise RecipeError(f"teacher.instruction is {shown(instruction)}; it must not hold a placeholder")
    before, _, after = template.replace(INSTRUCTION, instruction or "").partition(TEXT)
    return Around(prompt=before, suffix=after)


def _context(spec: TeacherSpec, query: Around) -> str:
    if spec.examples and not query.suffix:
        raise RecipeError(
            "teacher.examples need a query_template that goes on after the text, because the response follows there, "
            f'such as "<instruct>{INSTRUCTION}\\n<query>{TEXT}\\n<response>"'
        )
    parts = []
    for n, example in enumerate(spec.examples or ()):
        asked, answer = (" ".join(text.split()) for text in (example.query, example.response))
        if not asked or not answer:
            raise RecipeError(f"teacher.examples[{n}] has an empty {'response' if asked else 'query'}")
        if asked.casefold() == answer.casefold():
            raise RecipeError(
                f"teacher.examples[{n}] answers {shown(example.query)} with itself; a response is a text that answers "
                "the query"
            )
        parts.append(f"{query.prompt}{example.query}{query.suffix}{example.response}{BETWEEN_EXAMPLES}")
    return "".join(parts)
