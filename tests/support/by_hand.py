"""Numbers that are written for a blackboard, with fractions, roots and logarithms, computed."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Iterator

RELATIONS = {"=": math.isclose, "<": operator.lt, ">": operator.gt}
# TeX and what Python writes for it; a number beside a logarithm multiplies it.
SPELLED = [
    (r"\\[dt]?frac(\d)(\d)", r"(\1/\2)"),
    (r"\\[dt]?frac\{?(\d+)\}?\{?(\d+)\}?", r"(\1/\2)"),
    (r"\\log\s*(\([^()]*\)|\d+)", r"log(\1)"),
    (r"\\cdot", "*"),
    (r"\\[,;!]|[{}]", " "),
    (r"\^", "**"),
]
BESIDE = re.compile(r"(?<=[\d)])\s*(?=log|\()")


def value(text: str) -> float | None:
    """What a piece of TeX comes to; None where it is not a number."""
    for tex, python in SPELLED:
        text = re.sub(tex, python, text)
    text = BESIDE.sub("*", text).strip()
    if not re.fullmatch(r"(?:[\d\s+\-*/().]|log)+", text):
        return None
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return None
    return eval(compile(tree, "<board>", "eval"), {"__builtins__": {}, "log": math.log})


def relations(text: str) -> Iterator[tuple[str, bool]]:
    """Of each formula, the relations between neighbours that are both numbers, and whether they hold."""
    for formula in re.findall(r"\$([^$]+)\$", text.replace("$$", "$")):
        parts = re.split(r"([=<>])", formula)
        for left, sign, right in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
            a, b = value(left), value(right)
            if a is not None and b is not None:
                yield f"{left}{sign}{right}", RELATIONS[sign](a, b)
