"""The command line as people type it, turned into the form that the parser of signatures knows."""

from __future__ import annotations

import inspect
import json
import re
from argparse import HelpFormatter
from collections.abc import Callable

from jsonargparse import ArgumentParser

_OPTION = re.compile(r"--[a-z][a-z0-9]*([_-][a-z0-9]+)+")
_AS_IT_IS = {"--print_config"}


def normalise(verb: Callable[..., None], tokens: list[str]) -> list[str]:
    """Rewrite what follows a verb.

    Bare words before the first option are the verb's first parameters, in order; hyphens in options become
    underscores; an option that takes several values takes them after one another or by being repeated; a
    switch by itself is on.

    Args:
        verb: the function that implements the verb.
        tokens: what follows the verb on the command line.

    Returns:
        The same in the parser's form.

    Example:
        >>> def show(source: str, card: list[str], min_score: float = 0.4) -> None: ...
        >>> normalise(show, ["a.png", "--card", "mug", "box", "--min-score", "0.5"])
        ['--source=a.png', '--min_score', '0.5', '--card=["mug", "box"]']
    """
    parameters = inspect.signature(verb).parameters
    several = {f"--{name}" for name, p in parameters.items() if "list[" in str(p.annotation)}
    switches = {f"--{name}" for name, p in parameters.items() if str(p.annotation) in ("bool", str(bool))}
    result: list[str] = []
    lists: dict[str, list[str]] = {}
    open_list: str | None = None
    order = list(parameters)
    leading = next((i for i, token in enumerate(tokens) if token.startswith("-")), len(tokens))
    for place, token in enumerate(tokens):
        if token.startswith("--"):
            name, equals, value = token.partition("=")
            name = name if name in _AS_IT_IS else "--" + name[2:].replace("-", "_")
            open_list = name if name in several else None
            bare = not equals and (place + 1 == len(tokens) or tokens[place + 1].startswith("-"))
            if name in switches and bare:
                result.append(f"{name}=true")
            elif open_list is None:
                result.append(name + equals + value)
            elif equals:
                lists.setdefault(name, []).append(value)
        elif open_list is not None:
            lists.setdefault(open_list, []).append(token)
        elif place < min(leading, len(order)):
            result.append(f"--{order[place]}={token}")
        else:
            result.append(token)
    for name, values in lists.items():
        whole = values[0] if len(values) == 1 and values[0].startswith("[") else json.dumps(values)
        result.append(f"{name}={whole}")
    return result


class HyphenParser(ArgumentParser):
    """A parser whose help spells options with hyphens, as they are typed."""

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """The help text."""
        return _hyphenate(super().format_help(formatter))

    def format_usage(self) -> str:
        """The usage line."""
        return _hyphenate(super().format_usage())


def _hyphenate(text: str) -> str:
    return _OPTION.sub(lambda m: m[0] if m[0] in _AS_IT_IS else m[0].replace("_", "-"), text)
