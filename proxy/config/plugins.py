"""Find the classes that llm.yml names: built in, or ``package.module:Class`` from beside the file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from proxy.config.problem import did_you_mean, listed

T = TypeVar("T")
DOTTED: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class NotFound(Exception):
    """No such class; the message says why, ``suggestion`` what may have been meant."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion


def add_folder(folder: str) -> None:
    """Append the folder of llm.yml to the import path: own modules are found, ours cannot be replaced."""
    if folder and folder not in sys.path:
        sys.path.append(folder)


def shadowing(folder: str) -> list[str]:
    """Return the names of local folders that clash with our packages (our own source tree does not)."""
    if os.path.isfile(os.path.join(folder, "policies", "registry.py")) and os.path.isfile(
        os.path.join(folder, "proxy", "config", "plugins.py")
    ):
        return []
    return [name for name in ("proxy", "policies") if os.path.isdir(os.path.join(folder, name))]


def find(name: str, builtin: Mapping[str, str], base: type[T], what: str) -> type[T]:
    """Return the class that ``name`` stands for.

    Raises:
        NotFound: unknown name, a module that cannot be imported, or no subclass of ``base``.
    """
    dotted = builtin.get(name, name)
    if not DOTTED.fullmatch(dotted):
        near = did_you_mean(name, builtin)
        hint = "" if near else f" (there are {listed(builtin, 'and')}, and `package.module:Class` for your own)"
        raise NotFound(f"there is no {what} `{name}`{hint}", near)
    module_name, _, class_name = dotted.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            if name in builtin:
                raise NotFound(f"this version of llm-sidecar does not have the {what} `{name}` yet") from None
            raise NotFound(
                f"there is no module `{error.name}`; own modules are looked for beside llm.yml and among the "
                "installed packages"
            ) from None
        raise NotFound(f"the module `{module_name}` needs `{error.name}`, which is not installed") from None
    except (Exception, SystemExit) as error:
        raise NotFound(f"the module `{module_name}` cannot be imported: {type(error).__name__}: {error}") from None
    found: Any = getattr(module, class_name, None)
    if found is None:
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
        raise NotFound(f"the module `{module_name}` has no class `{class_name}`", did_you_mean(class_name, classes))
    if not (isinstance(found, type) and issubclass(found, base)):
        raise NotFound(f"`{dotted}` is no {what}: it must be a subclass of `{base.__module__}.{base.__name__}`")
    return found


def available(builtin: Mapping[str, str], base: type[T], what: str) -> dict[str, type[T]]:
    """Return the built-in classes that this version has, by name."""
    found = {}
    for name in builtin:
        try:
            found[name] = find(name, builtin, base, what)
        except NotFound:
            continue
    return found
