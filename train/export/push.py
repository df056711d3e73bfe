"""hf/ -> a repository of the hub: when asked, private by default, and resumed by the same command.

huggingface_hub sends what the repository does not have yet; what an interrupted push sent is kept.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from ropewalk.conf.errors import ConfigError

T = TypeVar("T")
NO_ANSWER: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], OSError)
"""A hub that cannot be reached: the base of all errors of the library that huggingface_hub asks it
with, which is httpx in some of its versions and httpx2 in others."""
IGNORED = [".cache/*"]


def refuse(repository: str, private: bool) -> None:
    """What of a push can be known before the export: the hub answers, the token is good, and a
    repository that is there is as private as it is to be. Raises: ConfigError."""
    api = HfApi()
    _answered(repository, api.whoami)
    is_public = _answered(repository, lambda: _is_public(api, repository))
    if private and is_public:
        raise ConfigError(
            f"export.push is {repository}; it is there and public, and export.private is True; "
            "set export.private=false to publish, or name another"
        )


def push(folder: Path, repository: str, private: bool) -> str:
    """Make the repository where it is not there, and send the folder's files.

    Returns a line with its address. Raises: ConfigError.
    """
    api = HfApi()
    _answered(repository, lambda: api.create_repo(repository, private=private, exist_ok=True))
    name = repository.partition("/")[2]
    commit = _answered(
        repository,
        lambda: api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=f"{name}: exported by Ropewalk",
            ignore_patterns=IGNORED,
        ),
    )
    kind = "private" if private else "public"
    return f"export: pushed hf/ to {constants.ENDPOINT}/{repository} ({kind}), commit {commit.oid}"


def _is_public(api: HfApi, repository: str) -> bool:
    """Whether the repository is there, and everybody sees it."""
    try:
        return not api.model_info(repository).private
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return False


def _answered(repository: str, question: Callable[[], T]) -> T:
    """The hub's answer. Raises: ConfigError where it is closed."""
    try:
        return question()
    except GatedRepoError as error:
        raise _refused(repository, "it is gated for this user", error) from None
    except (LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
        raise _refused(repository, "", error) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        raise _refused(repository, f"the hub answers {status}", error) from None
    except NO_ANSWER as error:
        raise _refused(repository, "the hub does not answer", error) from None


def _refused(repository: str, reason: str, error: Exception) -> ConfigError:
    lines = str(error).strip().splitlines()
    text = ": ".join(filter(None, (reason, lines[0] if lines else type(error).__name__)))
    return ConfigError(
        f"export.push is {repository}; the hub must let this user write there; {text}; log in with "
        "hf auth login, look at its address (HF_ENDPOINT), or unset export.push and push hf/ later"
    )
