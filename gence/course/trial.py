"""What a grader is made of: an exercise, its properties, a trial of a student's function, and the answer to it."""

from __future__ import annotations

import ast
import inspect
import math
import re
import tomllib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

__all__ = [
    "Answer",
    "Broken",
    "Exercise",
    "Trial",
    "anything",
    "exercise",
    "named",
    "number",
    "numbers",
    "words",
    "yes_or_no",
]

_LOOKED_AT = 40  # failing inputs among which the most telling one is chosen
_RUNS = "it answers every input"


@dataclass(frozen=True)
class Broken:
    """An input at which a property fails, and both sides of it; `slips` are known mistakes with that very value."""

    given: str
    got: str
    wanted: str
    slips: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Answer:
    """What :func:`gence.course.check` says of a solution; ``print`` it.

    Attributes:
        exercise: its id. title: its name.
        passed: no property failed.
        broken: the property that fails, in words; None if passed, as are those that follow.
        given: the smallest telling input. got: what the solution makes of it. wanted: the other side.
        perhaps: a known mistake that gives what the solution gave, at every failing input looked at.
        read: where the book explains it.
        calls: how often the solution was called. holds: how many properties hold before the first that fails.

    Example:
        >>> from gence.course import check
        >>> check("E08", lambda p, label: (1 - p[label]) ** 2).given
        'belief (0.25, 0.25, 0.5), answer (0.2, 0.2, 0.6)'
    """

    exercise: str
    title: str
    passed: bool
    read: str
    calls: int
    broken: str | None = None
    given: str | None = None
    got: str | None = None
    wanted: str | None = None
    perhaps: str | None = None
    holds: int = 0

    def __str__(self) -> str:
        """Return the answer in a few lines."""
        if self.passed:
            return f"{self.exercise} {self.title}: no counterexample in {self.calls} calls. A proof is another matter."
        lines = [f"{self.exercise} {self.title}: not yet", f"  property   {self.broken}", f"  input      {self.given}"]
        lines += [f"  yours      {self.got}", f"  should be  {self.wanted}"]
        lines += [f"  perhaps    {self.perhaps}"] if self.perhaps else []
        return "\n".join([*lines, f"  read       {self.read}"])

    __repr__ = __str__


Law = Callable[["Trial"], Iterator[Broken | None]]


@dataclass
class Exercise:
    """A graded exercise: its text, and properties that each search for a counterexample.

    Attributes:
        id: of the form E08. title: its name. statement: what is asked for.
        stub: source of the function without its body: its name, its arguments and what they are.
        read: where the book explains it: title of the page, heading and address.
        gives: turns what the function returns into numbers, or raises a ValueError that says what it wants.
        laws: properties in words, each with its search, in the order in which they are tried.
    """

    id: str
    title: str
    statement: str
    stub: str
    read: str
    gives: Callable[[Any], Any]
    laws: dict[str, Law] = field(default_factory=dict)

    def law(self, says: str) -> Callable[[Law], Law]:
        """Add a property; its search yields a :class:`Broken` for each input that breaks it, and None for others."""

        def add(search: Law) -> Law:
            self.laws[says] = search
            return search

        return add

    def accept(self, answer: Any) -> Trial:
        """Wrap a student's function, or raise a TypeError: not a function, or one of other arguments."""
        form = ast.parse(self.stub).body[-1]
        names = [argument.arg for argument in form.args.args]
        form = f"{form.name}({', '.join(names)})"
        if not callable(answer):
            raise TypeError(f"{self.id} asks for a function {form}, but got {type(answer).__name__}")
        try:
            inspect.signature(answer).bind(*names)
        except TypeError as problem:
            own = f"{inspect.signature(answer)}"
            raise TypeError(f"{self.id} asks for a function {form}, but yours takes {own}: {problem}") from None
        except ValueError:  # written in C, as max is: it has no signature to look at
            pass
        return Trial(answer, names, self.gives)

    def first_broken(self, says: str, trial: Trial) -> tuple[str, Broken, str | None] | None:
        """Try one property: None, or what is broken, the most telling input, and a known mistake that explains it."""
        found: list[Broken] = []
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                for broken in self.laws[says](trial):
                    found += [broken] if broken is not None else []
                    if len(found) == _LOOKED_AT:
                        break
            except _Stopped as stopped:
                if not found:
                    return _RUNS, stopped.broken, None
        if not found:
            return None
        slips = frozenset.intersection(*(b.slips for b in found))
        telling = next((b for b in found if b.slips == slips), found[0]) if len(slips) == 1 else found[0]
        return says, telling, next(iter(slips)) if len(slips) == 1 else None

    def judge(self, answer: Any) -> Answer:
        """Try the properties in their order, up to the first that fails."""
        trial = self.accept(answer)
        for held, says in enumerate(self.laws):
            if broken := self.first_broken(says, trial):
                what, at, perhaps = broken
                parts = (trial.calls, what, at.given, at.got, at.wanted, perhaps, held)
                return Answer(self.id, self.title, False, self.read, *parts)
        return Answer(self.id, self.title, True, self.read, trial.calls, holds=len(self.laws))


@cache
def _texts() -> dict[str, dict[str, str]]:
    return tomllib.loads((files("gence.course") / "exercises.toml").read_text(encoding="utf-8"))


def exercise(id: str, gives: Callable[[Any], Any]) -> Exercise:
    """An exercise without properties so far, with its text from ``exercises.toml``."""
    return Exercise(id=id, gives=gives, **_texts()[id])


class Trial:
    """A student's function, called on copies of small inputs; whatever it does becomes a value or a readable answer."""

    def __init__(self, function: Callable, names: list[str], gives: Callable[[Any], Any]) -> None:
        """Nothing is called yet."""
        self.function, self.names, self.gives = function, names, gives
        self.calls, self.inputs = 0, ()

    @property
    def given(self) -> str:
        """The last input, in words."""
        pairs = zip(self.names, self.inputs, strict=True)
        return ", ".join(f"{name} {_begun(words(value))}" for name, value in pairs) or "none: what it returns counts"

    def __call__(self, *inputs: Any) -> Any:
        """Return what the function makes of the inputs; fractions go in as floats."""
        self.calls, self.inputs = self.calls + 1, inputs
        try:
            found = self.function(*(_plain(value) for value in inputs))
        except NotImplementedError:
            raise self._stop("not written yet") from None
        except (Exception, SystemExit) as error:
            message = re.sub(r"0x[0-9a-f]+", "...", str(error)).split("\n")[0][:120]
            raise self._stop(f"{type(error).__name__}: {message}".removesuffix(": ")) from None
        if found is None:
            raise self._stop("nothing: not written yet, or a return is missing")
        try:
            return self.gives(found)
        except (ValueError, TypeError, RuntimeError) as problem:
            raise self._stop(f"{type(found).__name__} {problem}") from None

    def _stop(self, got: str) -> _Stopped:
        return _Stopped(Broken(self.given, got, "an answer"))

    def differs(
        self,
        got: Any,
        wanted: Any,
        *,
        given: str | None = None,
        slips: dict[str, Any] | None = None,
        within: float = 1e-9,
    ) -> Broken | None:
        """None where both sides agree, relatively and absolutely, else what to show; `slips` name other values."""
        if _close(got, wanted, within):
            return None
        same = frozenset(name for name, value in (slips or {}).items() if _close(got, value, within))
        digits = next((d for d in (4, 7, 10) if words(got, d) != words(wanted, d)), 16)
        return Broken(given or self.given, words(got, digits), words(wanted, digits), same)

    def holds(self, true: bool, got: str, wanted: str, *, given: str | None = None) -> Broken | None:
        """None where a relation is true, else what to show: both sides in words."""
        return None if true else Broken(given or self.given, got, wanted)


class _Stopped(Exception):
    def __init__(self, broken: Broken) -> None:
        self.broken = broken


def named(name: str, function: Callable) -> Callable:
    """The function under a name that answers can show."""
    function.__name__ = name
    return function


def number(found: Any) -> float:
    """One number; NaN and infinity are numbers here."""
    value = _array(found)
    if value.size != 1:
        raise ValueError(f"with {value.size} numbers, but one is wanted")
    return float(value.reshape(()))


def numbers(*shape: int | None) -> Callable[[Any], np.ndarray]:
    """An array of this shape, as far as it is given: ``numbers(None)`` takes lists of any length."""

    def gives(found: Any) -> np.ndarray:
        value = _array(found)
        if value.ndim != len(shape) or any(s not in (None, v) for s, v in zip(shape, value.shape, strict=True)):
            wanted = " x ".join("any" if s is None else str(s) for s in shape)
            raise ValueError(f"of shape {value.shape}, but numbers {wanted} are wanted")
        return value

    return gives


def yes_or_no(found: Any) -> bool:
    """True or False, of Python or NumPy."""
    if not isinstance(found, bool | np.bool_):
        raise ValueError("but True or False is wanted")
    return bool(found)


def anything(found: Any) -> Any:
    """Whatever it is: the properties look at it."""
    return found


def _array(found: Any) -> np.ndarray:
    found = found.detach() if hasattr(found, "detach") else found
    if str(getattr(found, "dtype", "")).removeprefix("torch.") in ("float16", "bfloat16", "float32"):
        raise ValueError("in single precision, too coarse for what is compared here: use float64")
    try:
        return np.asarray(found, dtype=np.float64)
    except (ValueError, TypeError):
        raise ValueError("that holds no numbers, or rows of different lengths") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return float(value)
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _close(a: Any, b: Any, within: float) -> bool:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return a.shape == b.shape and bool(
        np.all((a == b) | (np.isfinite(b) & (np.abs(a - b) <= within * np.maximum(1, np.abs(b)))))
    )


def _begun(text: str) -> str:
    """The text, or where it is too long to be read its beginning."""
    return text if len(text) <= 300 else f"{text[:300]} ..."


def words(value: Any, digits: int = 4) -> str:
    """Numbers as a person writes them: 0.25 and 1/3 where they are that, else so many digits; functions by name."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return f"({', '.join(words(v, digits) for v in value)})"
    if isinstance(value, bool | np.bool_):
        return "True" if value else "False"
    if isinstance(value, str):
        return value
    if callable(value):
        return value.__name__
    if not math.isfinite(value):
        return str(float(value))
    near = Fraction(value).limit_denominator(100)
    exact, short = abs(near - Fraction(value)) <= 1e-12, 100 % near.denominator == 0 and abs(near) < 1e5
    if exact and (short or near.denominator <= 12):
        return f"{float(near):g}" if short else str(near)
    return f"{float(value):.{digits}g}"
