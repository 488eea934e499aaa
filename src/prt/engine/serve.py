"""A server of OpenAI's interface that answers for a target with rewards on it: vLLM's own, with its own options."""

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from prt.engine.folder import Part, folder_for_vllm, published, tuned
from prt.engine.plugin import MODE
from prt.errors import InputError, first_line
from prt.language.prompts import template_of
from prt.language.reward import base_of, read_manifest
from prt.methods import METHODS, SOURCE_PRETRAINED, tuned_among
from prt.reward import check_method

NAME = "prt"  # what requests call the model, unless --served-model-name says otherwise
CHAT_TEMPLATE = "--chat-template"  # vLLM's own, which goes before the rewards'
LOOPBACK = "127.0.0.1"
NO_PLACE = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)


def serve(
    rewards: Sequence[tuple[Path, str | None, float]],
    target: str,
    options: Sequence[str],
    method: str = "prt",
) -> None:
    """Serve a target with rewards on it, until it is interrupted; on this machine alone unless a host is given.

    Args:
        rewards: the folder of each, what it was tuned from, where that has moved, and its strength.
        target: a folder, or a name on the Hugging Face hub.
        options: vLLM's own, as on the command line.
        method: how they are added, see :mod:`prt.methods`.

    Raises:
        InputError: if a model cannot be had or put on the target, rewards were tuned with different chat templates and
            no option says which, or vLLM does not know it or its options, cannot start, or cannot listen where it is
            asked to.
    """
    with ExitStack() as stack:
        parts = parts_of(rewards, target, method, stack)
        template = None
        if not any(option.split("=")[0].replace("_", "-") == CHAT_TEMPLATE for option in options):
            tuned_parts = zip(rewards, tuned_among(method, parts[1:]), strict=True)
            named = [(str(folder), part.tokenizer) for (folder, *_), part in tuned_parts]
            template = template_of(named, f"name one with {CHAT_TEMPLATE}") or parts[0].tokenizer.chat_template
        _run(stack.enter_context(folder_for_vllm(parts, template)), options)


def parts_of(
    rewards: Sequence[tuple[Path, str | None, float]], target: str, method: str, stack: ExitStack
) -> list[Part]:
    """The models of the sum, the target first, for as long as ``stack`` is open; see :func:`serve`."""
    parts = [published(target)]
    for folder, base, strength in rewards:
        check_method(folder, read_manifest(folder), method)
        part = stack.enter_context(tuned(folder, base))
        for sign, network in METHODS[method].added:
            of = published(base_of(folder, base)) if network == SOURCE_PRETRAINED else part
            parts.append(replace(of, weight=sign * strength))
    return parts


def _run(folder: Path, options: Sequence[str]) -> None:
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise InputError(f"vLLM does not take these options ({message}); `vllm serve --help=all` lists its own.")

    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # as its own command does
    asked: Any = make_arg_parser(Parser(prog="prt serve", add_help=False)).parse_args([str(folder), *options])
    asked.model = str(folder)
    asked.tokenizer_mode = MODE
    asked.served_model_name = asked.served_model_name or [NAME]
    if asked.uds is None:
        asked.host = asked.host or LOOPBACK
    try:
        validate_parsed_serve_args(asked)
        ServeSubcommand.cmd(asked)
    except (OSError, ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, socket.gaierror) or getattr(error, "errno", None) in NO_PLACE:
            raise InputError(
                f"the server cannot listen on {asked.host}, port {asked.port} ({first_line(error)}); choose others "
                "with --host and --port."
            ) from None
        raise InputError(f"vLLM cannot serve this ({first_line(error)}); what it said is above.") from error
