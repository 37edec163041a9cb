"""A training run, evaluate, score and an exported folder ask a model with the same settings."""

from __future__ import annotations

import json
import re
import shutil
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from aes_r1 import evaluate
from aes_r1.data.sample import MAX_FILE_PIXELS
from aes_r1.inference.asking import PROFILE_FILE, AskingConfig, ModelProfile, find_model
from aes_r1.model import files, tiny
from aes_r1.model.families import SQUARE
from aes_r1.pipeline.job import Job
from aes_r1.prompts import RATING_PROMPT, SCORE_ONLY_PROMPT
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.processes import Processes
from aes_r1.scoring.critic import Critic
from aes_r1.settings import InputError, Settings, as_dict, build_settings
from aes_r1.tracking.tracker import Tracker
from tests.recipes import composed_evaluate

CPU = torch.device("cpu")


def test_the_shipped_base_has_seen_no_photograph():
    assert find_model(tiny.SHIPPED)[1].scenes_alone
    for empty in ("", " "):  # not the current folder, whatever it holds
        with pytest.raises(InputError, match=r"^model.path= *: names no model; give a run's or model's folder, or ."):
            find_model(empty, "model.path")


# No value is a default anywhere.
OTHER = {
    "model": {"prompt": "score_only", "max_pixels": 50176, "dtype": "bfloat16"},
    "trainer": {"max_new_tokens": 77},
    "evaluation": {"temperature": 0.8, "n_samples": 3},
}


def run_of(settings: Settings, folder: Path, *models: str) -> Path:
    (folder / "settings.json").write_text(json.dumps(as_dict(settings)))
    for name in ("model", *models):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    return folder


def of_evaluate(path: object, *overrides: str) -> AskingConfig:
    return evaluate.asking_for(find_model(str(path))[1], composed_evaluate(f"model.path={path}", *overrides))


@pytest.mark.parametrize("values", [{}, OTHER], ids=["defaults", "other values"])
@pytest.mark.slow
def test_the_training_run_evaluate_and_score_ask_alike(values, tmp_path):
    settings = build_settings(Settings, values)
    run = run_of(settings, tmp_path)
    job = Job(settings, run, CPU, Processes(), Tracker(None, settings.tracker, {}))
    in_training = job.asking.noted(CPU)
    assert of_evaluate(run).noted(CPU) == in_training  # python -m aes_r1.evaluate model.path=RUN
    assert of_evaluate(run / "model").noted(CPU) == in_training
    assert find_model(run)[1].noted(CPU) == in_training  # python -m aes_r1.score --model RUN, and what export writes
    assert (job.question, job.max_pixels) == (in_training["question"], in_training["max_pixels"])
    if values:
        assert in_training == {
            "question": SCORE_ONLY_PROMPT, "max_pixels": 50176, "max_new_tokens": 77, "temperature": 0.8,
            "n_samples": 3, "answer_from": "image", "dtype": "bfloat16",
        }  # fmt: skip


@pytest.mark.slow
def test_a_model_of_which_nothing_is_known_is_asked_alike_too(tmp_path, hub):
    hub.fill("org/hub-name", {"config.json": "{}"})
    (tmp_path / "config.json").write_text("{}")
    for path in ("org/hub-name", tmp_path):
        profile = find_model(path)[1]
        assert profile == ModelProfile()
        assert of_evaluate(path) == profile
    assert ModelProfile().noted(CPU) == {
        "question": RATING_PROMPT, "max_pixels": 262144, "max_new_tokens": 1024, "temperature": 0.6, "n_samples": 4,
        "answer_from": "image", "dtype": "float32",
    }  # fmt: skip
    assert asdict(ModelProfile())["half_widths"] == {}


EXPORTED = ModelProfile(
    question=SCORE_ONLY_PROMPT, max_pixels=65536, max_new_tokens=16, temperature=1.0, n_samples=2, answer_from="image",
    dtype="bfloat16", half_widths={"mean": 0.1}, measured_on="scenes/test", scenes_alone=True,
)  # fmt: skip


GATED: dict[str, str] = {"README.md": "whose files are only for those to whom its owner grants access"}


class Hub:
    """The hub as this machine sees it: `files` of repositories, and the cache that downloads go to."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.files: dict[str, dict[str, str]] = {}

    def fill(self, name: str, files: dict[str, str]) -> Path:
        """Put a snapshot of the repository `name` into the cache, as a download does; return its folder."""
        repository = self.cache / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("a" * 40)
        snapshot = repository / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        for file, text in files.items():
            (snapshot / file).write_text(text)
        return snapshot

    def serve(self, monkeypatch) -> ThreadingHTTPServer:
        """Answer for `files` at an address of this machine, which becomes the hub's."""
        hub = self

        class Answers(BaseHTTPRequestHandler):
            def do_HEAD(self):
                owner, name, _, _, file = [*self.path.strip("/").split("/"), *[""] * 5][:5]
                inside = hub.files.get(f"{owner}/{name}")
                text = (inside or {}).get(file, "").encode()
                is_gated = inside == GATED
                self.send_response(200 if text or self.path == "/" else 403 if is_gated else 404)
                if is_gated:
                    self.send_header("X-Error-Code", "GatedRepo")
                elif not text and self.path != "/":
                    self.send_header("X-Error-Code", "RepoNotFound" if inside is None else "EntryNotFound")
                self.send_header("ETag", f'"{len(text)}"')
                self.send_header("X-Repo-Commit", "b" * 40)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                return text

            def do_GET(self):
                self.wfile.write(self.do_HEAD())

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.lies_at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
        return server

    def lies_at(self, address: str, monkeypatch) -> None:
        """Let `address` be the hub's."""
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that cannot be reached, with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    found = Hub(tmp_path / "cache")
    found.lies_at("http://127.0.0.1:1", monkeypatch)
    return found


@pytest.mark.slow
def test_an_exported_model_is_asked_alike_by_its_hub_name(hub, monkeypatch):
    """From the cache, where the hub cannot be asked; and from the hub, with nothing in the cache."""
    files = {"config.json": "{}", PROFILE_FILE: json.dumps(asdict(EXPORTED))}
    folder = hub.fill("me/critic", files)
    hub.files["me/new"] = files
    assert find_model(folder) == (str(folder), EXPORTED)
    assert find_model("me/critic") == ("me/critic", EXPORTED)
    assert find_model("me/critic")[1].warning() is not None
    server = hub.serve(monkeypatch)
    assert find_model("me/new") == ("me/new", EXPORTED)
    server.shutdown()


@pytest.mark.slow
def test_a_repository_without_a_profile_is_asked_by_the_defaults(hub, monkeypatch):
    """The hub says so, or the snapshot that was downloaded; where the hub says it of no repository, it is one line."""
    folder = hub.fill("me/base", {"config.json": "{}"})
    assert find_model("me/base")[1] == find_model(folder)[1] == ModelProfile()
    hub.files["me/other"] = {"config.json": "{}"}
    server = hub.serve(monkeypatch)
    hub.files["me/base"] = {"config.json": "{}"}
    assert find_model("me/other")[1] == find_model("me/base")[1] == ModelProfile()
    with pytest.raises(InputError, match=r"^me/none: no such folder, and the hub has no such model \("):
        find_model("me/none")
    server.shutdown()


def test_a_profile_that_cannot_be_asked_for_is_not_silently_the_defaults(hub, caplog):
    """Offline nobody knows whether the repository has the file, unless the hub has said so before."""
    files = {"config.json": "{}", "preprocessor_config.json": "{}"}
    hub.fill("me/unknown", files)
    hub.fill("me/without", files)
    said_so = hub.cache / "models--me--without" / ".no_exist" / ("a" * 40) / PROFILE_FILE
    said_so.parent.mkdir(parents=True)
    said_so.touch()
    for name in ("me/without", "me/unknown", "me/unknown"):
        assert find_model(name) == (name, ModelProfile())
    (warning,) = (record.getMessage() for record in caplog.records if record.name == "aes_r1")
    assert re.fullmatch(
        r"me/unknown: aes_r1\.json could not be asked for \(.+\); without it the defaults hold", warning
    )


@pytest.mark.slow
def test_a_gated_repository_says_that_access_must_be_asked_for(hub, monkeypatch):
    hub.files["me/gated"] = GATED
    server = hub.serve(monkeypatch)
    said = "^--model=me/gated: its owner must grant you access; ask for it on the model's page of the hub, then hf auth"
    for asked in (find_model, files.find):
        with pytest.raises(InputError, match=said):
            asked("me/gated", "--model")
    server.shutdown()


@pytest.mark.parametrize("asked", ["--model", "model.path", "models.a"])
@pytest.mark.slow
def test_a_repository_that_cannot_be_reached_names_the_option(asked, hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    named = {
        "--model": lambda: Critic.load("me/critic"),
        "model.path": lambda: check_models("model.path=me/critic"),
        "models.a": lambda: check_models("+models.a=me/critic"),
    }[asked]
    with pytest.raises(InputError, match=f"^{re.escape(asked)}=me/critic: no such folder, and the hub could not"):
        named()


def test_a_name_that_the_hub_does_not_allow_is_one_line():
    for asked in (find_model, files.find):
        with pytest.raises(InputError, match=r"^--model=me/a--b: no such folder, and the hub could not be asked \("):
            asked("me/a--b", "--model")


def check_models(*overrides):
    """Check the models of an evaluation as it does before any picture is listed."""
    evaluate._check_models(RunFolder(Path("evaluation")), composed_evaluate(*overrides))


def test_a_repository_that_cannot_be_reached_is_one_line(hub, tmp_path, monkeypatch):
    said = r"^me/critic: no such folder, and the hub could not be asked \(.*\); give a model folder or hub name"
    with pytest.raises(InputError, match=said) as found:
        find_model("me/critic")
    assert "\n" not in str(found.value)
    # What can be no hub name is not asked about: the check of the model names the key, too.
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("the hub was asked"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/nothing", "nothing", "/gone"):
        assert find_model(name) == (name, ModelProfile())


WRONG = [
    ("question", 7), ("question", ["a"]), ("question", "say <|im_end|>"), ("question", "\ud800"),
    ("max_pixels", "262144"), ("max_pixels", 255), ("max_pixels", 1e6), ("max_pixels", True), ("max_pixels", 10**12),
    ("max_new_tokens", -3), ("max_new_tokens", 0), ("max_new_tokens", "16"), ("max_new_tokens", 10**12),
    ("temperature", 0.0), ("temperature", -1.0), ("temperature", "1"), ("temperature", None),
    ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", True),
    ("n_samples", 0), ("n_samples", 2.0), ("n_samples", None), ("n_samples", 10**400),
    ("answer_from", "words "), ("answer_from", ["image"]), ("dtype", "int8"), ("dtype", 16),
    ("half_widths", [1]), ("half_widths", {"mean": "0.1"}), ("half_widths", {"mean": -0.1}),
    ("half_widths", {"mean": 10**400}), ("half_widths", {"mean": float("nan")}), ("half_widths", None),
    ("measured_on", 3), ("measured_on", "a\x1b[2J"), ("scenes_alone", "no"), ("scenes_alone", None), ("unknown", 1),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_foreign_value_that_cannot_be_is_one_line(key, value, tmp_path):
    (tmp_path / PROFILE_FILE).write_text(json.dumps({**asdict(EXPORTED), key: value}))
    with pytest.raises(InputError) as found:
        find_model(tmp_path)
    assert str(found.value).startswith(f"{tmp_path / PROFILE_FILE}: ")
    assert key in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("key", "value", "bound"),
    [
        ("max_pixels", 10**12, f"256..{MAX_FILE_PIXELS};"),
        ("max_new_tokens", 10**12, "1..1000000;"),
        ("temperature", 1001, "up to 1000;"),
        ("n_samples", 10**6, "1..100000;"),
        ("half_widths", {"mean": 1001}, "0..1000;"),
    ],
)
def test_a_number_that_is_too_large_is_told_the_bound(key, value, bound, tmp_path):
    (tmp_path / PROFILE_FILE).write_text(json.dumps({key: value}))
    with pytest.raises(InputError, match=re.escape(bound)):
        find_model(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", "null", "{", "[" * 200_000, "\ud800"], ids=lambda text: text[:3])
@pytest.mark.parametrize("name", [PROFILE_FILE, "preprocessor_config.json"])
def test_a_file_that_holds_no_object_is_one_line(name, content, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(InputError, match=f"^{tmp_path / name}: ") as found:
        find_model(tmp_path)
    assert "\n" not in str(found.value)


def test_every_setting_of_an_export_has_a_rule_and_older_exports_may_lack_some(tmp_path):
    for profile in (EXPORTED, ModelProfile()):
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / PROFILE_FILE).write_text(json.dumps(asdict(profile)))
        assert find_model(tmp_path / "one")[1] == profile
    (tmp_path / PROFILE_FILE).write_text('{"n_samples": 7, "temperature": 1}')
    assert find_model(tmp_path)[1] == ModelProfile(n_samples=7, temperature=1)


@pytest.mark.parametrize(
    "size", [{"size": {"longest_edge": "x"}}, {"max_pixels": [1]}, {"max_pixels": -1}, {"max_pixels": 1e999}], ids=str
)
def test_a_processor_s_size_that_is_none_is_one_line(size, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(size))
    with pytest.raises(InputError, match=r"preprocessor_config\.json: .* is no number of pixels; download it again$"):
        find_model(tmp_path)


@pytest.mark.parametrize("size", [{"size": {"longest_edge": 9216}}, {"max_pixels": 9216}])
def test_a_bare_folder_sees_pictures_as_its_processor_says_within_the_paper(size, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(size))
    assert find_model(tmp_path)[1] == ModelProfile(max_pixels=9216)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"longest_edge": 12845056}}')
    assert find_model(tmp_path)[1] == ModelProfile()


@pytest.mark.slow
def test_a_hub_model_sees_pictures_as_its_processor_says(hub, monkeypatch):
    files = {"config.json": "{}", "preprocessor_config.json": '{"max_pixels": 9216}'}
    folder = hub.fill("me/base", files)
    assert find_model("me/base")[1] == find_model(folder)[1] == ModelProfile(max_pixels=9216)
    hub.files["me/new"] = files
    server = hub.serve(monkeypatch)
    assert find_model("me/new")[1] == ModelProfile(max_pixels=9216)
    server.shutdown()


@pytest.mark.parametrize("family", SQUARE)
def test_the_edge_of_a_square_is_no_area(family, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"longest_edge": 2048}}')
    assert find_model(tmp_path)[1] == ModelProfile()


@pytest.mark.slow
def test_the_command_line_of_evaluate_goes_before_what_is_known(tmp_path):
    run = run_of(build_settings(Settings, OTHER), tmp_path)
    given = ("model.prompt=critique", "model.dtype=float32", "data.max_pixels=3136", "evaluation.max_new_tokens=9",
             "evaluation.temperature=0.3", "evaluation.n_samples=2")  # fmt: skip
    assert of_evaluate(run, *given).noted(CPU) == {
        "question": RATING_PROMPT, "max_pixels": 3136, "max_new_tokens": 9, "temperature": 0.3, "n_samples": 2,
        "answer_from": "image", "dtype": "float32",
    }  # fmt: skip


def test_the_models_of_a_run_are_asked_as_it_asks(tmp_path):
    run = run_of(build_settings(Settings, OTHER), tmp_path, "best/model", "checkpoints/step_40/model")
    measured = {"rapo": {"para/test": {"mean": {"conformal": {"half_width": 0.1}}}}}
    (run / "evaluation.json").write_text(json.dumps({"stages": measured}))
    last = find_model(run)
    assert last == find_model(run / "model")
    assert (last[0], last[1].half_widths, last[1].measured_on) == (str(run / "model"), {"mean": 0.1}, "para/test")
    for name in ("best", "checkpoints/step_40"):
        for path in (run / name, run / name / "model"):
            folder, profile = find_model(path)
            assert folder == str(run / name / "model")
            assert (profile.max_new_tokens, profile.dtype, profile.half_widths) == (77, "bfloat16", {})
    assert find_model(run / "best")[1].dtype == "bfloat16"


@pytest.mark.parametrize(
    ("trainer", "stages", "half_widths"),
    [
        ("rapo", ["base", "cold_start"], {}),
        ("rapo", ["base", "cold_start", "rapo"], {"mean": 2.0}),
        ("rapo", ["rapo"], {"mean": 0.0}),
        ("sft", ["base"], {}),
        ("sft", ["base", "cold_start"], {"mean": 1.0}),
    ],
)
def test_intervals_are_those_of_the_model_itself(trainer, stages, half_widths, tmp_path):
    """evaluation.stages may leave the last model out; then those of another model are not its own."""
    run = run_of(build_settings(Settings, {"trainer": {"name": trainer}, "evaluation": {"stages": stages}}), tmp_path)
    measured = {
        stage: {"para/test": {"mean": {"conformal": {"half_width": float(number)}}}}
        for number, stage in enumerate(stages)
    }
    (run / "evaluation.json").write_text(json.dumps({"stages": measured}))
    profile = find_model(run)[1]
    assert (profile.half_widths, profile.measured_on) == (half_widths, "para/test" if half_widths else None)


def test_a_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing"):
        find_model(tmp_path)


def test_bfloat16_where_the_device_computes_in_it(monkeypatch):
    gpu = torch.device("cuda", 0)
    for native, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, native=native: native)
        assert AskingConfig().dtype_on(gpu) == dtype
        assert AskingConfig(dtype="float16").dtype_on(gpu) == "float16"
        assert AskingConfig().dtype_on(CPU) == "float32"
