"""One typed, frozen settings object, put together from layers of which the later wins.

Packaged defaults (the defaults of the models in ``groups.py``: their only place), ``system_config.yaml``,
``api_specific/databento_config.yaml``, the file ``.env``, the environment, flags. Every value
remembers where it came from, so that a bad one is reported at its file, line and column, or with the
name of its variable or flag.
"""

from __future__ import annotations

from hdi.settings.groups import Described, Settings, describe
from hdi.settings.layers import API_FILE, JOBS, api_file, config_folder, load

__all__ = ["API_FILE", "JOBS", "Described", "Settings", "api_file", "config_folder", "describe", "load"]
