"""Nodes that several tests read; made once for a test session."""

from pathlib import Path

import pytest
import training_nodes


@pytest.fixture(scope="session")
def text_nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny text model with 40 training and 12 validation rows."""
    return training_nodes.write_nodes(tmp_path_factory.mktemp("text"), "llama")


@pytest.fixture(scope="session")
def vision_nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny Qwen2.5-VL with 40 training and 12 validation rows, a picture each."""
    return training_nodes.write_nodes(tmp_path_factory.mktemp("vision"), "qwen2_5_vl")


@pytest.fixture(scope="session")
def nodes(request: pytest.FixtureRequest) -> dict[str, dict[str, Path]]:
    """Both, by kind."""
    return {kind: request.getfixturevalue(f"{kind}_nodes") for kind in ("text", "vision")}


@pytest.fixture(scope="session")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """A tiny text and a tiny vision model, each with 20 training and 6 validation rows."""
    root = tmp_path_factory.mktemp("few")
    return {
        kind: training_nodes.write_nodes(root / kind, family, rows=26, validation=6)
        for kind, family in (("text", "llama"), ("vision", "qwen2_5_vl"))
    }
