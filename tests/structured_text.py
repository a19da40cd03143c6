"""A function block of IEC 61131-3 structured text in, one that runs cycle by cycle out; for the sample of docs/plc.md.

No compiler or runtime of the language is to be had from the package indexes. What the sample uses is understood, and
anything else refused: IF, FOR, assignments to variables, arrays, their elements and bits, calls of R_TRIG and TON, ADR
and ^ of a REAL, SHL, the conversions of words, AND, OR, NOT, =, <> and +.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

TOKEN = re.compile(r"\s+|\(\*.*?\*\)|(T#\d+m?s|:=|<>|\.\.|[A-Za-z_]\w*|\d+|[()\[\].,;:=^+])", re.DOTALL)
CONVERSIONS = ("WORD_TO_DWORD", "DWORD_TO_UDINT")
TYPES = {"BOOL": bool, "WORD": int, "DWORD": int, "UDINT": int, "INT": int, "REAL": float}

Evaluate = Callable[[], Any]


class RisingEdge:
    """R_TRIG."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.Q, self._was = False, False

    def __call__(self, **inputs: bool) -> None:
        is_up = inputs["CLK"]
        self.Q, self._was = is_up and not self._was, is_up


class OnDelay:
    """TON."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.Q, self._now_s, self._since_s = False, now_s, 0.0

    def __call__(self, **inputs: float) -> None:
        if not inputs["IN"]:
            self._since_s = self._now_s()
        self.Q = bool(inputs["IN"]) and self._now_s() - self._since_s >= inputs["PT"]


BLOCKS = {"R_TRIG": RisingEdge, "TON": OnDelay}


class FunctionBlock:
    """One instance.

    Args:
        source: From FUNCTION_BLOCK to END_FUNCTION_BLOCK.
        now_s: The controller's clock.

    Attributes:
        variables: By name.

    Raises:
        SyntaxError: The source has what is not understood.
    """

    def __init__(self, source: str, now_s: Callable[[], float]) -> None:
        self.variables: dict[str, Any] = {}
        self._tokens, position = [], 0
        while position < len(source.rstrip()):
            if (match := TOKEN.match(source, position)) is None:
                raise SyntaxError(f"not understood: {source[position : position + 20]!r}")
            self._tokens += [match[1]] if match[1] else []
            position = match.end()
        self._take("FUNCTION_BLOCK")
        self._take()
        while self._next.startswith("VAR"):
            self._declare(now_s)
        self._run = self._statements("END_FUNCTION_BLOCK")

    def cycle(self, **inputs: Any) -> None:
        """Run once."""
        self.variables.update(inputs)
        self._run()

    @property
    def _next(self) -> str:
        return self._tokens[0]

    def _take(self, expected: str | None = None) -> str:
        token = self._tokens.pop(0)
        if expected not in (None, token):
            raise SyntaxError(f"{token!r} stands where {expected!r} should")
        return token

    def _takes(self, token: str) -> bool:
        return self._next == token and bool(self._take())

    def _declare(self, now_s: Callable[[], float]) -> None:
        self._take()
        while not self._takes("END_VAR"):
            names = [self._take()]
            while self._takes(","):
                names.append(self._take())
            self._take(":")
            kind = self._take()
            rest = []
            while not self._takes(";"):  # bounds of an array and the type of its elements, what a pointer points to
                rest.append(self._take())
            for name in names:
                if kind == "ARRAY":
                    self.variables[name] = [TYPES[rest[-1]]()] * (int(rest[3]) + 1)
                else:
                    known = kind in BLOCKS or kind in TYPES
                    self.variables[name] = (BLOCKS[kind](now_s) if kind in BLOCKS else TYPES[kind]()) if known else None

    def _statements(self, *ends: str) -> Callable[[], None]:
        steps = []
        while self._next not in ends:
            if self._takes("IF"):
                steps.append(self._condition())
            else:
                steps.append(self._loop() if self._takes("FOR") else self._action())
        return lambda: [step() for step in steps] and None

    def _condition(self) -> Callable[[], None]:
        branches: list[tuple[Evaluate, Callable[[], None]]] = []
        while True:
            test = self._either()
            self._take("THEN")
            branches.append((test, self._statements("ELSIF", "END_IF")))
            if self._take() == "END_IF":
                break
        self._take(";") if self._next == ";" else None

        def run() -> None:
            next((body for test, body in branches if test()), bool)()

        return run

    def _loop(self) -> Callable[[], None]:
        name, variables = self._take(), self.variables
        self._take(":=")
        first = self._sum()
        self._take("TO")
        last = self._sum()
        self._take("DO")
        body = self._statements("END_FOR")
        self._take("END_FOR")
        self._take(";") if self._next == ";" else None

        def run() -> None:
            for variables[name] in range(first(), last() + 1):
                body()

        return run

    def _action(self) -> Callable[[], None]:
        name, variables = self._take(), self.variables
        if self._takes("("):
            inputs = {}
            while not self._takes(")"):
                parameter = self._take()
                self._take(":=")
                inputs[parameter] = self._either()
                self._takes(",")
            self._take(";")
            return lambda: variables[name](**{parameter: value() for parameter, value in inputs.items()})
        bit = int(self._take()) if self._takes(".") else None
        index = self._sum() if self._takes("[") else None
        self._take("]") if index else None
        self._take(":=")
        value = self._either()
        self._take(";")
        if name not in variables:
            raise SyntaxError(f"{name} is not declared")

        def assign() -> None:
            if index is not None:
                variables[name][index()] = value()
            elif bit is None:
                new = value()
                variables[name] = list(new) if isinstance(new, list) else new
            else:
                variables[name] = (variables[name] & ~(1 << bit)) | (value() << bit)

        return assign

    def _either(self) -> Evaluate:
        value = self._both()
        while self._takes("OR"):
            value = (lambda left, right: lambda: left() | right())(value, self._both())
        return value

    def _both(self) -> Evaluate:
        value = self._equal()
        while self._takes("AND"):
            value = (lambda left, right: lambda: left() & right())(value, self._equal())
        return value

    def _equal(self) -> Evaluate:
        if self._takes("NOT"):
            operand = self._equal()
            return lambda: not operand()
        value = self._sum()
        if self._takes("="):
            right = self._sum()
            return lambda: value() == right()
        if self._takes("<>"):
            other = self._sum()
            return lambda: value() != other()
        return value

    def _sum(self) -> Evaluate:
        value = self._operand()
        while self._takes("+"):
            value = (lambda left, right: lambda: left() + right())(value, self._operand())
        return value

    def _operand(self) -> Evaluate:
        token, variables = self._take(), self.variables
        if token == "(":
            value = self._either()
            self._take(")")
            return value
        if token in ("TRUE", "FALSE"):
            return lambda: token == "TRUE"
        if token.startswith("T#"):
            seconds = float(token.strip("T#ms")) / (1000 if token.endswith("ms") else 1)
            return lambda: seconds
        if token.isdecimal():
            return lambda: int(token)
        if self._takes("("):
            return self._function(token)
        if token not in variables:
            raise SyntaxError(f"{token} is not declared")
        if self._takes("^"):  # the four bytes of a DWORD as a REAL
            return lambda: struct.unpack("<f", struct.pack("<I", variables[variables[token]]))[0]
        if self._takes("["):
            index = self._sum()
            self._take("]")
            value = lambda: variables[token][index()]  # noqa: E731
        else:
            value = lambda: variables[token]  # noqa: E731
        if not self._takes("."):
            return value
        member = self._take()
        return lambda: bool(value() >> int(member) & 1) if member.isdecimal() else getattr(value(), member)

    def _function(self, name: str) -> Evaluate:
        if name == "ADR":
            pointed = self._take()
            self._take(")")
            return lambda: pointed
        arguments = [self._either()]
        while self._takes(","):
            arguments.append(self._either())
        self._take(")")
        if name == "SHL":
            return lambda: arguments[0]() << arguments[1]() & 0xFFFFFFFF
        if name in CONVERSIONS:
            return arguments[0]
        raise SyntaxError(f"the function {name} is not understood")
