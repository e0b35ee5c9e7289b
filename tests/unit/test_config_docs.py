"""The generated documentation is up to date, true, and of use to an editor.

Tests: sft.config.json_schema
"""

import re

import jsonschema
import pytest

from config_documentation import TABLES, generated, table, with_tables
from conftest import ROOT
from sft.config.errors import ConfigError
from sft.config.experiment import Config
from sft.config.json_schema import json_schema
from sft.config.key_paths import sections_in
from sft.config.reader import load
from sft.config.strict_yaml import read_yaml
from yaml_comments import commented, field_at

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
README = (ROOT / "config/README.md").read_text()


@pytest.mark.parametrize("path", generated(ROOT), ids=lambda path: path.name)
def test_generated_file_is_up_to_date(path):
    text = path.read_text()
    assert generated(ROOT)[path](text) == text, "run: python tools/make_config_docs.py"


def test_every_section_has_a_table():
    def below(section):
        yield section
        for field in section.model_fields.values():
            for annotation in (field.annotation, *getattr(field.annotation, "__args__", ())):
                for inner in sections_in(annotation):
                    yield from below(inner)

    documented = {key for section in TABLES.values() for key in section.model_fields}
    for section in below(Config):
        assert section in TABLES.values() or set(section.model_fields) <= documented, section


def test_every_field_says_its_role_and_meaning():
    for section in TABLES.values():
        for name, field in section.model_fields.items():
            assert field.json_schema_extra["role"] in ("identity", "execution", "presentation"), (section, name)
            assert field.description, (section, name)


def test_tables_say_type_default_and_unit():
    rows = table(TABLES["training"]).splitlines()
    assert (
        "| `global_batch_size` | whole number > 0 | **required** | rows | identity "
        "| rows per optimizer step, over all devices |"
    ) in rows
    assert any(row.startswith("| `max_steps` | whole number > 0 or null | `null` |") for row in rows)


def test_a_table_that_is_missing_or_unknown_is_an_error():
    with pytest.raises(ValueError, match=r"\['lora'\]"):
        with_tables(README.replace("<!-- generated: lora -->", ""))
    with pytest.raises(ValueError, match="nonsense"):
        with_tables(README + "<!-- generated: nonsense -->\n<!-- end -->\n")


# Overlays (twins) are parts of files; tests/workflow/test_published.py checks them over what they change.
SHIPPED = sorted(path for path in (ROOT / "config").rglob("*.yaml") if path.parent.name != "twins")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_fit_the_schema(path):
    VALIDATOR.validate(read_yaml(path).data)


@pytest.mark.parametrize(
    "change",
    [
        {"experiment": {}},
        {"experiments": {"x": {"learning_rate": 1}}},
        {"experiments": {"x": {"training": {"learnig_rate": 1}}}},
        {"experiments": {"x": {"training": {"max_steps": 0}}}},
        {"experiments": {"x": {"method": "lorra"}}},
        {"experiments": {"x": {"variants": {"a": {"training.learnig_rate": 1}}}}},
        {"experiments": {"x": {"grid": {"training.learning_rate": 1}}}},
        {"experiments": {"x": {"execution": {"thread": 1}}}},
        {"experiments": {"../x": {}}},
        {"datasets": {"x": {"format": "multiple_choice"}}},
        {"execution": {"micro_batch_size": 0}},
    ],
    ids=str,
)
def test_an_editor_underlines(change):
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(change)


def test_the_schema_is_a_schema_that_closes_every_section():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, section in [("file", schema), *schema["$defs"].items()]:
        assert section["additionalProperties"] is False, name


def test_comments_keep_the_rest_of_the_file():
    text = "# mine\ndatasets:   # old\n  a: {extends: b}  # mine too\nexecution:\n  device: 'a # b' # old\n"
    assert commented(text) == (
        "# mine\n"
        "datasets:                           # data sets by name\n"
        "  a: {extends: b}  # mine too\n"
        "execution:                          # where and how everything runs\n"
        "  device: 'a # b'                   # auto: a CUDA device where there is one\n"
    )
    assert commented(commented(text)) == commented(text)


def test_a_field_is_described_once():
    text = "experiments:\n  a:\n    method: full\n  b:\n    method: full  # old\n"
    text += "    variants:\n      c:\n        method: lora\n"
    lines = commented(text).splitlines()
    assert "# train all weights" in lines[2]
    assert lines[4] == "    method: full"
    assert lines[7] == "        method: lora"


def test_field_at():
    def name(*keys):
        found = field_at(keys)
        return found and f"{found[0].__name__}.{found[1]}"

    assert name("experiments", "x", "training", "learning_rate") == "Training.learning_rate"
    assert name("experiments", "x", "variants", "v", "lora", "r") == "Lora.r"
    assert name("experiments", "x", "execution", "device") == "Execution.device"
    assert name("datasets", "d", "source", "path") == "PathSource.path"
    assert name("models", "m", "source", "initialise") == "Initialised.initialise"
    assert name("experiments", "x") is None
    assert name("experiments", "x", "training", "extra", "y") is None


def blocks(start):
    """The code blocks of config/README.md that begin with `start`."""
    return [block for block in re.findall(r"```\w*\n(.*?)```", README, re.DOTALL) if block.startswith(start)]


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example of config/README.md, in a directory where its paths exist."""
    (tmp_path / "data/capitals").mkdir(parents=True)
    (tmp_path / "models/Qwen2.5-0.5B-Instruct").mkdir(parents=True)
    (tmp_path / "config/experiments").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (text,) = blocks("# yaml-language-server")
    return text


def test_the_manuals_example_loads(example, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(example)
    cells = load([path]).experiments["capitals"].cells
    assert list(cells) == ["lora"]
    assert cells["lora"].content.training.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("start", "labels"),
    [
        ("    training:", ["full", "lora", "lora_long"]),
        ("    grid:", [f"learning_rate-{rate}_r-{r}" for rate in (0.001, 0.002) for r in (8, 16)]),
    ],
)
def test_the_manuals_variants_and_grid_load(example, tmp_path, start, labels):
    (block,) = blocks(start)
    if start == "    training:":
        example = re.sub(r"    (training|method): .*\n", "", example)
    path = tmp_path / "mine.yaml"
    path.write_text(example + block)
    cells = load([path]).experiments["capitals"].cells
    assert list(cells) == labels
    if "lora_long" in cells:
        assert cells["lora_long"].content.training.max_steps == 160
        assert cells["lora"].content.training.max_steps == 80
        assert cells["lora"].content.training.learning_rate == 5e-3


def test_the_manuals_errors_are_the_ones_people_see(example, tmp_path):
    (said,) = blocks("config/experiments/mine.yaml")
    wrong = example.replace("learning_rate", "learnig_rate") + "    lora: {r: many}\n"
    (tmp_path / "config/experiments/mine.yaml").write_text(wrong)
    with pytest.raises(ConfigError) as caught:
        load([(tmp_path / "config/experiments/mine.yaml").relative_to(tmp_path)])
    assert str(caught.value) == said.strip()
