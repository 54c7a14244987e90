"""The slip for the bets of the course, to print, and what a bet costs: `python workflow/course.py bets` writes it."""

from __future__ import annotations

import math

import clock
import sessions

PAGE = sessions.COURSE / "bets.md"
BLANK = "……"
HEAD = """# Bets

<!-- Written by `python workflow/course.py bets` from teaching.yml and class.yml: edit those. -->

:::{container} hand-out
Before a session you write how probable you think its statement is. At its end the statement is settled, and you pay
for what you wrote. Keep the slip: the sum counts. **You will be able to** score a probability by hand, twice. **You
need** a pencil. **Time:** a minute for each bet.
:::"""
SCORING = """## What a bet costs

Let $p$ be the probability that you gave to what came. The **log loss** is $-\\log p$, in nats, the **Brier score**
$2\\,(1 - p)^2$: as much for what came as for what did not. Both are proper, and both are those of the
[page of questions](quiz.md)."""
EVEN = "Whoever writes a half each time pays {log:.2f} nats and {brier:.2f} a bet. Nought costs infinitely much."
PLACES = "For each loss write one of the three places, and how probable you think it is that you are right."


def page() -> str:
    """The slip: the bets of the sessions, those of the class, and the prices."""
    plan = clock.times()
    statements = [
        [str(number), one.bet.removesuffix(" Write a probability."), *[BLANK] * 4]
        for number, one in sessions.teaching().items()
    ]
    parts = [
        HEAD,
        "## Six sessions",
        sessions.table(["Session", "Statement", "My probability of yes", "It was", "Log", "Brier"], statements),
        "## The class",
        f"{plan.bet} {PLACES}",
        sessions.table(
            ["Loss", "Place", "My probability", "It was", "Log", "Brier"],
            [[loss, *[BLANK] * 5] for loss in plan.losses],
        ),
        f"{SCORING} {EVEN.format(log=log(0.5), brier=brier(0.5))}",
        sessions.table(costs()[0], costs()[1:]),
    ]
    return "\n\n".join(parts) + "\n"


def log(p: float) -> float:
    return -math.log(p)


def brier(p: float) -> float:
    """The Brier score of two outcomes, of which the one with the probability p has come."""
    return 2 * (1 - p) ** 2


def costs() -> list[list[str]]:
    """Three rows: the probability, a tenth for each column, and its two prices."""
    tenths = [tenth / 10 for tenth in range(1, 10)]
    return [
        ["You gave to what came", *(f"{p:.1f}" for p in tenths)],
        ["Log, nats", *(f"{log(p):.2f}" for p in tenths)],
        ["Brier", *(f"{brier(p):.2f}" for p in tenths)],
    ]
