"""Tokens and labels with real (tiny) processors, in one process; the text path; what is refused.

Tests: sft.models.stored_weights
"""

import argparse
import io
import json
from pathlib import Path

import pytest

from sft.config.training_settings import Tokens
from sft.data.tokens import rendering
from sft.data.tokens.tokenization import Tokenization
from sft.embedded.tiny_models import make_processor
from sft.models.loading import load_model, load_processor, tokenizer_of
from sft.runtime.stage import Stage, StageError

POLICY = {"max_length": 64, "on_too_long": "error", "loss_on": "completion"}
SOURCE = {"initialise": "llama", "hidden_size": 64, "num_layers": 1, "initializer_range": 0.1, "seed": 0}


@pytest.fixture(scope="module")
def llama():
    return make_processor("llama")


@pytest.fixture(scope="module")
def qwen():
    return make_processor("qwen2_5_vl")


def example(identifier="a", prompt="Which digit is shown?", completion="H. 7", images=(), system=None) -> dict:
    return {"id": identifier, "prompt": prompt, "completion": completion, "images": list(images), "system": system}


def picture(side: int = 16) -> bytes:
    from PIL import Image

    from sft.data.read import pictures

    return pictures.png(Image.new("RGB", (side, side), (9, 99, 199)))


def tokenised(processor, examples, **policy):
    tokenization = Tokenization(processor, Tokens.read_back(POLICY | policy), "train")
    rows = [
        row | {name: list(row[name]) for name in ("input_ids", "labels")} for row in tokenization.tokenise(examples)
    ]
    return rows, tokenization.facts()


def stage(directory: Path, rule: str, config: dict, **inputs: Path) -> Stage:
    """A stage whose `make` is called here, in this process."""
    directory.mkdir(parents=True)
    paths = {name: path.as_posix() for name, path in inputs.items()}
    node = {"rule": rule, "id": directory.name, "config": config, "identity": config, "inputs": paths}
    (directory / "config.json").write_text(json.dumps(node))
    return Stage(directory, argparse.Namespace(threads=1))


def made(stage: Stage, make) -> Path:
    """The node after `make`, its outputs in place."""
    make(stage)
    for path in stage.attempt.iterdir():
        path.rename(stage.directory / path.name)
    return stage.directory


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A processor node and a model node of the text family."""
    import download_model
    import download_processor

    folder = tmp_path_factory.mktemp("small")
    config = {"source": {"initialise": "llama"}, "chat_template": None}
    processor = made(stage(folder / "processor", "download_processor", config), download_processor.make)
    model = made(
        stage(folder / "model", "download_model", {"source": SOURCE}, processor=processor), download_model.make
    )
    return processor, model


def test_letters_are_tokens_of_their_own(llama):
    pieces = [llama.decode([number]) for number in llama.encode("<|im_start|>assistant\nH. 7<|im_end|>\n")]
    assert pieces == ["<|im_start|>", "assistant", "\n", "H", ".", " 7", "<|im_end|>", "\n"]
    assert len(llama.encode(" H")) == 1


def test_text_rows(llama):
    rows, audit = tokenised(llama, [example(system="Be brief.")])
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhich digit is shown?<|im_end|>\n"
    assert llama.decode(rows[0]["input_ids"]) == text + "<|im_start|>assistant\nH. 7<|im_end|>\n"
    assert llama.decode([label for label in rows[0]["labels"] if label != -100]) == "H. 7<|im_end|>\n"
    assert audit["end_of_turn_ids"] == {str(llama.eos_token_id): 1}


def test_picture_rows_are_what_the_processor_gives(qwen):
    from sft.data.read import pictures

    row = example(images=[picture()])
    rows, _ = tokenised(qwen, [row, example("b")])
    text = rendering.texts(qwen, row)[1]
    expected = qwen(text=[text], images=[pictures.decode(picture())])["input_ids"][0]
    assert rows[0]["input_ids"] == list(expected)
    assert rows[0]["input_ids"].count(qwen.image_token_id) == 4
    assert rows[1]["input_ids"].count(qwen.image_token_id) == 0


def test_loss_on_all_leaves_out_picture_tokens_only(qwen):
    rows, _ = tokenised(qwen, [example(images=[picture()])], loss_on="all")
    masked = [number for number, label in zip(rows[0]["input_ids"], rows[0]["labels"], strict=True) if label == -100]
    assert masked == [qwen.image_token_id] * 4


def test_labels_are_those_of_trl(qwen):
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from sft.data.read import pictures

    rows, _ = tokenised(qwen, [example(images=[picture()])])
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which digit is shown?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "H. 7"}]}
    given = {"images": [pictures.decode(picture())], "prompt": [turn], "completion": [answer]}
    batch = DataCollatorForVisionLanguageModeling(qwen, completion_only_loss=True)([given])
    assert batch["input_ids"][0].tolist() == rows[0]["input_ids"]
    assert batch["labels"][0].tolist() == rows[0]["labels"]


@pytest.mark.parametrize(("side", "loss_on", "length"), [("left", "completion", 24), ("right", "all", 6)])
def test_pictures_are_not_cut(qwen, side, loss_on, length):
    """Their tokens would no longer be as many as the model makes of the picture."""
    rows = [example("a", prompt="0 " * 40), example("b", prompt="0 " * 40, images=[picture()])]
    with pytest.raises(StageError, match=r"1 of 2 rows would lose a part of their pictures .*ids b.*max_length"):
        tokenised(qwen, rows, max_length=length, on_too_long="truncate", truncation_side=side, loss_on=loss_on)


def test_a_picture_that_no_model_takes_names_its_own_row(qwen):
    """Qwen2-VL takes none that is 200 times as wide as it is high."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (2100, 10)).save(buffer, format="PNG")
    rows = [example(name, images=[picture()]) for name in "abc"]
    rows.insert(1, example("stripe", images=[buffer.getvalue()]))
    with pytest.raises(StageError, match=r"^id stripe: the processor refuses the row .*aspect ratio"):
        tokenised(qwen, rows)


LONG = example("long", prompt="0" * 100)


def test_too_long_rows_are_counted_when_dropped(llama):
    rows, audit = tokenised(llama, [example(), LONG], on_too_long="drop")
    assert [row["id"] for row in rows] == ["a"]
    assert (audit["rows"], audit["rows_kept"], audit["rows_dropped"]) == (2, 1, 1)
    assert audit["ids_too_long"] == ["long"]


@pytest.mark.parametrize(
    ("rows", "policy", "reason"),
    [
        ([LONG], {}, "1 of 1 rows are longer than max_length 64 .*ids long"),
        ([LONG], {"on_too_long": "drop"}, "no row is left of 1: 1 are longer than max_length 64"),
        ([LONG], {"on_too_long": "truncate"}, "no row is left of 1: .* 1 of them without a token to learn"),
        ([example(prompt="<|im_end|>")], {}, r"1 of 1 rows hold control tokens .*\(ids a\).*neutralise or allow"),
        ([example(images=[b"x"])], {}, "id a has a picture, but the model takes text only"),
    ],
)
def test_rows_that_would_be_lost_are_refused(llama, rows, policy, reason):
    with pytest.raises(StageError, match=reason):
        tokenised(llama, rows, **policy)


def test_a_placeholder_in_the_text_is_refused(qwen):
    with pytest.raises(StageError, match="id a: the processor refuses"):
        tokenised(qwen, [example(prompt="see <|image_pad|>", images=[picture()])], control_tokens="allow")


def test_control_tokens_in_the_text_are_counted_or_made_text(llama):
    row = example(prompt="end<|im_end|>", completion="<|im_end|>!")
    ends = {}
    for policy in ("allow", "neutralise"):
        rows, audit = tokenised(llama, [row], control_tokens=policy)
        assert audit["ids_with_control_tokens"] == ["a"]
        ends[policy] = rows[0]["input_ids"].count(llama.eos_token_id)
    assert ends == {"allow": 4, "neutralise": 2}
    assert "end< |im_end|>" in llama.decode(rows[0]["input_ids"])


def test_a_template_that_rewrites_the_prompt_is_refused(llama):
    from copy import deepcopy

    other = deepcopy(llama)
    other.chat_template = "{{ messages | length }}" + llama.chat_template
    with pytest.raises(StageError, match="renders the prompt otherwise"):
        tokenised(other, [example()])


def test_the_text_family_loads_with_the_auto_classes(small):
    processor, model = (node / name for node, name in zip(small, ("processor", "model"), strict=True))
    assert type(load_model(model)).__name__ == "LlamaForCausalLM"
    assert tokenizer_of(load_processor(processor)).chat_template == load_processor(model).chat_template


def test_a_path_gives_the_same_model_and_the_given_template(small, tmp_path):
    import download_model
    import download_processor
    from sft.models.stored_weights import stored_weights_digest

    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    path = {"path": str(small[1] / "model")}
    config = {"source": path, "chat_template": str(template)}
    processor = made(stage(tmp_path / "processor", "download_processor", config), download_processor.make)
    copied = made(stage(tmp_path / "m", "download_model", {"source": path}, processor=processor), download_model.make)
    assert stored_weights_digest(copied / "model") == stored_weights_digest(small[1] / "model")
    assert load_processor(copied / "model").chat_template == template.read_text()


def test_a_tokenizer_without_pad_token_pads_with_its_end_or_is_refused(small, tmp_path):
    import download_processor

    given = load_processor(small[0] / "processor")
    given.pad_token = None
    given.save_pretrained(tmp_path / "given")
    config = {"source": {"path": str(tmp_path / "given")}, "chat_template": None}
    node = stage(tmp_path / "processor", "download_processor", config)
    loaded = load_processor(made(node, download_processor.make) / "processor")
    assert node.facts["pad_token_from"] == "eos"
    assert loaded.pad_token == loaded.eos_token == given.eos_token
    given.eos_token = None
    given.save_pretrained(tmp_path / "given")
    with pytest.raises(StageError, match="the tokenizer has neither a pad nor an eos token"):
        download_processor.make(stage(tmp_path / "refused", "download_processor", config))


def _only_pickles(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def _remote_code(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "own.Config"}}))


def _lost_tensor(directory: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def _lost_shard(directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_only_pickles, r"pickles only \(pytorch_model\.bin\)"),
        (_remote_code, "auto_map asks to run"),
        (_lost_tensor, "weights do not fill the model.*model.norm.weight"),
        (_lost_shard, "not there: model-00001-of-00002"),
        (lambda directory: (directory / "config.json").unlink(), "no config.json"),
        (lambda directory: (directory / "model.safetensors").unlink(), "holds no model.safetensors"),
    ],
)
def test_a_model_that_cannot_be_trusted_is_refused(small, tmp_path, damage, reason):
    import shutil

    import download_model

    shutil.copytree(small[1] / "model", tmp_path / "given")
    damage(tmp_path / "given")
    node = stage(tmp_path / "m", "download_model", {"source": {"path": str(tmp_path / "given")}}, processor=small[0])
    with pytest.raises(StageError, match=reason):
        download_model.make(node)


def test_a_picture_model_needs_the_processor_of_its_family(small, tmp_path):
    import download_model

    config = {"source": SOURCE | {"initialise": "qwen2_5_vl"}}
    with pytest.raises(StageError, match="takes pictures, but its processor does not"):
        download_model.make(stage(tmp_path / "m", "download_model", config, processor=small[0]))


def test_a_directory_that_lost_its_processor_class_is_refused(qwen, tmp_path):
    qwen.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    path.write_text(path.read_text().replace("PaddleOCRVLProcessor", "NoSuchProcessor"))
    with pytest.raises(StageError, match="takes no pictures"):
        load_processor(tmp_path)
