"""The shape of the code: who imports whom, what `import gpulstm` loads, how long a file may be, what is documented."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from paths import CHECKOUT, TESTS

import gpulstm

PACKAGE = Path(gpulstm.__file__).parent
TOP = {"gpulstm", "gpulstm.__main__"}  # these two may import everything
LAZY = {"cupy", "matplotlib", "mpi4py", "onnx", "pandas", "polars", "pyarrow", "rich", "scipy", "torch"}
LAZY |= {"dask", "distributed", "h5py", "keras", "safetensors", "tensorboardX", "tqdm", "typer"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    results = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        results[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return results


def layers() -> dict[str, set[str]]:
    """The table in docs/architecture.md: what each folder and leaf of the package may import.

    A row is `names`, then what they may import; several names of one row stand for each of them.
    """
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = {}
    for names, may in re.findall(r"^\| ((?:`\w+` ?)+)\| ((?:`\w+`,? ?)+|nothing )\|$", text, re.MULTILINE):
        for name in re.findall(r"\w+", names):
            table[name] = set(re.findall(r"`(\w+)`", may))
    return table


def named_in_the_tree() -> dict[str, set[str]]:
    """What docs/architecture.md says lies in each folder: names before two spaces, below the folder's own line."""
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named: dict[str, set[str]] = {}
    folder = ""
    for indent, names in re.findall(r"^( {4}| {6})(\S+(?: \S+)*)  ", text, re.MULTILINE):
        if len(indent) == 4 and names.endswith("/"):
            folder = names.rstrip("/")
            named[folder] = set()
        elif len(indent) == 6:
            named[folder] |= set(names.split())
    return named


def part(name: str) -> str:
    """The folder or leaf that a module belongs to: `gpulstm.data.windows` is of `data`."""
    return name.split(".")[1]


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    """The modules of the package that `path` imports, also those it imports inside functions."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    results = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            results |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            members = {f"{source}.{alias.name}" for alias in node.names}
            results |= members & known
            if not members <= known:  # a name that is no module: it comes from the package itself
                results.add(source)
    return {target for target in results if target.split(".")[0] == "gpulstm"}


def test_the_table_names_every_folder_and_no_other() -> None:
    assert set(layers()) == {part(name) for name in set(modules()) - TOP}


def test_the_tree_is_that_of_the_package() -> None:
    named = named_in_the_tree()
    assert {"arrays", "engines/cuda", "model", "training", "interop/onnx", "bench"} <= named.keys()
    for folder, names in named.items():
        modules_of = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}
        unknown = {name for name in names if not (PACKAGE / folder / name).is_dir()} - modules_of
        assert not unknown, f"docs/architecture.md names {sorted(unknown)} in {folder}/"
        if folder.split("/")[0] in ("arrays", "engines", "model", "training", "interop", "bench"):
            assert modules_of <= names, f"docs/architecture.md does not name {sorted(modules_of - names)} in {folder}/"


def test_commands_and_files_that_contributing_names_are_there() -> None:
    text = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    commands = {name for line in re.findall(r"make ([a-z][a-z -]*)", text) for name in line.split()[:1]}
    assert len(commands) > 5
    assert {name for name in commands if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()
    files = set(re.findall(r"\b(?:tests|docs|gpulstm|arrays)/[\w/.]+\.(?:py|md)\b", text))
    assert files
    assert {name for name in files if not any((root / name).exists() for root in (CHECKOUT, PACKAGE))} == set()


def test_programs_that_tests_start_lie_apart_from_tests() -> None:
    """No file of tests can be started by itself: what tests start lies in `programs/`."""
    starts = re.compile(r'^if __name__ == "__main__":', re.MULTILINE)
    assert [file.name for file in TESTS.rglob("test_*.py") if starts.search(file.read_text(encoding="utf-8"))] == []


def test_the_table_has_no_cycle() -> None:
    table, ranked = layers(), set[str]()
    while len(ranked) < len(table):
        free = {name for name, may in table.items() if name not in ranked and may <= ranked}
        assert free, f"these import one another: {sorted(set(table) - ranked)}"
        ranked |= free


def test_each_folder_imports_only_what_the_table_allows() -> None:
    table, known = layers(), modules()
    wrong = [
        f"{name} imports {target}"
        for name, path in known.items()
        if name not in TOP
        for target in sorted(imports(name, path, set(known)))
        if target == "gpulstm" or part(target) not in table[part(name)] | {part(name)}
    ]
    assert not wrong


def test_no_modules_import_one_another_in_a_circle() -> None:
    """A folder whose `__init__` imports its modules when first asked for is left out: it stands for each of them."""
    known = {name: path for name, path in modules().items() if name not in TOP and "_MODULES" not in path.read_text()}
    graph = {name: imports(name, path, set(modules())) & set(known) - {name} for name, path in known.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_few_files_lie_at_the_root_of_the_package() -> None:
    files = [path for path in PACKAGE.iterdir() if path.is_file() and path.suffix != ".so"]
    assert len(files) <= 10, sorted(path.name for path in files)


def test_only_the_backend_imports_cupy() -> None:
    pattern = re.compile(r"^\s*(import|from)\s+cupyx?\b", re.MULTILINE)
    importers = [name for name, path in modules().items() if pattern.search(path.read_text(encoding="utf-8"))]
    assert importers == ["gpulstm.arrays.cupy_backend"]


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import json, sys, gpulstm; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(json.loads(run.stdout)) & LAZY


def test_the_first_forecast_of_a_loaded_model_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    """What a cold start must not wait for: training, tables, GPUs, and what of the standard library only those need."""
    options = {"horizon": 2, "context": 4, "hidden_size": 3, "num_layers": 1, "epochs": 1, "validation": 0}
    forecaster = gpulstm.Forecaster(**options, device="cpu").fit(np.sin(np.arange(30.0)), progress=False)
    forecaster.save(tmp_path / "model.safetensors")
    code = (
        "import json, sys, gpulstm\n"
        "gpulstm.Forecaster.load(sys.argv[1], device='cpu').predict()\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.safetensors")]
    loaded = set(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    late = {"optimizers", "schedules", "data.readers", "forecast.backtest", "forecast.streaming"}
    late |= {"training.callbacks", "training.gradients", "training.trainer"}
    forms = {name for name in modules() if name.startswith("gpulstm.engines.cuda.")} - {"gpulstm.engines.cuda.engine"}
    assert len(forms) > 5
    assert not loaded & (LAZY - {"safetensors"})
    assert not loaded & {f"gpulstm.{name}" for name in late}
    assert not loaded & forms
    assert not loaded & {"difflib", "numpy.random", "statistics", "tempfile"}


@pytest.mark.parametrize("folder", ["gpulstm", "kernels"])
def test_no_file_is_over_500_lines(folder: str) -> None:
    files = [path for path in (CHECKOUT / folder).rglob("*") if path.suffix in {".py", ".h", ".cuh", ".cu", ".cpp"}]
    assert files
    lengths = {str(path.relative_to(CHECKOUT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}


@pytest.mark.parametrize("name", sorted(modules()))
def test_public_things_have_docstrings(name: str) -> None:
    if name == "gpulstm.__main__":  # importing it runs the program
        assert ast.get_docstring(ast.parse(modules()[name].read_text(encoding="utf-8")))
        return
    module = importlib.import_module(name)
    bare = [] if module.__doc__ else ["the module itself"]
    for key, value in vars(module).items():
        if key.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isclass(value):
            bare += (
                [key] if not value.__doc__ or value.__doc__.startswith(f"{key}(") else []
            )  # a dataclass makes one up
            bare += [
                f"{key}.{member}" for member in public_methods(value) if not inspect.getdoc(getattr(value, member))
            ]
        elif inspect.isfunction(value) and not value.__doc__:
            bare.append(key)
    assert not bare


def public_methods(owner: type) -> list[str]:
    """Names of the methods and properties that a class itself defines; `getdoc` finds the text of a documented base."""
    kinds = (property, classmethod, staticmethod)
    return [
        name
        for name, member in vars(owner).items()
        if not name.startswith("_")
        and (isinstance(member, kinds) or (inspect.isfunction(member) and not member.__name__.startswith("_")))
    ]


LIMIT = 8  # parameters of a function; an object of options counts as the object that it is


def definitions(name: str, path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """All functions and classes of a module by their dotted names."""

    def below(prefix: str, node: ast.AST) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                yield f"{prefix}.{child.name}", child
                yield from below(f"{prefix}.{child.name}", child)
            else:
                yield from below(prefix, child)

    return below(name, ast.parse(path.read_text(encoding="utf-8")))


def parameters(function: ast.FunctionDef) -> list[str]:
    """Names of a function's parameters but for the object or class that a method belongs to."""
    arguments = function.args
    names = [one.arg for one in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
    return [name for name in names if name not in ("self", "cls")]


def spread(call: ast.Call, bag: str, open_: bool) -> bool:
    """Whether a call has `**bag`; of an open bag also where that is one of two cases: `**(bag if ... else {})`."""
    values = [one.value for one in call.keywords if one.arg is None]
    nodes = [one for value in values for one in (ast.walk(value) if open_ else [value])]
    return any(isinstance(one, ast.Name) and one.id == bag for one in nodes)


def held(function: ast.FunctionDef, known: dict[str, list[str]]) -> Iterator[tuple[str, set[str]]]:
    """The bags among a function's parameters, `**options` and mappings spread by `**`, and what each holds.

    That is the names which are read from it, and the parameters of what it is handed on to.  `**options` that are only
    handed on hold nothing: Python itself holds the caller to the other's parameters.
    """
    open_ = function.args.kwarg.arg if function.args.kwarg is not None else None
    for bag in [*parameters(function), *([open_] if open_ else [])]:
        read, handed, is_bag = set(), set(), bag == open_
        for node in ast.walk(function):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == bag:
                read |= {one.value for one in [node.slice] if isinstance(one, ast.Constant)}
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[0] == bag:
                read |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}
            if isinstance(node, ast.Call) and spread(node, bag, bag == open_):
                is_bag = True
                others = known.get(ast.unparse(node.func).rpartition(".")[2], [])
                handed |= set(others[len(node.args) :]) - {one.arg for one in node.keywords}
        if is_bag:
            yield bag, read | handed if read or bag != open_ else set()


def all_parameters() -> dict[str, list[str]]:
    """Parameters by the name that a call uses: of functions, of classes those of the constructor or the fields."""
    known: dict[str, list[str]] = {}
    for module, path in modules().items():
        for _, node in definitions(module, path):
            if isinstance(node, ast.ClassDef):
                own = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
                fields = [ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)]
                known[node.name] = parameters(own[0]) if own else fields
            elif node.name != "__init__":
                known[node.name] = parameters(node)
    return known


def counted(function: ast.FunctionDef, known: dict[str, list[str]]) -> int:
    """How many parameters a function has; a bag counts as what it holds."""
    names = set(parameters(function))
    for bag, holds in held(function, known):
        names = names - {bag} | holds
    return len(names)


def test_functions_have_few_parameters() -> None:
    long, known = set(), all_parameters()
    for module, path in modules().items():
        for name, node in definitions(module, path):
            if isinstance(node, ast.ClassDef) or counted(node, known) <= LIMIT or node.name == "__init__":
                continue
            if not any(isinstance(one, ast.Name) and one.id == "polite" for one in node.decorator_list):
                long.add(name)
    assert long == set()  # constructors of classes and commands of the command line may have more


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(a, *, b): pass", 2),
        ("def f(a, **options): return g(a, **options)", 1),
        ("def f(a, options): return g(a, **options)", 3),
        ("def f(a, options): return g(a, x=1, **options)", 2),
        ("def f(a, **options): return options['x'], options.get('y')", 3),
        ("def f(a, **options): return options.pop('x', 0), g(a, **options)", 3),
    ],
)
def test_a_bag_of_options_counts_as_what_it_holds(text: str, expected: int) -> None:
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    assert counted(function, {"g": ["a", "x", "y"]}) == expected


def test_classes_have_at_most_300_lines() -> None:
    lengths = {
        name: node.end_lineno - node.lineno + 1
        for module, path in modules().items()
        for name, node in definitions(module, path)
        if isinstance(node, ast.ClassDef) and node.end_lineno
    }
    assert {name for name, lines in lengths.items() if lines > 300} == set()


def test_every_module_has_its_test_file() -> None:
    """`gpulstm/<folder>/<module>.py` has `tests/<folder>/test_<module>.py`."""
    named = {
        str(path.relative_to(PACKAGE).with_name(f"test_{path.name}"))
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }
    assert not [name for name in sorted(named) if not (TESTS / name).is_file()]
