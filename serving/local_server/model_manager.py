"""Which versions of which models are loaded: watches the base paths, loads, warms up, labels and unloads.

Knows nothing of TensorFlow: a `Loader` turns a version's folder into something that can be closed.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from serving.local_server.model_config import ConfigError, ModelConfig
from serving.local_server.status import Code, StatusError, invalid_argument

_LOG = logging.getLogger(__name__)

_MAX_VERSION = (1 << 63) - 1
"""A version is an int64."""


class State(enum.IntEnum):
    """A version's life; the values are those of ModelVersionStatus.State."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Closeable(Protocol):
    """What a Loader returns."""

    def close(self) -> None:
        """Frees what is held. Nobody uses it any more."""


ModelT = TypeVar("ModelT", bound=Closeable)

Loader = Callable[[str, int, str], ModelT]
"""Loads a version: model name, version and folder. Raises StatusError."""


class Servable(Generic[ModelT]):
    """A loaded version, and how many are using it."""

    def __init__(self, name: str, version: int, model: ModelT) -> None:
        """Holds a model that nobody uses yet."""
        self.name = name
        self.version = version
        self.model = model
        self._users = 0
        self._condition = threading.Condition()

    def acquire(self) -> None:
        """Keeps the model from being closed until `release`."""
        with self._condition:
            self._users += 1

    def release(self) -> None:
        """Ends one use."""
        with self._condition:
            self._users -= 1
            if self._users == 0:
                self._condition.notify_all()

    def close(self) -> None:
        """Closes the model when the last user has released it."""
        with self._condition:
            self._condition.wait_for(lambda: self._users == 0)
        self.model.close()


@dataclass
class VersionStatus(Generic[ModelT]):
    """What is known of a version."""

    version: int
    state: State = State.START
    code: Code = Code.OK
    message: str = ""
    servable: Servable[ModelT] | None = None
    failures: int = 0
    retry_at: float = 0.0
    """`time.monotonic()` of the next try after a failure."""
    files: tuple[object, ...] = ()
    """What was on disk when the load failed."""


@dataclass
class _Model(Generic[ModelT]):
    """A configured model and its versions, those that have ended included."""

    config: ModelConfig
    versions: dict[int, VersionStatus[ModelT]] = field(default_factory=dict)


@dataclass(frozen=True)
class ManagerOptions:
    """How the manager watches; see the flags of the same names."""

    poll_wait_s: float = 1.0
    max_num_load_retries: int = 5
    load_retry_interval_s: float = 60.0
    allow_version_labels_for_unavailable_models: bool = False


class ModelManager(Generic[ModelT]):
    """Loads and unloads versions in a thread of its own; answers which one a request gets in the caller's."""

    def __init__(self, configs: Sequence[ModelConfig], load: Loader[ModelT], options: ManagerOptions) -> None:
        """Prepares; `start` loads.

        Args:
            configs: the models to serve.
            load: loads one version.
            options: how to watch.
        """
        self._load = load
        self._options = options
        self._models: dict[str, _Model[ModelT]] = {config.name: _Model(config) for config in configs}
        self._state_lock = threading.Lock()  # held for a moment, to read or change the tables
        self._work_lock = threading.Lock()  # held while versions are loaded and unloaded
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-manager", daemon=True)
        self._unloads: list[threading.Thread] = []

    def start(self) -> None:
        """Loads what is on disk, then watches.

        Raises:
            ConfigError: a label names a version that is not available.
        """
        with self._work_lock:
            self._reconcile()
            # Labels are checked after the first load, where TensorFlow Serving would refuse any label.
            self._check_labels([model.config for model in self._models.values()])
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ends the watch and unloads everything that no request uses any more.

        Args:
            timeout_s: how long to wait for requests under way.
        """
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._work_lock:
            for model in list(self._models.values()):
                self._unload(model, list(model.versions))
        deadline = time.monotonic() + timeout_s
        for thread in self._unloads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def reload(self, configs: Sequence[ModelConfig]) -> None:
        """Changes the configuration, and returns when what is new has been loaded.

        Args:
            configs: all models to serve from now on.

        Raises:
            StatusError: FAILED_PRECONDITION: a label names a version that is not available; nothing has changed.
                UNKNOWN: a new model has no version that could be loaded; the configuration is in force.
        """
        with self._work_lock:
            try:
                self._check_labels(configs)
            except ConfigError as error:
                raise StatusError(Code.FAILED_PRECONDITION, str(error)) from None
            new = [config.name for config in configs if config.name not in self._models]
            with self._state_lock:
                dropped = [model for name, model in self._models.items() if name not in {c.name for c in configs}]
                self._models = {
                    config.name: _Model(config, self._models[config.name].versions)
                    if config.name in self._models
                    else _Model(config)
                    for config in configs
                }
            for model in dropped:
                self._unload(model, list(model.versions))
            self._reconcile()
            problems = [f"{name}: {reason}" for name, reason in self.unavailable().items() if name in new]
        if problems:
            raise StatusError(
                Code.UNKNOWN, f"{len(problems)} model(s) did not become available: {{{'; '.join(problems)}}}"
            )

    def unavailable(self) -> dict[str, str]:
        """Why a model has no available version, by model; empty when all can be asked."""
        with self._state_lock:
            reasons: dict[str, str] = {}
            for name, model in self._models.items():
                if any(status.state == State.AVAILABLE for status in model.versions.values()):
                    continue
                reasons[name] = f"no version found under base path {model.config.base_path}"
                if model.versions:
                    latest = model.versions[max(model.versions)]
                    reasons[name] = f"version {latest.version}: {latest.code.name}: {latest.message}"
            return reasons

    @contextlib.contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable[ModelT]]:
        """The version that a request gets; it stays loaded within the context.

        Args:
            name: the model.
            version: this version only.
            label: the version of this label only.

        Raises:
            StatusError: NOT_FOUND: no such version is available. INVALID_ARGUMENT: no name, or no such label.
        """
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        with self._state_lock:
            servable = self._find(name, self._version(name, version, label))
            servable.acquire()
        try:
            yield servable
        finally:
            servable.release()

    def statuses(self, name: str, version: int | None, label: str | None) -> list[VersionStatus[ModelT]]:
        """What is known of a model's versions, newest first.

        Args:
            name: the model.
            version: of this version only.
            label: of the version of this label only.

        Raises:
            StatusError: NOT_FOUND: nothing is known. INVALID_ARGUMENT: no such label.
        """
        with self._state_lock:
            version = self._version(name, version, label)
            model = self._models.get(name)
            known = model.versions if model else {}
            if version is not None:
                if version not in known:
                    raise StatusError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
                return [known[version]]
            if not known:
                raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
            return [known[number] for number in sorted(known, reverse=True)]

    def names(self) -> list[str]:
        """The models."""
        with self._state_lock:
            return list(self._models)

    def available(self) -> dict[str, list[int]]:
        """The available versions by model."""
        with self._state_lock:
            return {
                name: sorted(v for v, status in model.versions.items() if status.state == State.AVAILABLE)
                for name, model in self._models.items()
            }

    def _version(self, name: str, version: int | None, label: str | None) -> int | None:
        """The version asked for; None for the latest."""
        if label is None:
            return version
        labels: Mapping[str, int] = self._models[name].config.labels if name in self._models else {}
        if label not in labels:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return labels[label]

    def _find(self, name: str, version: int | None) -> Servable[ModelT]:
        """The available version asked for; the latest for None."""
        versions = self._models[name].versions if name in self._models else {}
        available = {
            number: status.servable
            for number, status in versions.items()
            if status.state == State.AVAILABLE and status.servable
        }
        if version is None and available:
            return available[max(available)]
        if version is not None and version in available:
            return available[version]
        request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {request}")

    def _watch(self) -> None:
        """Looks at the base paths again and again."""
        while self._options.poll_wait_s > 0 and not self._stop.wait(self._options.poll_wait_s):
            try:
                with self._work_lock:
                    self._reconcile()
            except Exception:  # a watch that ended would leave the server on its versions without a word
                _LOG.exception("Looking at the base paths failed; the next look is in %g s.", self._options.poll_wait_s)

    def _reconcile(self) -> None:
        """Loads what is missing, then unloads what is no longer wanted, where something takes its place."""
        for model in list(self._models.values()):
            try:
                on_disk = versions_on_disk(model.config.base_path)
            except OSError as error:
                # A base path that cannot be read for a moment must not unload anything.
                if not model.versions:
                    _LOG.warning("Could not find base path of model %s: %s", model.config.name, error)
                continue
            wanted = model.config.policy.choose(set(on_disk))
            for version in sorted(wanted):
                if self._is_due(model, version, on_disk[version]):
                    self._load_version(model, version, on_disk[version])
            unwanted = [
                version
                for version, status in model.versions.items()
                if version not in wanted and status.state == State.AVAILABLE
            ]
            if not wanted or any(model.versions[version].state == State.AVAILABLE for version in wanted):
                self._unload(model, unwanted)
            for version in model.versions.keys() - on_disk.keys():
                # A failed version that was removed is a new one if it comes back.
                model.versions[version].failures = 0

    def _is_due(self, model: _Model[ModelT], version: int, path: str) -> bool:
        """Whether a version is to be loaded now."""
        status = model.versions.get(version)
        if status is None:
            return True
        if status.state != State.END:
            return False
        if status.failures == 0 or status.files != _files(path):
            return True
        return status.failures <= self._options.max_num_load_retries and time.monotonic() >= status.retry_at

    def _load_version(self, model: _Model[ModelT], version: int, path: str) -> None:
        """Loads a version; a failure is its status."""
        name = model.config.name
        with self._state_lock:
            status = model.versions.setdefault(version, VersionStatus(version))
            status.state, status.code, status.message = State.LOADING, Code.OK, ""
        files = _files(path)
        started = time.monotonic()
        try:
            servable = Servable(name, version, self._load(name, version, path))
        except Exception as error:
            if not isinstance(error, StatusError):
                _LOG.exception("Version %d of model %s: unexpected error.", version, name)
                error = StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}")
            _LOG.error("Version %d of model %s could not be loaded: %s", version, name, error.message)
            with self._state_lock:
                status.state, status.code, status.message = State.END, error.code, error.message
                status.failures += 1
                status.files = files
                status.retry_at = time.monotonic() + self._options.load_retry_interval_s
            return
        with self._state_lock:
            status.state, status.servable, status.failures = State.AVAILABLE, servable, 0
        _LOG.info("Version %d of model %s is available, loaded in %.1f s.", version, name, time.monotonic() - started)

    def _unload(self, model: _Model[ModelT], versions: Collection[int]) -> None:
        """Unloads versions in the background, each when the requests that run on it have ended."""
        for version in versions:
            status = model.versions[version]
            with self._state_lock:
                servable, status.servable = status.servable, None
                if servable is not None:
                    status.state = State.UNLOADING
            if servable is not None:
                thread = threading.Thread(target=self._close, args=(status, servable), name="unload", daemon=True)
                thread.start()
                self._unloads = [other for other in self._unloads if other.is_alive()] + [thread]

    def _close(self, status: VersionStatus[ModelT], servable: Servable[ModelT]) -> None:
        """Closes a version that no new request gets."""
        servable.close()
        with self._state_lock:
            if status.state == State.UNLOADING:
                status.state = State.END
        _LOG.info("Version %d of model %s is unloaded.", servable.version, servable.name)

    def _check_labels(self, configs: Sequence[ModelConfig]) -> None:
        """Refuses labels of versions that are not available."""
        for config in configs:
            model = self._models.get(config.name)
            for label, version in config.labels.items():
                if self._options.allow_version_labels_for_unavailable_models:
                    moved = model is not None and model.config.labels.get(label, version) != version
                    if not moved:
                        continue
                status = model.versions.get(version) if model else None
                if status is None or status.state != State.AVAILABLE:
                    raise ConfigError(
                        f"Request to assign label to version {version} of model {config.name}, which is not currently "
                        f"available for inference (label {label}; a label that is not in use yet can be assigned ahead "
                        "with --allow_version_labels_for_unavailable_models)"
                    )


def versions_on_disk(base_path: str) -> dict[int, str]:
    """The folders below a base path that are named by a number.

    Args:
        base_path: the folder to look into.

    Returns:
        Path by version.

    Raises:
        OSError: the base path cannot be read.
    """
    versions: dict[int, str] = {}
    with os.scandir(base_path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.isascii() and entry.name.isdecimal() and int(entry.name) <= _MAX_VERSION and entry.is_dir():
                versions.setdefault(int(entry.name), entry.path)
    return versions


def _files(path: str) -> tuple[object, ...]:
    """What is on disk below a folder, to see whether it has changed."""
    found = []
    for folder, _, names in sorted(os.walk(path)):
        for name in sorted(os.path.join(folder, name) for name in names):
            with contextlib.suppress(OSError):  # removed since it was listed
                status = os.stat(name)
                found.append((name, status.st_size, status.st_mtime_ns))
    return tuple(found)
