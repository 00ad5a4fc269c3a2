from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PositiveInt, SerializeAsAny, field_validator, model_validator

from twinloop.envs.configuration import Strict, dump, load, load_mapping, validate
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.wind_farm.config import RandomLayout, WindFarmConfig


class Ppo(Strict):
    kind: Literal["ppo"] = "ppo"
    lr: float = Field(default=3e-4, gt=0)
    clip: float = 0.2


class Search(Strict):
    kind: Literal["search"] = "search"
    n_trials: PositiveInt = 8
    bounds: tuple[float, float] = (0.0, 1.0)

    @model_validator(mode="after")
    def _ordered(self) -> Search:
        if self.bounds[0] > self.bounds[1]:
            raise ValueError(f"bounds {self.bounds}: the first exceeds the second")
        return self


class Run(Strict):
    seed: int
    dt_s: float = 1.0
    wind_speed_mps: float = 8.0
    name: str = "run"
    mode: Literal["steady", "dynamic"] = "steady"
    learner: Annotated[Ppo | Search, Field(discriminator="kind")] = Ppo()
    noise: float | tuple[float, float] = 0.0
    tags: dict[str, str] = {}
    stages: tuple[Ppo, ...] = ()
    note: str | None = None


Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def refusal(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path, Run, overrides)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


def test_a_file_becomes_its_model(write: Write) -> None:
    path = write("run.yaml", "seed: 7\nlearner:\n  kind: search\n  bounds: [0, 2]\n")
    assert load(path, Run) == Run(seed=7, learner=Search(bounds=(0.0, 2.0)))


def test_an_empty_file_is_a_mapping_without_keys(write: Write) -> None:
    assert load_mapping(write("run.yaml", "# nothing yet\n")) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E+3", 1e3), ("-.5", -0.5), ("5.", 5.0), ("010", 10), ("0x1F", 31), ("true", True),
        ("no", "no"), ("on", "on"), ("12:30", "12:30"), ("2024-05-01", "2024-05-01"), ("null", None), ("~", None),
        ("'1'", "1"), ("1_000", "1_000"),
    ],
)  # fmt: skip
def test_scalars_are_read_by_the_core_schema_of_yaml_1_2(write: Write, text: str, value: object) -> None:
    read = load_mapping(write("run.yaml", f"key: {text}\n"))["key"]
    assert read == value
    assert type(read) is type(value)


def test_a_child_merges_into_its_parents_key_by_key_and_replaces_lists(write: Write) -> None:
    write("base.yaml", "seed: 1\ntags: {a: x, b: y}\nnoise: [1, 2]\n")
    write("runs/middle.yaml", "extends: ../base.yaml\ntags: {b: z}\n")
    path = write("runs/leaf.yaml", "extends: middle.yaml\nnoise: [3, 4]\n")
    assert load_mapping(path) == {"seed": 1, "tags": {"a": "x", "b": "z"}, "noise": [3, 4]}


def test_a_mapping_of_another_kind_replaces_its_parents(write: Write) -> None:
    write("base.yaml", "seed: 1\nlearner: {kind: ppo, lr: 0.1}\n")
    path = write("leaf.yaml", "extends: base.yaml\nlearner: {kind: search}\n")
    assert load(path, Run).learner == Search()
    assert load(write("other.yaml", "extends: base.yaml\nlearner: {clip: 0.1}\n"), Run).learner == Ppo(lr=0.1, clip=0.1)


def test_a_circle_of_extends_is_refused_with_its_members(write: Write) -> None:
    write("a.yaml", "extends: b.yaml\n")
    path = write("b.yaml", "extends: a.yaml\n")
    assert refusal(path) == [
        "b.yaml: extends runs in a circle: b.yaml -> a.yaml -> b.yaml; let one of them extend nothing"
    ]


def test_a_missing_file_names_the_nearest_one(write: Write) -> None:
    path = write("train.yaml", "seed: 1\n")
    assert refusal(path.with_name("trian.yaml")) == ["trian.yaml: no such file (did you mean 'train.yaml'?)"]
    assert refusal(write("leaf.yaml", "extends: base.yaml\n")) == [
        "base.yaml: no such file (did you mean 'leaf.yaml'?)"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n- 2\n", "run.yaml: a list at the top; must be a mapping"),
        ("seed: [1, 2\nname: x\n", "run.yaml:2: not valid YAML"),
        ("seed: 1\n\tname: x\n", "run.yaml:2: not valid YAML"),
        ("seed: !!python/object:os.system x\n", "run.yaml:1: not valid YAML"),
        ("seed: 1\n? [a]\n: 2\n", "run.yaml:2: not valid YAML: found unhashable key"),
        ("extends: [a.yaml, b.yaml]\n", "run.yaml: extends: ['a.yaml', 'b.yaml']; must be the path of one YAML file"),
    ],
)
def test_what_is_not_a_yaml_mapping_is_refused_with_its_line(write: Write, text: str, said: str) -> None:
    assert refusal(write("run.yaml", text))[0].startswith(said)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("name: Größe\n".encode("latin-1"))
    assert refusal(path)[0].startswith("run.yaml: cannot be read as UTF-8 text")


def test_every_key_that_comes_twice_is_named_with_its_line(write: Write) -> None:
    path = write("run.yaml", "seed: 1\ntags:\n  a: x\n  a: y\nseed: 2\n")
    assert sorted(refusal(path)) == [
        "run.yaml:4: a: comes twice in one mapping; keep one",
        "run.yaml:5: seed: comes twice in one mapping; keep one",
    ]


def test_an_override_beats_the_file_and_later_overrides_beat_earlier_ones(write: Write) -> None:
    path = write("run.yaml", "seed: 1\nlearner: {kind: ppo, clip: 0.1}\n")
    run = load(path, Run, ["learner.lr=1e-4", "seed=2", "seed=3", "noise=[0, 1]", "note=a=b"])
    assert run == Run(seed=3, learner=Ppo(lr=1e-4, clip=0.1), noise=(0.0, 1.0), note="a=b")


def test_an_override_may_change_the_kind(write: Write) -> None:
    path = write("run.yaml", "seed: 1\nlearner: {kind: ppo, clip: 0.1}\n")
    assert load(path, Run, ["learner.kind=search", "learner.n_trials=2"]).learner == Search(n_trials=2)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "--set seed: must be KEY=VALUE, such as learner.lr=1e-4"),
        (".seed=1", "--set .seed=1: must be KEY=VALUE, such as learner.lr=1e-4"),
        ("stages.0.lr=1", "--set stages.0.lr=1: stages is a list; give it as a whole: [..., ...]"),
        ("seed=[1", "--set seed=[1:1: not valid YAML"),
    ],
)
def test_an_override_that_cannot_be_read_is_refused(write: Write, override: str, said: str) -> None:
    assert refusal(write("run.yaml", "seed: 1\nstages: [{kind: ppo}]\n"), override)[0].startswith(said)


def test_all_errors_come_at_once_each_from_where_it_stands(write: Write) -> None:
    write("base.yaml", "seed: soon\nlearner: {kind: ppo, clp: 0.1}\n")
    path = write("leaf.yaml", "extends: base.yaml\nmode: stedy\n")
    assert refusal(path, "learner.lr=-1") == [
        "base.yaml: seed: 'soon'; must be a whole number",
        "leaf.yaml: mode: 'stedy'; must be 'steady' or 'dynamic' (did you mean 'steady'?)",
        "--set learner.lr=-1: learner.lr: -1; must be greater than 0",
        "base.yaml: learner.clp: unknown key; keys here: kind, lr, clip (did you mean 'clip'?)",
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "seed: missing; give a whole number"),
        ({"seed": 1.5}, "seed: 1.5; must be a whole number"),
        ({"seed": 1, "learner": {"lr": 1}}, "learner: kind is missing; give kind: one of ppo, search"),
        (
            {"seed": 1, "learner": {"kind": "serch"}},
            "learner: kind 'serch'; must be one of ppo, search (did you mean 'search'?)",
        ),
        ({"seed": 1, "learner": 3}, "learner: 3; must be a mapping with the keys kind, lr, clip, n_trials, bounds"),
        (
            {"seed": 1, "learner": {"kind": "search", "clip": 1}},
            "learner.clip: unknown key; keys here: kind, n_trials, bounds",
        ),
        (
            {"seed": 1, "learner": {"kind": "search", "bounds": [2, 1]}},
            "learner: bounds (2.0, 1.0): the first exceeds the second",
        ),
        ({"seed": 1, "stages": [{}, {"lr": "x"}]}, "stages.1.lr: 'x'; must be a number"),
        ({"seed": 1, "stages": {"lr": 1}}, "stages: a mapping; must be a list [..., ...]"),
        ({"seed": 1, "tags": {"a": [1]}}, "tags.a: [1]; must be text"),
        ({"seed": 1, "noise": "x"}, "noise: 'x'; must be a number, or must be a list [..., ...]"),
        ({"seed": 1, "dt_s": float("nan")}, "dt_s: nan; must be a finite number"),
        ({"seed": 1, "name": ["x" * 200]}, f"name: ['{'x' * 58}...; must be text"),
    ],
)
def test_an_error_says_what_came_and_what_is_allowed(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        validate(data, Run, "run.yaml")
    assert str(caught.value) == f"run.yaml: {said}"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("dt_min", "'dt_s'? its unit is 's'"),
        ("dt", "'dt_s'? its unit is 's'"),
        ("wind_speed", "'wind_speed_mps'? its unit is 'mps'"),
        ("wind_speed_kmh", "'wind_speed_mps'? its unit is 'mps'"),
        ("wnid_speed_mps", "'wind_speed_mps'?"),
    ],
)
def test_a_key_with_another_unit_is_led_to_the_key_that_exists(key: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        validate({"seed": 1, key: 1}, Run, "run.yaml")
    assert str(caught.value).endswith(f"(did you mean {meant})")


def test_a_unit_error_deep_in_the_wind_farm_names_the_key_of_that_place() -> None:
    data = {"dynamics": {"kind": "dynamic", "yaw_rate_radps": 0.005}, "layout": {"kind": "random", "x_m": [0.0]}}
    with pytest.raises(ConfigurationError) as caught:
        validate(data, WindFarmConfig, "farm.yaml")
    random, dynamics = str(caught.value).splitlines()
    assert random == f"farm.yaml: layout.x_m: unknown key; keys here: {', '.join(RandomLayout.model_fields)}"
    assert dynamics.startswith("farm.yaml: dynamics.yaw_rate_radps: unknown key; keys here: kind, advection_ratio")
    assert dynamics.endswith("(did you mean 'yaw_rate_degps'? its unit is 'degps')")


class Either(Strict):
    value: Annotated[Ppo | Search, Field(discriminator="kind")] | float = 0.0
    loose: Ppo | Search | None = None
    named: dict[str, Ppo | float] = {}


def test_unknown_keys_inside_unions_are_listed_for_the_member_that_was_meant() -> None:
    data = {"value": {"kind": "ppo", "x": 1}, "loose": {"kind": "ppo", "q": 1}, "named": {"a": {"lr": "high"}}}
    with pytest.raises(ConfigurationError) as caught:
        validate(data, Either, "f.yaml")
    lines = str(caught.value).splitlines()
    assert "f.yaml: value.x: unknown key; keys here: kind, lr, clip" in lines
    assert any(line.startswith("f.yaml: loose.q: unknown key; keys here: kind, lr, clip") for line in lines)
    assert "f.yaml: named.a.lr: 'high'; must be a number" in lines


class Open(Strict):
    site: SerializeAsAny[BaseModel]

    @field_validator("site", mode="before")
    @classmethod
    def _site(cls, value: dict[str, Any]) -> BaseModel:
        return WindFarmConfig.model_validate(value)


def test_keys_below_a_field_that_its_own_validator_reads_are_named_in_full(write: Write) -> None:
    path = write("open.yaml", "site: {layout: {kind: named, nmae: x}, inflow: {shear_exponent: 2}}\n")
    with pytest.raises(ConfigurationError) as caught:
        load(path, Open)
    assert str(caught.value).splitlines() == [
        f"{path}: site.layout.nmae: unknown key; remove it",
        f"{path}: site.inflow.shear_exponent: 2; must be less than or equal to 0.6",
    ]


def test_a_field_of_any_model_is_dumped_in_full(write: Write) -> None:
    site = WindFarmConfig(turbine="iea_15MW")
    assert load(write("open.yaml", dump(Open(site=site))), Open).site == site


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
runs = st.builds(
    Run,
    seed=st.integers(),
    dt_s=finite,
    name=texts | st.sampled_from(["1e-4", "no", "null", "12:30", "0x1F", "~", "<<", "010", "true", ".inf", "1.", ""]),
    mode=st.sampled_from(["steady", "dynamic"]),
    learner=st.builds(Ppo, lr=st.floats(1e-12, 1e12)) | st.builds(Search, n_trials=st.integers(1, 99)),
    noise=finite | st.tuples(finite, finite),
    tags=st.dictionaries(texts, texts, max_size=3),
    stages=st.lists(st.builds(Ppo), max_size=2).map(tuple),
    note=st.none() | texts,
)


@given(run=runs)
def test_what_is_dumped_is_read_back_equal(tmp_path_factory: pytest.TempPathFactory, run: Run) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump(run), encoding="utf-8")
    assert load(path, Run) == run


def test_dumped_numbers_and_text_mean_the_same_to_other_yaml_readers() -> None:
    run = Run(seed=1, dt_s=1e-5, name="1e-4", note="no")
    assert yaml.safe_load(dump(run))["dt_s"] == 1e-5
    assert yaml.safe_load(dump(run))["name"] == "1e-4"


def test_loading_a_site_configuration_imports_no_simulator() -> None:
    program = (
        "import sys\n"
        "from twinloop.envs.configuration import validate\n"
        "from twinloop.envs.registry import load_site\n"
        "validate({}, load_site('wind_farm').config_model, 'x')\n"
        "print([m for m in ('torch', 'floris', 'ray', 'scipy', 'gymnasium', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
