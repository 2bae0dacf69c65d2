"""PTX text to instructions (PTX ISA, 4 "Syntax" and 5 "State spaces, types, and variables").

Reads what NVRTC writes for this project's kernels, which is one file with `.entry` functions, no calls, no tables.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field

from ptx.faults import PtxError
from ptx.kinds import WIDTHS


@dataclass(frozen=True)
class Register:
    """A register by its index; `width` in bytes, 0 for a predicate."""

    index: int
    width: int


@dataclass(frozen=True)
class Symbol:
    """A variable, a label, a special register, or the sink `_`."""

    name: str


@dataclass(frozen=True)
class Integer:
    """An integer constant."""

    value: int


@dataclass(frozen=True)
class Bits:
    """A floating-point constant by its bits; `width` in bytes."""

    value: int
    width: int


@dataclass(frozen=True)
class Vector:
    """`{a, b, ...}`, or two results `a|b`."""

    parts: tuple[Operand, ...]


@dataclass(frozen=True)
class Address:
    """`[base + offset]`."""

    base: Register | Symbol | Integer
    offset: int


Operand = Register | Symbol | Integer | Bits | Vector | Address


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        pc: its index in the kernel.
        line: of the text, from 1.
        opcode: without modifiers, for example "ld".
        modifiers: for example ("global", "v4", "f32").
        operands: the destination first.
        guard, negated: the predicate that it is executed under, if any.
        text: as it stands, for messages.
    """

    pc: int
    line: int
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    negated: bool
    text: str

    @property
    def kind(self) -> str:
        """The last modifier, mostly the type."""
        return self.modifiers[-1]


@dataclass(frozen=True)
class Parameter:
    """A kernel's parameter: bytes in the parameter space."""

    name: str
    offset: int
    size: int


@dataclass
class Kernel:
    """One entry function.

    Attributes:
        widths: of the registers, in bytes.
        labels: name -> index of an instruction.
        shared, local: name -> offset of the variables in shared memory (of a block) and local memory (of a thread).
        dynamic: alignment and name of the `extern` arrays in shared memory, which lie behind the others.
    """

    name: str
    parameters: list[Parameter] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)
    shared_bytes: int = 0
    local: dict[str, int] = field(default_factory=dict)
    local_bytes: int = 0
    dynamic: list[tuple[int, str]] = field(default_factory=list)

    @property
    def parameter_bytes(self) -> int:
        """Size of the parameter space."""
        return max((one.offset + one.size for one in self.parameters), default=0)


_ENTRY = re.compile(r"\.entry\s+(\w+)\s*\((.*?)\)([^{]*)\{", re.DOTALL)
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(\w+)(?:\[(\d+)\])?")
_DYNAMIC = re.compile(r"\.extern \.shared \.align (\d+) \.b8 ([\w$]+)\[\];")
_VARIABLE = re.compile(r"\.(shared|local) \.align (\d+) \.(\w+) ([\w$]+)\[(\d+)\]")
_LABEL = re.compile(r"([$\w]+):\s")
_GUARDED = re.compile(r"@(!?)([%\w$]+)\s+(.*)")
_OPCODE = re.compile(r"([\w.:]+)\s*(.*)")
_RANGE = re.compile(r"([%\w$]+)<(\d+)>")
_ADDRESS = re.compile(r"([%\w$.]+?)(?:\+(-?\d+))?$")
_INTEGER = re.compile(r"-?(0[xX][0-9a-fA-F]+|\d+)U?$")
_FLOAT = {re.compile(r"0[fF]([0-9a-fA-F]{8})$"): 4, re.compile(r"0[dD]([0-9a-fA-F]{16})$"): 8}


def parse(text: str) -> dict[str, Kernel]:
    """The kernels of a file, by name."""
    text = re.sub(r"//[^\n]*|^[ \t]*\.(?:loc|file)\b[^\n]*", "", text, flags=re.MULTILINE)
    dynamic = [(int(align), name) for align, name in _DYNAMIC.findall(text)]
    kernels = {}
    for match in _ENTRY.finditer(text):
        kernel = Kernel(match.group(1), _parameters(match.group(2)), dynamic=dynamic)
        _Body(kernel, text, match.end()).read()
        kernels[kernel.name] = kernel
    return kernels


def _parameters(text: str) -> list[Parameter]:
    parameters, at = [], 0
    for align, kind, name, count in _PARAMETER.findall(text):
        width = WIDTHS[kind]
        at = round_up(at, int(align or width))
        parameters.append(Parameter(name, at, width * int(count or 1)))
        at += parameters[-1].size
    return parameters


def round_up(value: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-value // step) * step


def split(text: str) -> list[str]:
    """At the commas outside of braces and brackets."""
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += (letter in "{[") - (letter in "}]")
        if letter == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    return [*parts, current.strip()] if current.strip() else parts


class _Body:
    """Reads the statements of one kernel; braces open scopes, where registers of inline assembly have their names."""

    def __init__(self, kernel: Kernel, text: str, start: int) -> None:
        self.kernel, self.text, self.at = kernel, text, start
        self.scopes: list[dict[str, Register]] = [{}]
        self.lines = [match.start() for match in re.finditer("\n", text)]

    def read(self) -> None:
        text = self.text
        while self.scopes:
            if text[self.at].isspace():
                self.at += 1
            elif text[self.at] == "{":
                self.scopes.append({})
                self.at += 1
            elif text[self.at] == "}":
                self.scopes.pop()
                self.at += 1
            elif label := _LABEL.match(text, self.at):
                self.kernel.labels[label.group(1)] = len(self.kernel.code)
                self.at = label.end()
            else:
                end = text.index(";", self.at)
                statement = " ".join(text[self.at : end].split())
                if statement:
                    self._statement(statement, bisect.bisect(self.lines, self.at) + 1)
                self.at = end + 1

    def _statement(self, statement: str, line: int) -> None:
        if statement.startswith(".reg"):
            self._registers(statement)
        elif variable := _VARIABLE.match(statement):
            self._variable(*variable.groups())
        elif not statement.startswith("."):  # others are directives to ptxas
            self._instruction(statement, line)

    def _registers(self, statement: str) -> None:
        kind, names = statement.removeprefix(".reg .").split(" ", 1)
        for name in split(names):
            many = _RANGE.match(name)
            for each in [f"{many.group(1)}{index}" for index in range(int(many.group(2)))] if many else [name]:
                self.scopes[-1][each] = Register(len(self.kernel.widths), WIDTHS[kind])
                self.kernel.widths.append(WIDTHS[kind])

    def _variable(self, space: str, align: str, kind: str, name: str, count: str) -> None:
        kernel, size = self.kernel, int(count) * WIDTHS[kind]
        if space == "shared":
            kernel.shared[name] = round_up(kernel.shared_bytes, int(align))
            kernel.shared_bytes = kernel.shared[name] + size
        else:
            kernel.local[name] = round_up(kernel.local_bytes, int(align))
            kernel.local_bytes = kernel.local[name] + size

    def _instruction(self, statement: str, line: int) -> None:
        guard, negated, rest = None, False, statement
        if guarded := _GUARDED.match(statement):
            guard, negated, rest = self._find(guarded.group(2)), bool(guarded.group(1)), guarded.group(3)
            if guard is None:
                raise PtxError(f"no predicate {guarded.group(2)}: {statement}")
        match = _OPCODE.match(rest)
        if match is None:
            raise PtxError(f"no instruction: {statement}")
        opcode, *modifiers = re.split(r"[.]|::", match.group(1))
        operands = tuple(self._operand(part) for part in split(match.group(2)))
        pc = len(self.kernel.code)
        self.kernel.code.append(Instruction(pc, line, opcode, tuple(modifiers), operands, guard, negated, statement))

    def _find(self, name: str) -> Register | None:
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), None)

    def _operand(self, text: str) -> Operand:
        if text.startswith("{"):
            return Vector(tuple(self._operand(part) for part in split(text[1:-1])))
        if "|" in text:  # two results
            return Vector(tuple(self._operand(part) for part in text.split("|")))
        if text.startswith("["):
            return self._address(text[1:-1].replace(" ", ""))
        register = self._find(text)
        if register is not None:
            return register
        for pattern, width in _FLOAT.items():
            if match := pattern.match(text):
                return Bits(int(match.group(1), 16), width)
        if _INTEGER.match(text):
            return Integer(int(text.rstrip("U"), 0))
        return Symbol(text)

    def _address(self, text: str) -> Address:
        match = _ADDRESS.match(text)
        if match is None:
            raise PtxError(f"no address: {text}")
        base = self._operand(match.group(1))
        if not isinstance(base, (Register, Symbol, Integer)):
            raise PtxError(f"no base of an address: {text}")
        return Address(base, int(match.group(2) or 0))
