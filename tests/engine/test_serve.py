"""The server, asked by the clients that people have: openai's, and lm-evaluation-harness's."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.sums import EXTRA

from prt.atomic import file_hash
from prt.language.decode import load_reward

pytestmark = pytest.mark.vllm

QUESTION = "Tom has 3 pens. Tom buys 4 more pens. How many pens does Tom have now?"


@pytest.fixture(scope="module")
def port(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [str(Path(sys.executable).with_name("prt")), "serve", "--reward", str(family / "prt")]
    command += ["--target", str(family / "target"), "--strength", "1.3"]
    command += ["--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8"]
    with log.open("w") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
        )
    try:
        end = time.monotonic() + 900  # where several share a core
        while True:
            assert server.poll() is None and time.monotonic() < end, log.read_text()[-5000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(1)
        yield port
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="module")
def client(port: int) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")


def test_it_answers_chats_in_the_reward_s_template(client: Any, family: Path) -> None:
    on = load_reward(family / "prt").on(str(family / "target"), 1.3)
    expected = on.generate(QUESTION, chat=True, max_new_tokens=24)
    asked: Any = {"model": "prt", "temperature": 0, "max_tokens": 24}
    asked["messages"] = [{"role": "user", "content": QUESTION}]
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.content == expected
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
    stream = list(client.chat.completions.create(**asked, stream=True))
    assert len(stream) > 10
    assert "".join(piece.choices[0].delta.content or "" for piece in stream) == expected


def test_a_prompt_that_a_model_cannot_read_is_refused(client: Any) -> None:
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match="one of the models has no row for"):
        client.completions.create(model="prt", prompt=f"a {EXTRA} b", max_tokens=2)
    assert client.completions.create(model="prt", prompt="a b", max_tokens=2).choices


def test_lm_eval_asks_it_for_likelihoods(port: int, family: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from prt.language.harness_model import HarnessModel

    pairs = [(QUESTION, " Tom has 7 pens now."), (QUESTION, " 7"), ("A dog", " and a cat.")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    address = f"http://127.0.0.1:{port}/v1/completions"
    asked = LocalCompletionsAPI(model="prt", base_url=address, tokenizer=str(family / "target"), max_retries=1)
    here = HarnessModel(load_reward(family / "prt").on(str(family / "target"), 1.3).composed, "problems", 2)
    for (found, greedy), (expected, greedily) in zip(
        asked.loglikelihood(requests), here.loglikelihood(requests), strict=True
    ):
        assert found == pytest.approx(expected, abs=1e-4)
        assert greedy == greedily


def test_a_port_that_is_taken(port: int, family: Path, prt: Callable[..., tuple[int, str, str]]) -> None:
    code, _, said = prt("serve", "--reward", family / "prt", "--target", family / "target", "--port", port)
    assert code == 1
    assert said.splitlines()[-1].startswith(f"prt: error: the server cannot listen on 127.0.0.1, port {port}")


def test_a_context_that_is_too_long_for_one_model(family: Path, prt: Callable[..., tuple[int, str, str]]) -> None:
    asked = ("serve", "--reward", family / "prt", "--target", family / "target", "--port", 0)
    code, _, said = prt(*asked, "--max-model-len", 2048)  # as the target alone could have
    assert code == 1
    assert "vLLM cannot serve this (as a whole: User-specified max_model_len (2048) is greater" in said.splitlines()[-1]


def test_options_that_vllm_does_not_have(family: Path, prt: Callable[..., tuple[int, str, str]]) -> None:
    code, _, said = prt("serve", "--reward", family / "prt", "--target", family / "target", "--prot", 1)
    assert code == 1
    assert "vLLM does not take these options (unrecognized arguments: --prot 1)" in said.splitlines()[-1]


def test_rewards_of_two_chat_templates(family: Path, tmp_path: Path, prt: Callable[..., tuple[int, str, str]]) -> None:
    other = shutil.copytree(family / "prt", tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages }}")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"]["chat_template.jinja"] = file_hash(other / "chat_template.jinja")
    (other / "manifest.json").write_text(json.dumps(manifest))
    asked = ("serve", "--reward", family / "prt", "--reward", other, "--target", family / "target", "--prot", 1)
    code, _, said = prt(*asked)
    assert code == 1
    assert "were tuned with different chat templates" in said and "; name one with --chat-template." in said
    code, _, said = prt(*asked, "--chat-template", other / "chat_template.jinja")
    assert code == 1 and "vLLM does not take these options (unrecognized arguments: --prot 1)" in said
