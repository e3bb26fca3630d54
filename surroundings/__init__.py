"""Decides what of the user's own configuration counts in this project's processes: nothing that changes a result.

Python reads variables when it starts, Keras and matplotlib read variables and files in the home folder when they are
imported, and TensorFlow imports both. Each of our packages calls `decide` before it imports anything; in `.venv`,
`start` does it before any program at all, a notebook, pytest and the `tfx` command included. Child processes inherit
what is decided. pipeline/environment.py does the same for pip and uv.

Other `TF_` variables and those of XLA, OpenMP and CUDA are about the machine (threads, devices, libraries): they stay,
as do locale, proxies and certificates.
"""

from __future__ import annotations

import os
import sys

BACKEND = "tensorflow"

NO_FOLDER = os.path.join(os.devnull, "keras")
"""Nobody can make it: Keras finds no keras.json there, writes none, and puts downloads into its temporary folder."""

SWITCHES = ("TF_USE_LEGACY_KERAS", "TF2_BEHAVIOR", "PYTHONOPTIMIZE", "PYTHONINSPECT")
"""Removed, and with them whatever begins with KERAS: Keras's own variables and those of Keras Tuner."""


def start() -> None:
    """Decides before the program begins: `.venv` has Python's `site` call it.

    Variables that Python itself has read by then are taken away by starting the same command again, in this process.
    """
    was_read = [name for name in ("PYTHONOPTIMIZE", "PYTHONINSPECT") if os.environ.get(name)]
    # Warnings as errors end TensorFlow's import. Python takes any beginning of "error" for it.
    if any(part.strip().startswith("e") for part in os.environ.get("PYTHONWARNINGS", "").split(",")):
        was_read.append("PYTHONWARNINGS")
    _decide_environment()
    if was_read and sys.executable:
        for name in was_read:
            os.environ.pop(name, None)
        os.execv(sys.executable, sys.orig_argv)


def decide() -> None:
    """Decides for a process that is about to import one of our packages.

    Raises:
        SystemExit: Python leaves assertions out, which cannot be changed any more.
        RuntimeError: Keras has been imported already, with another backend.
    """
    if sys.flags.optimize:
        sys.exit(
            "Python leaves out assertions, which TensorFlow and this project need: unset PYTHONOPTIMIZE, and start it "
            "without -O."
        )
    _decide_environment()
    _correct_keras()


def _decide_environment() -> None:
    for name in [name for name in os.environ if name.startswith("KERAS") or name in SWITCHES]:
        del os.environ[name]
    os.environ.update(KERAS_HOME=NO_FOLDER, MATPLOTLIBRC=os.devnull)
    if not os.environ.get("MPLBACKEND", "").startswith("module://"):  # which is how a notebook names its own
        os.environ.pop("MPLBACKEND", None)


def _correct_keras() -> None:
    """Sets in a Keras that somebody else has imported what can still be set, see `decide` for what cannot."""
    keras = sys.modules.get("keras")
    if keras is None:
        return
    config = keras.config
    if config.backend() != BACKEND:
        raise RuntimeError(
            f"Keras was imported with the backend {config.backend()} before this project, which needs {BACKEND}: unset "
            'KERAS_BACKEND, take "backend" out of ~/.keras/keras.json, or import the project first.'
        )
    if config.floatx() != "float32":
        config.set_floatx("float32")
        config.set_dtype_policy("float32")  # Keras keeps the one that it made of the old floatx
    config.set_epsilon(1e-7)
    config.set_image_data_format("channels_last")
    config.set_max_epochs(None)
    config.set_max_steps_per_epoch(None)
