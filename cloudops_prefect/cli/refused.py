"""Every mistake of a plan that is refused, for people and for programs."""

from pathlib import Path

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import ValidationError
from cloudops_prefect.planfile import Mistake, check_plan


def report(plan: Path, refusal: ValidationError, *, json: bool) -> int:
    """Prints the mistakes of a plan file and returns the exit code.

    Raises:
        ValidationError: The refusal, if that is all there is to say.
    """
    text = _text_of(plan)
    mistakes = [] if text is None else check_plan(text, str(plan), ExecutionConfig.load())
    if json:
        lines = (text or "").splitlines()
        told = [_document(mistake, lines) for mistake in mistakes]
        printing.json_document({"valid": False, "error": str(refusal), "mistakes": told})
    elif len(mistakes) <= 1:
        raise refusal
    else:
        printing.error_line(f"error: {len(mistakes)} mistakes in {plan}")
        for mistake in mistakes:
            printing.error_line(f"  {mistake}")
    return exit_codes.BAD_INPUT


def _text_of(plan: Path) -> str | None:
    try:
        return plan.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _document(mistake: Mistake, lines: list[str]) -> dict[str, object]:
    text = lines[mistake.line - 1] if mistake.line <= len(lines) else ""
    return {
        "file": mistake.file,
        "line": mistake.line,
        "column": mistake.column,
        "field": mistake.field,
        "message": mistake.message,
        "hint": mistake.hint,
        "text": text,
    }
