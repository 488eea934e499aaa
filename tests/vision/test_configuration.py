"""A folder may describe a network to open_clip, and run nothing."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
from helpers.marks import leave
from helpers.tuning import bytes_tokenizer

from prt.errors import InputError
from prt.vision.backbones import load_backbone
from prt.vision.configuration import check
from prt.vision.predict import load_reward


@pytest.fixture
def folder(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backbone beside Python that leaves ``tmp_path / "mark"``, where someone answers yes to every question."""
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n" * 99))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(backbone, tmp_path / "backbone")
    leave(folder, tmp_path / "mark")
    bytes_tokenizer().save_pretrained(folder)
    return folder


def edit(folder: Path, part: str, **options: Any) -> None:
    file = folder / "open_clip_config.json"
    described = json.loads(file.read_text())
    described["model_cfg"][part] |= options
    file.write_text(json.dumps(described))


def test_a_tokenizer_s_own_code(folder: Path, tmp_path: Path) -> None:
    edit(folder, "text_cfg", hf_tokenizer_name="x")
    load_backbone(f"local-dir:{folder}")  # one that is data alone
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({"auto_map": {"AutoTokenizer": ["marking.Marking", "marking.Marking"]}}))
    with pytest.raises(InputError, match=r"tokenizer_config.json asks for code of its own by 'auto_map'"):
        load_backbone(f"local-dir:{folder}")
    for text in ("{", "[" * 10**5):
        file.write_text(text)
        with pytest.raises(InputError, match=r"tokenizer_config.json is no JSON \("):
            load_backbone(f"local-dir:{folder}")
    for kwargs in ({"trust_remote_code": True}, {"clean": "lower", "tokenizer_file": "/etc/passwd"}):
        edit(folder, "text_cfg", tokenizer_kwargs=kwargs)
        option = list(kwargs)[-1]
        with pytest.raises(InputError, match=rf"the option '{option}' in model_cfg.text_cfg.tokenizer_kwargs"):
            load_backbone(f"local-dir:{folder}")
    assert not (tmp_path / "mark").exists()


def test_a_tower_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text(
        json.dumps({"model_type": "x", "auto_map": {"AutoConfig": "marking.Marking", "AutoModel": "marking.Marking"}})
    )
    edit(folder, "text_cfg", hf_model_name=str(folder))
    with pytest.raises(InputError, match=r"'hf_model_name' in model_cfg.text_cfg, which is not among those"):
        load_backbone(f"local-dir:{folder}")
    assert not (tmp_path / "mark").exists()


def test_a_reward_s_manifest(tuned: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tuned / "prt" / "4" / "0", tmp_path / "reward")
    file = folder / "manifest.json"
    whole = json.loads(file.read_text())
    for tower in ("hf-hub:owner/name", "local-dir:/nowhere", "../x"):
        whole["backbone"]["model_cfg"]["vision_cfg"]["timm_model_name"] = tower
        file.write_text(json.dumps(whole))
        with pytest.raises(InputError, match=rf"^{file} names the image tower '{re.escape(tower)}'"):
            load_reward(folder)


def test_all_that_open_clip_describes_is_known() -> None:
    """The options of its own models, but for those whose text tower is on the hub."""
    described = [open_clip.get_model_config(name) for name in open_clip.list_models()]
    own = [cfg for cfg in described if "hf_model_name" not in cfg["text_cfg"]]
    assert len(own) > 100
    for cfg in own:
        check(cfg, "the file")
    for wrong, complaint in (
        (None, "has no 'model_cfg'"),
        ({"embed_dim": {"a": 1}}, "more options in 'embed_dim' of model_cfg"),
        ({"vision_cfg": {"norm_kwargs": {"eps": 1, "device": "x"}}}, "'device' in model_cfg.vision_cfg.norm_kwargs"),
        ({"output_dict": True}, "'output_dict' in model_cfg,"),
    ):
        with pytest.raises(InputError, match=complaint):
            check(wrong, "the file")
