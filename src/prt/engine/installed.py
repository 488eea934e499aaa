"""Whether vLLM is there, and new enough."""

from prt.errors import InputError, first_line

OLDEST = (0, 32)


def require_vllm() -> None:
    """Refuse a machine without vLLM, or with one that is too old; importing it takes some seconds.

    Raises:
        InputError: saying how to install it.
    """
    oldest = ".".join(map(str, OLDEST))
    try:
        from vllm.version import __version__, __version_tuple__
    except ImportError as error:
        raise InputError(
            f"vLLM cannot be imported ({first_line(error)}); install vLLM {oldest} or newer in an environment of its "
            "own, with environment-vllm.yml."
        ) from None
    if __version_tuple__[:2] < OLDEST:
        raise InputError(
            f"vLLM {__version__} is too old; install {oldest} or newer in an environment of its own, with "
            "environment-vllm.yml."
        )
