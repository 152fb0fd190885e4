"""A plan that is refused, with every mistake in its file told, to people or to programs."""

from pathlib import Path
from typing import TYPE_CHECKING

from cloudops_prefect.cli import exit_codes, printing

if TYPE_CHECKING:
    from cloudops_prefect.errors import ValidationError
    from cloudops_prefect.mistakes import Mistake


class RefusedPlanError(Exception):
    """A plan is refused.

    Args:
        plan: Its file.
        refusal: Why.
        json: Whether that is told in JSON.
    """

    def __init__(self, plan: Path, refusal: "ValidationError", *, json: bool) -> None:
        super().__init__(plan, refusal)
        self._plan = plan
        self._refusal = refusal
        self._json = json

    def report(self) -> int:
        """Prints what is wrong; returns the exit code."""
        mistakes = self._refusal.mistakes
        if self._json:
            documents = [mistake_document(mistake) for mistake in mistakes]
            refused = {
                "valid": False,
                "error": str(self._refusal),
                "type": type(self._refusal).__name__,
                "mistakes": documents,
            }
            printing.json_document(refused)
        else:
            self._print()
        return exit_codes.BAD_INPUT

    def _print(self) -> None:
        mistakes = self._refusal.mistakes
        if len(mistakes) <= 1:
            printing.error_line(f"error: {self._refusal}")
        else:
            printing.error_line(f"error: {len(mistakes)} mistakes in {self._plan}")
        for mistake in mistakes:
            if len(mistakes) > 1:
                printing.error_line(f"  {mistake}")
            for text in mistake.excerpt:
                printing.error_line(f"    {text}")


def mistake_document(mistake: "Mistake") -> dict[str, object]:
    """Return a mistake, or a warning, as JSON has it."""
    return {
        "file": mistake.file,
        "line": mistake.line,
        "column": mistake.column,
        "field": mistake.field,
        "message": mistake.message,
        "hint": mistake.hint,
        "text": mistake.text,
    }
