"""What a GPU has to do right for the numbers of this workflow: bfloat16, QLoRA, FP8, compiled steps, energy, speed."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from device_tools import ROOT, needed

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]

SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "vocab_size": 1024, "max_position_embeddings": 512}
H100_TOKENS_PER_SECOND = 10_000  # LoRA of 8 B, packed rows of 4096
STEPS = 8


def tiny_llama(device: str, dtype=None, **changes):
    torch, transformers = needed("torch"), needed("transformers")
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | changes))
    model.config.use_cache = False
    return model.to(device, dtype or torch.float32)


def adapted(model):
    peft = needed("peft")
    needed("torch").manual_seed(1)
    settings = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(model, settings)


def losses(model, device: str, steps: int = STEPS, rate: float = 3e-3, autocast: bool = False) -> list[float]:
    """Of a few steps on the same rows, which any sound training learns by heart."""
    torch = needed("torch")
    rows = torch.randint(SIZES["vocab_size"], (4, 128), generator=torch.Generator().manual_seed(2)).to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    found = []
    for _ in range(steps):
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def falls(series: list[float]) -> bool:
    return all(later < earlier for earlier, later in pairwise(series))


def test_float32_is_that_of_the_cpu(device: str) -> None:
    here, there = (losses(adapted(tiny_llama(place)), place) for place in (device, "cpu"))
    assert here == pytest.approx(there, rel=1e-3)
    assert falls(here)


def test_bfloat16_learns_as_float32_does(device: str) -> None:
    wide, narrow = (losses(adapted(tiny_llama(device)), device, autocast=cast) for cast in (False, True))
    assert narrow == pytest.approx(wide, rel=1e-2)
    assert narrow != wide
    assert falls(narrow)


def test_qlora_trains_adapters_over_four_bit_weights(device: str, tmp_path: Path) -> None:
    torch, bitsandbytes, transformers = needed("torch"), needed("bitsandbytes"), needed("transformers")
    needed("accelerate")
    tiny_llama("cpu").save_pretrained(tmp_path)
    quantised = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=quantised, device_map={"": 0 if device == "cuda" else "cpu"}
    )
    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 7 * SIZES["num_hidden_layers"]
    before = [layer.weight.data.clone() for layer in layers]
    model = adapted(needed("peft").prepare_model_for_kbit_training(model, use_gradient_checkpointing=False))
    assert falls(losses(model, device))
    assert not any(layer.weight.requires_grad for layer in layers)
    if device == "cuda":  # on a CPU bitsandbytes packs them anew for its kernels
        assert all(torch.equal(layer.weight.data, one) for layer, one in zip(layers, before, strict=True))


@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW8bit"])
def test_eight_bit_optimizers_learn(device: str, name: str) -> None:
    torch, bitsandbytes = needed("torch"), needed("bitsandbytes")
    model = tiny_llama(device)
    optimizer = getattr(bitsandbytes.optim, name)(model.parameters(), lr=1e-3)
    rows = torch.randint(SIZES["vocab_size"], (4, 128), generator=torch.Generator().manual_seed(2)).to(device)
    found = []
    for _ in range(STEPS):
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    assert falls(found)
    state = optimizer.state[model.model.layers[0].mlp.up_proj.weight]
    assert state["state1"].dtype == torch.uint8


def test_fp8_trains_as_bfloat16_does(device: str) -> None:
    torch = needed("torch")
    float8 = needed("torchao.float8")
    if device == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip(f"{torch.cuda.get_device_name()} has no FP8 (compute capability 8.9)")
    narrow = losses(tiny_llama(device, torch.bfloat16), device, rate=1e-3)
    model = tiny_llama(device, torch.bfloat16)
    # Without the hardware operands are rounded to FP8 and multiplied as they are.
    config = float8.Float8LinearConfig(emulate=device == "cpu")
    # The head stays as it is: its sizes and its precision decide the loss.
    float8.convert_to_float8_training(model, config=config, module_filter_fn=lambda _, name: "lm_head" not in name)
    converted = [m for m in model.modules() if type(m).__name__ == "Float8Linear"]
    assert len(converted) == 7 * SIZES["num_hidden_layers"]
    found = losses(model, device, rate=1e-3)
    assert found == pytest.approx(narrow, rel=5e-2)
    assert found != narrow
    assert falls(found)


def test_compiled_steps_are_the_plain_ones(device: str) -> None:
    torch = needed("torch")
    plain = losses(adapted(tiny_llama(device)), device)
    # Inductor takes minutes to start on a CPU; what it makes there is not what is tested here.
    model = torch.compile(adapted(tiny_llama(device)), backend="inductor" if device == "cuda" else "eager")
    assert losses(model, device) == pytest.approx(plain, rel=1e-3)


def test_energy_is_measured(cuda: str) -> None:
    torch = needed("torch")
    from sft.runtime.cost import EnergyMeter, visible_devices

    meter, devices = EnergyMeter(), visible_devices() or ["0"]
    before = meter.joules(devices)
    if before is None:
        pytest.skip("NVML tells no energy of this device")
    matrix = torch.randn(8192, 8192, device=cuda, dtype=torch.bfloat16)
    for _ in range(200):
        matrix = (matrix @ matrix).clamp(-1, 1)
    torch.cuda.synchronize()
    # 200 products of 2 * 8192^3 operations are 0.2 s of the fastest card, which draws hundreds of watts.
    assert 5 < meter.joules(devices) - before < 1e5


def test_a_packed_row_is_its_documents(device: str) -> None:
    """Documents of a row do not see each other, whichever attention the device takes."""
    torch = needed("torch")
    import lora_throughput as bench

    model, _ = bench.make_model(bench.SHAPES["tiny"], device, 8, False)
    model.eval()
    row = bench.packed_row(64, 4, 512, device)
    with torch.no_grad():
        together = model(input_ids=row["input_ids"], position_ids=row["position_ids"]).logits.float()
        apart = torch.cat([model(input_ids=part).logits.float() for part in row["input_ids"].split(16, 1)], 1)
    assert torch.allclose(together, apart, atol=2e-2 * float(apart.abs().max()))


def test_throughput_of_lora(device: str, capsys: pytest.CaptureFixture) -> None:
    """8 B where 70 GiB are there, else 1 B; the figures are printed, and kept where SFT_RESULTS names a folder."""
    torch = needed("torch")
    needed("peft")
    import lora_throughput as bench

    if device == "cpu":
        given = ["--shape", "tiny", "--device", "cpu", "--length", "256", "--steps", "2"]
    else:
        large = torch.cuda.get_device_properties(0).total_memory > 70 * 2**30
        given = ["--shape", "8b" if large else "1b"]
    made = bench.measure(bench.arguments(given))
    with capsys.disabled():
        print("\n" + json.dumps(made, indent=1))
    if folder := os.environ.get("SFT_RESULTS"):
        name = made["device"].replace(" ", "-").lower()
        Path(folder, f"lora_throughput-{made['shape']}-{name}.json").write_text(json.dumps(made, indent=1) + "\n")
    assert made["tokens_per_second"] > 0
    assert made["last_loss"] < 20
    if device == "cuda":
        assert made["peak_memory_gib"] == pytest.approx(made["estimated_memory_gib"], rel=0.15)
    if "H100" in made["device"] or "H200" in made["device"]:
        assert made["tokens_per_second"] >= H100_TOKENS_PER_SECOND


def test_the_benchmark_runs_from_the_checkout(device: str) -> None:
    import subprocess
    import sys

    command = [sys.executable, ROOT / "benchmarks/lora_throughput.py", "--shape", "tiny", "--device", device]
    done = subprocess.run([*command, "--length", "128", "--steps", "1"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shape"] == "tiny"
