"""Whether a document says a number."""

from collections.abc import Callable


def p_text(p: float) -> str:
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def agrees(said: str, found: float | str, form: Callable[[float], str]) -> bool:
    """Whether a document says a number. Rounding at the end of the last digit may go either way."""
    if isinstance(found, str):
        return said == found
    near = 1e-9 * max(1.0, abs(found))
    return said in {form(found), form(found - near), form(found + near)} or (said == form(0) and abs(found) < near)


def shown(found: float | str) -> str:
    return found if isinstance(found, str) else f"{found:.6g}"
