from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from toca.testing.golden import assert_close, find


def cases(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "cases.json").write_text("[1]")
    return folder


@pytest.fixture
def tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fork's tests in a repository of their own."""
    monkeypatch.delenv("TOCA_GOLDEN_DIR", raising=False)
    folder = tmp_path / "repository" / "fork" / "tests"
    folder.mkdir(parents=True)
    return folder


def test_the_nearest_data_is_found(tests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no cases\.json in .*shared/golden/model or .*tests/golden"):
        find("model", tests)
    own = cases(tests / "golden")
    assert find("model", tests).folder == own
    full = cases(tmp_path / "shared" / "golden" / "model")
    assert find("model", tests).folder == full
    monkeypatch.setenv("TOCA_GOLDEN_DIR", str(cases(tmp_path / "elsewhere" / "model")))
    assert find("model", tests).folder == tmp_path / "elsewhere" / "model"
    monkeypatch.setenv("TOCA_GOLDEN_DIR", str(tmp_path / "elsewhere"))  # of several models
    assert find("model", tests).folder == tmp_path / "elsewhere" / "model"
    with pytest.raises(FileNotFoundError, match="elsewhere/other"):
        find("other", tests)


def test_what_files_hold(tests: Path) -> None:
    save_file({"x": torch.arange(3)}, cases(tests / "golden") / "a.safetensors", {"note": "7"})
    golden = find("model", tests)
    assert golden.json("cases.json") == [1] and golden.metadata("a.safetensors") == {"note": "7"}
    assert golden.tensors("a.safetensors")["x"].tolist() == [0, 1, 2]


def test_closeness_is_measured_by_the_scale_of_the_reference() -> None:
    reference = torch.tensor([0.0, 1.0, -300.0])
    assert_close(reference + 0.002, reference, 1e-5)
    with pytest.raises(AssertionError, match=r"latents: (.|\n)*0\.003"):
        assert_close(reference + 0.004, reference, 1e-5, "latents")
    with pytest.raises(AssertionError):
        assert_close(reference / 1000 + 0.002, reference / 1000, 1e-5)
    assert_close(torch.tensor([1, 2]), torch.tensor([1.0, 2.0]))
    with pytest.raises(AssertionError):
        assert_close(reference + 1e-6, reference)
