"""A quick way past a method, which stands for it only as long as nobody has changed the method behind its back."""

from __future__ import annotations


def stands(cls: type, quick: str, whole: str) -> bool:
    """Tell whether ``cls`` has the method ``quick`` from a class that has, or knows of, the ``whole`` that it has.

    A subclass that changes ``whole`` alone inherits a ``quick`` that does what ``whole`` did before.
    """
    for one in cls.__mro__:
        if quick in one.__dict__:
            return True
        if whole in one.__dict__:
            return False
    return False
