"""The home and the variables of a user who has configured all that there is, otherwise than the project needs it."""

import json
from pathlib import Path

VARIABLES = {
    "KERAS_BACKEND": "torch",
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "KERAS_NNX_ENABLED": "1",
    "KERASTUNER_ORACLE_IP": "10.255.255.1",
    "TF_USE_LEGACY_KERAS": "1",
    "MPLBACKEND": "nonsense",
    "PYTHONOPTIMIZE": "2",
    "PYTHONWARNINGS": "error",
    "PYTHONINSPECT": "1",
    "PYTHONSAFEPATH": "1",
    "PIP_USER": "1",
    "UV_SYSTEM_PYTHON": "1",
}
KERAS_JSON = {"floatx": "float16", "epsilon": 0.1, "backend": "jax", "image_data_format": "channels_first"}
MATPLOTLIBRC = "text.usetex: True\nbackend: nonsense\nsavefig.dpi: 30\nlines.linewidth: 9\nfont.size: 30\n"


def write_home(folder: Path) -> Path:
    """Writes a configuration file of each tool, and a matplotlibrc for a program that works in this very folder."""
    files = {
        ".keras/keras.json": json.dumps(KERAS_JSON),
        ".config/matplotlib/matplotlibrc": MATPLOTLIBRC,
        "matplotlibrc": MATPLOTLIBRC,
        ".config/pip/pip.conf": "[global]\nuser = true\nrequire-virtualenv = true\n",
        ".config/uv/uv.toml": '[pip]\ntarget = "elsewhere"\n',
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder
