"""Verdicts and p-values in words, and the table of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gence.lab.results.names import LOSS_NAMES, metric_name

__all__ = ["DAGGER", "DAGGER_NOTE", "comparison_markdown", "difference_text", "p_text", "verdict_text"]


def p_text(p: float) -> str:
    """Write a p-value with two digits that matter: ``"= 0.031"``, or ``"< 0.0001"``.

    Example:
        >>> p_text(0.0312), p_text(0.04996), p_text(0.31), p_text(0.9999), p_text(3e-7)
        ('= 0.031', '= 0.04996', '= 0.31', '= 1', '< 0.0001')
    """
    if p < 1e-4:
        return "< 0.0001"
    texts = (f"{p:.{digits}g}" for digits in range(2, 16))
    return "= " + next((text for text in texts if (float(text) < 0.05) == (p < 0.05)), f"{p:.2g}")


def difference_text(row: Mapping[str, Any] | pd.Series, *, scale: float = 100.0, digits: int = 2) -> str:
    """Write the mean difference of a comparison and its interval.

    The interval belongs to the typical difference. Where the mean lies outside of it, so that few seeds carry the
    mean, a dagger marks it.

    Args:
        row: of :func:`compare` or of :func:`comparison_table`.
        scale: 100 writes fractions in per cent.
        digits: after the point; a value that would be rounded to zero has more.

    Example:
        >>> difference_text({"difference": -0.021, "low": -0.03, "high": -0.00001})
        '-2.10 [-3.00, -0.001]'
        >>> difference_text({"difference": 0.5, "low": 0.0, "high": 0.2}, scale=1)
        '+0.50† [0.00, +0.20]'
    """
    mean, low, high = (_signed(scale * row[name], digits) for name in ("difference", "low", "high"))
    if np.isinf(row["low"]):
        return f"{mean} [too few seeds]"
    return f"{mean}{'' if row['low'] <= row['difference'] <= row['high'] else DAGGER} [{low}, {high}]"


def verdict_text(row: Mapping[str, Any] | pd.Series) -> str:
    """Write the verdict of a row with the p-value that carries it.

    Args:
        row: of :func:`with_verdict`.

    Example:
        >>> verdict_text({"verdict": "lower", "p_holm": 0.0041})
        'lower (p = 0.0041)'
    """
    return f"{row['verdict']} (p {p_text(row['p_holm'])})"


def _signed(value: float, digits: int) -> str:
    """With its sign; 0 has none, and what is not 0 is not written as 0 down to a thousandth of the last digit."""
    for more in range(digits, digits + 4):
        text = f"{value:+.{more}f}"
        if float(text) != 0:
            return text
    return f"{0:.{digits}f}"


DAGGER = "†"
DIFFERENCE = "difference [95 % interval]"
DAGGER_NOTE = f"{DAGGER} The mean lies outside the interval of the typical difference: few seeds carry it."


def comparison_markdown(table: pd.DataFrame, by: Sequence[str], *, names: tuple[str, str] = ("CE", "GenCE")) -> str:
    """Write a comparison as a Markdown table: fractions in per cent, NLL (nats) and Brier score as they are.

    Args:
        table: of :func:`comparison_table` or :func:`with_verdict`.
        by: its columns that make a setting.
        names: of baseline and candidate.

    Returns:
        One line for each row: the setting, the metric, the means of both, the mean difference with the interval, and
        the verdict with its p. Below the table, what the dagger means and the margins, where there are any.

    Raises:
        ValueError: two columns would have the same head, and one of them would be lost.

    Example:
        >>> from gence.lab.results.statistics import comparison_table
        >>> data = pd.DataFrame({"loss": ["ce"] * 6 + ["gence"] * 6, "seed": [*range(6)] * 2, "rho": 1,
        ...                      "error": [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]})
        >>> row = comparison_markdown(comparison_table(data, ["error"], by=["rho"]), ["rho"]).splitlines()[2]
        >>> [cell.strip() for cell in row.split("|")][2:-1]
        ['error (%)', '45.00', '10.00', '-35.00 [-60.00, -10.00]', 'lower (p = 0.031)']
    """
    heads = [*by, "metric", *names, DIFFERENCE, f"{names[1]} is"]
    if twice := sorted({head for head in heads if heads.count(head) > 1}):
        raise ValueError(
            f"names={names} with by={list(by)}: two columns would be headed {', '.join(map(repr, twice))}. Give the "
            "baseline and the candidate names that no other column has, for example names=('CE', 'candidate')."
        )
    lines, notes, margins = [], [], {}
    for row in table.to_dict("records"):
        scale, digits, name = _unit(row["metric"])
        means = (f"{scale * row[f'{side}_mean']:.{digits}f}" for side in ("baseline", "candidate"))
        difference = difference_text(row, scale=scale, digits=digits)
        if DAGGER in difference and DAGGER_NOTE not in notes:
            notes.append(DAGGER_NOTE)
        if not np.isnan(row["margin"]):
            margins[name] = f"{scale * row['margin']:.{digits}f}"
        lines.append(
            {key: LOSS_NAMES.get(row[key], row[key]) if key == "loss" else row[key] for key in by}
            | {"metric": name}
            | dict(zip(names, means, strict=True))
            | {DIFFERENCE: difference, f"{names[1]} is": verdict_text(row)}
        )
    if margins:
        stated = ", ".join(f"{name} {margin}" for name, margin in margins.items())
        notes.append(f"*Equivalent*: closer than a margin stated beforehand: {stated}.")
    text = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)
    return "\n\n".join([text, *notes])


def _unit(metric: str) -> tuple[float, int, str]:
    """Scale, digits and written name of a metric; what is no key of a metric is written as it stands."""
    try:
        name = metric_name(metric)
    except ValueError:
        name = metric
    plain = any(word in metric.lower() for word in ("nll", "brier"))
    return (1.0, 3, name) if plain else (100.0, 2, f"{name} (%)")
