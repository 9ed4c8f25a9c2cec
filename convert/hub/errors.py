"""What went wrong with the Hub, in our words: where, what, and the next command."""

from __future__ import annotations

from collections.abc import Iterable

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from ...formats.errors import GptOssConvertError
from .ids import HubId
from .near import did_you_mean, near_names, near_paths, near_repositories

# The base of all that huggingface_hub's HTTP library raises; which library it is depends on its version.
HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
REQUEST_ERRORS = (HTTP_ERROR, OfflineModeIsEnabled)

_LOG_IN = "run `hf auth login` or set HF_TOKEN"


class HubError(GptOssConvertError):
    """The Hub did not give what was asked for, or gave something else than it publishes."""


class HubUnreachableError(HubError):
    """The Hub does not answer, or fails; what the cache holds may do instead."""


def status_of(error: Exception) -> int | None:
    """The HTTP status that the server answered with, if it answered."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def explained(
    error: Exception, wanted: HubId, *, endpoint: str, tries: int = 1, seconds: float | None = None
) -> HubError:
    """`error`, which a request for `wanted` ended in, as a message for a person.

    Args:
        tries: how often it was tried.
        seconds: how long the server asked to wait.
    """
    if isinstance(error, OfflineModeIsEnabled):
        return offline(wanted)
    if not isinstance(error, HfHubHTTPError):
        return _unreachable(error, wanted, endpoint, tries)
    code = error.response.headers.get("X-Error-Code")
    said = error.response.headers.get("X-Error-Message") or error.response.reason_phrase
    status = error.response.status_code
    has_token = "authorization" in error.response.request.headers
    page = f"{endpoint}/{wanted.repository}"
    if code == "GatedRepo":
        return _gated(wanted, page, has_token)
    if code == "RevisionNotFound":
        return no_revision(wanted, ())
    if code == "EntryNotFound":
        return HubError(
            "the repository has no such file", file=str(wanted), remedy=f"See {page}/tree/{wanted.revision}."
        )
    if status == 401 and "credentials" in said.lower():
        remedy = f"Make a token at {endpoint}/settings/tokens, then {_LOG_IN}."
        return HubError("the Hub refuses the token", file=str(wanted), found=f"{status} {said}", remedy=remedy)
    if code == "RepoNotFound" or status in (401, 404):
        return _no_repository(wanted)
    if status == 403:
        remedy = f"Ask for access at {page}, then {_LOG_IN}."
        return HubError("the Hub refuses access", file=str(wanted), found=f"{status} {said}", remedy=remedy)
    if status == 429:
        wait = "some minutes" if seconds is None else f"{seconds:.0f} seconds"
        remedy = f"Wait {wait} and run the same command again" + (
            "." if has_token else f"; with a token ({_LOG_IN}) more is allowed."
        )
        return HubError(
            "the Hub gets too many requests from here", file=str(wanted), found=f"429 {said}", remedy=remedy
        )
    if status >= 500:
        remedy = "Run the same command again later; what was downloaded is kept. See https://status.huggingface.co."
        return HubUnreachableError(
            f"the Hub failed {_times(tries)}", file=str(wanted), found=f"{status} {said}", remedy=remedy
        )
    return HubError("the Hub refused the request", file=str(wanted), found=f"{status} {said}", remedy=f"See {page}.")


def offline(wanted: HubId, found: str | None = None) -> HubError:
    """The error for something that is not in the cache while HF_HUB_OFFLINE forbids to fetch it."""
    return HubError(
        "it is not in the cache, and HF_HUB_OFFLINE forbids to download it",
        file=str(wanted),
        found=found,
        remedy=f"{_near_here(wanted)}Unset HF_HUB_OFFLINE and run the same command again, or give a path.",
    )


def no_revision(wanted: HubId, known: Iterable[str]) -> HubError:
    """The error for a branch, tag or commit that the repository has not; `known` are those that it has."""
    return HubError(
        "the repository has no such revision",
        file=wanted.repository,
        expected="a branch, a tag or a full commit hash",
        found=wanted.revision,
        remedy=did_you_mean(near_names(wanted.revision, known))
        + f"Leave @{wanted.revision} away to take the branch main.",
    )


def no_such_path(wanted: HubId, names: Iterable[str]) -> HubError:
    """The error for a folder or file that the repository has not; `names` are the files that it has."""
    names = list(names)
    folders = {name.rpartition("/")[0] for name in names} - {""}
    near = did_you_mean(str(wanted.at(name)) for name in near_names(wanted.path, [*names, *sorted(folders)]))
    folders_there = ", ".join(sorted(folders)) or "none"
    remedy = f"{near}Give {wanted.at('')} for the weights at its root; folders are: {folders_there}."
    return HubError("the repository has no such folder or file", file=str(wanted), found=wanted.path, remedy=remedy)


def _gated(wanted: HubId, page: str, has_token: bool) -> HubError:
    return HubError(
        "the repository is gated: its owner lets only those read it who were given access",
        file=str(wanted),
        found="a token without access" if has_token else "no token",
        remedy=f"Ask for access at {page}, then {_LOG_IN}, and run the same command again.",
    )


def _no_repository(wanted: HubId) -> HubError:
    near = did_you_mean([*near_paths(_as_path(wanted)), *near_repositories(wanted.repository)])
    return HubError(
        "there is no such path here, and the Hub has no such repository, or it is private",
        file=str(wanted),
        expected="a path that exists, or org/name[@revision]",
        remedy=f"{near}Check the spelling. If the repository is private, {_LOG_IN}.",
    )


def _unreachable(error: Exception, wanted: HubId, endpoint: str, tries: int) -> HubUnreachableError:
    remedy = "Check the network, the proxy (HTTPS_PROXY) and HF_ENDPOINT; run the same command again to go on."
    return HubUnreachableError(
        f"the Hub cannot be reached (tried {_times(tries)})",
        file=endpoint,
        found=f"{type(error).__name__}: {error}".rstrip(": "),
        remedy=_near_here(wanted) + remedy,
    )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _near_here(wanted: HubId) -> str:
    """What is said if a path was meant and misspelt."""
    return did_you_mean(near_paths(_as_path(wanted)))


def _as_path(wanted: HubId) -> str:
    return str(HubId(wanted.repository, wanted.path))
