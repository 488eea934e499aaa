"""How vLLM reads a prompt for a sum of models."""

from collections.abc import Sequence

from vllm.exceptions import VLLMValidationError
from vllm.renderers.hf import HfRenderer


class Renderer(HfRenderer):  # type: ignore[misc]
    """vLLM's own, which refuses a prompt with a token that one of the models has no row for."""

    def validate_token_ids(self, token_ids: Sequence[int], *, parameter: str | None = None) -> None:
        """As vLLM does it.

        Raises:
            VLLMValidationError: for such a token, and for what is no token.
        """
        super().validate_token_ids(token_ids, parameter=parameter)
        unread = dict(self.model_config.hf_config.unread)
        for i in token_ids:
            if i in unread:
                raise VLLMValidationError(
                    f"the text has the token {unread[i]!r} (id {i}), which one of the models has no row for; leave it "
                    "out.",
                    parameter=parameter,
                )
