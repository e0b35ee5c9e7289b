"""What a person reads about a configuration that does not fit its sections: file, line, key, fault, fix.

Tests: sft.config.key_paths, sft.config.validation, sft.config.wording, sft.terms.nearest
"""

import random
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, model_validator

from conftest import ROOT
from sft.config.errors import ConfigError, FieldError, Problem, dotted
from sft.config.experiment import Config
from sft.config.fields import Integer, Name, Number, Section
from sft.config.strict_yaml import read_yaml
from sft.config.validation import from_validation_error
from sft.terms.nearest import nearest


class Adapter(Section):
    r: Integer = Field(16, gt=0, description="rank")
    targets: str | tuple[str, ...] = "all"
    rslora: bool = False


class Mix(Section):
    mix: dict[Name, Literal["all"] | Integer]


class Training(Section):
    learning_rate: Number = Field(description="peak learning rate", gt=0, allow_inf_nan=False)
    max_steps: Integer | None = None
    width: Integer = Field(64, multiple_of=64)
    scheduler: Literal["linear", "cosine"] = "linear"
    extra: dict[str, Any] = Field({})

    @model_validator(mode="after")
    def _known_extra(self) -> "Training":
        if "seed" in self.extra:
            raise FieldError("extra.seed", "is set by seeds:", "Remove it")
        return self


Reference = Annotated[
    Annotated[Name, Tag("name")] | Annotated[Mix, Tag("mix")],
    Discriminator(
        lambda value: "name" if isinstance(value, str) else "mix" if isinstance(value, dict) else None,
        custom_error_type="unknown_dataset",
        custom_error_message="a data set is a name or {mix: {name: count}}",
    ),
]


class Experiment(Section):
    dataset: Reference = "digits"
    method: Literal["full", "lora"] = "full"
    lora: Adapter | None = None
    training: Training
    seeds: tuple[Integer, ...] = Field((0,), min_length=1)
    title: str | None = None


class File(Section):
    experiments: dict[Name, Experiment]


@pytest.fixture
def complaints(tmp_path):
    """The problems of a file of two lines and an experiment, as printed, its directory left out."""

    def complaints(text: str, model: type[BaseModel] = File) -> list[str]:
        path = tmp_path / "c.yaml"
        path.write_text(text)
        document = read_yaml(path)
        with pytest.raises(ValidationError) as caught:
            model.model_validate(document.data)
        problems = from_validation_error(caught.value, document, [()], model)
        return str(ConfigError(problems)).replace(f"{tmp_path}/", "").splitlines()

    return complaints


HEAD = "experiments:\n  x:\n    training:\n      learning_rate: 2e-5\n"

# What follows HEAD (line 5), and what is said about it below experiments.x.
TABLE = {
    "lora: {rr: 3}": "lora.rr: unknown key. Did you mean r?",
    "gird: 3": "gird: unknown key. Known keys: dataset, method, lora, training, seeds, title",
    "seed: [1]": "seed: unknown key. Did you mean seeds?",
    "max_steps: 3": "max_steps: unknown key. It belongs in training:",
    "  learnig_rate: 1": "training.learnig_rate: unknown key. Did you mean learning_rate?",
    "  max_steps: 1.5": "training.max_steps: expected a whole number or null, not the number 1.5. "
    "Write a whole number such as 8",
    "  max_steps: true": "training.max_steps: expected a whole number or null, not true. "
    "Write a whole number such as 8",
    "  max_steps: many": 'training.max_steps: expected a whole number or null, not the text "many". '
    "Write a whole number such as 8",
    "  width: 100": "training.width: must be a multiple of 64, not 100. The nearest is 128",
    "  width: 128.5": "training.width: expected a whole number, not the number 128.5. Write a whole number such as 64",
    "  scheduler: cosin": "training.scheduler: cosin is not one of linear, cosine. Did you mean cosine?",
    "  scheduler: 3": "training.scheduler: expected one of linear, cosine, not the number 3. "
    "Write one of linear, cosine",
    "  extra: {seed: 3}": "training.extra.seed: is set by seeds:. Remove it",
    "  extra: fast": 'training.extra: expected a mapping, not the text "fast". Write its keys below it, indented',
    "method: lorra": "method: lorra is not one of full, lora. Did you mean lora?",
    "lora: 3": "lora: expected a mapping or null, not the number 3. Write its keys below it, indented",
    "lora: {r: 0}": "lora.r: must be greater than 0, not 0. Write a larger number",
    "lora: {r: fast}": 'lora.r: expected a whole number, not the text "fast". Write a whole number such as 16',
    "lora: {targets: 3}": 'lora.targets: expected text or a list, not the number 3. Quote it: "3"',
    "lora: {targets: [q, 3]}": 'lora.targets[1]: expected text, not the number 3. Quote it: "3"',
    "lora: {rslora: 7}": "lora.rslora: expected true or false, not the number 7. Write true or false",
    "seeds: 0": "seeds: expected a list, not the number 0. Write [0]",
    "seeds: []": "seeds: needs at least 1 item, not an empty list. Add items, or remove the key",
    "seeds: [1, x]": 'seeds[1]: expected a whole number, not the text "x". Write a whole number such as 8',
    "title: 1.10": 'title: expected text or null, not the number 1.1. Quote it: "1.10"',
    "dataset: 3": "dataset: a data set is a name or {mix: {name: count}}, not the number 3. "
    "Write it in one of these forms",
    "dataset: {mixx: {}}": "dataset.mixx: unknown key. Did you mean mix?",
    "dataset: {mix: {digits: al}}": "dataset.mix.digits: al is not all or a whole number. Did you mean all?",
    "dataset: {mix: {digits: true}}": "dataset.mix.digits: expected all or a whole number, not true. "
    "Write a whole number such as 8",
    "dataset: {mix: {../up: 3}}": "dataset.mix.\"../up\": '../up' cannot be a name: use letters, digits, '.', '_' and "
    "'-', a letter or digit first, no '..', at most 100 characters",
}


@pytest.mark.parametrize("line", TABLE)
def test_one_mistake_is_one_line(complaints, line):
    assert complaints(f"{HEAD}    {line}\n") == [f"c.yaml:5: experiments.x.{TABLE[line]}"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("fast", 'expected a number, not the text "fast". Write a number such as 2e-5'),
        ("true", "expected a number, not true. Write a number such as 2e-5"),
        ("[1]", "expected a number, not a list of 1. Write a number such as 2e-5"),
        ("-1", "must be greater than 0, not -1"),
        ("nan", 'must be a finite number, not the text "nan"'),
        ("", "expected a number, not null. Write a number such as 2e-5"),
    ],
)
def test_bad_learning_rate(complaints, value, said):
    text = f"experiments: {{x: {{training: {{learning_rate: {value}}}}}}}\n"
    (line,) = complaints(text)
    assert line.startswith("c.yaml:1: experiments.x.training.learning_rate: ")
    assert said.split(". Write")[0] in line


@pytest.mark.parametrize("written", ["2e-5", '"2e-5"', "0.00002", "2.0e-05"])
def test_learning_rates_are_numbers_however_written(tmp_path, written):
    path = tmp_path / "c.yaml"
    path.write_text(f"experiments: {{x: {{training: {{learning_rate: {written}}}}}}}\n")
    read = File.model_validate(read_yaml(path).data)
    assert read.experiments["x"].training.learning_rate == 2e-5


def test_whole_numbers_may_be_written_as_floats(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("experiments: {x: {training: {learning_rate: 1, max_steps: 1e4}}}\n")
    steps = File.model_validate(read_yaml(path).data).experiments["x"].training.max_steps
    assert steps == 10_000
    assert isinstance(steps, int)


def test_missing_key_says_what_it_is_for(complaints):
    assert complaints("experiments:\n  x:\n    training:\n      width: 64\n") == [
        "c.yaml:3: experiments.x.training.learning_rate: is missing. Add `learning_rate: …` (peak learning rate)"
    ]


def test_misspelt_required_key_is_one_problem(complaints):
    assert complaints("experiments:\n  x:\n    training: {learnig_rate: 1}\n") == [
        "c.yaml:3: experiments.x.training.learnig_rate: unknown key. Did you mean learning_rate?"
    ]


def test_wrong_top_level(complaints):
    assert complaints("experiment: {}\n") == ["c.yaml:1: experiment: unknown key. Did you mean experiments?"]
    assert complaints("experiments: [a]\n") == [
        "c.yaml:1: experiments: expected a mapping, not a list of 1. Write its keys below it, indented"
    ]


def test_a_cell_is_blamed_where_its_values_were_written(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "experiments:\n"
        "  x:\n"
        "    training: {max_steps: 3}\n"
        "    variants:\n"
        "      a: {lora: {rr: 3}}\n"
        "    grid:\n"
        "      training.width: [64, 65]\n"
    )
    cell = {"training": {"max_steps": 3, "width": 65}, "lora": {"rr": 3}}
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(cell)
    base = ("experiments", "x")
    places = [(*base, "variants", "a"), (*base, "grid"), base]
    problems = from_validation_error(caught.value, read_yaml(path), places, Experiment)
    assert sorted((problem.line, problem.key) for problem in problems) == [
        (3, "experiments.x.training.learning_rate"),
        (5, "experiments.x.variants.a.lora.rr"),
        (7, "experiments.x.grid.training.width"),
    ]


def test_of_several_files_the_one_that_has_the_key_is_named(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("experiments: {v: {training: {learning_rate: -1}}}\n")
    second.write_text("experiments:\n  w: {training: {learning_rate: no-number}}\n")
    rates = {"v": -1, "w": "no-number"}
    both = {"experiments": {name: {"training": {"learning_rate": rate}} for name, rate in rates.items()}}
    with pytest.raises(ValidationError) as caught:
        File.model_validate(both)
    problems = from_validation_error(caught.value, [read_yaml(first), read_yaml(second)], [()], File)
    assert [(problem.path, problem.line) for problem in problems] == [(first, 1), (second, 2)]


JARGON = ["pydantic", "http", "value error", "input should", "type=", "dictionary", "extra_forbidden", "literal"]


def test_nothing_of_pydantic_shows(complaints):
    for line in TABLE:
        said = complaints(f"{HEAD}    {line}\n")[0].lower()
        for jargon in (
            "pydantic",
            "http",
            "value error",
            "input should",
            "type=",
            "valid dictionary",
            "extra_forbidden",
        ):
            assert jargon not in said


VALUES = [None, True, -1, 0, 1.5, 10**9, "x", "", "a b", [], [1], [None], {}, {"a": 1}, {"mix": {"digits": 3}}]


def paths(value, above=()):
    """The key paths of everything inside `value`."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*above, key)
        yield from paths(item, (*above, key))


def replaced(value, keys, new):
    if not keys:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[keys[0]] = replaced(value[keys[0]], keys[1:], new)
    return changed


def test_whatever_stands_at_a_key_is_complained_of_in_one_line_with_a_fix():
    document = read_yaml(ROOT / "config/config.yaml")
    refused = 0
    for keys in paths(document.data):
        for value in random.Random(str(keys)).sample(VALUES, 5):
            try:
                Config.model_validate(replaced(document.data, keys, value))
            except ValidationError as error:
                refused += 1
                for problem in from_validation_error(error, document, [()], Config):
                    assert problem.line
                    assert problem.message
                    assert len(str(problem).splitlines()) == 1
                    assert not [word for word in JARGON if word in str(problem).lower()], problem
                    # What a validator of ours says stands on its own.
                    assert problem.fix or "cannot" in problem.message, problem
    assert refused > 200


def test_nearest():
    assert nearest("learnig_rate", ["learning_rate", "lr"]) == "learning_rate"
    assert nearest("Learning-Rate", ["learning_rate", "lr"]) == "learning_rate"
    assert nearest("xyz", ["learning_rate"]) is None
    assert nearest("x" * 100_000, ["learning_rate"]) is None


def test_dotted():
    assert dotted(("a", "b-c", 0, "d.e")) == "a.b-c[0].d.e"
    assert dotted(("a", "with space", "\x1b")) == 'a."with space"."\\u001b"'
    assert dotted(()) == ""


def test_problem_prints_what_it_knows():
    assert str(Problem("c.yaml", 3, "a.b", "unknown key", "Remove it")) == "c.yaml:3: a.b: unknown key. Remove it"
    assert str(Problem("c.yaml", None, "", "no such file")) == "c.yaml: no such file"
